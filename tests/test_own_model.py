"""Ten lines for a model that somebody else wrote: certified, recorded, resumed, verified, replayed, reported."""

import dataclasses
import functools
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx

import deqsmooth as ds
from deqsmooth.commands import report, verify
from deqsmooth.config import architecture
from deqsmooth.smoothing import certification

SETTINGS = ds.Smoothing(sigma=0.25, num_selection=10, num_estimation=100, alpha=0.05, lanes=10, block=20)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.relu(nn.Conv(8, (3, 3))(images)))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.head = nnx.BatchNorm(1, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        return self.head(self.norm(images).reshape(len(images), -1))


def function(variables, images):
    return images.reshape(len(images), -1) @ variables


def equilibrium(key):
    """A monotone fixed point layer, written as functions."""
    keys = jax.random.split(key, 3)
    variables = {
        "w": 0.1 * jax.random.normal(keys[0], (16, 16)),
        "u": jax.random.normal(keys[1], (64, 16)),
        "out": jax.random.normal(keys[2], (16, 10)),
    }
    model = ds.Model(
        image_shape=(8, 8, 1),
        num_classes=10,
        init=lambda key: variables,
        bind=lambda variables: variables["w"],
        inject=lambda variables, images, keys: (images.reshape(len(images), -1) @ variables["u"], variables),
        initial_state=jnp.zeros_like,
        cell=lambda w, z, u: jnp.tanh(z @ w + u),
        readout=lambda variables, z, train: (z @ variables["out"], variables),
    )
    return model, variables


def linen():
    return ds.classifier(Linen(), Linen().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))


MADE = {
    "function": lambda: ds.classifier(function, jax.random.normal(jax.random.key(0), (64, 10))),
    "closure": lambda: functools.partial(function, jax.random.normal(jax.random.key(0), (64, 10))),
    "linen": linen,
    "nnx": lambda: ds.classifier(Nnx(nnx.Rngs(0))),
    "equilibrium": lambda: ds.classifier(*equilibrium(jax.random.key(0))),
}


@pytest.fixture(scope="module")
def digits():
    return ds.load_dataset("digits").take(range(4))


@pytest.mark.parametrize("kind", MADE)
def test_ten_lines_certify_record_verify_report(kind, digits, tmp_path):
    images, labels = digits
    classifier = MADE[kind]()
    path = tmp_path / "own.jsonl"
    found = list(ds.certify(classifier, images, SETTINGS, labels=labels, out=path))
    checked = ds.verify(path, classifier, ds.arrays(images, labels), num=2)
    assert checked.differences == [] and checked.incomplete is None
    summary, page = ds.summary(found), ds.report(path)
    assert summary.num_images == 4 and page.is_sound and "<svg" not in repr(page)
    assert "Certified robustness" in page._repr_html_()
    header = json.loads(path.read_text().partition("\n")[0])
    assert header["soundness_check"] == "passed" and header["classifier"]
    assert (header["reference"]["solver"] is None) == (kind != "equilibrium")


def test_run_of_own_model_is_resumed(digits, tmp_path):
    images, labels = digits
    classifier, path, whole = MADE["function"](), tmp_path / "cut.jsonl", tmp_path / "whole.jsonl"
    expected = list(ds.certify(classifier, images, SETTINGS, labels=labels, out=whole))
    for certificate in ds.certify(classifier, images, SETTINGS, labels=labels, out=path):
        assert certificate.index == 0
        break
    assert "3 are missing" in ds.verify(path).incomplete
    found = list(ds.certify(classifier, images, SETTINGS, labels=labels, out=path))
    assert [(c.index, c.counts) for c in found] == [(c.index, c.counts) for c in expected]
    assert ds.verify(path).incomplete is None
    other = ds.classifier(function, jax.random.normal(jax.random.key(1), (64, 10)))
    with pytest.raises(ValueError, match="the model differs"):
        list(ds.certify(other, images, SETTINGS, labels=labels, out=path))
    with pytest.raises(ValueError, match=r"the model is .*; the certificates are about"):
        ds.verify(path, other, ds.arrays(images, labels))
    with pytest.raises(ValueError, match=r"the data set is .*; the certificates are about"):
        ds.verify(path, classifier, ds.arrays(images, labels[::-1]))
    with pytest.raises(ValueError, match="images of arrays; give them as `dataset`"):
        ds.verify(path, classifier)


