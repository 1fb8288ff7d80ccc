"""Commands on the shipped model, most of them as processes: resuming, bad input, presets and plans."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from support import QUICK, ROOT, essence, run_script, start_script, wait_for_lines


@pytest.mark.slow
def test_interrupted_run_resumes_on_other_devices(tmp_path, cache):
    arguments = ("certify.py", *QUICK, "--max-images", "45", "--images-per-batch", "2")
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    status, output, errors = run_script(*arguments, "--out", str(whole), cwd=tmp_path, cache=cache)
    assert (status, errors) == (0, "")
    assert "no radius can exceed" in output and "certified accuracy, 45 images" in output
    assert "evaluations per image" in output and "ACR" in output

    process = start_script(*arguments, "--out", str(killed), cwd=tmp_path, cache=cache)
    # With the second certificate on disk, the first is in the table that the command prints.
    wait_for_lines(killed, 4, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "certified accuracy" in output and errors == "interrupted; the same command resumes the run\n"
    assert len(essence(killed)[1]) < 45
    with killed.open("ab") as file:
        file.write(b'{"index": 3, "lab')
    # Resumed with another batch size and number of devices.
    resumed = (*arguments[:-1], "3", "--out", str(killed))
    status, output, errors = run_script(*resumed, cwd=tmp_path, cache=cache, num_devices=4)
    assert (status, errors) == (0, "")
    assert essence(killed) == essence(whole)

    status, _, errors = run_script(*arguments, "--seed", "1", "--out", str(killed), cwd=tmp_path, cache=cache)
    assert status == 2 and "begun by another run" in errors and errors.count("\n") == 1
    assert essence(killed) == essence(whole)


@pytest.mark.slow
def test_killed_training_resumes_to_equal_model(tmp_path, cache):
    arguments = (
        "train.py", "--epochs", "4", "--pretraining-epochs", "1", "--pretraining-budget", "2", "--budget", "2",
        "--evaluation-interval", "1", "--reference-budget", "6",
        "--model.channels", "8", "--batch-size", "256", "--seed", "7",
    )  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    status, output, errors = run_script(*arguments, "--workdir", str(whole), cwd=tmp_path, cache=cache)
    assert (status, errors) == (0, "") and "after 23 updates" in output
    # SIGTERM saves the state; after SIGKILL the training resumes from the last evaluation.
    for kind, lines, flags in ((signal.SIGTERM, 1, ()), (signal.SIGKILL, 3, ("--resume",))):
        process = start_script(*arguments, "--workdir", str(killed), *flags, cwd=tmp_path, cache=cache)
        wait_for_lines(killed / "metrics.jsonl", lines, process)
        process.send_signal(kind)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == (128 + kind if kind == signal.SIGTERM else -kind)
        assert ("saved after" in output) == (kind == signal.SIGTERM)
    status, _, errors = run_script(*arguments, "--workdir", str(killed), cwd=tmp_path, cache=cache)
    assert status == 2 and "--resume" in errors
    status, _, errors = run_script(*arguments, "--workdir", str(killed), "--resume", cwd=tmp_path, cache=cache)
    assert (status, errors) == (0, "")
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    # Both models give the same certificates, with the digest of the same parameters.
    headers = []
    for workdir in (whole, killed):
        status, _, errors = run_script(
            "certify.py", *QUICK, "--max-images", "1", "--checkpoint", str(workdir),
            "--out", str(workdir / "c.jsonl"), cwd=tmp_path, cache=cache,
        )  # fmt: skip
        assert (status, errors) == (0, "")
        headers.append(essence(workdir / "c.jsonl"))
    assert headers[0] == headers[1]


BAD = [
    (("--sigma", "0"), "sigma is 0"),
    (
        ("--sigma", "0.3"),
        "no model is shipped for data set digits at sigma 0.3 "
        "(shipped: cifar10-0.25, cifar10-0.5, cifar10-0.5-contraction, cifar10-0.5-short, digits-0.25, "
        "digits-0.25-contraction, digits-0.5, digits-0.5-contraction, digits-0.5-short)",
    ),
    (("--alpha", "1.5"), "alpha is 1.5"),
    (("--num-audit", "20000"), "num_audit is 20000"),
    (("--num-estimation", "9", "--num-audit", "5"), "num_estimation is 9"),
    (("--dataset", "digit"), "did you mean 'digits'?"),
    (("--solver", "andersen"), "did you mean 'anderson'?"),
    (("--checkpoint", "missing"), "checkpoint missing does not exist"),
    (("--checkpoint", "."), "no checkpoint of this project"),
    (("--out", "/proc/none/c.jsonl"), "cannot write /proc/none/c.jsonl"),
    (("--out", "/dev/null"), "cannot write /dev/null: it is no regular file"),
    (("--out", "/dev/full"), "cannot write /dev/full: it is no regular file"),
    (("--out", "."), "cannot write .: it is no regular file"),
    (("--start-index", "360"), "start_index is 360"),
    (
        ("--dataset", "arrays", "--data-dir", "photos.npz", "--sigma", "0.5", "--checkpoint", "SHIPPED"),
        "(32, 32, 3)",
    ),
    (("--dataset", "cifar10", "--data-dir", "/none", "--checkpoint", "SHIPPED"), "tfds build cifar10"),
    (("--preset", "srs-mdeq-3"), "did you mean 'srs-mdeq-3"),
    (("--num-estimatoin", "9"), "--num-estimation"),
    (("--num-estimation", "many"), "many"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_bad_input_is_refused_before_work(arguments, message, monkeypatch, capsys, tmp_path):
    """Run in this process, which is faster; of its eight devices the command sees two."""
    from deqsmooth import devices
    from deqsmooth.commands import certify
    from deqsmooth.smoothing import certification

    monkeypatch.chdir(tmp_path)
    shipped = str(ROOT / "deqsmooth" / "shipped" / "digits-0.5")
    arguments = [shipped if x == "SHIPPED" else x for x in arguments]
    np.savez("photos.npz", images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.zeros(2, int))
    monkeypatch.setattr(sys, "argv", ["certify.py", *arguments])
    mesh = devices.mesh()
    two = type(mesh)(mesh.devices[:2], mesh.axis_names, axis_types=mesh.axis_types)
    monkeypatch.setattr(devices, "mesh", lambda dividing=None: two)
    monkeypatch.setattr(certification, "certify_dataset", lambda *a, **k: pytest.fail("work was begun"))
    try:
        status = certify.main()
    except SystemExit as exit:
        status = exit.code
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err + captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["photos.npz"]


def test_default_method_is_the_recommended(tmp_path, monkeypatch, capsys):
    from deqsmooth.commands import certify

    monkeypatch.chdir(tmp_path)
    shipped = str(ROOT / "deqsmooth" / "shipped" / "digits-0.25")
    few = ("--max-images", "2", "--num-estimation", "200", "--num-selection", "20")
    monkeypatch.setattr(sys, "argv", ["certify.py", *few, "--checkpoint", shipped])
    assert certify.main() == 0
    assert "the model was trained at sigma 0.25; this is sigma 0.5" in capsys.readouterr().out
    (path,) = (tmp_path / "runs").iterdir()
    header = json.loads(path.read_text().partition("\n")[0])
    assert (header["reference"]["start"], header["reference"]["budget"]) == ("learned", 2)
    assert header["smoothing"]["sampler"] == "independent" and header["smoothing"]["looks"] == [40, 200]
    monkeypatch.setattr(sys, "argv", ["certify.py", *few, "--predict", "--out", "predictions.jsonl"])
    assert certify.main() == 0 and "trained at" not in capsys.readouterr().out
    header = json.loads((tmp_path / "predictions.jsonl").read_text().partition("\n")[0])
    assert header["smoothing"]["looks"] is None and header["reference"]["start"] == "learned"


def test_finished_run_prints_its_table_again(tmp_path, monkeypatch, capsys):
    from deqsmooth.commands import certify

    monkeypatch.chdir(tmp_path)
    arguments = ("certify.py", *QUICK, "--sampler", "independent", "--max-images", "2")
    monkeypatch.setattr(sys, "argv", [x for x in arguments if x not in ("--num-audit", "50")])
    assert certify.main() == 0
    (path,) = (tmp_path / "runs").iterdir()
    before = path.read_bytes()
    capsys.readouterr()
    assert certify.main() == 0 and path.read_bytes() == before
    output = capsys.readouterr().out
    assert "2 done" in output and "certified accuracy, 2 images" in output
    header = json.loads(before.splitlines()[0])
    assert header["reference"]["budget"] == 30 and header["reference"]["start"] == "zero"


def test_preset_keeps_images_of_data_set():
    """Run in a new process, because beartype in this one rejects the placeholder of a missing argument."""
    code = (
        "import sys; from deqsmooth.commands import certify, flags;"
        "sys.argv[1:] = ['--preset', 'srs-mdeq-3a', '--dataset', 'imagenet', '--sigma', '0.25'];"
        "found = flags.parse(certify.Flags, 'certify', certify.preset);"
        "print(found.selection.split, found.selection.stride, found.smoothing.num_audit, found.smoothing.sigma)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["validation", "100", "400", "0.25"]


@pytest.mark.slow
def test_plan_prints_command_or_reason(tmp_path, cache):
    command = "import sys; from deqsmooth.commands import plan; sys.exit(plan.main())"

    def plan(*arguments):
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
        process = subprocess.run(
            [sys.executable, "-c", command, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        return process.returncode, process.stdout, process.stderr

    status, output, errors = plan("--radius", "2.5", "--max-samples", "10000")
    assert (status, errors) == (1, "")
    assert "even unanimous votes of 10,000 samples reach only 1.599" in output
    status, _, errors = plan("--radius", "-1")
    assert status == 2 and errors == "error: radius is -1.0; it must be a finite positive number\n"

    quick = ("--pilot-images", "4", "--pilot-samples", "100", "--pilot-audit", "50", "--max-samples", "500")
    status, output, errors = plan("--radius", "0.1", *quick)
    assert (status, errors) == (0, "")
    words = output.strip().splitlines()[-1].split()
    assert words[0] == "deqsmooth-certify"
    status, output, errors = run_script(
        "certify.py", *words[1:], "--max-images", "2", "--out", str(tmp_path / "planned.jsonl"),
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert (status, errors) == (0, "")
    assert " s per image, " in output and "in total" in output
