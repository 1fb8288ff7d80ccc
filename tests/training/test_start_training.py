"""Starts that depend only on the noisy input, and their training."""

import dataclasses
import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import toy
from support import SMALL

from deqsmooth import config, data, devices, models, solvers
from deqsmooth.commands import train as train_command
from deqsmooth.config import architecture
from deqsmooth.models import base_classifier, checkpoints, classifiers, starts
from deqsmooth.smoothing import certification, inputs, noise, proof, provenance
from deqsmooth.training import evaluation, start_training

SETTINGS = config.StartTraining(
    sigma=0.25,
    epochs=2,
    batch_size=128,
    evaluation_interval=1,
    reference_budget=6,
    learning_rate=1e-2,
    network=architecture.StartModel(width=8),
)
CONTRACTION = architecture.ContractionModel(channels=(4, 6), width=8)
TINY = architecture.MdeqModel(image_shape=(8, 8, 3), channels=(8, 16), head_channels=(2, 3), final_channels=6)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture
def started(small):
    """The small model with an untrained start network and a random mean equilibrium."""
    network = models.build_start(SETTINGS.network, small.model)
    start = {
        "network": network.init(jax.random.key(1)),
        "mean": jax.tree.map(lambda x: jax.random.normal(jax.random.key(2), x.shape), network.state),
    }
    return small._replace(variables={**small.variables, "start": start}, start_training=SETTINGS)


@pytest.mark.parametrize("family", ["conv", "contraction", "mdeq"])
def test_pixels_of_a_pointwise_start(family):
    """A pixel of the state depends on the pixels of the injection that it covers alone, everywhere in one way."""
    model = models.build({"conv": SMALL, "contraction": CONTRACTION, "mdeq": TINY}[family])
    network = models.build_start(architecture.StartModel(width=None), model)
    params = network.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (3, *model.image_shape))
    u, _ = model.inject(model.init(jax.random.key(2)), images, None)
    predicted = network.apply(params, u)
    assert jax.tree.map(jnp.shape, predicted) == jax.tree.map(jnp.shape, model.initial_state(u))
    heights = [x.shape[1] for x in jax.tree.leaves(predicted)]
    sources = [x.shape[1] for x in jax.tree.leaves(u)]
    sides = [sources[min(i, len(sources) - 1)] // height for i, height in enumerate(heights)]
    moved = network.apply(params, jax.tree.map(lambda x: jnp.roll(x, max(sides), 1), u))
    changed = network.apply(params, jax.tree.map(lambda x: x.at[:, 1, 0].add(1), u))
    for side, x, y, z in zip(sides, *map(jax.tree.leaves, (predicted, moved, changed)), strict=True):
        np.testing.assert_allclose(jnp.roll(x, max(sides) // side, 1), y, rtol=1e-5, atol=1e-6)
        differs = np.asarray(jnp.any(x != z, (0, 3)))
        assert differs[1 // side, 0] and differs.sum() == 1


def test_pointwise_start_needs_multiples():
    """The second array of the toy's injection is a mask of one pixel."""
    with pytest.raises(ValueError, match="must be the same multiple of those of the state's"):
        models.build_start(architecture.StartModel(width=None), toy.build())


@pytest.mark.parametrize("size", [SMALL, CONTRACTION], ids=["conv", "contraction"])
def test_numbers_of_an_elementwise_start(size):
    """A number of the state is a function of the number of the injection in its place, one function by channel."""
    model = models.build(size)
    network = models.build_start(architecture.StartModel(width=0), model)
    images = jax.random.uniform(jax.random.key(1), (3, *model.image_shape))
    u, _ = model.inject(model.init(jax.random.key(2)), images, None)
    initial = network.init(jax.random.key(0))
    params = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(3), x.shape), initial)
    predicted = network.apply(params, u)
    assert jax.tree.map(jnp.shape, predicted) == jax.tree.map(jnp.shape, model.initial_state(u))
    for index, (z, x) in enumerate(zip(*map(jax.tree.leaves, (predicted, u)), strict=True)):
        (of_x, of_positive), bias = (params[f"out_{index}"][name] for name in ("kernel", "bias"))
        expected = np.where(x > 0, of_x + of_positive, of_x) * x + bias
        np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)


def test_elementwise_start_needs_equal_shapes():
    with pytest.raises(ValueError, match="they must be equal for a start network of width 0"):
        models.build_start(architecture.StartModel(width=0), models.build(TINY))
    with pytest.raises(ValueError, match="width is -8; it must be 0 or a positive multiple of 8"):
        architecture.StartModel(width=-8)


def test_settling_needs_a_contraction(started):
    settings = dataclasses.replace(SETTINGS, settle_weight=1.0)
    with pytest.raises(ValueError, match=r"settle_weight is 1\.0; it must be left out"):
        start_training.check(started, settings)
    with pytest.raises(ValueError, match="solver is anderson; it must be 'plain' with settle_weight"):
        dataclasses.replace(settings, solver="anderson")


@pytest.mark.slow
def test_settling_leaves_less_to_prove(splits):
    """With the weight more votes are settled by the short solve than without it."""
    model = models.build(CONTRACTION)
    variables = model.init(jax.random.key(1))
    constants = proof.constants(model, variables)

    def remaining(weight):
        settings = dataclasses.replace(
            SETTINGS, network=architecture.StartModel(width=None), settle_weight=weight, batch_size=64, epochs=4
        )
        *_, last = start_training.fit(model, variables, settings, *splits)
        start = starts.learned(
            models.build_start(settings.network, model), last.state.variables["params"]["network"]
        )
        noisy = splits[1].take(range(100))[0] + 0.25 * jax.random.normal(jax.random.key(3), (100, 8, 8, 1))
        output = base_classifier.classify(model, variables, solvers.build("plain", 1), noisy, start)
        return float(jnp.mean(constants.remaining(output.solution, output.logits)))

    assert remaining(10.0) < remaining(None) - 0.1


@pytest.mark.parametrize("family", ["conv", "toy", "mdeq"])
def test_network_predicts_states_of_every_family(family):
    model = toy.build() if family == "toy" else models.build(SMALL if family == "conv" else TINY)
    network = models.build_start(SETTINGS.network, model)
    params = network.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (5, *model.image_shape))
    u, _ = jax.jit(model.inject)(model.init(jax.random.key(2)), images, None)
    z = jax.jit(network.apply)(params, u)
    zero = model.initial_state(u)
    assert jax.tree.map(jnp.shape, z) == jax.tree.map(jnp.shape, zero)
    assert jax.tree.structure(z) == jax.tree.structure(zero)
    alone = jax.jit(network.apply)(params, jax.tree.map(lambda x: x[3:4], u))
    # Programs for different batch sizes differ in float32 rounding.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[3:4], y, rtol=1e-4, atol=1e-5), z, alone)
    assert not np.allclose(jax.tree.leaves(z)[0][0], jax.tree.leaves(z)[0][1], atol=1e-3)