MODULE = """
import jax.numpy as jnp

def score(images):
    return images.mean((1, 2, 3)) - 0.3

def two(images):
    return jnp.stack([score(images), -score(images)], -1)

def other(images):
    return jnp.stack([score(images), 0 * score(images)], -1)

def make():
    return two

def broken():
    raise RuntimeError("no weights")
"""


def test_command_replays_own_model(digits, tmp_path, monkeypatch, capsys):
    images, _ = digits
    (tmp_path / "own_classifiers.py").write_text(MODULE)
    np.savez(tmp_path / "images.npz", images=images, labels=np.array([0, 1, 1, 0]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_classifiers

    list(ds.certify(own_classifiers.two, images, SETTINGS, labels=[0, 1, 1, 0], out="own.jsonl"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deqsmooth-verify", "own.jsonl", "--data-dir", "images.npz", *arguments])
        return verify.main(), capsys.readouterr()

    assert run("--replay", "2", "--model", "own_classifiers:two")[0] == 0
    assert run("--replay", "2", "--model", "own_classifiers:make")[0] == 0
    for arguments, message in (
        (("--replay", "2", "--model", "own_classifiers:other"), "the certificates are about"),
        (("--replay", "2", "--model", "own_classifiers:missing"), "cannot be imported: AttributeError"),
        (("--replay", "2", "--model", "no_such_module:two"), "cannot be imported: ModuleNotFoundError"),
        (("--replay", "2", "--model", "own_classifiers:broken"), "RuntimeError: no weights"),
        (("--replay", "2", "--model", "two"), "must be module:name"),
        (("--model", "own_classifiers:two"), "left out without --replay"),
    ):
        status, output = run(*arguments)
        assert status == 2 and message in output.err
    monkeypatch.setattr(sys, "argv", ["deqsmooth-report", "own.jsonl"])
    assert report.main() == 0 and (tmp_path / "report" / "index.html").exists()


STARTED = """
import toy
import deqsmooth as ds

def started():
    return ds.load("own_start", toy.build())
"""


@pytest.mark.slow
def test_command_replays_learned_start(digits, tmp_path, monkeypatch, capsys):
    """Of a state of two arrays; the record is that of the classifier before it was saved."""
    images, labels = digits
    dataset = ds.arrays(np.tile(images, (5, 1, 1, 1)), np.tile(labels, 5))
    own = ds.classifier(toy.build(), toy.build().init(jax.random.key(0)))
    training = ds.StartTraining(
        sigma=0.25, epochs=1, batch_size=8, reference_budget=2, network=architecture.StartModel(width=8)
    )
    with_start = ds.train_start(own, dataset, training)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_started.py").write_text(STARTED)
    np.savez(tmp_path / "images.npz", images=images.astype(np.float64), labels=labels)
    ds.save("own_start", with_start)
    (one, *_) = ds.certify(with_start, images, SETTINGS, labels=labels, out="own.jsonl")
    assert one.budget == 2
    words = "deqsmooth-verify own.jsonl --replay 2 --model own_started:started --data-dir images.npz"
    monkeypatch.setattr(sys, "argv", words.split())
    status = verify.main()
    assert status == 0, capsys.readouterr()


def test_replayed_images_are_chosen_at_random(digits, tmp_path, monkeypatch):
    images, labels = digits
    path, classifier, dataset = tmp_path / "own.jsonl", MADE["function"](), ds.arrays(images, labels)
    list(ds.certify(classifier, images, SETTINGS, labels=labels, out=path))
    chosen = []
    certify = certification.certify_dataset

    def noting(classifier, dataset, indices, settings):
        chosen.append(tuple(indices))
        return certify(classifier, dataset, indices, settings)

    monkeypatch.setattr(certification, "certify_dataset", noting)
    for _ in range(10):
        assert ds.verify(path, classifier, dataset, num=2).differences == []
    # Six pairs: all ten calls agree with probability 6 ** -9.
    assert len(set(chosen)) > 1
    chosen.clear()
    for _ in range(3):
        ds.verify(path, classifier, dataset, num=2, seed=5)
    assert len(set(chosen)) == 1
    with pytest.raises(ValueError, match="seed is -1; it must be an integer from 0, or None"):
        ds.verify(path, classifier, dataset, seed=-1)


@pytest.mark.slow
def test_classifier_goes_everywhere(digits, tmp_path):
    images, labels = digits
    dataset = ds.arrays(images, labels)
    classifier = MADE["equilibrium"]()
    settings = ds.Smoothing(
        sampler="independent", budget=4, num_selection=10, num_estimation=100, alpha=0.05, lanes=10, block=20
    )
    found = list(ds.certify_dataset(classifier, dataset, range(4), settings))
    assert len(list(ds.predict(classifier, images, settings))) == 4
    again = list(
        ds.recertify(
            found, (classifier, settings), (classifier, ds.paired(settings, budget=5, num_pairs=50)), dataset
        )
    )
    assert [c.index for c in again] == [0, 1, 2, 3]
    attempts = list(
        ds.attack(classifier, found, settings, dataset, [0.1], ds.Attack(steps=1, num_estimation=50, draws=2))
    )
    assert len(attempts) == 4 and not any(attempt.refutes for attempt in attempts)
    ds.save(tmp_path / "own", classifier)
    assert ds.load(tmp_path / "own", classifier.model).sha256 == classifier.sha256


def test_function_is_planned_for():
    def brightness(images):
        score = images.mean((1, 2, 3)) - 0.5
        return jnp.stack([score, -score], -1)

    images = np.where(np.arange(4) % 2, 0.1, 0.9)[:, None, None, None] * np.ones((4, 8, 8, 1))
    planning = ds.Planning(radius=0.25, sigma=0.25, pilot_images=4, pilot_samples=100, max_samples=1000)
    planned = ds.plan(brightness, ds.arrays(images, [0, 1, 0, 1]), planning)
    assert planned.certified > 0.9 and planned.settings.num_estimation <= 100
    assert ds.plan(brightness, ds.arrays(images, [1, 0, 1, 0]), planning) is None


LABELS = {
    "one-hot": (np.eye(10)[[1, 2, 3, 4]], "looks one-hot"),
    "strings": (["1", "2", "3", "4"], "the label of image 0 is '1'"),
    "fractions": ([1.5, 2, 3, 4], "the label of image 0 is 1.5"),
    "too large": ([1, 2, 77, 4], r"the label of image 2 is 77; labels must be integers in \[0, 10\)"),
    "negative": ([1, 2, 3, -1], "the label of image 3 is -1"),
    "too few": ([1, 2, 3], "3 entries"),
    "nested": ([[1], [2], [3], [4]], "labels have shape"),
    "scalar": (np.array(3), "labels have shape"),
    "none": ([None] * 4, "the label of image 0 is None"),
    "booleans": ([True, False, True, False], "the label of image 0 is True"),
}
IMAGES = {
    "channels first": (np.zeros((4, 1, 8, 8)), "looks like channels first"),
    "0 to 255": (np.full((4, 8, 8, 1), 200.0), "looks like 0 to 255"),
    "other shape": (np.zeros((4, 9, 9, 1)), r"the model takes \(8, 8, 1\)"),
    "integers": (np.zeros((4, 8, 8, 1), int), "images are int64; they must be uint8"),
    "one image": (np.zeros((8, 8, 1)), "that of a single image"),
    "no channel": (np.zeros((4, 8, 8)), "grey images have a channel"),
    "none": (np.zeros((0, 8, 8, 1)), "there must be at least one image"),
    "not a number": (np.full((4, 8, 8, 1), np.nan), "pixels must be finite"),
    "standardised": (np.full((4, 8, 8, 1), -1.0), "before any standardisation"),
    "text": ("images.npz", "images"),
}


@pytest.mark.parametrize("case", LABELS)
def test_wrong_labels_are_refused(case, digits):
    labels, message = LABELS[case]
    with pytest.raises(ValueError, match=message):
        next(ds.certify(MADE["equilibrium"](), digits[0], SETTINGS, labels=labels))


@pytest.mark.parametrize("case", IMAGES)
def test_wrong_images_are_refused(case):
    images, message = IMAGES[case]
    for run in (ds.certify, ds.predict):
        with pytest.raises(ValueError, match=message):
            next(run(MADE["equilibrium"](), images, SETTINGS))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 1, 2], "one for each of the 4 images"),
        ([0, 1, 1, 2], "indices has 1 2 times"),
        ([0, 1, 2, -3], "integers from 0"),
        ([0.5, 1, 2, 3], "integers from 0"),
    ],
)
def test_wrong_indices_are_refused(digits, indices, message):
    for run in (ds.certify, ds.predict):
        with pytest.raises(ValueError, match=message):
            next(run(MADE["equilibrium"](), digits[0], SETTINGS, indices=indices))


