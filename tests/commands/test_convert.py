"""The command that converts checkpoints, run in this process."""

import dataclasses
import sys

import jax
import numpy as np
import published
import pytest

from deqsmooth.commands import convert
from deqsmooth.config import architecture
from deqsmooth.models import checkpoints, pytorch

SIZE = architecture.ResnetModel(image_shape=(16, 16, 3), blocks=(1, 1), channels=(4, 6))
STATE = published.state_dict(SIZE)
FLAGS = (
    "--preset", "resnet110", "--model.image-shape", "16,16,3", "--model.blocks", "1,1", "--model.channels", "4,6",
)  # fmt: skip


def vectors(size, shape=(2, 3, 16, 16)):
    images = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    return {"x": images, "logits": published.Resnet(STATE, size).logits(images).astype(np.float32)}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function that runs the command in a folder of files: (arguments) -> status, output, errors."""
    monkeypatch.chdir(tmp_path)
    np.savez("weights.npz", **STATE)
    np.savez("vectors.npz", **vectors(SIZE))

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["deqsmooth-convert", *map(str, arguments)])
        try:
            status = convert.main()
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return command


def test_checked_model_is_written(run):
    arguments = ("weights.npz", *FLAGS, "--check", "vectors.npz")
    status, output, errors = run(*arguments, "--out", "model")
    assert (status, errors) == (0, "") and "passed" in output
    assert "normaliser of the flags: mean 0.4914, 0.4822, 0.4465, standard deviation 0.2023" in output
    found = checkpoints.load("model")
    assert found.size == SIZE and found.training is None
    jax.tree.map(np.testing.assert_array_equal, found.variables, pytorch.convert(STATE, SIZE)[0])


def test_failed_check_writes_nothing(run, tmp_path):
    recorded = vectors(SIZE)
    np.savez("vectors.npz", **{**recorded, "logits": recorded["logits"] + 1e-3})
    status, output, errors = run("weights.npz", *FLAGS, "--check", "vectors.npz", "--out", "model")
    assert status == 1 and "logits" in errors and "FAILED" in output
    assert not (tmp_path / "model").exists()


def test_normaliser_of_file_is_saved(run):
    state = {f"1.{name}": x for name, x in STATE.items()}
    np.savez("weights.npz", **state, **{"0.mean": np.float32([0.5, 0.4, 0.3]), "0.std": np.float32([0.2])})
    size = dataclasses.replace(SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    np.savez("vectors.npz", **vectors(size))
    status, output, errors = run("weights.npz", *FLAGS, "--check", "vectors.npz", "--out", "model")
    assert (status, errors) == (0, "")
    assert "normaliser of the file: mean 0.5, 0.4, 0.3, standard deviation 0.2, 0.2, 0.2" in output
    assert checkpoints.load("model").size == size


BAD = [
    (("none.pt", "--out", "m"), "none.pt does not exist"),
    ((".", "--out", "m"), ". is a folder"),
    (("/dev/null", "--out", "m"), "/dev/null is no regular file"),
    (("text.pt", "--out", "m"), "text.pt is no PyTorch file"),
    (("text.npz", "--out", "m"), "text.npz is no .npz file"),
    (("images.npz", "--out", "m"), "none of the model's names, such as"),
    (("weights.npz", "--out", "m"), "--preset resnet110 --model.blocks 1,1 --model.channels 4,6"),
    (("weights.npz", *FLAGS, "--model.num-classes", "7", "--out", "m"), "fc.weight has shape (10, 6), for (7, 6)"),
    (("weights.npz", *FLAGS, "--model.blocks", "1,2", "--out", "m"), "10 missing: layer2.1"),
    (("weights.npz", *FLAGS, "--model.bottleneck", "--out", "m"), "missing"),
    (("nan.npz", *FLAGS, "--out", "m"), "fc.bias has entries that are no finite numbers"),
    (("weights.npz", *FLAGS, "--out", "weights.npz"), "weights.npz exists and is no model"),
    (("weights.npz", *FLAGS, "--out", "."), "exists and is no model"),
    (("weights.npz", *FLAGS, "--out", "weights.npz/m"), "cannot write weights.npz/m: Not a directory"),
    (("weights.npz", *FLAGS, "--out", "/proc/none/m"), "cannot write /proc/none/m"),
    (("weights.npz", *FLAGS, "--check", "none.npz", "--out", "m"), "none.npz does not exist"),
    (("weights.npz", *FLAGS, "--check", "images.npz", "--out", "m"), "no array 'x'; their arrays: images, labels"),
    (
        ("weights.npz", *FLAGS, "--check", "large.npz", "--out", "m"),
        "(2, 3, 24, 24); the model takes [num, 3, 16, 16]; --model.image-shape 24,24,3",
    ),
    (("weights.npz", "--preset", "resnet11", "--out", "m"), "did you mean 'resnet110'?"),
    (("weights.npz", "--preset", "digits", "--out", "m"), "unknown preset 'digits'"),
    (("weights.npz", *FLAGS, "--model.mean", "0.5,0.5", "--out", "m"), "mean is (0.5, 0.5)"),
    (("weights.npz", *FLAGS, "--model.std", "0", "--out", "m"), "std is (0.0,)"),
    (("weights.npz", *FLAGS, "--model.image-shape", "0,16,3", "--out", "m"), "image_shape is (0, 16, 3)"),
    (("weights.npz", *FLAGS), "--out"),
    (("--out", "m"), "PATH"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_bad_input_is_refused(run, tmp_path, arguments, message):
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez("images.npz", images=np.zeros((2, 8, 8, 1)), labels=np.zeros(2, int))
    np.savez("nan.npz", **{**STATE, "fc.bias": np.full(10, np.nan)})
    np.savez("large.npz", **vectors(SIZE, (2, 3, 24, 24)))
    before = sorted(tmp_path.rglob("*"))
    status, output, errors = run(*arguments)
    assert status == 2 and message in errors + output and "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before
    if errors.startswith("error: "):
        assert errors.count("\n") == 1
