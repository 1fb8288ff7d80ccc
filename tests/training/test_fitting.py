"""Training from beginning to end: what it gives, how it is resumed, and how it ends early."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
import toy

from deqsmooth import config, data, types
from deqsmooth.config import architecture
from deqsmooth.models import checkpoints, classifiers
from deqsmooth.smoothing import certification
from deqsmooth.training import fitting, loop

# A few updates of a batch of eight: such a model may be no better than guessing.
pytestmark = pytest.mark.filterwarnings("ignore:the model is right about")

QUICK = {"sigma": 0.25, "epochs": 4, "batch_size": 8, "evaluation_interval": 1, "learning_rate": 1e-2}
LINEAR_SETTINGS = config.Training(**QUICK, jacobian_weight=0.0)
SETTINGS = config.Training(
    **QUICK, pretraining_budget=2, budget=2, gradient="one-step", jacobian_weight=0.0, reference_budget=2
)
START = config.StartTraining(
    **{**QUICK, "epochs": 2}, reference_budget=2, network=architecture.StartModel(width=8)
)
CERTIFYING = config.Smoothing(
    sampler="independent", start="zero", sigma=0.25, budget=2, num_selection=10, num_estimation=50, alpha=0.1,
    lanes=10, block=10,
)  # fmt: skip


def made(num=20, shape=(4, 4, 1), num_classes=3, labels=None, images=None, identity="made"):
    """Random images, brighter the higher the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(num) % num_classes if labels is None else np.asarray(labels)
    if images is None:
        images = 0.5 * rng.random((num, *shape), np.float32) + labels[:, None, None, None] / (2 * num_classes)
    pairs = list(zip(images.astype(np.float32), labels.tolist(), strict=True))
    return data.Dataset(pairs, num_classes, identity, lambda x: x, lambda x, rng: np.stack(x), labels)


def linear(shape=(4, 4, 1), num_classes=3):
    """A linear classifier as a model of the caller's own."""

    def init(key):
        return {"params": {"weight": 0.1 * jax.random.normal(key, (math.prod(shape), num_classes))}}

    def apply(variables, images, train):
        return images.reshape(len(images), -1) @ variables["params"]["weight"], variables

    return types.Explicit(shape, num_classes, init, apply)


def train(workdir=None, settings=LINEAR_SETTINGS, dataset=None, **more):
    return fitting.train(linear(), dataset or made(), settings, workdir=workdir, **more)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


class StoppedError(Exception):
    pass


def stopping(update):
    def on_progress(now):
        if int(now.state.update) == update:
            raise StoppedError

    return on_progress


def test_size_is_taken_from_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = made(shape=(6, 5, 3), num_classes=4)
    size = architecture.ConvModel(channels=8, expansion=1, num_groups=4)
    found = fitting.train(size, dataset, dataclasses.replace(SETTINGS, epochs=1))
    assert (found.size.image_shape, found.size.num_classes, found.size.pool) == ((6, 5, 3), 4, 1)
    assert found.training.model == found.size and found.training.dataset == "arrays"
    assert (found.training.pretraining_epochs, found.training.held_out) == (0.25, 10)
    images, _ = dataset.take(range(len(dataset)))
    np.testing.assert_allclose(found.size.mean, images.mean((0, 1, 2)), atol=0.05)
    np.testing.assert_allclose(found.size.std, images.std((0, 1, 2)), atol=0.05)
    (certificate,) = certification.certify(found, images[:1], CERTIFYING)
    assert sum(certificate.counts) == 50
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_own_equilibrium_model_gets_a_start(tmp_path):
    model, dataset = toy.build(), data.load("digits", "train")
    dataset = dataclasses.replace(dataset, source=dataset.source[:40])
    settings = dataclasses.replace(SETTINGS, epochs=1)
    found = fitting.train(model, dataset, settings, workdir=tmp_path / "model-run", name="ours")
    assert found.size is None and found.training.model is None and found.training.dataset == "digits"
    loaded = checkpoints.load(tmp_path / "model-run", model)
    assert loaded.sha256 == found.sha256 and loaded.training == found.training
    started = fitting.train_start(found, dataset, START, test=dataset, workdir=tmp_path / "start-run")
    again = checkpoints.load(tmp_path / "start-run", model)
    assert (again.sha256, again.start_training) == (started.sha256, started.start_training)
    assert {classifier.name for classifier in (found, loaded, started, again)} == {"ours"}
    settings = dataclasses.replace(CERTIFYING, start="learned", budget=1)
    images, _ = dataset.take(range(2))
    assert len(list(certification.certify(started, images, settings))) == 2
    jax.tree.map(np.testing.assert_array_equal, started.variables["params"], found.variables["params"])
    assert started.start_training == dataclasses.replace(START, dataset="digits")