def test_forms_of_images_give_equal_certificates(digits):
    stored = np.round(digits[0] * 255).astype(np.uint8)
    forms = (stored, stored / 255, (stored / 255).astype(np.float32))
    first, *others = ([c.counts for c in ds.certify(MADE["function"](), form, SETTINGS)] for form in forms)
    assert all(other == first for other in others)
    almost = np.where(stored == stored.max(), np.float32(1.0000001), (stored / 255).astype(np.float32))
    assert len(list(ds.certify(MADE["function"](), almost, SETTINGS))) == 4


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("sigma", "0.5", "a number"),
        ("sigma", None, "a number"),
        ("sigma", True, "a number"),
        ("num_estimation", 1e4, "an integer"),
        ("num_estimation", "100", "an integer"),
        ("lanes", 1.5, "an integer or None"),
        ("block", "big", "an integer or 'auto' or None"),
        ("looks", 5, "a sequence of which each entry is an integer or None"),
        ("sampler", 1, "a string or None"),
        ("dtype", jnp.bfloat16, "a string"),
        ("seed", "random", "an integer"),
    ],
)
def test_settings_have_their_types(setting, value, rule):
    with pytest.raises(ValueError, match=f"{setting} is .*; it must be {rule}"):
        ds.Smoothing(**{setting: value})


