"""The rules of images and labels."""

import jax.numpy as jnp
import numpy as np
import pytest

from deqsmooth import data
from deqsmooth.data import contents

OK = np.random.default_rng(0).random((12, 8, 8, 1), dtype=np.float32)
LABELS = np.arange(12) % 10
HAIR = np.float32(1 + 1.2e-7)


def changed(value, index=3, images=OK):
    """The images with another pixel at row 2 and column 4 of one of them."""
    images = np.array(images)
    images[index, 2, 4, 0] = value
    return images


def test_images_in_range_stay_bit_identical():
    found = data.check_images(OK, (8, 8, 1))
    assert found.dtype == np.float32 and found.tobytes() == OK.tobytes()
    assert data.check_images(OK.astype(np.float64)).tobytes() == OK.tobytes()
    assert data.check_images(jnp.asarray(OK)).tobytes() == OK.tobytes()
    stored = (255 * OK).astype(np.uint8)
    assert data.check_images(stored).tobytes() == (stored.astype(np.float32) / 255).tobytes()


@pytest.mark.parametrize(("value", "pixel"), [(HAIR, 1), (1.0000001, 1), (-1.1e-7, 0), (-0.0, 0)])
def test_one_rounding_outside_is_accepted(value, pixel):
    dtype = np.asarray(value).dtype
    assert value != pixel or value == 0
    found = data.check_images(changed(value, images=OK.astype(dtype)))
    assert found[3, 2, 4, 0] == pixel and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found[4], OK[4])


@pytest.mark.parametrize("value", [np.float32(1 + 2.4e-7), 1.0000002, -3e-7, 7, np.nan, np.inf, -np.inf, -1])
def test_pixel_further_outside_is_named(value):
    images = changed(value, images=OK.astype(np.result_type(value, np.float32)))
    if value == 7:
        message = r"image 3: pixels go up to 7.0, which looks like 0 to 255: divide by 255 or give uint8"
    else:
        message = (
            r"image 3: the pixel at row 2, column 4, channel 0 is (\S+); pixels must be finite numbers in \[0, 1\]"
        )
    with pytest.raises(ValueError, match=message) as raised:
        data.check_images(images)
    if value != 7:
        shown = float(str(raised.value).split(" is ")[1].split(";")[0])
        # What is said does not contradict itself.
        assert not 0 <= shown <= 1


FORMS = [
    (OK.astype(np.int64), None, "images are int64; they must be uint8, or float16"),
    (OK > 0.5, None, "images are bool"),
    (OK.astype(str), None, "images are <U"),
    ([[1.0], [1.0, 2.0]], None, "images are list, which makes no array"),
    (None, None, "images are object"),
    (0.5, None, r"images have shape \(\)"),
    (OK[0], None, r"images have shape \(8, 8, 1\), that of a single image; .* is images\[None\]"),
    (OK[0], (8, 8, 1), r"a single image"),
    (OK[..., 0], None, r"grey images have a channel, too: images\[..., None\]"),
    (OK[:0], None, r"images have shape \(0, 8, 8, 1\); there must be at least one"),
    (np.zeros((2, 8, 8, 0)), None, "there must be at least one image and one pixel"),
    (np.zeros((2, 3, 32, 32)), None, r"3x32x32 looks like channels first; .*moveaxis\(images, 1, -1\)"),
    (np.zeros((2, 3, 32, 32)), (32, 32, 3), "3x32x32 looks like channels first"),
    (np.zeros((2, 3, 32, 32)), (8, 8, 1), "3x32x32 looks like channels first"),
    (np.zeros((2, 1, 28, 28)), None, "1x28x28 looks like channels first"),
    (np.zeros((2, 32, 3, 32)), (32, 32, 3), r"the model takes \(32, 32, 3\), the same axes in another order"),
    (np.zeros((2, 40, 24, 1)), (24, 40, 1), "the same axes in another order"),
    (np.zeros((2, 28, 28, 1)), (8, 8, 1), r"images have shape \(28, 28, 1\); the model takes \(8, 8, 1\)$"),
    (np.zeros((2, 32, 32, 1)), (32, 32, 3), r"images have shape \(32, 32, 1\); the model takes \(32, 32, 3\)$"),
]  # fmt: skip


@pytest.mark.parametrize(("images", "shape", "message"), FORMS, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_form_is_refused(images, shape, message):
    with pytest.raises(ValueError, match=message) as raised:
        data.check_images(images, shape)
    assert "\n" not in str(raised.value)


def test_shape_that_the_model_takes_passes():
    """What looks like channels first may be what the model takes."""
    odd = np.zeros((2, 3, 32, 32))
    assert data.check_images(odd, (3, 32, 32)).shape == odd.shape
    assert data.check_images(odd, [3, 32, 32]).shape == odd.shape


def test_unusable_images_are_found_one_by_one():
    images = changed(np.nan, 5, changed(2.0, 3))
    assert np.flatnonzero(contents.unusable(images)).tolist() == [3, 5]
    assert not contents.unusable((255 * OK).astype(np.uint8)).any()


def test_integral_labels_pass():
    for labels in (LABELS, LABELS.tolist(), LABELS.astype(np.uint8), jnp.asarray(LABELS)):
        found = data.check_labels(labels, 12, 10)
        assert np.issubdtype(found.dtype, np.signedinteger) and found.tolist() == LABELS.tolist()
    assert data.check_labels([10**6], 1).tolist() == [10**6]


WRONG = [
    (LABELS + 3, r"the label of image 7 is 10; labels must be integers in \[0, 10\), one an image"),
    (np.where(LABELS == 4, 77, LABELS), "the label of image 4 is 77"),
    (LABELS - 1, "the label of image 0 is -1"),
    (LABELS.astype(np.uint64) + 2**63, "the label of image 0 is 9223372036854775808"),
    (np.eye(10)[LABELS], r"labels have shape \(12, 10\), which looks one-hot: give numpy.argmax\(labels, -1\)"),
    (np.zeros((12, 1, 1), int), r"labels have shape \(12, 1, 1\); labels must be integers"),
    (3, r"labels have shape \(\)"),
    ([f"class {k}" for k in LABELS], "the label of image 0 is 'class 0'"),
    (["0"] * 12, "the label of image 0 is '0'"),
    (LABELS + 0.5, "the label of image 0 is 0.5"),
    (LABELS.astype(float), "the label of image 0 is 0.0"),
    (np.where(LABELS == 2, 0.5, LABELS), "the label of image 2 is 0.5"),
    (np.where(LABELS == 2, np.nan, LABELS), "the label of image 2 is nan"),
    (LABELS > 4, "the label of image 0 is False"),
    ([0] * 5 + [None] * 7, "the label of image 5 is None"),
    ([[0, 1], [2]] * 6, "labels are list, which makes no array"),
    (LABELS[:-1], "labels has 11 entries; there must be one for each of the 12 images"),
    ([], "labels has 0 entries"),
]


@pytest.mark.parametrize(("labels", "message"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message) as raised:
        data.check_labels(labels, 12, 10)
    assert "\n" not in str(raised.value)
