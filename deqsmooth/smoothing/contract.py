"""The contract of a base classifier: that it is a function of one image, checked before the first sample.

Randomized smoothing bounds the probability of a class for a function of one image (Cohen et al. 2019, theorem 1).
The certificates of a classifier that looks at the other images of its batch, or that is random, would be false.
The check calls the classifier a few times: an image must get the same logits in every lane, beside any other
images, alone, among many, and again. This finds the usual mistakes. It proves nothing.

Differences are measured by how much the logits move from image to image, so that neither an offset of all logits
nor a class that is masked by a large negative logit hides them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.models import functions

Classify = Callable[[Any, types.Images], types.Logits]
"""(parameters, images [lanes, H, W, C]) -> logits [lanes, classes]."""

LANES_DIFFER = (
    "noise is 'exact', but the result of a sample depends on its lane by rounding, so that the classifier is no "
    "function of its input in every bit: set another block, or noise 'gaussian'"
)
"""Message of a check of all bits."""
_LANES = 6
# So many lanes show what only large batches do, such as the capacity of experts or statistics of parts of a batch.
_MANY = 64
# Largest difference of two logits of an image that rounding explains, as a share of the variation of the logits
# from image to image and of the logit itself. In another lane or program a solve that does not converge multiplies
# differences of 1e-7; in the same lane of the same program nothing is computed in another order.
_OTHER_PROGRAM = (1e-2, 1e-4)
_SAME_PROGRAM = (1e-4, 1e-6)
_EQUAL = 1e-6


def num_classes(classify: Classify, parameters: Any, image_shape: tuple[int, ...]) -> int:
    """The number of logits, from shapes alone.

    Args:
      classify: the base classifier.
      parameters: its first argument.
      image_shape: [H, W, C].

    Raises:
      ValueError: it does not take images [lanes, H, W, C], float32, of any number of lanes, or does not give
        floating point logits [lanes, classes] of at least two classes.
    """
    shape: tuple[int, ...] = ()
    for lanes in (_LANES, 1):
        images = jax.ShapeDtypeStruct((lanes, *image_shape), jnp.float32)
        try:
            logits = jax.eval_shape(classify, parameters, images)
        except Exception as error:
            # A function of the caller's own raises whatever it likes.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"the classifier fails on {lanes} images of shape {image_shape}: {type(error).__name__}: "
                f"{reason}; it must take any number of images [lanes, height, width, channels], float32, under jit"
            ) from error
        shape = getattr(logits, "shape", ())
        if len(shape) != 2 or shape[0] != lanes:
            found = f"shape {shape}" if hasattr(logits, "shape") else type(logits).__name__
            raise ValueError(
                f"the classifier gives {found} for {lanes} images; it must give logits [{lanes}, classes], "
                "one row an image"
            )
        if not jnp.issubdtype(logits.dtype, jnp.floating):
            raise ValueError(
                f"the classifier gives {logits.dtype}; it must give logits, floating point, not labels"
            )
    if shape[1] < 2:
        raise ValueError(
            f"the classifier gives {shape[1]} logit an image; it must give one for each of at least 2 classes "
            "(of a single score s, [s, -s])"
        )
    return shape[1]


def check(classify: Classify, parameters: Any, image: np.ndarray, *, own: bool) -> None:
    """Checks that a base classifier is a function of one image, on an image and noisy copies of it.

    Args:
      classify: the base classifier.
      parameters: its first argument.
      image: clean image, float32 in [0, 1] [H, W, C].
      own: whether the code is the caller's own, which is also traced twice and called with the image alone.

    Raises:
      ValueError: its logits of an image depend on the other images, on the lane or on the call, are not finite on
        the clean image, or are the same for all images; says which, the likely cause and a remedy.
    """
    rng = np.random.default_rng(0)
    noisy = image + rng.normal(0, 0.5, (_LANES - 2, *image.shape))
    batch = np.stack([image, *noisy, 1 - image]).astype(np.float32)
    logits = _compiled(classify, parameters, batch)
    first = logits(batch)
    if not np.isfinite(first[0]).all():
        cause = (
            "a class that is left out takes a large negative logit such as -1e9, not -inf"
            if np.isfinite(first[0][first[0] != -np.inf]).all()
            else "the model may have diverged in training, or its solve may not converge"
        )
        wrong = int(np.flatnonzero(~np.isfinite(first[0]))[0])
        raise ValueError(
            f"the classifier gives {first[0][wrong]:g} for class {wrong} on a clean image; logits must be finite: "
            f"{cause}"
        )
    if not np.array_equal(first, logits(batch), equal_nan=True) or (
        own and _is_random(classify, parameters, batch)
    ):
        raise ValueError(
            "the classifier gives other logits when it is called again: it is random (dropout that is switched "
            "on, or a random key of its own); call it in evaluation mode"
        )
    changed = _Comparison(first)
    others = _check_lanes(batch, changed, logits)
    if own:
        alone = _compiled(classify, parameters, batch[:1])(batch[:1])
        changed.check(0, alone[0], "in a batch and alone", _SIZE, _OTHER_PROGRAM)
        places = np.arange(_MANY) % _LANES
        places[-1] = 0
        many = _compiled(classify, parameters, batch[places])(batch[places])
        for row in many[places == 0]:
            changed.check(0, row, f"among {_LANES} and among {_MANY} images", _SIZE, _OTHER_PROGRAM)
    tried = np.concatenate([first, *others])
    tried = tried[np.isfinite(tried).all(-1)]
    if (np.ptp(tried, 0) <= _EQUAL * np.abs(tried).max(0)).all() or (np.ptp(tried, 1) == 0).all():
        raise ValueError(
            f"the classifier gives the logits {_shown(first[0])} to every image that was tried; a constant "
            "classifier certifies nothing worth knowing: check that its variables are the trained ones"
        )


def check_bits(classify: Classify, parameters: Any, image: np.ndarray, lanes: int) -> None:
    """Checks that every bit of the logits of an image is the same in every lane, beside any other images.

    Args:
      classify: the base classifier.
      parameters: its first argument.
      image: clean image, float32 in [0, 1] [H, W, C].
      lanes: of the calls.

    Raises:
      ValueError: logits differ.
    """
    noisy = image + np.random.default_rng(0).normal(0, 0.5, (lanes, *image.shape))
    batch = noisy.astype(np.float32)
    logits = _compiled(classify, parameters, batch, is_optimised=True)
    first = logits(batch)
    for order in (np.roll(np.arange(lanes), 1), np.roll(np.arange(lanes), lanes // 2 + 1), np.arange(lanes)[::-1]):
        if not np.array_equal(logits(batch[order]), first[order], equal_nan=True):
            raise ValueError(LANES_DIFFER)


def _compiled(
    classify: Classify, parameters: Any, images: np.ndarray, *, is_optimised: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to logits, float64 [lanes, classes]; without optimisation it compiles sooner."""
    options: dict[str, str | bool] | None = {"xla_backend_optimization_level": "0"}
    if is_optimised or jax.default_backend() != "cpu":
        options = None
    lowered = jax.jit(lambda parameters, images: classify(parameters, images)).lower(parameters, images)
    program = lowered.compile(compiler_options=options)
    return lambda images: np.asarray(program(parameters, images), np.float64)


