"""Types that modules share: array aliases with axis names, models as data, and the solution of a solve.

A lane is one entry of the leading axis of images, states and logits: one image, noisy or not, and its solve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int32, Key, UInt32

Variables = dict[str, Any]
"""Linen collections of a model: `params`, and `batch_stats` if the model has batch statistics."""
Parameters = Any
"""Pytree of parameters: those of a cell, as `Model.bind` returns them, or those that a training updates."""
Injection = Any
"""Pytree that a cell receives from the image; every leaf has a leading lane axis."""
State = Any
"""Pytree of a state; every leaf has a leading lane axis (MDEQ: a tuple of resolutions)."""

RandomKey = Key[Array, ""]
Keys = Key[Array, "lanes"]
Images = Float[Array, "lanes height width channels"]
Logits = Float[Array, "lanes classes"]
Labels = Int32[Array, "lanes"]
SampleIndices = Int32[Array, "lanes"] | UInt32[Array, "lanes"]
PerLane = Float[Array, "lanes"]
Counts = Int32[Array, "lanes"]


class Box(NamedTuple):
    """All pytrees of arrays whose entries differ from those of a centre by at most those of a radius.

    Attributes:
      centre: a pytree of arrays.
      radius: a pytree of the same shapes, without negative entries.
    """

    centre: Any
    radius: Any


class Boxes(NamedTuple):
    """The functions of a model on boxes (interval arithmetic), in the dtype of their arguments.

    A result contains what the function of the model gives for all members of the boxes, but for rounding. The
    radius of a result is linear in the radii that are given, with coefficients of at least 0; a cell applies relu
    after that. Logits are features times a kernel plus a bias.

    Attributes:
      inject: (variables, images [lanes, H, W, C]) -> injections.
      cell: (parameters, states, injections) -> states.
      features: states -> features [lanes, features].
      readout: variables -> (kernel [features, classes], bias [classes]).
    """

    inject: Callable[[Variables, Box], Box]
    cell: Callable[[Parameters, Box, Box], Box]
    features: Callable[[Box], Box]
    readout: Callable[[Variables], tuple[Any, Any]]


class Contraction(NamedTuple):
    """Why a cell has exactly one equilibrium, as numbers by which the distance to it is bounded.

    Norms are L2 over all leaves of the state of a lane. The functions compute in float64 on the host, from the
    variables of the model, and round outwards.

    Attributes:
      factor: variables -> upper bound, below 1, on the Lipschitz constant of the cell in the state, for every
        injection.
      rounding: variables -> (a, b) such that a float32 evaluation of the cell at z differs from the exact one by
        at most `a |z| + b |u|`, where |u| is the norm over all leaves of the injection.
      reach: variables -> upper bound on the Lipschitz constant of the difference of two logits in the state
        [classes, classes].
      readout_rounding: variables -> (a, b) such that every float32 logit of a state z differs from the exact one
        by at most `a |z| + b`.
      modulus: variables -> positive number such that `|T(z) - z*| <= factor / modulus |T(z) - z|` for the exact
        cell T, its equilibrium z* and every state z. The default is 1 - factor, which holds for every contraction
        (Banach).
      image: variables -> (upper bound on the Lipschitz constant of the difference of two logits in the image
        [classes, classes], for images in [0, 1] and the exact injection; upper bound on the distance between the
        equilibria of a computed injection and the exact one). None if nothing bounds the injection.
      float64: whether cell and readout compute in float64 if all their arguments are float64, with `rounding` and
        `readout_rounding` 2^-29 times as large, as for sums of products. Votes that float32 cannot settle are then
        settled in float64.
      boxes: the model on boxes, or None.
    """

    factor: Callable[[Variables], float]
    rounding: Callable[[Variables], tuple[float, float]]
    reach: Callable[[Variables], np.ndarray]
    readout_rounding: Callable[[Variables], tuple[float, float]]
    modulus: Callable[[Variables], float] | None = None
    image: Callable[[Variables], tuple[np.ndarray, float]] | None = None
    float64: bool = False
    boxes: Boxes | None = None


class Subhomogeneous(NamedTuple):
    """Why a cell of positive states has exactly one equilibrium: it is a contraction in Thomson's metric.

    The distance of two states in this metric is the largest difference of the logarithms of their entries
    (Sittoni & Tudisco 2024). The functions of variables compute on the host, and round outwards.

    Attributes:
      degree: variables -> upper bound, below 1, on the Lipschitz constant of the cell in Thomson's metric, for
        every injection.
      rounding: variables -> upper bound on the distance of a float32 evaluation of the cell and the exact one.
      features: state -> features [lanes, features], linear and without negative coefficients.
      weights: variables -> float64 [features, classes]; logits are `features @ weights` plus a bias.
      readout_rounding: variables -> (a, b) such that every float32 logit differs from the exact one by at most
        `a features @ |weights| + b`.
      float64: as in `Contraction`.
    """

    degree: Callable[[Variables], float]
    rounding: Callable[[Variables], float]
    features: Callable[[State], Logits]
    weights: Callable[[Variables], np.ndarray]
    readout_rounding: Callable[[Variables], tuple[float, float]]
    float64: bool = False


class Model(NamedTuple):
    """A deep equilibrium model as data: pure functions that never solve for the fixed point.

    The equilibrium of images x is the state z with `z = cell(params, z, u)`, where
    `u, _ = inject(variables, x, None)` and `params = bind(variables)`; its logits are
    `readout(variables, z, False)[0]` (Bai et al. 2019, 2020). Arguments are given by position.

    In training, `inject` gets a key for every lane and `readout` gets True for `train`. Both return the variables
    with updated batch statistics; a model without such statistics returns the variables that it was given. Dropout
    masks, which must stay fixed during a solve, are part of the injection, one for each lane.

    Attributes:
      image_shape: (height, width, channels) of the images that the model takes.
      num_classes: number of logits.
      init: key -> variables, float32.
      bind: variables -> parameters of the cell. Computes once per solve what depends neither on the state nor on
        the image (weight normalisation).
      inject: (variables, images in [0, 1] [lanes, H, W, C], keys [lanes] or None) -> (injection, variables).
        Images are standardised here, so that noise and radii are in units of pixels.
      initial_state: injection -> zero state of the same lanes.
      cell: (parameters, state, injection) -> state. Lanes are independent.
      readout: (variables, state, train) -> (logits [lanes, num_classes], variables).
      contraction: why the cell has exactly one equilibrium; None if that is not known.

    Example:
      >>> import deqsmooth as ds
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def init(key):
      ...     shapes = {"inject": (64, 32), "cell": (32, 32), "readout": (32, 10)}
      ...     keys = dict(zip(shapes, jax.random.split(key, 3)))
      ...     arrays = {name: 0.1 * jax.random.normal(keys[name], shapes[name]) for name in shapes}
      ...     return {"params": arrays}
      >>> def inject(variables, images, keys):
      ...     u = images.reshape(len(images), 64) @ variables["params"]["inject"]
      ...     return u, variables
      >>> def readout(variables, z, train):
      ...     return z @ variables["params"]["readout"], variables
      >>> model = ds.Model(
      ...     image_shape=(8, 8, 1),
      ...     num_classes=10,
      ...     init=init,
      ...     bind=lambda variables: variables["params"]["cell"],
      ...     inject=inject,
      ...     initial_state=jnp.zeros_like,
      ...     cell=lambda params, z, u: jnp.tanh(z @ params + u),
      ...     readout=readout,
      ... )
      >>> ds.classifier(model, model.init(jax.random.key(0)), name="layer of 32")  # doctest: +ELLIPSIS
      Classifier(layer of 32, 3,392 parameters, images 8x8x1, 10 classes, start zero, sha256 ...)
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    init: Callable[[RandomKey], Variables]
    bind: Callable[[Variables], Parameters]
    inject: Callable[[Variables, Images, Keys | None], tuple[Injection, Variables]]
    initial_state: Callable[[Injection], State]
    cell: Callable[[Parameters, State, Injection], State]
    readout: Callable[[Variables, State, bool], tuple[Logits, Variables]]
    contraction: Contraction | Subhomogeneous | None = None


