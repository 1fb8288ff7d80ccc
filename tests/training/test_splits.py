"""Images of a training: which are held out, and how sizes are fitted to them."""

import dataclasses

import numpy as np
import pytest

from deqsmooth import config, data
from deqsmooth.config import architecture
from deqsmooth.training import splits

SETTINGS = config.Training()


def made(labels, shape=(8, 6, 3), in_memory=True):
    rng = np.random.default_rng(0)
    pairs = [(rng.random(shape, np.float32), int(label)) for label in labels]
    return data.Dataset(
        pairs, max(labels) + 1, "made", lambda x: x, lambda x, rng: np.stack(x),
        np.asarray(labels) if in_memory else None,
    )  # fmt: skip


@pytest.mark.parametrize(("num", "every", "held"), [(43, None, 5), (2, None, 1), (12, 3, 4), (5, 2, 3)])
def test_held_out_images_are_not_trained_on(num, every, held):
    settings = dataclasses.replace(SETTINGS, held_out=every)
    whole = made([k % 7 for k in range(num)])
    kept, test, found = splits.split(whole, None, settings)
    numbers = {id(image): place for place, (image, _) in enumerate(whole.source)}
    parts = [[numbers[id(part.source[k][0])] for k in range(len(part))] for part in (kept, test)]
    assert sorted(parts[0] + parts[1]) == list(range(num)) and len(parts[1]) == held
    for part, indices in zip((kept, test), parts, strict=True):
        assert (
            part.labels.tolist()
            == [whole.source[k][1] for k in indices]
            == part.take(range(len(part)))[1].tolist()
        )
    assert found.held_out == (every or 10)
    assert len({whole.identity, kept.identity, test.identity}) == 3
    again = splits.split(whole, None, found)
    assert [part.identity for part in again[:2]] == [kept.identity, test.identity]


def test_seed_determines_what_is_held_out():
    whole = made([0, 1] * 30)
    chosen = [
        [part.source.indices.tolist() for part in splits.split(whole, None, config.Training(seed=seed))[:2]]
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_given_test_images_leave_all_for_training():
    whole, test = made([0, 1] * 5), made([1, 0])
    assert splits.split(whole, test, SETTINGS) == (whole, test, SETTINGS)
    with pytest.raises(ValueError, match="held_out is 3; it must be left out where test images are given"):
        splits.split(whole, test, dataclasses.replace(SETTINGS, held_out=3))


def sized(size, dataset, name="arrays"):
    return splits.sized(size, dataset, dataset, name)


@pytest.mark.parametrize("family", architecture.MODELS.values())
def test_default_size_is_taken_from_images(family):
    dataset = made([0, 1, 2], shape=(16, 8, 3))
    found = sized(family(), dataset)
    images, _ = dataset.take(range(3))
    assert (found.image_shape, found.num_classes) == ((16, 8, 3), 3)
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(found.std, images.std((0, 1, 2)), atol=1e-4)


def test_given_size_stays():
    dataset = made([0, 1, 2])
    size = architecture.ConvModel(image_shape=(8, 6, 3), num_classes=5, mean=(0.5,), std=(0.1,), pool=1)
    assert sized(size, dataset) == size


@pytest.mark.parametrize(("shape", "pool"), [((8, 6, 3), 2), ((9, 6, 3), 1), ((8, 7, 3), 1)])
def test_default_pool_divides_image(shape, pool):
    assert sized(architecture.ConvModel(), made([0, 1], shape)).pool == pool


def test_constant_channel_is_only_shifted():
    dataset = made([0, 1])
    for image, _ in dataset.source:
        image[..., 1] = 0.25
    found = sized(architecture.ConvModel(), dataset)
    assert (found.mean[1], found.std[1]) == (0.25, 1.0)


def test_named_sets_keep_their_sizes():
    digits = data.load("digits", "train")
    assert sized(architecture.ConvModel(), digits, "digits") == architecture.ConvModel()
    measured = sized(architecture.ConvModel(), digits)
    np.testing.assert_allclose(measured.mean + measured.std, (0.305, 0.376), atol=0.01)


@pytest.mark.parametrize(
    ("size", "dataset", "message"),
    [
        (
            architecture.ConvModel(image_shape=(4, 4, 1)),
            {},
            r"\(8, 6, 3\); the model takes \(4, 4, 1\), its image_sh",
        ),
        (architecture.ConvModel(pool=4), {}, "image_shape is .*multiples of pool, 4"),
        (architecture.MdeqModel(), {"shape": (10, 10, 3)}, "image_shape is .*multiples of 4"),
        (architecture.ConvModel(), {"shape": (3, 32, 32)}, "channels first"),
        (architecture.ConvModel(), {"labels": [0, 0]}, "num_classes is 1; it must be at least 2"),
        (architecture.ConvModel(), {"labels": [0, 1, 77, 2]}, "label of image 2 is 77, but no image has label 3"),
    ],
)
def test_size_that_does_not_fit_is_refused(size, dataset, message):
    with pytest.raises(ValueError, match=message):
        sized(size, made(**{"labels": [0, 1, 2], **dataset}))


def test_gap_among_few_or_given_classes_is_allowed():
    assert sized(architecture.ConvModel(), made([0, 7])).num_classes == 8
    assert sized(architecture.ConvModel(num_classes=80), made([0, 77])).num_classes == 80
    assert sized(architecture.ConvModel(), made(range(12))).num_classes == 12


def test_labels_of_lazy_sets_are_checked():
    dataset = made([0, 1, 5], in_memory=False)
    dataset = dataclasses.replace(dataset, num_classes=3)
    with pytest.raises(ValueError, match="image 2 of the training images: its label is 5"):
        splits.check(dataset, (8, 6, 3), 3, "training images")
    with pytest.raises(ValueError, match="number of test images is 0"):
        splits.check(dataclasses.replace(dataset, source=[]), (8, 6, 3), 3, "test images")