def test_stopped_training_resumes_to_same_model(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(tmp_path / "stopped", on_progress=stopping(5))
    with pytest.raises(ValueError, match="stopped has a run; give --resume"):
        train(tmp_path / "stopped")
    seen = []
    resumed = train(tmp_path / "stopped", resume=True, on_progress=lambda now: seen.append(int(now.state.update)))
    assert seen == [6, 7, 8, 9]
    assert resumed.sha256 == whole.sha256 == train().sha256
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    again = train(tmp_path / "stopped", resume=True, on_progress=stopping(9))
    assert again.sha256 == whole.sha256


def test_training_begins_with_given_variables(tmp_path):
    """A training that hardly moves ends where another one ended; the record names that one."""
    first = train(tmp_path / "first")
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1}
    settings = dataclasses.replace(LINEAR_SETTINGS, **still, initial=str(tmp_path / "first"))
    second = train(tmp_path / "second", settings)
    np.testing.assert_allclose(
        second.variables["params"]["weight"], first.variables["params"]["weight"], rtol=1e-6
    )
    assert second.training.initial == first.sha256
    assert checkpoints.load(tmp_path / "second", linear()).training.initial == first.sha256
    other = train(tmp_path / "other", dataclasses.replace(LINEAR_SETTINGS, seed=1))
    assert other.sha256 != first.sha256
    moved = dataclasses.replace(settings, initial=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="it started from another checkpoint"):
        train(tmp_path / "second", moved, resume=True)
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    again = train(
        tmp_path / "second", dataclasses.replace(settings, initial=str(tmp_path / "elsewhere")), resume=True
    )
    assert again.sha256 == second.sha256
    with pytest.raises(ValueError, match="nothing does not exist"):
        train(tmp_path / "third", dataclasses.replace(settings, initial=str(tmp_path / "nothing")))


@pytest.mark.slow
def test_initial_model_has_the_same_size(small, tmp_path):
    checkpoints.save(tmp_path / "small", small)
    still = {"epochs": 1, "batch_size": 500, "learning_rate": 1e-12, "weight_decay": 0.0}
    settings = dataclasses.replace(SETTINGS, **still, initial=str(tmp_path / "small"))
    dataset = data.load("digits", "train")
    found = fitting.train(small.size, dataset, settings)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
        found.variables["params"],
        dict(small.variables["params"]),
    )
    with pytest.raises(ValueError, match=r"initial is .*small; it must be one of ConvModel.*channels=16"):
        fitting.train(dataclasses.replace(small.size, channels=16), dataset, settings)


