"""The jobs for an accelerator, on made-up images and tiny models; and how they pass on models."""

import json
import sys

import numpy as np
import pytest
from support import ROOT, run_script

from deqsmooth.certificates import jsonl, verification

FOLDER = ROOT / "benchmarks" / "accelerator"
TRAININGS = sorted(path.name for path in FOLDER.glob("[0-9]_train_*.py"))
FIRST = "1_train_0.5.py"


def run_job(name, folder, cache, *flags):
    places = ("--out", str(folder / "out"), "--state", str(folder / "state"), "--last", str(folder / "last"))
    status, output, errors = run_script(
        f"benchmarks/accelerator/{name}", "--smoke", *places, *flags, cwd=folder, cache=cache
    )
    assert status == 0, errors
    return output


def read_only(folder):
    """The only folder of results, and the figures in it."""
    (results,) = (folder / "out").iterdir()
    return results, json.loads((results / "figures.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("trained")
    return folder, run_job(FIRST, folder, cache, "--epochs", "3")


def test_every_job_has_its_number():
    numbers = sorted(int(path.name[0]) for path in FOLDER.glob("[0-9]_*.py"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_training_leaves_model_and_curve(trained):
    folder, output = trained
    results, figures = read_only(folder)
    assert "train-0.5: finished" in output and figures["finished"]
    assert sorted(path.name for path in results.iterdir()) == [
        "curve.jsonl", "curve.svg", "figures.json", "model.npz",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (results / "curve.jsonl").read_text().splitlines()]
    assert lines[-1]["update"] == figures["evaluation"]["update"] == 16
    assert {"agreement", "reference_accuracy"} <= set(figures["start"])


@pytest.mark.slow
def test_table_certifies_the_trained_model(trained, cache):
    folder, _ = trained
    output = run_job("2_table_0.5.py", folder, cache, "--rows", "learned 2")
    assert "table-0.5: finished" in output
    results = folder / "out" / "table-0.5"
    ((name, text),) = jsonl.texts(results / "records.tar.gz")
    checked = verification.verify_text(name, text)
    assert checked.differences == [] and [one.index for one in checked.found] == [0, 8, 16]
    assert checked.header["smoothing"]["start"] == "learned"
    assert "learned 2" in (results / "table.txt").read_text()


@pytest.mark.slow
def test_stopped_job_goes_on_to_same_model(trained, tmp_path, cache):
    """Its clock stops it after a call; with no seconds left, again and again."""
    stopped = run_job(FIRST, tmp_path, cache, "--epochs", "3", "--minutes", "0")
    results, figures = read_only(tmp_path)
    assert "stopped by its clock" in stopped and not figures["finished"]
    assert (results / "model.npz").is_file()
    assert "train-0.5: finished" in run_job(FIRST, tmp_path, cache)
    found, expected = (np.load(folder / "out" / "train-0.5" / "model.npz") for folder in (tmp_path, trained[0]))
    assert found.files == expected.files
    for part in found.files:
        np.testing.assert_array_equal(found[part], expected[part])


@pytest.mark.slow
def test_fresh_state_begins_from_last_weights(trained, tmp_path, cache):
    (tmp_path / "last").symlink_to(trained[0] / "out")
    output = run_job(FIRST, tmp_path, cache, "--planned-minutes", "1")
    assert "begins from the weights of an earlier job" in output and "measuring" in output
    assert read_only(tmp_path)[1]["images_per_second"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAININGS if name != FIRST])
def test_other_trainings_finish(name, tmp_path, cache):
    assert "finished" in run_job(name, tmp_path, cache, "--epochs", "2")
    if name.startswith("3_"):
        assert "table-0.25: finished" in run_job("4_table_0.25.py", tmp_path, cache, "--rows", "zero 3")


@pytest.mark.slow
def test_cells_are_measured_once(tmp_path, cache):
    assert "contraction, float32" in run_job("5_cells.py", tmp_path, cache)
    lines = (tmp_path / "out" / "cells" / "cells.jsonl").read_text()
    assert "contraction, float32" not in run_job("5_cells.py", tmp_path, cache)
    assert (tmp_path / "out" / "cells" / "cells.jsonl").read_text() == lines


@pytest.mark.slow
def test_whole_certifications_are_timed_once(tmp_path, cache):
    assert "learned 1, looks" in run_job("9_whole.py", tmp_path, cache)
    path = tmp_path / "out" / "whole" / "whole.jsonl"
    lines = path.read_text()
    names = ["zero 30", "serial 3, audited", "learned 1", "learned 1, looks"]
    ours = [line for line in map(json.loads, lines.splitlines()) if line["how"] == "ours"]
    assert [line["row"] for line in ours] == names and all(line["seconds an image"] > 0 for line in ours)
    run_job("9_whole.py", tmp_path, cache)
    assert path.read_text() == lines


def test_packed_model_is_the_rounded_one(small, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import packed

    rounded = packed.rounded(small)
    packed.save(tmp_path / "model.npz", small)
    found = packed.load(tmp_path / "model.npz")
    assert found.sha256 == rounded.sha256 != small.sha256 and found.training == small.training
    before, after = (x.variables["params"]["readout"]["Dense_0"] for x in (small, found))
    np.testing.assert_allclose(after["kernel"], before["kernel"], rtol=2**-8)
    np.testing.assert_array_equal(after["bias"], before["bias"])
    sys.modules.pop("packed")


def test_packed_file_of_arrays_is_read(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import data

    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    labels = np.arange(5)
    np.savez(
        tmp_path / "cifar10.npz", images=images, labels=labels, test_images=images[::-1], test_labels=labels[::-1],
        identities=np.array(["a/train", "a/test"]),
    )  # fmt: skip
    train, test = data.load(tmp_path / "cifar10.npz")
    assert (train.identity, test.identity) == ("a/train", "a/test")
    np.testing.assert_array_equal(train.stored(1)[0], images[1])
    assert test.stored(1)[1] == 3
    sys.modules.pop("data")
