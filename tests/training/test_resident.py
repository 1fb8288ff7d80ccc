"""Images that stay on the devices: order, augmentation, and trainings whose calls make many updates."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from deqsmooth import config, data, devices, types
from deqsmooth.data import transforms
from deqsmooth.training import calls, fitting, loop, resident

# A few updates of a batch of eight: such a model may be no better than guessing.
pytestmark = pytest.mark.filterwarnings("ignore:the model is right about")


@pytest.mark.parametrize(("num", "batch_size"), [(50, 10), (37, 8), (9, 9)])
def test_epoch_has_every_image_once(num, batch_size):
    """Also where the last images of an epoch and the first ones of the next share a batch."""
    seen = []
    for update in range(3 * num // batch_size):
        epoch, offset = resident.place(update, batch_size, num)
        chosen = resident.indices(resident.orders(4, epoch, num), offset, batch_size)
        seen += chosen.tolist()
    epochs = [seen[start : start + num] for start in range(0, len(seen) - num + 1, num)]
    assert len(epochs) >= 2 and all(sorted(epoch) == list(range(num)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_crops_equal_those_of_numpy():
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (200, 12, 10, 3), dtype=np.uint8)
    images = resident.Images(jax.numpy.asarray(stored), jax.numpy.arange(200))
    orders = resident.orders(3, 0, 200)
    given = {"seed": 3, "batch_size": 150, "augmented": True}
    found, labels = jax.jit(functools.partial(resident.batch, **given))(images, orders, 40, 7)
    found, labels, orders = jax.device_get((found, labels, orders))
    corners, flips = jax.device_get(jax.jit(resident.draw_crops, static_argnums=(0, 2))(3, 7, 150))
    padded = np.pad(stored, ((0, 0), (4, 4), (4, 4), (0, 0)))
    assert labels.tolist() == orders[0, 40:190].tolist()
    for image, label, (down, right), is_flipped in zip(found, labels, corners, flips, strict=True):
        expected = padded[label, down : down + 12, right : right + 10] / np.float32(255)
        np.testing.assert_allclose(image, expected[:, ::-1] if is_flipped else expected, rtol=1e-6)
    # Each of 9 places has mean 16.7 and standard deviation 3.9; the flips have 75 and 6.1.
    for axis in (0, 1):
        assert (np.abs(np.bincount(corners[:, axis], minlength=9) - 150 / 9) < 16).all()
    assert abs(int(flips.sum()) - 75) < 25


def test_images_without_augmentation_are_whole():
    stored = np.random.default_rng(0).random((6, 4, 4, 1), np.float32)
    images = resident.Images(jax.numpy.asarray(stored), jax.numpy.arange(6))
    found, labels = resident.batch(images, resident.orders(0, 0, 6), 0, 0, seed=0, batch_size=6, augmented=False)
    np.testing.assert_array_equal(found, stored[labels])


def test_draws_change_from_update_to_update():
    first, again, other, seed = (resident.draw_crops(*x, 40) for x in ((0, 5), (0, 5), (0, 6), (1, 5)))
    np.testing.assert_array_equal(first.corner, again.corner)
    assert (first.corner != other.corner).any() and (first.corner != seed.corner).any()


def test_calls_end_where_evaluations_are_due():
    """At the same updates wherever the training begins; and with one task in a call."""
    tasks = [("a", 0.0)] * 23 + [("b", 0.0)] * 7 + [("b", 1.0)] * 20
    whole = list(calls.between(iter(tasks), 0, 15, 8))
    assert [end for _, end, *_ in whole] == [8, 15, 16, 23, 24, 30, 32, 40, 45, 48, 50]
    assert all({tasks[number] for number in range(first, end)} == {(a, b)} for first, end, a, b in whole)
    for first, *_ in whole:
        assert list(calls.between(iter(tasks[first:]), first, 15, 8)) == [x for x in whole if x[0] >= first]
    assert next(calls.between(iter(tasks[18:]), 18, 15, 8))[:2] == (18, 23)


def images(num=40, augment=transforms.stack):
    """Noise, brighter the higher the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(num) % 3
    stored = rng.integers(0, 128, (num, 8, 8, 1), dtype=np.uint8) + (40 * labels)[:, None, None, None]
    return dataclasses.replace(data.of_arrays(stored.astype(np.uint8), labels), augment=augment)