@pytest.mark.parametrize("where", ["update", "evaluation"])
def test_interrupted_update_is_saved(tmp_path, monkeypatch, where):
    """Ctrl-C that arrives while the loop, and not the caller, is at work."""
    finite, calls = loop._is_finite, []

    def interrupt(state):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return finite(state)

    monkeypatch.setattr(loop, "_is_finite", interrupt)
    settings = dataclasses.replace(LINEAR_SETTINGS, evaluation_interval=1 if where == "evaluation" else 9)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, settings)
    resumed = train(tmp_path, settings, resume=True)
    assert len(calls) == 4 + 5
    assert resumed.sha256 == train(settings=settings).sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"learning_rate": 3e38, "weight_decay": 0.0},
            "gave a loss of (nan|inf), and the last finite loss was .* in update",
        ),
        ({"learning_rate": 3e38, "weight_decay": 10.0}, "gave parameters that are not finite"),
    ],
)
def test_diverged_training_keeps_last_state(tmp_path, change, message):
    # The first update has a learning rate of 0, and is saved.
    settings = dataclasses.replace(LINEAR_SETTINGS, optimiser="sgd", batch_size=18, epochs=6, warmup=0.2, **change)
    with pytest.raises(ValueError, match=message) as error:
        train(tmp_path, settings)
    assert "lower learning_rate" in str(error.value) and "the state after update" in str(error.value)
    assert "jacobian_weight" not in str(error.value)
    assert not (tmp_path / "model").exists()
    kept = max(int(folder.name) for folder in (tmp_path / "states").iterdir())
    assert kept == max(line["update"] for line in lines(tmp_path)) < 6
    with pytest.raises(ValueError, match="no update of this run had a finite loss"):
        train(tmp_path, settings, resume=True)


@pytest.mark.parametrize(
    ("change", "dataset", "message"),
    [
        ({"batch_size": 19}, {}, "batch_size is 19; it must be at most the number of training images, 18"),
        ({"accumulation": 9}, {}, "accumulation is 9; it must be a divisor"),
        ({"jacobian_weight": 1.0}, {}, "jacobian_weight is 1.0; it must be 0 for a model without an equilibrium"),
        ({}, {"num": 1}, "number of images is 1; it must be at least 2"),
        ({}, {"shape": (4, 5, 1)}, r"image 0 of the training images: images have shape \(4, 5, 1\)"),
        ({}, {"num_classes": 4}, r"training images: the label of image 3 is 3; labels must be integers in"),
        ({}, {"labels": [-1] * 20}, "training images: the label of image 0 is -1"),
        ({}, {"images": np.full((20, 4, 4, 1), 2.0)}, "image 0 of the training images: pixels go up to 2.0"),
        ({}, {"images": np.full((20, 4, 4, 1), np.nan)}, "image 0 of the training images: the pixel at row 0"),
    ],
)  # fmt: skip
def test_unfit_input_is_refused(tmp_path, change, dataset, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, dataclasses.replace(LINEAR_SETTINGS, **change), made(**dataset))
    assert not list(tmp_path.iterdir())


def test_smallest_trainings_end(tmp_path):
    one = made(num=1)
    settings = dataclasses.replace(LINEAR_SETTINGS, batch_size=1, epochs=1, warmup=1.0, evaluation_interval=5)
    found = train(tmp_path, settings, one, test=one)
    assert found.training.held_out is None
    assert [line["update"] for line in lines(tmp_path)] == [1]


def test_folders_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(ValueError, match="file; cannot write"):
        train(tmp_path / "file")
    (tmp_path / "other" / "model").mkdir(parents=True)
    (tmp_path / "other" / "model" / "thesis.tex").write_text("more work")
    with pytest.raises(ValueError, match="exists and is no model"):
        train(tmp_path / "other")
    train(tmp_path / "run")
    for change, message in (
        ({"settings": dataclasses.replace(LINEAR_SETTINGS, sigma=0.5)}, "sigma was 0.25 and is 0.5"),
        ({"dataset": made(identity="else")}, "it had other images"),
        ({"test": made()}, "held_out was 10 and is None"),
    ):
        with pytest.raises(ValueError, match=f"holds another run .*{message}"):
            train(tmp_path / "run", resume=True, **change)


def test_own_model_of_other_shape_loses_nothing(tmp_path):
    train(tmp_path)
    before = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    with pytest.raises(ValueError, match=r"holds another run .*arrays of other shapes"):
        fitting.train(linear(num_classes=4), made(), LINEAR_SETTINGS, workdir=tmp_path, resume=True)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == before


