"""Checkpoints: saving, loading, and errors for invalid files."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from support import SMALL

from deqsmooth import config, models
from deqsmooth.config import architecture
from deqsmooth.models import checkpoints, classifiers, shipped

SETTINGS = config.Training(model=SMALL, sigma=0.25)


@pytest.fixture
def variables():
    return models.build(SMALL).init(jax.random.key(0))


def test_saved_checkpoint_is_loaded(tmp_path, variables):
    checkpoints.save(tmp_path / "model", classifiers.of_size(SMALL, variables, SETTINGS))
    for folder in (tmp_path / "model", tmp_path):
        found = checkpoints.load(folder)
        jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
        assert found.training == SETTINGS and found.size == SMALL
        assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in jax.tree.leaves(found.variables))


def test_name_is_saved(tmp_path, variables):
    made = classifiers.classifier(classifiers.of_size(SMALL, variables), name="ours")
    checkpoints.save(tmp_path / "model", made)
    found = checkpoints.load(tmp_path / "model")
    assert (found.name, found.sha256, found.size) == ("ours", made.sha256, SMALL)


def test_data_directory_is_not_saved(tmp_path, variables):
    checkpoints.save(
        tmp_path / "model",
        classifiers.of_size(SMALL, variables, dataclasses.replace(SETTINGS, data_dir="/a/folder")),
    )
    assert checkpoints.load(tmp_path / "model").training == SETTINGS


def test_digest_depends_only_on_variables(tmp_path, variables):
    checkpoints.save(tmp_path / "a", classifiers.of_size(SMALL, variables, SETTINGS))
    checkpoints.save(tmp_path / "b", classifiers.of_size(SMALL, variables, dataclasses.replace(SETTINGS, seed=3)))
    changed = jax.tree.map(np.array, variables)
    changed["params"]["readout"]["Dense_0"]["bias"][0] += 1e-7
    checkpoints.save(tmp_path / "c", classifiers.of_size(SMALL, changed, SETTINGS))
    a, b, c = (checkpoints.load(tmp_path / name).sha256 for name in "abc")
    assert a == b != c


def test_loading_invalid_checkpoint_raises(tmp_path, variables):
    with pytest.raises(ValueError, match="does not exist"):
        checkpoints.load(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file; a checkpoint is a folder"):
        checkpoints.load(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no checkpoint of this project"):
        checkpoints.load(tmp_path / "empty")
    with pytest.raises(ValueError, match="must have shape"):
        checkpoints.save(tmp_path / "wide", classifiers.of_size(architecture.ConvModel(), variables))
    assert not (tmp_path / "wide").exists()
    checkpoints.save(tmp_path / "wide", classifiers.of_size(SMALL, variables))
    wide = (tmp_path / "wide" / "config" / "metadata").read_text().replace('"channels": 8', '"channels": 16')
    (tmp_path / "wide" / "config" / "metadata").write_text(wide)
    with pytest.raises(ValueError, match=r"shape|checkpoint"):
        checkpoints.load(tmp_path / "wide")
    (tmp_path / "wide" / "config" / "metadata").write_text('{"model": {"name": "conv", "sugar": 1}}')
    with pytest.raises(ValueError, match="sugar"):
        checkpoints.load(tmp_path / "wide")


@pytest.mark.parametrize("name", shipped.names())
def test_shipped_models_load(name):
    dataset, sigma, *_ = name.split("-")
    assert sum(file.stat().st_size for file in (shipped.FOLDER / name).rglob("*") if file.is_file()) < 12_000_000
    found = checkpoints.load(name)
    assert found.training.sigma == float(sigma) and found.training.dataset == dataset
    assert found.start_training is not None and found.start_training.sigma == float(sigma)


@pytest.mark.parametrize(
    ("dataset", "sigma", "settle"), [("digits", 0.25, None), ("cifar10", 0.5, None), ("cifar10", 0.5, "proof")]
)
def test_shipped_models_are_found(dataset, sigma, settle):
    found = checkpoints.load_shipped(dataset, sigma, settle)
    assert (found.training.dataset, found.training.sigma) == (dataset, sigma)
    assert (found.model.contraction is None) == (settle is None)


def test_retired_settings_are_dropped_or_refused(tmp_path, variables):
    checkpoints.save(tmp_path / "model", classifiers.of_size(SMALL, variables, SETTINGS))
    metadata = tmp_path / "model" / "config" / "metadata"
    written = metadata.read_text()
    for value in ("false", "true"):
        metadata.write_text(written.replace('"accumulation": 1', f'"accumulation": 1, "divide_state": {value}'))
        if value == "false":
            assert checkpoints.load(tmp_path / "model").training == SETTINGS
        else:
            with pytest.raises(ValueError, match="divide_state is True; this version no longer has that setting"):
                checkpoints.load(tmp_path / "model")


def test_shipped_models_have_names(tmp_path, variables, monkeypatch):
    """A folder of that name is meant first."""
    monkeypatch.chdir(tmp_path)
    found, expected = checkpoints.load("digits-0.5"), checkpoints.load_shipped("digits", 0.5)
    assert found.sha256 == expected.sha256
    assert checkpoints.load(pathlib.Path("digits-0.5")).sha256 == expected.sha256
    checkpoints.save("digits-0.5", classifiers.of_size(SMALL, variables))
    assert checkpoints.load("digits-0.5").size == SMALL
    with pytest.raises(ValueError, match=r"or the name of a shipped model \(cifar10-0\.25, cifar10-0\.5, "):
        checkpoints.load("digits-0.75")


def test_missing_shipped_model_raises():
    with pytest.raises(ValueError, match=r"digits-0\.5, digits-0\.5-contraction"):
        shipped.folder("digits", 1.0)


def test_saving_replaces_only_models(tmp_path, variables):
    """`--out .` must not delete the content of the current folder."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is no model"):
        checkpoints.save(tmp_path, classifiers.of_size(SMALL, variables))
    with pytest.raises(ValueError, match="exists and is no model"):
        checkpoints.save(tmp_path / "thesis.tex", classifiers.of_size(SMALL, variables))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    (tmp_path / "model").mkdir()
    for _ in range(2):
        checkpoints.save(tmp_path / "model", classifiers.of_size(SMALL, variables))
    assert checkpoints.load(tmp_path / "model").size == SMALL