class Explicit(NamedTuple):
    """A classifier without an equilibrium, as data: the baselines that DEQs are compared with.

    Attributes:
      image_shape: (height, width, channels) of the images that the model takes.
      num_classes: number of logits.
      init: key -> variables, float32.
      apply: (variables, images in [0, 1] [lanes, H, W, C], train) -> (logits [lanes, num_classes], variables). In
        training the variables have updated batch statistics. Arguments are given by position.

    Example:
      >>> import deqsmooth as ds
      >>> import jax
      >>> def init(key):
      ...     return {"params": 0.1 * jax.random.normal(key, (64, 10))}
      >>> def apply(variables, images, train):
      ...     return images.reshape(-1, 64) @ variables["params"], variables
      >>> model = ds.Explicit(image_shape=(8, 8, 1), num_classes=10, init=init, apply=apply)
      >>> ds.classifier(model, model.init(jax.random.key(0))).solves
      False
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    init: Callable[[RandomKey], Variables]
    apply: Callable[[Variables, Images, bool], tuple[Logits, Variables]]


class Function(NamedTuple):
    """A classifier of the caller's own, as data: a function whose shapes are not known before it is called.

    Attributes:
      apply: (variables, images in [0, 1] [lanes, H, W, C]) -> logits [lanes, classes].
    """

    apply: Callable[[Variables, Images], Logits]


class StartNetwork(NamedTuple):
    """A network that predicts the equilibrium of a model, as data.

    Attributes:
      init: key -> parameters, float32.
      apply: (parameters, injection) -> state.
      state: a state of one lane, as `jax.ShapeDtypeStruct` leaves [1, ...].
    """

    init: Callable[[RandomKey], Parameters]
    apply: Callable[[Parameters, Injection], State]
    state: State


class Solution(NamedTuple):
    """Result of a solver for `z = f(z)`; every lane is solved independently.

    Attributes:
      value: the state, leaves [lanes, ...].
      residual: relative residual |f(z) - z| / (|f(z)| + 1e-8) [lanes], float32. It is the residual of `value` if
        it was measured, or if a `deqsmooth.solvers.loop.Solver` has a tolerance. Otherwise it is the residual of
        the last evaluated iterate, the one before `value`; this costs no further evaluation. It is not finite in
        lanes where f was not; with the tolerance of such a solver, only where f was not finite at the first
        iterate.
      num_evaluations: number of evaluations of f [lanes], int32.
      num_fallbacks: number of steps that were replaced by plain iteration because the solver's step was singular
        or not finite [lanes], int32.
    """

    value: State
    residual: PerLane
    num_evaluations: Counts
    num_fallbacks: Counts
