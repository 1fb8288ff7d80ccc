"""Models whose state has branches of several resolutions, joined by linear maps: all but the cell.

Takes a size and the cell of a family, gives a `types.Model`. The injection is a network of the image, or a linear
map of it where the logits have a Lipschitz constant. The readout is linear in means of the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, branches, injections, layers

_T = TypeVar("_T")


class Family(NamedTuple):
    """A cell on branches and its constants.

    All functions but `init`, `bind` and `output` take `params`, what `bind` returns. The constants are those of
    `types.Contraction`, and take it in float64 on the host. Without `factor` the model has no contraction.

    Attributes:
      init: key -> parameters of the cell.
      bind: parameters of the model, those of the cell under "cell" -> parameters as the cell uses them.
      cell: as in `types.Model`.
      factor: of the cell.
      rounding: of an evaluation of the cell.
      modulus: by default 1 - factor.
      sensitivity: Lipschitz constant of the equilibrium in the injection; by default 1 / (1 - factor).
      cell_on_boxes: as in `types.Boxes`; None if the cell has no such function.
      slope: largest slope of a logit in the state, which the readout is given, with an injection of norm 1; None
        if both are free.
      slopes: (params, derivatives of the logits in the state [features, classes], norm of a linear injection) ->
        Lipschitz constants of the differences of logits in the image [classes, classes], which are taken where
        they are smaller than the product of those of injection, equilibrium and readout.
      output: a function without rounding, of Lipschitz constant 1, from the state to what is read out.
    """

    init: Callable[[types.RandomKey], types.Parameters]
    bind: Callable[[types.Parameters], types.Parameters]
    cell: Callable[[types.Parameters, types.State, types.Injection], types.State]
    factor: Callable[[types.Parameters], float] | None = None
    rounding: Callable[[types.Parameters], tuple[float, float]] | None = None
    modulus: Callable[[types.Parameters], float] | None = None
    sensitivity: Callable[[types.Parameters], float] | None = None
    cell_on_boxes: Callable[[types.Parameters, types.Box, types.Box], types.Box] | None = None
    slope: float | None = None
    slopes: Callable[[types.Parameters, np.ndarray, float], np.ndarray] | None = None
    output: Callable[[types.State], types.State] = tuple


def model(size: architecture.Branched, family: Family) -> types.Model:
    """Returns the model of a cell on branches [lanes, height / 2^i, width / 2^i, channels_i].

    Args:
      size: size of the model.
      family: the cell and its constants.
    """
    is_linear, is_normalised = size.lipschitz is not None, family.slope is not None
    inject = injections.Linear(size, is_normalised) if is_linear else injections.Network(size)
    roots = np.sqrt(branches.areas(size))[:, None]

    def init(key: types.RandomKey) -> types.Variables:
        inject_key, cell_key, readout_key = jax.random.split(key, 3)
        kernel = nn.initializers.lecun_normal()(readout_key, (len(roots), size.num_classes))
        return {
            "params": {
                "inject": inject.init(inject_key, jnp.zeros((1, *size.image_shape)))["params"],
                "cell": family.init(cell_key),
                "readout": {"kernel": kernel, "bias": jnp.zeros(size.num_classes)},
            }
        }

    def apply_inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None = None
    ) -> tuple[types.Injection, types.Variables]:
        return inject.apply({"params": variables["params"]["inject"]}, images), variables

    def readout(
        variables: types.Variables, z: types.State, train: bool = False
    ) -> tuple[types.Logits, types.Variables]:
        bias = variables["params"]["readout"]["bias"]
        return branches.features(family.output(z), size.pooled) @ readout_kernel(variables) + bias, variables

    def readout_kernel(variables: types.Variables) -> jax.Array:
        """Derivatives of the logits in the features [features, classes]."""
        kernel = jnp.asarray(variables["params"]["readout"]["kernel"])
        if family.slope is None:
            return kernel
        return family.slope * roots.astype(kernel.dtype) * kernel / jnp.sqrt(jnp.sum(kernel**2, 0) + 1e-12)

    def bind(variables: types.Variables) -> types.Parameters:
        return family.bind(variables["params"])

    found = types.Model(
        image_shape=size.image_shape,
        num_classes=size.num_classes,
        init=jax.jit(init),
        bind=bind,
        inject=apply_inject,
        initial_state=lambda u: tuple(jnp.zeros((len(u[0]), *shape)) for shape in branches.shapes(size)),
        cell=family.cell,
        readout=readout,
    )
    if family.factor is None or family.rounding is None:
        return found
    factor, rounding = family.factor, family.rounding
    compiled, compiled_readout = jax.jit(bind), jax.jit(readout_kernel)

    def constant(of: Callable[[types.Parameters], _T]) -> Callable[[types.Variables], _T]:
        return lambda variables: of(branches.in_float64(compiled(variables)))

    def derivatives(variables: types.Variables) -> np.ndarray:
        """Derivatives of the logits, scaled so that their norms are those in the state [features, classes]."""
        return branches.in_float64(compiled_readout(variables)) / roots

    def reach(variables: types.Variables) -> np.ndarray:
        return _reach(derivatives(variables), is_computed=is_normalised)

    def of_image(variables: types.Variables) -> tuple[np.ndarray, float]:
        params = branches.in_float64(compiled(variables))
        sensitivity = family.sensitivity or (lambda params: 1 / (1 - factor(params)))
        in_injection = sensitivity(params)
        norm, error = injections.of_linear(size, variables["params"]["inject"], is_normalised=is_normalised)
        slopes = reach(variables) * in_injection * norm
        if family.slopes is not None:
            slopes = np.minimum(slopes, family.slopes(params, derivatives(variables), norm))
        return slopes * bounds.OUTWARDS, in_injection * error * bounds.OUTWARDS

    def inject_boxes(variables: types.Variables, images: types.Box) -> types.Box:
        kernels = injections.kernels(variables["params"]["inject"], is_normalised=is_normalised)
        radius = layers.blocks_to_channels(images.radius, size.patch)
        return types.Box(
            apply_inject(variables, images.centre)[0], branches.mapped(branches.absolute(kernels), (radius,))
        )

    boxes = None
    if is_linear and family.cell_on_boxes is not None:
        boxes = types.Boxes(
            inject=inject_boxes,
            cell=family.cell_on_boxes,
            features=lambda z: types.Box(*(branches.features(x, size.pooled) for x in z)),
            readout=lambda variables: (readout_kernel(variables), variables["params"]["readout"]["bias"]),
        )
    return found._replace(
        contraction=types.Contraction(
            factor=constant(factor),
            rounding=constant(rounding),
            reach=reach,
            readout_rounding=lambda variables: _readout_rounding(
                branches.areas(size), derivatives(variables), variables["params"]["readout"]["bias"]
            ),
            modulus=None if family.modulus is None else constant(family.modulus),
            image=of_image if is_linear else None,
            # A readout whose weights are computed has other bits in float64.
            float64=not is_normalised,
            boxes=boxes,
        )
    )


def _reach(derivatives: np.ndarray, *, is_computed: bool) -> np.ndarray:
    found = np.linalg.norm(derivatives[:, :, None] - derivatives[:, None, :], axis=0) * bounds.OUTWARDS
    if not is_computed:
        return found
    # A program divides a column by its norm, and rounds relative to the column, not to a difference of columns.
    norms = np.linalg.norm(derivatives, axis=0)
    return found + bounds.of_sum(len(derivatives) + 8) * (norms[:, None] + norms)


def _readout_rounding(
    areas: np.ndarray, derivatives: np.ndarray, bias: jax.Array | np.ndarray
) -> tuple[float, float]:
    unit = bounds.of_sum(len(areas) + int(areas.max()) + 2)
    largest = np.linalg.norm(derivatives, axis=0).max()
    return unit * float(largest) * bounds.OUTWARDS, unit * float(np.abs(branches.in_float64(bias)).max())