def test_numbers_of_arrays_are_settings(digits, tmp_path):
    plain = ds.Smoothing(sigma=0.25, num_estimation=100, looks=(50, 100))
    made = ds.Smoothing(sigma=jnp.float32(0.25), num_estimation=np.int64(100), looks=[np.int32(50), 100])
    assert made == plain and type(made.sigma) is float and type(made.num_estimation) is int


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": []}, "indices is empty"),
        ({"indices": [True, False, True, True]}, r"indices are bool .* numpy.flatnonzero\(mask\)"),
        ({"indices": [0.0, 1.0]}, "indices are float64"),
        ({"indices": [0, 9]}, "indices has 9; those of the data set are from 0 to 3"),
        ({"indices": [-1]}, "indices has -1"),
    ],
)
def test_wrong_arguments_write_nothing(digits, tmp_path, arguments, message):
    given = {
        "dataset": ds.arrays(*digits),
        "indices": range(4),
        "settings": SETTINGS,
        "out": tmp_path / "own.jsonl",
        **arguments,
    }
    with pytest.raises(ValueError, match=message):
        next(ds.certify_dataset(MADE["function"](), **given))
    assert not list(tmp_path.iterdir())


def test_variables_are_copied():
    weights = np.ones((64, 10), np.float32)
    classifier = ds.classifier(function, weights)
    weights[:] = 0
    assert classifier.sha256 == ds.classifier(function, np.ones((64, 10), np.float32)).sha256
    assert (classifier.variables == 1).all()