@pytest.mark.parametrize(
    ("change", "dataset", "message"),
    [
        ({"batch_size": 99}, {}, "batch_size is 99"),
        ({"fine_tune": 1.0}, {}, "fine_tune is 1.0; it needs a trained start"),
        ({}, {"shape": (9, 8, 1)}, r"the model takes \(8, 8, 1\)"),
        ({}, {"num_classes": 11}, "the label of image 10 is 10"),
        ({"held_out": 2}, {"test": True}, "held_out is 2; it must be left out where test images are given"),
    ],
)
def test_start_training_refuses_unfit_input(small, tmp_path, change, dataset, message):
    test = made(shape=(8, 8, 1)) if dataset.pop("test", False) else None
    dataset = made(**{"shape": (8, 8, 1), **dataset})
    with pytest.raises(ValueError, match=message):
        fitting.train_start(small, dataset, dataclasses.replace(START, **change), test=test, workdir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_process_settings_do_not_change_the_model():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = train()
    assert found.sha256 == train().sha256
    assert {x.dtype for x in jax.tree.leaves(found.variables)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dataset": (np.zeros((2, 4, 4, 1)), np.zeros(2))},
            r"dataset is of type tuple; it must be a ds\.Dataset",
        ),
        ({"test": (np.zeros((2, 4, 4, 1)), np.zeros(2))}, r"test is of type tuple; it must be a ds\.Dataset"),
        ({"workdir": 3}, "workdir is 3; it must be the path of a folder"),
        ({"resume": True}, "resume is True; it must be False without a workdir"),
        ({"on_progress": 3}, "on_progress is 3; it must be a function"),
    ],
)
def test_arguments_of_wrong_kinds_are_refused(change, message):
    given = {"dataset": data.load("digits"), "test": None, "workdir": None, "resume": False, "on_progress": None}
    with pytest.raises(ValueError, match=message):
        fitting._check_arguments(**{**given, **change})


@pytest.mark.slow
def test_variables_without_params_get_a_start():
    """Only what is trained with the start needs them."""
    model = toy.build()
    keys, dataset = ("params", "batch_stats"), made(shape=(8, 8, 1))

    def renamed(function):
        def called(variables, *more):
            found, variables = function(dict(zip(keys, variables["weights"], strict=True)), *more)
            return found, {"weights": [variables[key] for key in keys]}

        return called

    own = model._replace(
        init=lambda key: {"weights": [model.init(key)[name] for name in keys]},
        bind=lambda variables: model.bind(dict(zip(keys, variables["weights"], strict=True))),
        inject=renamed(model.inject),
        readout=renamed(model.readout),
    )
    classifier = classifiers.classifier(own, own.init(jax.random.key(0)))
    started = fitting.train_start(classifier, dataset, START)
    assert sorted(started.variables) == ["start", "weights"]
    tuned = dataclasses.replace(START, fine_tune=1.0)
    with pytest.raises(ValueError, match="the entry 'params', which is fine-tuned"):
        fitting.train_start(started, dataset, tuned)
    listed = classifier._replace(variables=[])
    with pytest.raises(ValueError, match="the variables is of type list; it must be a dictionary, to which"):
        fitting.train_start(listed, dataset, START)


def test_explicit_classifier_has_no_start():
    classifier = classifiers.classifier(linear(), linear().init(jax.random.key(0)))
    with pytest.raises(ValueError, match="without an equilibrium, which has no start"):
        fitting.train_start(classifier, made(), START)


@pytest.mark.slow
def test_start_training_resumes_to_same_start(small, tmp_path):
    dataset = made(shape=(8, 8, 1))
    whole = fitting.train_start(small, dataset, START)
    with pytest.raises(StoppedError):
        fitting.train_start(small, dataset, START, workdir=tmp_path, on_progress=stopping(2))
    other = small._replace(sha256="1" * 64)
    with pytest.raises(ValueError, match="it started from another checkpoint"):
        fitting.train_start(other, dataset, START, workdir=tmp_path, resume=True)
    resumed = fitting.train_start(small, dataset, START, workdir=tmp_path, resume=True)
    assert resumed.sha256 == whole.sha256 != small.sha256
    assert checkpoints.load(tmp_path).sha256 == whole.sha256