def _is_random(classify: Classify, parameters: Any, images: np.ndarray) -> bool:
    """Whether a function becomes another program when it is traced again: a key is made while it is traced."""

    def trace() -> tuple[str, list[bytes]]:
        program = functions.traced(classify, parameters, images)
        return program.text, [functions.data_of(x).tobytes() for x in program.captured]

    return trace() != trace()


_MIXES = "it mixes its images or uses statistics of its batch, as batch normalisation does in training mode"
_SIZE = "it depends on the size of its batch, or its solve is so chaotic that rounding changes it"


class _Comparison:
    """Compares logits of images of a batch with those that they got in the first call."""

    def __init__(self, first: np.ndarray) -> None:
        self._first = first
        self._variation = np.ptp(first[np.isfinite(first).all(-1)], 0).max()

    def check(self, row: int, logits: np.ndarray, where: str, cause: str, tolerance: tuple[float, float]) -> None:
        """Raises `ValueError` if logits of a row differ by more than shares of the variation and of the logit."""
        expected, (of_variation, of_logit) = self._first[row], tolerance
        kept = np.abs(logits - expected) <= of_variation * self._variation + of_logit * np.abs(expected)
        for wrong in np.flatnonzero(~kept & np.isfinite(expected))[:1]:
            raise ValueError(
                f"the classifier gives one image {expected[wrong]:.6g} and {logits[wrong]:.6g} as the logit of "
                f"class {wrong} {where}: {cause}, so that it is no function of one image, which a certificate is "
                "about; call it in evaluation mode, or write it for one image and use jax.vmap"
            )


def _check_lanes(
    batch: np.ndarray, changed: _Comparison, logits: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """The logits of black and of white images, each [1, classes].

    Raises:
      ValueError: the logits of an image depend on its lane or on the other images.
    """
    rolled = logits(np.roll(batch, 1, 0))
    changed.check(0, rolled[1], "in two lanes", _MIXES, _OTHER_PROGRAM)
    found = []
    for others, name in ((0.0, "black images"), (1.0, "white images"), (np.nan, "images of not-a-number")):
        for row in (0, 1):
            filled = np.full_like(batch, others)
            filled[row] = batch[row]
            beside = logits(filled)
            changed.check(row, beside[row], f"beside noisy copies and beside {name}", _MIXES, _SAME_PROGRAM)
        found.append(beside[:1])
    return found


def _shown(logits: np.ndarray) -> str:
    few = ", ".join(f"{x:.4g}" for x in logits[:3])
    return f"[{few}{', ...' if len(logits) > 3 else ''}]"