@pytest.mark.parametrize("name", ["constant", "learned"])
def test_counts_do_not_depend_on_lanes(started, name):
    settings = config.Smoothing(
        sampler="independent", start=name, solver="plain", budget=1, num_selection=10, num_estimation=40,
        alpha=0.1, lanes=8, block=8,
    )  # fmt: skip
    images, _ = data.load("digits", "test").take(range(3))
    found = [
        [c.counts for c in certification.certify(started, images, dataclasses.replace(settings, lanes=lanes))]
        for lanes in (8, 40)
    ]
    assert found[0] == found[1]
    begin = {
        "constant": starts.constant(started.model, started.variables["start"]["mean"]),
        "learned": starts.learned(
            models.build_start(SETTINGS.network, started.model), started.variables["start"]["network"]
        ),
    }[name]
    solver = solvers.build("plain", 1)
    classify = jax.jit(
        functools.partial(base_classifier.classify, started.model, started.variables, solver, start=begin)
    )
    for index, image in enumerate(images):
        key = noise.phase_key(0, index, noise.ESTIMATION)
        noisy = image + 0.5 * noise.gaussian(jnp.stack([key] * 40), jnp.arange(40), image.shape)
        counts = np.bincount(np.argmax(classify(noisy).logits, -1), minlength=11)
        assert tuple(counts.tolist()) == found[0][index]


def test_missing_start_raises(small, started):
    images, _ = data.load("digits", "test").take([0])
    settings = config.Smoothing(sampler="independent", start="learned")
    assert len(inputs.images(started, images, settings)) == 1
    with pytest.raises(ValueError, match="start is 'learned'; the classifier has no trained start"):
        inputs.images(small, images, settings)
    with pytest.raises(ValueError, match="start is 'learned'; it must be one of"):
        config.Smoothing(sampler="serial", start="learned")


def test_checkpoint_and_header_record_start(started, tmp_path):
    checkpoints.save(tmp_path / "model", started)
    found = checkpoints.load(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, found.variables, jax.device_get(started.variables))
    assert found.start_training == SETTINGS
    settings = config.Smoothing(sampler="independent", start="learned", budget=1)
    header = provenance.header(found, config.Selection(), settings, data.load("digits"), (8, 8, 1))
    assert header["reference"]["start"] == "learned" and header["reference"]["budget"] == 1
    assert header["reference"]["checkpoint"] == found.sha256
    assert header["start_training"]["network"] == {"width": 8}
    other = {**started.variables, "start": {**started.variables["start"], "network": started.variables["params"]}}
    with pytest.raises(ValueError, match="by the size of the model it must have"):
        classifiers.of_size(started.size, other, started.training, started.start_training)


def fit(small, splits, state=None):
    return start_training.fit(small.model, small.variables, SETTINGS, *splits, state)


def test_start_is_learned_and_training_resumes(small, splits):
    before = jax.device_get(small.variables)
    whole = [p._replace(state=jax.tree.map(np.asarray, p.state)) for p in fit(small, splits)]
    assert len(whole) == 23
    assert whole[-1].metrics.distance < 0.5 * whole[0].metrics.distance
    assert whole[-1].evaluation.agreement > whole[11].evaluation.agreement - 0.02
    assert whole[-1].evaluation.agreement > 0.6
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(small.variables))
    resumed = list(itertools.islice(fit(small, splits, whole[11].state), 3))
    for ours, theirs in zip(resumed, whole[12:], strict=False):
        assert jax.tree.map(float, ours.metrics) == jax.tree.map(float, theirs.metrics)


