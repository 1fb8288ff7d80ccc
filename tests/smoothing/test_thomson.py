"""Subhomogeneous cells: constants against derivatives and float64, and votes against corners of intervals."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import deqsmooth as ds
from deqsmooth import types
from deqsmooth.models import branches
from deqsmooth.smoothing import proof, thomson

SIZE = ds.SubhomogeneousModel(channels=(4, 6), width=8, num_classes=4, degree=0.6)


@pytest.fixture(scope="module")
def made():
    """A classifier with a readout whose votes are not all settled at once."""
    variables = jax.tree.map(np.asarray, ds.build(SIZE).init(jax.random.key(2)))
    variables["params"]["readout"]["kernel"] = 3 * variables["params"]["readout"]["kernel"]
    return ds.classifier(SIZE, variables)


def state(key, num_lanes, spread):
    """Random positive states, whose logarithms have a standard deviation."""
    keys = jax.random.split(key, 2)
    return tuple(
        jnp.exp(spread * jax.random.normal(one, (num_lanes, *shape)))
        for one, shape in zip(keys, branches.shapes(SIZE), strict=True)
    )


def injection(classifier, num_lanes):
    images = jax.random.uniform(jax.random.key(0), (num_lanes, *SIZE.image_shape))
    return classifier.model.inject(classifier.variables, images, None)[0]


def equilibria(classifier, u):
    """Parameters, injection and equilibria, in float64."""
    params = jax.jit(classifier.model.bind)(classifier.variables)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (params, u))
        z = jax.tree.map(lambda x: 1 + 0 * x, wide[1])
        z = jax.lax.fori_loop(0, 200, lambda _, z: classifier.model.cell(wide[0], z, wide[1]), z)
        return params, jax.tree.map(np.asarray, z)


def between(x, y):
    """Thomson's distance of each lane in float64."""
    gaps = [
        np.abs(np.log(np.asarray(a, np.float64)) - np.log(np.asarray(b, np.float64)))
        for a, b in zip(x, y, strict=True)
    ]
    return np.max([gap.reshape(len(gap), -1).max(1) for gap in gaps], 0)


@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_degree_bounds_derivatives_of_logarithms(made, spread):
    """Rows of the derivative of log T(exp s) sum, in absolute value, to the degree at most."""
    params = jax.jit(made.model.bind)(made.variables)
    for index, u in enumerate((injection(made, 1), jax.tree.map(jnp.zeros_like, injection(made, 1)))):
        z = state(jax.random.key(index), 1, spread)
        flat, unravel = ravel_pytree(jax.tree.map(jnp.log, z))

        def image(s, u=u, unravel=unravel):
            return jnp.log(ravel_pytree(made.model.cell(params, jax.tree.map(jnp.exp, unravel(s)), u))[0])

        rows = np.abs(np.asarray(jax.jit(jax.jacobian(image))(flat))).sum(1)
        assert 0.3 * SIZE.degree < rows.max() <= SIZE.degree * (1 + 1e-4)


def tight():
    """A cell that reaches its degree: one entry, without an injection, at the y where log f is steepest."""
    offset = (1 - SIZE.degree) ** 2 / (4 * SIZE.degree)
    y = np.sqrt(offset * (offset + 1))
    fixed = (y + offset) / (y + offset + 1)
    slope = y / fixed

    def cell(params, z, u):
        y = slope * z
        return (y + offset) / (y + offset + 1)

    return cell, fixed


def test_wrong_degree_is_found():
    cell, fixed = tight()
    weights = np.array([[1.0, 0.0]])
    contraction = types.Subhomogeneous(
        degree=lambda variables: SIZE.degree,
        rounding=lambda variables: 1e-6,
        features=lambda z: z,
        weights=lambda variables: weights,
        readout_rounding=lambda variables: (1e-6, 0.0),
    )
    constants = thomson.constants(contraction, {}, 2)
    # The farther state leaves the place where log f is steepest.
    z = jnp.float32(fixed * np.exp(np.array([[0.03], [1.0], [-2.0]])))
    fz = cell(None, z, None)
    truth = np.abs(np.log(np.asarray(fz, np.float64)) - np.log(fixed))[:, 0]
    assert (truth <= constants.distance(z, fz)).all()
    assert constants._replace(factor=0.9 * SIZE.degree).distance(z, fz)[0] < truth[0]


@pytest.mark.parametrize("spread", [1e-7, 1e-4, 0.1, 2.0])
def test_distance_is_never_too_small(made, spread):
    constants, u = proof.proof(made), injection(made, 30)
    params, exact = equilibria(made, u)
    away = state(jax.random.key(5), 30, spread)
    z = tuple(jnp.float32(x) * y for x, y in zip(exact, away, strict=True))
    fz = made.model.cell(params, z, u)
    assert (between(fz, exact) <= constants.distance(z, fz)).all()