def linear():
    def init(key):
        return {"params": {"weight": 0.1 * jax.random.normal(key, (64, 3))}}

    def apply(variables, images, train):
        return images.reshape(len(images), -1) @ variables["params"]["weight"], variables

    return types.Explicit((8, 8, 1), 3, init, apply)


def settings(**change):
    given = {
        "sigma": 0.25, "epochs": 5, "batch_size": 8, "evaluation_interval": 2, "learning_rate": 1e-2, "ema": 0.8,
        "jacobian_weight": 0.0, "augment": "crop-and-flip", "updates_per_call": 4,
    }  # fmt: skip
    return config.Training(**{**given, **change})


def train(workdir=None, dataset=None, on_progress=None, resume=False, **change):
    return fitting.train(
        linear(), dataset or images(), settings(**change), workdir=workdir, on_progress=on_progress, resume=resume
    )


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted training: its folder, what it gave, and its progress with states as numpy arrays."""
    folder, seen = tmp_path_factory.mktemp("whole"), []
    found = train(folder, on_progress=lambda now: seen.append(now._replace(state=jax.device_get(now.state))))
    return folder, found, seen


def test_resumed_training_equals_uninterrupted(whole, tmp_path):
    folder, found, seen = whole
    # 36 images in batches of 8: 22.5 updates, evaluated every 9.
    assert [int(now.state.update) for now in seen] == [4, 8, 9, 12, 16, 18, 20, 23]

    def stop(now):
        if int(now.state.update) == 12:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tmp_path, on_progress=stop)
    resumed = train(tmp_path, resume=True)
    assert resumed.sha256 == found.sha256
    lines = [(path / "metrics.jsonl").read_text() for path in (folder, tmp_path)]
    assert lines[0] == lines[1] and lines[0].count("loss") == 2


def test_calls_of_any_length_agree(whole):
    """One program makes them, so that even the bits are the same."""
    assert train(updates_per_call=100).sha256 == whole[1].sha256


def test_model_is_the_average_of_parameters(whole):
    _, found, seen = whole
    last, average = (x["params"]["weight"] for x in (seen[-1].state.variables, seen[-1].state.evaluated()))
    np.testing.assert_array_equal(found.variables["params"]["weight"], average)
    assert np.abs(last - average).max() > 1e-4


def test_linear_model_learns_from_resident_images():
    losses = []
    change = {"epochs": 30, "sigma": 0.05, "learning_rate": 0.1, "augment": None, "ema": None}
    train(**change, on_progress=lambda now: losses.append(float(now.metrics.loss)))
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


def test_diverged_call_names_its_updates():
    with pytest.raises(loop.DivergenceError, match=r"one of the updates [0-9]+ to [0-9]+ gave"):
        train(learning_rate=3e38, weight_decay=10.0, optimiser="sgd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": lambda images, rng: np.stack(images)}, "must then have no augmentation or that of CIFAR"),
        ({"source": [(np.zeros((8, 8, 1)), 0), (np.zeros((8, 9, 1)), 1)]}, r"shape of image 1 is \(8, 9, 1\)"),
    ],
)
def test_unfit_images_are_refused(change, message):
    dataset = dataclasses.replace(images(), **change)
    with pytest.raises(ValueError, match=message):
        resident.load(dataset, devices.mesh())


def test_large_images_stay_on_the_host(monkeypatch):
    monkeypatch.setattr(devices, "memory", lambda: 4000)
    with pytest.raises(ValueError, match="size of the images is 2,560 bytes; it must be at most half"):
        resident.load(images(), devices.mesh())


def test_augmentation_of_resized_images_stays():
    dataset = images(augment=transforms.centre_crops)
    with pytest.raises(ValueError, match="augment is crop-and-flip; it must be left out for a data set"):
        train(dataset=dataset)