def test_teacher_is_evaluated_as_its_model(small, splits):
    """Accuracies of a start's training compare with those of its model's: the same images, noise and solve."""
    mesh, training = devices.mesh(), config.Training(sigma=SETTINGS.sigma, reference_budget=6)
    of_model = evaluation.evaluator(small.model, training, splits[1], mesh)(small.variables)
    state = start_training.init(small.model, small.variables, SETTINGS)
    evaluate = start_training.evaluator(small.model, small.variables, SETTINGS, splits[1], mesh)
    assert evaluate(state.variables).reference_accuracy == of_model.noisy_accuracy


def test_fine_tuning_adds_cross_entropy(started, splits):
    images, labels = map(jnp.asarray, splits[0].take(range(16)))
    keys = jax.random.split(jax.random.key(5), 16)
    params = {"network": started.variables["start"]["network"], "model": started.variables["params"]}

    def loss(params, weight):
        settings = dataclasses.replace(SETTINGS, fine_tune=weight)
        return start_training.loss_fn(
            params, {}, images, labels, keys, started.variables, None, model=started.model, settings=settings
        )[0]

    @jax.jit
    def both(params):
        return loss(params, None), *jax.value_and_grad(loss)(params, 2.0)

    frozen, tuned, gradient = both(params)
    noisy = images + 0.25 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    begin = starts.learned(models.build_start(SETTINGS.network, started.model), params["network"])
    solver = solvers.build("plain", 1)
    classify = jax.jit(
        functools.partial(base_classifier.classify, started.model, started.variables, solver, start=begin)
    )
    log_probabilities = scipy.special.log_softmax(np.asarray(classify(noisy).logits), axis=-1)
    entropy = -np.mean(log_probabilities[np.arange(16), labels])
    # float32 rounding of sums in two programs.
    np.testing.assert_allclose(tuned - frozen, 2 * entropy, rtol=1e-4)
    assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient["model"]["readout"])) > 0


@pytest.mark.slow
def test_train_command_learns_and_fine_tunes(small, tmp_path, monkeypatch, capsys):
    flags = (
        "--phase start --dataset digits --sigma 0.25 --epochs 1 --batch-size 512 --evaluation-interval 1 "
        "--reference-budget 2"
    )

    def train(begin, to, *more):
        words = [*flags.split(), "--checkpoint", tmp_path / begin, "--workdir", tmp_path / to, *more]
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        return train_command.main()

    checkpoints.save(tmp_path / "given", small)
    assert train("given", "tuned", "--network.width", 8, "--fine-tune", 1) == 2
    assert "fine_tune is 1.0; it needs a trained start" in capsys.readouterr().err
    assert train("given", "started", "--network.width", 8) == 0
    assert train("started", "tuned", "--network.width", 16, "--fine-tune", 1) == 2
    assert "the checkpoint has one of StartModel(width=8)" in capsys.readouterr().err
    assert train("started", "tuned", "--network.width", 8, "--fine-tune", 1) == 0
    given, started, tuned = (checkpoints.load(tmp_path / name) for name in ("given", "started", "tuned"))
    jax.tree.map(np.testing.assert_array_equal, given.variables["params"], started.variables["params"])
    for of in (lambda c: c.variables["params"], lambda c: c.variables["start"]["network"]):
        for x, y in zip(*(jax.tree.leaves(of(c)) for c in (started, tuned)), strict=True):
            # Three updates of AdamW; each moves an entry by about the learning rate, at most 3e-3.
            assert 0 < np.abs(x - y).max() < 0.02
    assert not np.array_equal(*(jax.tree.leaves(c.variables["start"]["mean"])[0] for c in (started, tuned)))
    assert given.start_training is None and started.start_training.fine_tune is None
    assert tuned.start_training.fine_tune == 1.0


def test_constant_start_is_mean_equilibrium(small, splits):
    mean = start_training.mean_equilibrium(small.model, small.variables, SETTINGS, splits[0])
    images, _ = splits[0].take(range(400))
    noisy = images + 0.25 * jax.random.normal(jax.random.key(8), images.shape)
    solver = solvers.build("anderson", 6)
    start = starts.zero(small.model)
    output = jax.jit(
        lambda variables, noisy: base_classifier.classify(small.model, variables, solver, noisy, start)
    )(small.variables, noisy)
    states = np.asarray(jax.tree.leaves(output.solution.value)[0])
    (found,) = jax.tree.leaves(mean)
    # The difference of means of 400 and 2,000 samples in standard errors: the largest and the root mean square.
    error = (found[0] - states.mean(0)) / (states.std(0) * np.sqrt(1 / 400 + 1 / 2000) + 1e-6)
    assert np.abs(error).max() < 6 and np.sqrt(np.mean(error**2)) < 2