def test_too_large_model_is_not_built(tmp_path, variables):
    checkpoints.save(tmp_path / "model", classifiers.of_size(SMALL, variables))
    described = tmp_path / "model" / "config" / "metadata"
    described.write_text(described.read_text().replace('"channels": 8', '"channels": 800000'))
    with pytest.raises(ValueError, match=r"size of the model is [0-9,]+ bytes; it must be at most 8,589,934,592"):
        checkpoints.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", "does not exist; a checkpoint is a folder"),
        ("file", "is a file; a checkpoint is a folder"),
        ("empty", "is a folder without a model, and no checkpoint of this project"),
        ("run", "has states of a training that has not finished and no model yet"),
    ],
)
def test_what_is_no_checkpoint_is_described(tmp_path, place, message):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "states").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / place)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, variables, value):
    classifier = classifiers.of_size(SMALL, variables)
    classifier.variables["params"]["readout"]["Dense_0"]["bias"] = np.full(10, value, np.float32)
    message = r"Dense_0'\]\['bias'\] has numbers that are not finite"
    with pytest.raises(ValueError, match=message):
        classifiers.of_size(SMALL, classifier.variables)
    checkpoints.save(tmp_path / "model", classifier)
    with pytest.raises(ValueError, match=f"model: variables.*{message}"):
        checkpoints.load(tmp_path / "model")


@pytest.mark.parametrize("change", [{"surplus": np.zeros(3)}, {"params": {"cell": np.zeros(3)}}])
def test_variables_of_other_structure_are_refused(variables, change):
    with pytest.raises(ValueError, match="by the size of the model it must have"):
        classifiers.of_size(SMALL, {**variables, **change})


def test_truncated_model_is_refused_quietly(tmp_path, variables, capfd):
    checkpoints.save(tmp_path / "model", classifiers.of_size(SMALL, variables))
    files = [file for file in (tmp_path / "model" / "variables").rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no checkpoint of this project"):
        checkpoints.load(tmp_path / "model")
    assert "Traceback" not in capfd.readouterr().err


def test_state_of_several_arrays_is_kept(tmp_path):
    """The mean equilibrium of a multiscale model is a tuple."""
    size = architecture.MdeqModel(image_shape=(8, 8, 3), channels=(8, 16), head_channels=(2, 3), final_channels=6)
    model, start = models.build(size), config.StartTraining(network=architecture.StartModel(width=8))
    network = models.build_start(start.network, model)
    mean = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), network.state)
    variables = {
        **model.init(jax.random.key(0)),
        "start": {"network": network.init(jax.random.key(1)), "mean": mean},
    }
    classifier = classifiers.of_size(size, variables, None, start)
    checkpoints.save(tmp_path / "model", classifier)
    found = checkpoints.load(tmp_path / "model")
    assert found.sha256 == classifier.sha256
    jax.tree.map(np.testing.assert_array_equal, found.variables["start"]["mean"], mean)
