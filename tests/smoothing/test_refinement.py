"""Votes that float32 leaves unsettled: settled in float64, with the same noise, against long solves in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deqsmooth as ds
from deqsmooth.config import architecture
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, noise, proof

NUM = 200
SETTINGS = ds.Smoothing(
    sigma=0.5, settle="proof", start="zero", num_selection=NUM, num_estimation=NUM, looks=(NUM,), alpha=0.01,
    lanes=NUM, block=40, images_per_batch=2,
)  # fmt: skip


def nearly_tied(size):
    """A model whose logits differ by about a thousandth of their rounding in float32."""
    model = ds.build(size)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(2)))
    kernel = variables["params"]["readout"]["kernel"]
    common = 30 * np.abs(kernel).max(1, keepdims=True)
    variables["params"]["readout"]["kernel"] = np.float32(common + 1e-4 * kernel)
    return classifiers.of_size(size, variables, None)


@pytest.fixture(scope="module")
def images():
    return ds.load_dataset("digits").take([0, 3])[0]


SIZE = architecture.ContractionModel(channels=(4, 6), width=8, factor=0.5)
MONOTONE = architecture.MonotoneModel(channels=(4, 6), width=8, modulus=1.0)
LBEN = dataclasses.replace(MONOTONE, lipschitz=2.0)
POSITIVE = architecture.SubhomogeneousModel(channels=(4, 6), width=8)
RESOLVENT = dataclasses.replace(MONOTONE, splitting="peaceman-rachford")


@pytest.mark.parametrize(
    ("size", "change"),
    [
        (SIZE, {}),
        pytest.param(SIZE, {"seed": 2**32 - 1, "noise": "exact"}, marks=pytest.mark.slow),
        pytest.param(MONOTONE, {}, marks=pytest.mark.slow),
        pytest.param(RESOLVENT, {}, marks=pytest.mark.slow),
        pytest.param(LBEN, {}, marks=pytest.mark.slow),
        (POSITIVE, {}),
    ],
    ids=["contraction", "exact noise", "monotone", "Peaceman-Rachford", "LBEN", "subhomogeneous"],
)
def test_votes_are_those_of_long_solves(size, change, images):
    """Of two images with other numbers and phases."""
    made, settings = nearly_tied(size), dataclasses.replace(SETTINGS, **change)
    programs = certification.prepare(made, settings, size.image_shape, 2)
    places = ((7, noise.ESTIMATION), (11, noise.SELECTION))
    call = (images, *np.array(places).T, np.tile(np.arange(NUM), (2, 1)))
    drawn, unrefined = programs(*call), dataclasses.replace(programs, refine=None)(*call)
    assert (unrefined.votes == 10).mean() > 0.5
    assert (drawn.votes < 10).all() and np.isfinite(drawn.residual).all()
    assert (drawn.evaluations > unrefined.evaluations)[unrefined.votes == 10].all()
    kept = unrefined.votes < 10
    np.testing.assert_array_equal(drawn.votes[kept], unrefined.votes[kept])
    for votes, image, place in zip(drawn.votes, images, places, strict=True):
        np.testing.assert_array_equal(votes, long_votes(made, image, *place, programs.settings))


def long_votes(made, image, index, phase, settings):
    """Classes [NUM] after evaluations in float64: 600, or 100 where each halves what is left."""
    keys = jnp.broadcast_to(noise.phase_key(settings.seed, index, phase), (NUM,))
    images = jnp.broadcast_to(jnp.asarray(image), (NUM, *image.shape))
    noisy = noise.noisy(images, keys, jnp.arange(NUM), settings.sigma, settings.grid)
    model = made.model
    u, _ = model.inject(made.variables, noisy, None)
    params = model.bind(made.variables)
    with jax.enable_x64(True):
        variables, params, u = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x, np.float64)), (made.variables, params, u)
        )
        z = jax.tree.map(jnp.zeros_like, u)
        num = 600 if isinstance(made.size, architecture.MonotoneModel) else 100
        z = jax.lax.fori_loop(0, num, lambda _, z: model.cell(params, z, u), z)
        return np.asarray(jnp.argmax(model.readout(variables, z)[0], -1))


def test_refinement_needs_the_models_word(images):
    """Rounding bounds that a model states for float32 alone say nothing about float64."""
    made = nearly_tied(SIZE)
    contraction = made.model.contraction._replace(float64=False)
    stated = classifiers.classifier(made.model._replace(contraction=contraction), made.variables)
    (found,) = ds.certify(stated, images[:1], SETTINGS)
    assert found.counts[-1] > NUM / 2


@pytest.mark.parametrize("part", ["cell", "readout"])
def test_float32_inside_is_refused(part, images):
    made = nearly_tied(SIZE)
    model = made.model

    def cell(params, z, u):
        return jax.tree.map(lambda x: x.astype(jnp.float32), model.cell(params, z, u))

    def readout(variables, z, train):
        logits, variables = model.readout(variables, z, train)
        return logits.astype(jnp.float32), variables

    own = model._replace(cell=cell) if part == "cell" else model._replace(readout=readout)
    with pytest.raises(ValueError, match=f"must be False for a model whose {part} gives another type"):
        next(iter(ds.certify(classifiers.classifier(own, made.variables), images, SETTINGS)))


def test_constants_shrink_with_the_unit_roundoff():
    constants = proof.proof(nearly_tied(SIZE))
    wide = constants.in_float64()
    unit = np.finfo(np.float64).eps / np.finfo(np.float32).eps
    np.testing.assert_allclose(wide.rounding, np.multiply(constants.rounding, unit), rtol=1e-12)
    np.testing.assert_allclose(wide.readout_rounding, np.multiply(constants.readout_rounding, unit), rtol=1e-12)
    assert wide.norms == pytest.approx(constants.norms * unit)
    assert (wide.factor, wide.modulus) == (constants.factor, constants.modulus)
    np.testing.assert_array_equal(wide.reach, constants.reach)
