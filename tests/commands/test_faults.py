"""Faults of long runs: kills, concurrent processes, exhausted memory, unreadable images, replaced models."""

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from support import ROOT, essence, run_script, start_script, wait_for_lines

from deqsmooth import data, devices
from deqsmooth.certificates import jsonl, merging, outcome, verification
from deqsmooth.commands import certify

QUICK = (
    "--sampler", "independent", "--start", "learned", "--budget", "1", "--num-estimation", "200", "--lanes", "40",
    "--block", "40",
)  # fmt: skip


@pytest.mark.slow
def test_shares_merge_to_whole_run(tmp_path, cache):
    arguments = ("certify.py", *QUICK, "--max-images", "9")
    assert run_script(*arguments, "--out", "whole.jsonl", cwd=tmp_path, cache=cache)[0] == 0
    shared = (*arguments, "--out", "run.jsonl", "--share")
    processes = [start_script(*shared, f"{i}/2", cwd=tmp_path, cache=cache) for i in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "process 0 of 2 on " in outputs[0] and "5 images of digits" in outputs[0]
    assert "process 1 of 2 on " in outputs[1] and "4 images of digits" in outputs[1]
    parts = sorted(tmp_path.glob("run.*-of-2.jsonl"))
    assert len(parts) == 2 and merging.merge(parts, tmp_path / "merged.jsonl").num_certificates == 9
    (header, expected), (merged_header, merged) = (
        jsonl.read(tmp_path / name) for name in ("whole.jsonl", "merged.jsonl")
    )
    assert merged_header == header
    assert [dataclasses.replace(c, seconds=0.0) for c in merged] == [
        dataclasses.replace(c, seconds=0.0) for c in expected
    ]


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["certify.py", *arguments])
    return certify.main()


@pytest.mark.parametrize("share", ["2/2", "1", "-1/2", "a/b", "0/0"])
def test_malformed_share_is_refused(monkeypatch, capsys, share):
    assert call(monkeypatch, *QUICK, "--share", share) == 2
    assert "share is" in capsys.readouterr().err


def test_share_without_images_succeeds(tmp_path, monkeypatch, capsys):
    arguments = (*QUICK, "--max-images", "2", "--share", "2/3", "--out", str(tmp_path / "run.jsonl"))
    assert call(monkeypatch, *arguments) == 0
    assert "0 images of digits" in capsys.readouterr().out
    assert jsonl.read(tmp_path / "run.2-of-3.jsonl")[1] == []
    assert devices.share(None) == (0, 1)


def test_exhausted_memory_names_a_remedy(monkeypatch, capsys):
    def exhaust(arguments, console):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")

    monkeypatch.setattr(certify, "run", exhaust)
    assert call(monkeypatch) == 2
    errors = capsys.readouterr().err
    assert "Out of memory allocating 99 bytes" in errors and "--block auto" in errors and "more" not in errors

    def fail(arguments, console):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(certify, "run", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        call(monkeypatch)


def test_second_writer_of_file_is_refused(tmp_path, monkeypatch, capsys):
    code = (
        "import sys, time; from deqsmooth.certificates import writing\n"
        "with writing.Writer(sys.argv[1], {'kind': 'header', 'schema': 2, 'sha256': ''}, None):\n"
        "    print('open', flush=True); time.sleep(60)"
    )
    path = tmp_path / "run.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "open\n"
    before = path.read_bytes()
    assert call(monkeypatch, *QUICK, "--max-images", "1", "--out", str(path)) == 2
    assert "is being written by another process" in capsys.readouterr().err
    process.kill()
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == before
    assert call(monkeypatch, *QUICK, "--max-images", "1", "--out", str(path)) == 2
    assert "was begun by another run" in capsys.readouterr().err


def test_unreadable_images_give_status_3(tmp_path, monkeypatch, capsys):
    images, labels = data.load("digits").take(range(4))
    images[[0, 2]] = np.nan
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    out = tmp_path / "run.jsonl"
    arguments = (
        *QUICK, "--dataset", "arrays", "--data-dir", str(tmp_path / "images.npz"),
        "--checkpoint", str(ROOT / "deqsmooth" / "shipped" / "digits-0.5"), "--out", str(out),
    )  # fmt: skip
    # The second run tries the unreadable images again and appends nothing.
    for _ in range(2):
        assert call(monkeypatch, *arguments) == 3
        assert "image 2 has no certificate: the pixel at row 0, column 0" in capsys.readouterr().err
        checked = verification.verify(out)
        assert [c.index for c in checked.found] == [1, 3] and not checked.differences
        assert [entry.index for entry in checked.unreadable] == [0, 2]
        assert checked.incomplete == "2 of 4 images; 2 could not be read (0, 2)"
        assert len(out.read_text().splitlines()) == 7
    assert merging.merge([out], tmp_path / "merged.jsonl") == merging.Merged(2, 4, [0, 2], [])
    assert "2 images without one" in outcome.summary(verification.verify(tmp_path / "merged.jsonl"))


def test_replaced_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    shipped, model = ROOT / "deqsmooth" / "shipped", tmp_path / "model"
    shutil.copytree(shipped / "digits-0.5", model)
    arguments = (*QUICK, "--max-images", "1", "--checkpoint", str(model), "--out", str(tmp_path / "run.jsonl"))
    assert call(monkeypatch, *arguments) == 0
    shutil.rmtree(model)
    shutil.copytree(shipped / "digits-0.25", model)
    before = (tmp_path / "run.jsonl").read_bytes()
    assert call(monkeypatch, *arguments) == 2
    assert "was begun by another run: the model differs; " in capsys.readouterr().err
    assert (tmp_path / "run.jsonl").read_bytes() == before


@pytest.mark.parametrize("num_kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_runs_resume_to_equal_certificates(tmp_path, cache, num_kills):
    """Killed at random times, and resumed with other numbers of devices and batch sizes."""
    rng = random.Random(num_kills)
    arguments = ("certify.py", *QUICK, "--max-images", str(5 * num_kills), "--stride", "1")
    assert run_script(*arguments, "--out", "whole.jsonl", cwd=tmp_path, cache=cache)[0] == 0
    path = tmp_path / "killed.jsonl"
    for number in range(num_kills):
        process = start_script(
            *arguments, "--images-per-batch", str(rng.randint(1, 3)), "--out", str(path),
            cwd=tmp_path, cache=cache, num_devices=rng.choice([1, 2, 4]),
        )  # fmt: skip
        if number % 5:
            held = len(path.read_text().splitlines()) if path.exists() else 0
            wait_for_lines(path, held + rng.randint(1, 3), process)
            time.sleep(rng.uniform(0, 0.02))
        else:
            # At start-up: later, a fast machine would certify all images before the last kill.
            time.sleep(rng.uniform(0, 2))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGKILL, 0)
    assert len(essence(path)[1]) > 0
    assert run_script(*arguments, "--out", str(path), cwd=tmp_path, cache=cache)[0] == 0
    assert essence(path) == essence(tmp_path / "whole.jsonl")
    assert verification.verify(path).differences == []