def test_rounding_is_below_its_bound(made):
    params, u = jax.jit(made.model.bind)(made.variables), injection(made, 50)
    u = jax.tree.map(lambda x: 10 * x, u)
    z = state(jax.random.key(1), 50, 2.0)
    found = made.model.cell(params, z, u)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (params, z, u))
        truth = jax.tree.map(np.asarray, made.model.cell(*wide))
    error = between(found, truth)
    assert (error > 0).all() and (error <= made.model.contraction.rounding(made.variables)).all()
    logits = made.model.readout(made.variables, found)[0]
    features = np.concatenate(
        [np.asarray(x, np.float64).reshape(50, 2, h // 2, 2, w // 2, c).mean((2, 4)).reshape(50, -1)
         for x, (h, w, c) in zip(found, branches.shapes(SIZE), strict=True)], 1
    )  # fmt: skip
    weights = made.model.contraction.weights(made.variables)
    error = np.abs(logits - features @ weights - made.variables["params"]["readout"]["bias"])
    relative, constant = made.model.contraction.readout_rounding(made.variables)
    assert (error.max(1) > 0).all() and (error <= relative * features @ np.abs(weights) + constant).all()


def test_settled_votes_hold_in_the_whole_interval(made):
    """Every state whose features lie between exp(-r) and exp(r) times those of f(z) has the class."""
    constants, u = proof.proof(made), injection(made, 200)
    params, exact = equilibria(made, u)
    kernel, seen = np.asarray(constants.weights), []
    classes = np.asarray(made.model.readout(made.variables, jax.tree.map(jnp.float32, exact))[0]).argmax(1)
    z = state(jax.random.key(7), 200, 0.3)
    for _ in range(12):
        fz = made.model.cell(params, z, u)
        logits = made.model.readout(made.variables, fz)[0]
        is_settled = np.asarray(constants.verdict(z, fz, u, logits).is_settled)
        r = np.asarray(constants.distance(z, fz), np.float64)[:, None]
        features, vote = np.asarray(constants.features(fz), np.float64), np.asarray(logits).argmax(1)
        for other in range(4):
            change = kernel.T[vote] - kernel[:, other]
            corner = features * np.where(change > 0, np.exp(-r), np.exp(r))
            least = np.sum(corner * change, 1)
            assert (least[is_settled & (vote != other)] > 0).all()
        assert (vote == classes)[is_settled].all()
        seen.append(is_settled.mean())
        z = fz
    assert seen[0] < 0.9 and seen[-1] > 0.95
    assert all(x <= y + 0.02 for x, y in itertools.pairwise(seen))


def test_states_that_are_not_positive_prove_nothing(made):
    constants, u = proof.proof(made), injection(made, 3)
    params = jax.jit(made.model.bind)(made.variables)
    for z in (made.model.initial_state(u), jax.tree.map(lambda x: x - 0.1, made.model.initial_state(u))):
        fz = made.model.cell(params, z, u)
        assert np.isposinf(constants.distance(z, fz)).all()
        verdict = constants.verdict(z, fz, u, made.model.readout(made.variables, fz)[0])
        assert not np.any(verdict.is_settled) and not np.any(verdict.is_hopeless)
        # Such a state has the image of the nearest one without negative entries.
        nearest = made.model.cell(params, tuple(map(jax.nn.relu, z)), u)
        assert all((x == y).all() for x, y in zip(fz, nearest, strict=True))


def test_what_it_cannot_do_is_refused(made):
    images = np.zeros((1, 8, 8, 1))
    with pytest.raises(ValueError, match="has no Lipschitz constant"):
        ds.certify_without_noise(made, images)
    with pytest.raises(ValueError, match="has no functions on boxes"):
        ds.certify_box(made, images, 0.01)
    settings = ds.StartTraining(settle_weight=1.0)
    with pytest.raises(ValueError, match=r"settle_weight is 1.0; it must be left out .* no contraction in L2"):
        ds.train_start(made, ds.load_dataset("digits", "train"), settings)
    with pytest.raises(ValueError, match=r"degree is 1.0; it must be in \(0, 1\)"):
        dataclasses.replace(SIZE, degree=1.0)
    with pytest.raises(ValueError, match=r"lipschitz of a SubhomogeneousModel is 2.0; it must be None"):
        dataclasses.replace(SIZE, lipschitz=2.0)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"degree": lambda variables: 1.0}, "Lipschitz bound of 1; a proof needs one below"),
        ({"degree": lambda variables: np.nan}, "degree of the contraction is nan"),
        ({"rounding": lambda variables: -1.0}, "rounding of the contraction is -1.0"),
        ({"weights": lambda variables: np.ones(3)}, "shape of weights of the contraction is"),
    ],
)
def test_impossible_constants_are_refused(made, change, rule):
    contraction = made.model.contraction._replace(**change)
    stated = ds.classifier(made.model._replace(contraction=contraction), made.variables)
    with pytest.raises(ValueError, match=rule):
        proof.proof(stated)
