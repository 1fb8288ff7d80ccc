"""Votes settled by proof: those of the exact equilibrium, from every start; a wrong constant is found."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deqsmooth as ds
from deqsmooth import types
from deqsmooth.certificates import jsonl
from deqsmooth.config import architecture
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, noise, proof, provenance
from deqsmooth.solvers import anderson, loop, picard, settled

SIZE = architecture.ContractionModel(channels=(4, 6), width=8, factor=0.9)
MONOTONE = architecture.MonotoneModel(channels=(4, 6), width=8, modulus=1.0)
FAMILIES = {
    "made": SIZE,
    "monotone": MONOTONE,
    "resolvent": dataclasses.replace(MONOTONE, splitting="peaceman-rachford"),
    "positive": architecture.SubhomogeneousModel(channels=(4, 6), width=8),
}
SETTINGS = ds.Smoothing(
    sigma=0.5, settle="proof", start="zero", num_selection=20, num_estimation=500, looks=(500,), alpha=0.01,
    lanes=20, block=40,
)  # fmt: skip


@functools.cache
def of(size):
    """An untrained model with a readout that gives votes to several classes."""
    model = ds.build(size)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(2)))
    cell = variables["params"]["cell"]
    cell["kernels"] = jax.tree.map(lambda x: x + 2 * np.abs(x).mean(), cell["kernels"])
    variables["params"]["readout"]["kernel"] = 3 * variables["params"]["readout"]["kernel"]
    return classifiers.of_size(size, variables, None)


@pytest.fixture(scope="module")
def made():
    return of(SIZE)


@pytest.fixture(scope="module")
def digits():
    return ds.load_dataset("digits").take(range(0, 360, 90))


def long_votes(classifier, images, indices, num):
    """Class of every estimation sample by 400 plain evaluations, and its margin."""
    model, variables = classifier.model, classifier.variables
    params = model.bind(variables)

    @jax.jit
    def classify(noisy):
        u, _ = model.inject(variables, noisy, None)
        z = jax.lax.fori_loop(0, 400, lambda _, z: model.cell(params, z, u), model.initial_state(u))
        return model.readout(variables, z)[0]

    for image, index in zip(images, indices, strict=True):
        key = noise.phase_key(SETTINGS.seed, index, noise.ESTIMATION)
        keys = jnp.broadcast_to(key, (num,))
        logits = classify(image + SETTINGS.sigma * noise.gaussian(keys, jnp.arange(num), image.shape))
        yield np.bincount(np.argmax(logits, -1), minlength=11)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("made", {}),
        pytest.param("made", {"start": "previous"}, marks=pytest.mark.slow),
        ("made", {"start": "previous", "solver": "plain", "lanes": 7, "block": 14}),
        pytest.param("made", {"start": None, "sampler": "serial"}, marks=pytest.mark.slow),
        pytest.param("made", {"start": "clean"}, marks=pytest.mark.slow),
        pytest.param("monotone", {}, marks=pytest.mark.slow),
        pytest.param("monotone", {"start": "previous", "solver": "plain"}, marks=pytest.mark.slow),
        ("resolvent", {"start": "previous", "solver": "plain"}),
        ("positive", {}),
        pytest.param("positive", {"start": "previous", "solver": "plain"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_votes_are_those_of_the_equilibrium(family, change, digits):
    made = of(FAMILIES[family])
    images, labels = digits
    settings = ds.Smoothing(**{**{n: getattr(SETTINGS, n) for n in vars(SETTINGS) if n != "spending"}, **change})
    found = list(ds.certify(made, images, settings, labels=labels))
    for certificate, truth in zip(found, long_votes(made, images, range(4), 500), strict=True):
        np.testing.assert_array_equal(certificate.counts, truth)
        assert certificate.evaluations < 30 * 520


@pytest.mark.parametrize("family", ["made", "resolvent", pytest.param("monotone", marks=pytest.mark.slow)])
def test_distance_is_never_too_small(family):
    """From random states, near and far, to the equilibrium in float64."""
    made = of(FAMILIES[family])
    model, variables, constants = made.model, made.variables, proof.proof(made)
    params = model.bind(variables)
    u, _ = model.inject(variables, jax.random.uniform(jax.random.key(0), (30, 8, 8, 1)), None)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (params, u))
        zero = jax.tree.map(jnp.zeros_like, wide[1])
        solve = jax.jit(lambda p, z, u: jax.lax.fori_loop(0, 600, lambda _, z: model.cell(p, z, u), z))
        exact = jax.tree.map(np.asarray, solve(wide[0], zero, wide[1]))
    rng = np.random.default_rng(1)
    for scale in (1e-6, 1e-3, 1.0, 100.0):
        z = jax.tree.map(lambda x, s=scale: jnp.float32(np.float32(x + s * rng.normal(size=x.shape))), exact)
        fz = model.cell(params, z, u)
        gaps = (((np.asarray(a, np.float64) - b) ** 2).sum((1, 2, 3)) for a, b in zip(fz, exact, strict=True))
        assert (np.sqrt(sum(gaps)) <= constants.distance(z, fz, u)).all()


def test_nothing_remains_where_votes_are_settled(made):
    """What is left to prove, against the bound and the margins computed one by one."""
    model, variables = made.model, made.variables
    constants = proof.proof(made)._replace(rounding=(0.0, 0.0), readout_rounding=(0.0, 0.0), norms=0.0)
    u, _ = model.inject(variables, jax.random.uniform(jax.random.key(4), (40, 8, 8, 1)), None)
    params, reach = model.bind(variables), np.array(constants.reach)
    z, seen = model.initial_state(u), 0
    for budget in range(1, 40):
        solution = loop.Solver(picard.Picard(), budget).solve(
            lambda z: model.cell(params, z, u), model.initial_state(u)
        )
        logits, _ = model.readout(variables, solution.value)
        distances = np.asarray(constants.distance(z, solution.value, u))
        is_settled = np.asarray(constants.verdict(z, solution.value, u, logits).is_settled)
        remaining = np.asarray(constants.remaining(solution, logits))
        for row, distance, left in zip(np.asarray(logits), distances, remaining, strict=True):
            vote = row.argmax()
            within = min((row[vote] - row[j]) / reach[vote, j] for j in range(10) if j != vote)
            assert left == pytest.approx(
                max(0, np.log(max(distance, 1e-30) / (within + distance / 50))), rel=1e-3, abs=1e-4
            )
        assert (remaining[is_settled] == 0).all()
        seen += is_settled.sum()
        z = solution.value
    assert 0 < seen < 39 * 40


def adversarial(stated):
    """A cell with the Lipschitz constant 0.9, whose bound is exact; its logits change near the equilibrium."""
    factor = 0.9
    model = ds.Model(
        image_shape=(1, 1, 1),
        num_classes=2,
        init=lambda key: {},
        bind=lambda variables: jnp.float32(factor),
        inject=lambda variables, images, keys: (images[:, 0, 0], variables),
        initial_state=lambda u: jnp.zeros((len(u), 1)),
        cell=lambda params, z, u: params * z + u,
        # The equilibrium of u = 1 is 10; class 1 begins at 9.8.
        readout=lambda variables, z, train: (jnp.concatenate([9.8 - z, z - 9.8], -1), variables),
        contraction=types.Contraction(
            factor=lambda variables: stated * factor,
            rounding=lambda variables: (1e-6, 1e-6),
            reach=lambda variables: np.array([[0.0, 2.0], [2.0, 0.0]]),
            readout_rounding=lambda variables: (1e-6, 1e-5),
        ),
    )
    return classifiers.classifier(model, {})


@pytest.mark.parametrize(("stated", "is_right"), [(1.0, True), (0.9, False)])
@pytest.mark.parametrize("method", [picard.Picard(), anderson.Anderson()], ids=lambda x: type(x).__name__)
def test_constant_too_small_is_found(stated, is_right, method):
    made = adversarial(stated)
    constants, model = proof.proof(made), made.model
    u = jnp.ones((1, 1))
    solution = settled.Solver(method if is_right else picard.Picard(), 200).solve(
        lambda z: model.cell(jnp.float32(0.9), z, u),
        jnp.zeros((1, 1)),
        lambda z, fz: constants.verdict(z, fz, u, model.readout({}, fz, False)[0]),
    )
    vote = int(jnp.argmax(model.readout({}, solution.value, False)[0]))
    assert np.isfinite(solution.residual).all()
    assert (vote == 1) is is_right


def test_unsettled_lane_has_no_result(made):
    model = made.model
    params = model.bind(made.variables)
    u, _ = model.inject(made.variables, jax.random.uniform(jax.random.key(0), (5, 8, 8, 1)), None)
    solution = settled.Solver(picard.Picard(), 3).solve(
        lambda z: model.cell(params, z, u),
        model.initial_state(u),
        lambda z, fz: settled.Verdict(jnp.arange(5) % 2 == 0, jnp.zeros(5, bool)),
    )
    assert np.isfinite(solution.residual).tolist() == [True, False, True, False, True]
    assert solution.num_evaluations.tolist() == [1, 3, 1, 3, 1]


@pytest.mark.parametrize("start", ["zero", pytest.param("previous", marks=pytest.mark.slow)])
def test_record_names_the_equilibrium(start, made, digits, tmp_path):
    images, labels = digits
    out = tmp_path / "proof.jsonl"
    list(ds.certify(made, images, dataclasses.replace(SETTINGS, start=start), labels=labels, out=out))
    header = jsonl.read(out)[0]
    reference = {name: header["reference"][name] for name in ("solver", "budget", "start", "factor")}
    assert reference == {
        "solver": "equilibrium",
        "budget": None,
        "start": None,
        "factor": proof.proof(made).factor,
    }
    assert ds.verify(out, made, ds.arrays(images, labels)).differences == []


def test_clean_start_is_solved_and_counted(made, digits):
    """Samples start at the equilibrium of their image without noise, and each call counts its evaluations."""
    images = digits[0][:2]
    settings = dataclasses.replace(
        SETTINGS, start="clean", sigma=1e-4, num_selection=10, num_estimation=20, looks=(20,), lanes=1, block=4,
        images_per_batch=2,
    )  # fmt: skip
    programs = certification.prepare(made, settings, SIZE.image_shape, 2)
    found = programs(images, np.arange(2), np.full(2, noise.ESTIMATION), np.zeros((2, 1), int))
    u, _ = made.model.inject(made.variables, jnp.asarray(images), None)
    params = made.model.bind(made.variables)
    alone = loop.Solver(picard.Picard(), 60, 1e-3).solve(
        lambda z: made.model.cell(params, z, u), made.model.initial_state(u)
    )
    assert found.warm_up.tolist() == alone.num_evaluations.tolist() and (found.warm_up > 2).all()
    # With hardly any noise little is left to do for a sample, and here each is a call of its own.
    for one, first in zip(ds.certify(made, images, settings), found.warm_up, strict=True):
        assert 30 * (first + 1) <= one.evaluations < 30 * (first + 3)


def test_another_constant_is_refused(made, digits):
    """Votes that were settled with a constant that the model does not have."""
    dataset = ds.arrays(*digits)
    header = provenance.header(made, ds.Selection(dataset="arrays"), SETTINGS, dataset, (8, 8, 1))
    provenance.agree(header, made, dataset)
    header["reference"]["factor"] *= 0.9
    with pytest.raises(ValueError, match="votes were settled with a Lipschitz bound of"):
        provenance.agree(header, made, dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype is bfloat16"),
        ({"tolerance": 1e-3}, "tolerance is 0.001"),
        ({"solver": "jaxopt"}, "solver is jaxopt"),
        ({"num_audit": 10}, "num_audit is 10"),
        ({"start": "first"}, "start is 'first'"),
        ({"settle": "hope"}, "unknown settle 'hope'"),
    ],
    ids=str,
)
def test_settings_that_contradict_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ds.Smoothing(**{"settle": "proof", **change})


def test_model_without_a_constant_is_refused(small, digits):
    with pytest.raises(ValueError, match="no proven equilibrium"):
        next(iter(ds.certify(small, digits[0], SETTINGS)))


def test_other_devices_are_refused(made, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match="device is gpu; a proof of votes or radii must be made on a CPU"):
        proof.proof(made)


@pytest.mark.parametrize("flags", ["--xla_cpu_enable_fast_math=true", "--a=b --xla_cpu_enable_fast_math"])
def test_fast_math_is_refused(flags, made, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(ValueError, match="must not have xla_cpu_enable_fast_math"):
        proof.proof(made)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    proof.proof(made)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factor", -0.1, "factor of the contraction is -0.1"),
        ("rounding", (1e-6, float("nan")), "rounding of the contraction is nan"),
        ("reach", np.ones((2, 3)), r"shape of reach of the contraction is \(2, 3\)"),
        ("modulus", 0.0, r"modulus of the contraction is 0\.0"),
    ],
)
def test_impossible_constants_are_refused(name, value, message):
    model = adversarial(1.0).model
    stated = model.contraction._replace(**{name: lambda variables: value})
    with pytest.raises(ValueError, match=message):
        proof.constants(model._replace(contraction=stated), {})


def test_proof_chooses_the_chain_without_a_start(made):
    settings = ds.Smoothing(settle="proof").recommended(has_start=False)
    assert (settings.sampler, settings.start, settings.budget) == ("independent", "previous", 60)
    assert certification.recommended(made, ds.Smoothing(settle="proof")).start == "previous"


@pytest.mark.slow
def test_chain_is_attacked_and_predicted(made, digits):
    images, labels = digits
    changed = {"sampler": "independent", "start": "previous", "looks": None, "spending": None}
    settings = ds.Smoothing(**{**vars(SETTINGS), **changed})
    found = list(ds.certify(made, images[:1], settings, labels=labels[:1]))
    descent = ds.Attack(steps=1, restarts=1, draws=4, num_estimation=100)
    (attempt,) = ds.attack(made, found, settings, ds.arrays(images, labels), (0.25,), descent)
    assert attempt.index == 0 and not attempt.refutes
    (prediction,) = ds.predict(made, images[:1], settings)
    assert prediction.label in (None, found[0].selected)


def test_recertification_of_an_equilibrium_is_refused():
    with pytest.raises(ValueError, match="settle is proof; it must be None"):
        ds.paired(SETTINGS, budget=8)
