"""Command `deqsmooth-train` on files of a user: what it trains, what it refuses, and how it ends."""

import json
import os
import signal
import sys

import numpy as np
import pytest

from deqsmooth.commands import train as train_command
from deqsmooth.models import checkpoints
from deqsmooth.training import loop

TINY = (
    "--dataset", "arrays", "--batch-size", "9", "--epochs", "3", "--evaluation-interval", "2",
    "--pretraining-budget", "2", "--budget", "2", "--gradient", "one-step", "--reference-budget", "2",
    "--jacobian-weight", "0", "--model.channels", "8", "--model.expansion", "1", "--model.num-groups", "4",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("mine.npz")
    return tmp_path


def write(name, num=30, shape=(6, 5, 3), change=lambda images, labels: (images, labels)):
    rng = np.random.default_rng(0)
    images, labels = change(rng.random((num, *shape), np.float32), np.arange(num) % 3)
    np.savez(name, images=images, labels=labels)


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
    return train_command.main()


@pytest.mark.filterwarnings("ignore:the model is right about")
def test_own_images_train_stop_and_resume(folder, monkeypatch, capsys):
    """30 images of 3 classes that are not square, with only a file and a workdir named."""
    step, stops = loop._is_finite, []

    def stop(state):
        if int(state.update) == 7 and not stops:
            stops.append(os.kill(os.getpid(), signal.SIGTERM))
        return step(state)

    monkeypatch.setattr(loop, "_is_finite", stop)
    words = (*TINY, "--data-dir", "mine.npz", "--workdir", "run")
    assert call(monkeypatch, *words) == 143
    output = capsys.readouterr().out
    assert "saved after 7 updates; --resume continues from there" in output
    assert "evaluated on 3 of the 30 images, which are held out and never trained on" in output
    assert "images of shape (6, 5, 3) and 3 classes" in output
    assert "9 updates of 9 of 27 images, the first 3 of them pre-training" in output
    assert call(monkeypatch, *words) == 2
    assert "run has a run; give --resume" in capsys.readouterr().err

    (folder / "run" / "states" / "7" / "state" / "manifest.ocdbt").write_bytes(b"")
    assert call(monkeypatch, *words, "--resume") == 0
    output = capsys.readouterr().out
    assert "the state after update 7 was damaged and is removed" in output and "resumed after 6 updates" in output
    assert "the state after update" not in capsys.readouterr().err
    found = checkpoints.load("run")
    assert (found.size.image_shape, found.size.num_classes, found.size.pool) == ((6, 5, 3), 3, 1)
    assert (found.training.epochs, found.training.pretraining_epochs) == (3, 0.75)
    assert found.training.data_dir is None and found.training.held_out == 10
    evaluations = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in evaluations] == [6, 9]


def labelled(value):
    def change(images, labels):
        labels[4] = value
        return images, labels

    return change


@pytest.mark.parametrize(
    ("words", "file", "message"),
    [
        (("--sigma", "0"), {}, "sigma is 0.0; it must be a finite positive number"),
        (("--batch-size", "28"), {}, "batch_size is 28; it must be at most the number of training images, 27"),
        (("--accumulation", "20"), {}, "accumulation is 20; it must be a divisor of"),
        (("--pretraining-epochs", "5"), {}, "pretraining_epochs is 5.0; it must be between 0 and epochs, 3"),
        (("--model.image-shape", "4", "4", "3"), {}, "the model takes (4, 4, 3), its image_shape (--model"),
        (("--model.pool", "4"), {}, "multiples of pool, 4"),
        (("--model.num-classes", "2"), {}, "the label of image 2 is 2; labels must be integers in [0, 2)"),
        (("--learning-rate", "inf"), {}, "learning_rate is inf; it must be a finite positive number"),
        (("--held-out", "1"), {}, "held_out is 1; it must be at least 2"),
        (("--held-out", "3", "--test-data", "mine.npz"), {}, "held_out is 3; it must be left out"),
        (("--test-data", "missing.npz"), {}, "missing.npz"),
        (("--workdir", "mine.npz"), {}, "workdir is mine.npz; cannot write"),
        ((), {"change": labelled(77)}, "the label of image 4 is 77, but no image has label 3"),
        ((), {"change": labelled(-1)}, "the label of image 4 is -1; labels must be integers from 0"),
        ((), {"change": lambda images, labels: (255 * images, labels)}, "looks like 0 to 255"),
        ((), {"shape": (3, 16, 16)}, "looks like channels first"),
        ((), {"num": 1}, "number of images is 1; it must be at least 2"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_sentence(folder, monkeypatch, capsys, words, file, message):
    write("mine.npz", **file)
    assert call(monkeypatch, *TINY, "--data-dir", "mine.npz", *words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert {file.name for file in folder.iterdir()} == {"mine.npz"}


def test_test_data_are_for_arrays(folder, monkeypatch, capsys):
    assert call(monkeypatch, "--test-data", "mine.npz") == 2
    assert "test_data is mine.npz; it is for data set arrays" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"no model is shipped for data set arrays"),
        (("--checkpoint", "mine.npz"), "checkpoint mine.npz is a file; a checkpoint is a folder"),
        (("--checkpoint", "small"), "the model takes (8, 8, 1)"),
        (("--checkpoint", "small", "--held-out", "31"), "the model takes (8, 8, 1)"),
    ],
)
def test_start_refuses_unfit_input(folder, small, monkeypatch, capsys, words, message):
    checkpoints.save("small", small)
    arguments = ("--phase", "start", "--dataset", "arrays", "--data-dir", "mine.npz", *words)
    assert call(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert {file.name for file in folder.iterdir()} == {"mine.npz", "small"}


def test_diverged_training_ends_with_status_2(folder, monkeypatch, capsys):
    words = (*TINY, "--data-dir", "mine.npz", "--learning-rate", "3e38", "--weight-decay", "0", "--workdir", "run")
    assert call(monkeypatch, *words, "--optimiser", "sgd", "--clip-norm", "1e30") == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: the training diverged: update ") and errors.count("\n") == 1
    assert not (folder / "run" / "model").exists()
