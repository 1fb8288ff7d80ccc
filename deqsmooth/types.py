"""The vocabulary that modules share: array aliases with axis names, the model and the solution of a solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int32, Key, UInt32

Variables = dict[str, Any]
"""Linen collections of a model: `params`, and `batch_stats` where the model keeps them."""
Parameters = Any
"""Pytree of the cell's parameters, as `Model.bind` makes it."""
Injection = Any
"""Pytree of what a cell receives from the image; every leaf has a leading lane axis."""
State = Any
"""Pytree of an equilibrium state; every leaf has a leading lane axis (MDEQ: a tuple of resolutions)."""

RandomKey = Key[Array, ""]
Keys = Key[Array, "lanes"]
Images = Float[Array, "lanes height width channels"]
Logits = Float[Array, "lanes classes"]
Labels = Int32[Array, "lanes"]
SampleIndices = Int32[Array, "lanes"] | UInt32[Array, "lanes"]
PerLane = Float[Array, "lanes"]
Counts = Int32[Array, "lanes"]


class Model(NamedTuple):
    """A deep equilibrium model as data: pure functions that never solve for the fixed point.

    The equilibrium of images x is the state z with `z = cell(params, z, u)`, where
    `u, _ = inject(variables, x)` and `params = bind(variables)`; its logits are
    `readout(variables, z)[0]` (Bai et al. 2019, 2020).

    A training call passes a key for every lane to `inject` and `train=True` to `readout`. Both return the
    variables with whatever statistics they renewed, and all that must stay fixed during one
    solve (dropout masks) travels in the injection, one entry a lane.

    Attributes:
      image_shape: (height, width, channels) of the images that the model takes.
      num_classes: number of logits.
      init: key -> variables, float32.
      bind: variables -> parameters of the cell for many evaluations; what depends on neither
        state nor image (weight normalisation) is computed here, once per solve.
      inject: (variables, images in [0, 1] [lanes, H, W, C], keys [lanes] or None) ->
        (injection, variables). Standardisation by channel happens here, so that noise and radii are in pixels.
      initial_state: injection -> the zero state of its lanes.
      cell: (parameters, state, injection) -> state. Lanes do not see each other.
      readout: (variables, state, train) -> (logits [lanes, num_classes], variables).
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    init: Callable[[RandomKey], Variables]
    bind: Callable[[Variables], Parameters]
    inject: Callable[[Variables, Images, Keys | None], tuple[Injection, Variables]]
    initial_state: Callable[[Injection], State]
    cell: Callable[[Parameters, State, Injection], State]
    readout: Callable[[Variables, State, bool], tuple[Logits, Variables]]


class Explicit(NamedTuple):
    """A classifier that solves nothing, as data: the baselines that DEQs are compared with.

    Attributes:
      image_shape: (height, width, channels) of the images that the model takes.
      num_classes: number of logits.
      init: key -> variables, float32.
      apply: (variables, images in [0, 1] [lanes, H, W, C], train) -> (logits [lanes, num_classes], variables),
        the variables with whatever statistics a training call renewed.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    init: Callable[[RandomKey], Variables]
    apply: Callable[[Variables, Images, bool], tuple[Logits, Variables]]


class StartNetwork(NamedTuple):
    """A network that predicts the equilibrium of a model, as data.

    Attributes:
      init: key -> parameters, float32.
      apply: (parameters, injection) -> state.
      state: shapes and dtypes of the state of one lane.
    """

    init: Callable[[RandomKey], Parameters]
    apply: Callable[[Parameters, Injection], State]
    state: Any


class Solution(NamedTuple):
    """What a solver returns for `z = f(z)`, each lane by itself.

    Attributes:
      value: the state.
      residual: relative residual |f(z) - z| / (|f(z)| + 1e-8) [lanes], float32. Of `value` if it was
        measured or a tolerance was set, else of the last iterate that was evaluated, which is the
        one before `value` and costs nothing. Not finite in lanes where f was not.
      num_evaluations: evaluations of f that the lane used [lanes], int32.
      num_fallbacks: steps of the lane that were replaced by plain iteration, because the solver's
        own step was singular or not finite [lanes], int32.
    """

    value: State
    residual: PerLane
    num_evaluations: Counts
    num_fallbacks: Counts