def test_captured_numbers_are_of_the_classifier():
    def above(threshold):
        return lambda images: jnp.stack([images.mean((1, 2, 3)) - threshold, jnp.zeros(len(images))], -1)

    one, same, other = (ds.classifier(above(threshold)) for threshold in (0.3, np.float64(0.3), 0.5))
    assert one.sha256 == same.sha256 != other.sha256 and one.name.endswith("(threshold=0.3)")
    with_scale = ds.classifier(functools.partial(lambda scale, images: scale * images, scale=2.0))
    assert with_scale.name.endswith("(scale=2.0)")


def test_certificates_of_other_settings_are_refused(digits):
    images, labels = digits
    dataset, classifier = ds.arrays(images, labels), MADE["function"]()
    settings = ds.Smoothing(
        sampler="independent", sigma=0.25, num_selection=10, num_estimation=100, alpha=0.05, lanes=10, block=20
    )
    found = list(ds.certify(classifier, images, settings, labels=labels))
    wrong = dataclasses.replace(settings, sigma=0.5)
    other = ds.classifier(function, jax.random.normal(jax.random.key(1), (64, 10)))
    with pytest.raises(ValueError, match=r"sigma of the certificate of image 0 is 0\.25; it must be 0.5"):
        list(ds.attack(classifier, found, wrong, dataset, [0.1], ds.Attack()))
    with pytest.raises(ValueError, match=r"sigma of the certificate of image 0 is 0\.25"):
        list(ds.recertify(found, (classifier, wrong), (other, ds.paired(wrong)), dataset))
    with pytest.raises(ValueError, match=r"sigma of the settings after is 0\.5; it must be 0\.25"):
        list(ds.recertify(found, (classifier, settings), (other, ds.paired(settings, sigma=0.5)), dataset))
    with pytest.raises(ValueError, match=r"radii is \[nan\]; it must be finite numbers"):
        list(ds.attack(classifier, found, settings, dataset, [np.nan], ds.Attack()))


@pytest.mark.parametrize("call", [ds.read, ds.report, ds.summary])
@pytest.mark.parametrize("value", [None, 3])
def test_no_paths_are_refused(call, value):
    with pytest.raises(ValueError, match=str(value)):
        call(value)


def test_changed_code_is_another_classifier(digits, tmp_path):
    def made(factor):
        def scores(images):
            return factor * images.reshape(len(images), -1)[:, :10] - jnp.arange(10) / 20

        return ds.classifier(scores, name="scores")

    path, images = tmp_path / "run.jsonl", digits[0]
    list(ds.certify(made(jnp.square(2.0)), images, SETTINGS, out=path))
    list(ds.certify(made(4.0), images, SETTINGS, out=tmp_path / "number.jsonl"))
    for other in (made(5.0), made(jnp.square(3.0))):
        with pytest.raises(ValueError, match="was begun by another run"):
            list(ds.certify(other, images, SETTINGS, out=path))
    with pytest.raises(ValueError, match="the code of scores is not the code"):
        ds.verify(tmp_path / "number.jsonl", made(5.0), ds.arrays(images))
    assert ds.verify(path, made(jnp.square(2.0)), ds.arrays(images)).differences == []


def test_programs_of_others_are_refused(digits):
    classifier, other = MADE["function"](), MADE["linen"]()
    settings = SETTINGS.recommended(False)
    programs = certification.prepare(classifier, settings, (8, 8, 1), 4)
    assert len(list(ds.certify(classifier, digits[0], settings, programs=programs))) == 4
    for one, change in ((other, settings), (classifier, ds.Smoothing(sigma=0.5).recommended(False))):
        with pytest.raises(ValueError, match="compiled for another classifier or other settings"):
            next(ds.certify(one, digits[0], change, programs=programs))
