"""Several processes that JAX connects: certification in shares, distributed training, and a lost process."""

import dataclasses
import json
import signal
import socket

import numpy as np
import pytest
from support import QUICK, essence, run_script, start_script, wait_for_lines

from deqsmooth import config, data, devices, models
from deqsmooth.certificates import merging
from deqsmooth.commands import certify
from deqsmooth.training import model_training

TRAINING = {
    "epochs": 2, "pretraining_epochs": 1.0, "pretraining_budget": 2, "budget": 2, "gradient": "one-step",
    "evaluation_interval": 1, "reference_budget": 6, "batch_size": 256, "learning_rate": 1e-2,
}  # fmt: skip
FLAGS = [part for name, x in TRAINING.items() for part in (f"--{name.replace('_', '-')}", str(x))]


def company(script, *arguments, num, num_devices, cwd, cache):
    """Starts the processes of one distributed run, connected by the loopback interface."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        start_script(
            script, *arguments, "--distributed", cwd=cwd, cache=cache, num_devices=num_devices,
            environment={
                "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(num), "JAX_PROCESS_ID": str(i),
            },
        )
        for i in range(num)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_lost_process_delays_no_other(tmp_path, cache, num):
    arguments = ("certify.py", *QUICK, "--max-images", "21", "--images-per-batch", "1", "--stride", "1")
    assert run_script(*arguments, "--out", "whole.jsonl", cwd=tmp_path, cache=cache, num_devices=1)[0] == 0
    processes = company(*arguments, "--out", "run.jsonl", num=num, num_devices=8 // num, cwd=tmp_path, cache=cache)
    # The killed process is the coordinator.
    wait_for_lines(tmp_path / f"run.0-of-{num}.jsonl", 3, processes[0])
    processes[0].kill()
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL, *[0] * (num - 1)]
    assert f"process 1 of {num} on " in outputs[1] and f"{20 // num} images of digits" in outputs[1]
    parts = [tmp_path / f"run.{i}-of-{num}.jsonl" for i in range(num)]
    assert len(essence(parts[0])[1]) < -(-21 // num)
    resumed = run_script(*arguments, "--out", "run.jsonl", "--share", f"0/{num}", cwd=tmp_path, cache=cache)
    assert resumed[0] == 0
    assert merging.merge(parts, tmp_path / "merged.jsonl").num_certificates == 21
    assert essence(tmp_path / "merged.jsonl") == essence(tmp_path / "whole.jsonl")


@pytest.mark.slow
def test_distributed_training_is_saved_and_resumed(tmp_path, cache):
    workdir = tmp_path / "run"
    processes = company(
        "train.py", *FLAGS, "--model.channels", "8", "--workdir", str(workdir),
        num=2, num_devices=2, cwd=tmp_path, cache=cache,
    )  # fmt: skip
    wait_for_lines(workdir / "metrics.jsonl", 1, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2
    assert "process 0 of 2" in outputs[0] and "; --resume continues from there" in outputs[0]
    assert "process 1 of 2" in outputs[1] and "saved" not in outputs[1]

    resumed = run_script(
        "train.py", *FLAGS, "--model.channels", "8", "--workdir", str(workdir), "--resume",
        cwd=tmp_path, cache=cache, num_devices=4,
    )  # fmt: skip
    assert (resumed[0], resumed[2]) == (0, "")

    settings = config.Training(**TRAINING, model=dataclasses.replace(config.Training().model, channels=8))
    splits = data.load("digits", "train"), data.load("digits", "test")
    whole = list(model_training.fit(models.build(settings.model, devices.AXIS), settings, *splits))
    losses = {
        line["update"]: line["loss"]
        for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        if "loss" in line
    }
    assert list(losses) == [10]
    np.testing.assert_allclose(losses[10], float(whole[9].metrics.loss), rtol=1e-4)


def test_missing_coordinator_is_refused(monkeypatch, capsys):
    def initialize(*arguments, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("sys.argv", ["certify.py", "--distributed"])
    monkeypatch.setattr("jax.distributed.initialize", initialize)
    assert certify.main() == 2
    errors = capsys.readouterr().err
    assert "coordinator_address should be defined" in errors and "JAX_NUM_PROCESSES" in errors


def test_indivisible_batch_is_refused(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 3)
    with pytest.raises(ValueError, match="batch_size is 256; it must be a multiple of the number of processes, 3"):
        devices.mesh_of_all(256)
