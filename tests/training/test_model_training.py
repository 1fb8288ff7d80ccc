"""Training of a model: it learns, resumes exactly, and does not depend on the devices."""

import dataclasses
import functools
import itertools
import json
import warnings

import jax
import numpy as np
import prepared
import pytest
import toy
from support import SMALL

from deqsmooth import config, data, devices, models
from deqsmooth.config import architecture
from deqsmooth.training import (
    backward_residual,
    loop,
    metrics,
    model_training,
    optimiser,
    schedules,
    states,
    updates,
)

SETTINGS = config.Training(
    sigma=0.25,
    epochs=4,
    batch_size=256,
    learning_rate=1e-2,
    pretraining_epochs=1.0,
    pretraining_budget=2,
    budget=3,
    gradient_budget=4,
    reference_budget=6,
    evaluation_interval=2,
    model=SMALL,
)
NOTHING = schedules.Weights(0.0, 0.0)
EXPLICIT = architecture.ResnetModel(
    image_shape=(8, 8, 1), blocks=(1, 1), channels=(16, 32), mean=(0.305,), std=(0.376,)
)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits", "train"), data.load("digits", "test")


def fit(splits, settings=SETTINGS, state=None):
    return model_training.fit(models.build(settings.model), settings, *splits, state)


@pytest.fixture(scope="module")
def whole(splits):
    """Progress of an uninterrupted run after each update, with states as numpy arrays."""
    return [p._replace(state=jax.tree.map(np.asarray, p.state)) for p in fit(splits)]


def test_accuracy_rises_and_solves_converge(whole):
    evaluations = [p.evaluation for p in whole if p.evaluation is not None]
    assert len(whole) == loop.num_updates(SETTINGS, 1437) == 23
    assert [int(p.state.update) for p in whole] == list(range(1, 24))
    assert len(evaluations) == 2 and evaluations[-1].noisy_accuracy > 0.5 > 0.1
    assert evaluations[-1].clean_accuracy >= evaluations[-1].noisy_accuracy - 0.05
    assert 0 < evaluations[-1].median_residual < 0.1
    assert 0 < evaluations[-1].spectral_radius < 1.5
    assert whole[0].metrics.residual == 0 and whole[-1].metrics.residual > 0
    assert whole[0].metrics.backward_residual is None and 0 < whole[-1].metrics.backward_residual < 1
    assert all(p.metrics.gradient_norm > 0 for p in whole)


def test_resumed_run_is_bit_identical(splits, whole, tmp_path):
    model = models.build(SMALL)
    with states.Run(tmp_path, SETTINGS) as run:
        assert run.latest(whole[0].state) is None
        for progress in itertools.islice(fit(splits), 13):
            if progress.evaluation is not None:
                run.save(progress.state)
    with states.Run(tmp_path, SETTINGS) as run:
        state = run.latest(model_training.init(model, SETTINGS))
    assert int(state.update) == 12
    resumed = list(fit(splits, state=state))
    for ours, theirs in zip(resumed, whole[12:], strict=True):
        assert jax.tree.map(float, ours.metrics) == jax.tree.map(float, theirs.metrics)
    assert resumed[-1].evaluation == whole[-1].evaluation
    jax.tree.map(np.testing.assert_array_equal, resumed[-1].state, whole[-1].state)


def test_folder_of_another_run_raises(whole, tmp_path):
    with states.Run(tmp_path, SETTINGS) as run:
        run.save(whole[3].state)
    other = dataclasses.replace(SETTINGS, sigma=0.5)
    with states.Run(tmp_path, other) as run, pytest.raises(ValueError, match="sigma"):
        run.latest(whole[3].state)


def test_log_of_resumed_run_is_identical(whole, tmp_path):
    with metrics.Log(tmp_path / "whole.jsonl") as log:
        for progress in whole:
            log.write(progress)
    with metrics.Log(tmp_path / "cut.jsonl") as log:
        for progress in whole[:15]:
            log.write(progress)
    with (tmp_path / "cut.jsonl").open("a") as file:
        file.write('{"update": 16, "lo')
    with metrics.Log(tmp_path / "cut.jsonl") as log:
        log.cut(12)
        for progress in whole[12:]:
            log.write(progress)
    lines = (tmp_path / "cut.jsonl").read_text()
    *_, last = (line for line in map(json.loads, lines.splitlines()) if "loss" in line)
    assert {"gradient_norm", "backward_residual"} <= set(last)
    assert last["backward_residual"] == pytest.approx(float(whole[last["update"] - 1].metrics.backward_residual))
    assert lines == (tmp_path / "whole.jsonl").read_text()
    assert [json.loads(line)["update"] for line in lines.splitlines()] == [10, 12, 20, 23]


def curve(splits, family, num_updates=6, **change):
    """Losses of the first updates, in and after pre-training, and the parameters after them."""
    settings = dataclasses.replace(SETTINGS, batch_size=64, pretraining_epochs=0.2, **change)
    build = toy.build if family == "toy" else functools.partial(models.build, SMALL)
    found = list(itertools.islice(model_training.fit(build(devices.AXIS), settings, *splits), num_updates))
    params = jax.device_get(found[-1].state.variables["params"])
    return [float(p.metrics.loss) for p in found], jax.tree.leaves(params)


@pytest.mark.parametrize("family", [pytest.param("conv", marks=pytest.mark.slow), "toy"])
def test_updates_do_not_depend_on_devices(splits, use_devices, family):
    """They also do not depend on accumulation and rematerialisation; batch statistics are those of all devices."""
    parts = 4 if family == "conv" else 1
    other_losses, other_params = curve(splits, family, rematerialise=True, accumulation=parts)
    use_devices(1)
    losses, params = curve(splits, family)
    assert losses[-1] < losses[0]
    # Sums in a different order: a few units in the last place of a loss.
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    for x, y in zip(other_params, params, strict=True):
        assert np.median(np.abs(x - y)) < 1e-4 * SETTINGS.learning_rate


@pytest.mark.slow
def test_rematerialisation_and_accumulation_save_memory(splits):
    model = models.build(SMALL, devices.AXIS)
    images, labels = splits[0].take(range(64))

    def needed(**change):
        settings = dataclasses.replace(SETTINGS, batch_size=64, **change)
        step = jax.jit(
            functools.partial(
                updates.update,
                gradient_fn=functools.partial(model_training.gradient_fn, model=model, settings=settings),
                seed=0,
                transformation=optimiser.build(settings),
                mesh=devices.mesh_of_all(64),
                task=schedules.Task(True, False, 8),
                accumulation=settings.accumulation,
            )
        )
        lowered = step.lower(model_training.init(model, settings), images, labels, NOTHING, 10)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # One evaluation is kept instead of eight, or a device processes two images at a time instead of eight.
    whole = needed()
    assert needed(rematerialise=True) < whole / 2
    assert needed(accumulation=4) < whole / 2


def test_indivisible_accumulation_raises(splits):
    settings = dataclasses.replace(SETTINGS, batch_size=64, accumulation=3)
    with pytest.raises(ValueError, match="accumulation is 3; it must be a divisor of the 8 images"):
        next(fit(splits, settings))


def test_batch_statistics_are_updated(splits):
    model = toy.build()
    state = model_training.init(model, SETTINGS)
    keys = jax.random.split(jax.random.key(0), 32)
    images, labels = splits[0].take(range(32))
    loss = functools.partial(
        model_training.loss_fn, task=schedules.Task(False, False, 3), model=model, settings=SETTINGS
    )
    _, (variables, _) = jax.jit(loss)(state.variables["params"], state.variables, images, labels, keys, NOTHING)
    before, after = state.variables["batch_stats"], variables["batch_stats"]
    assert all((before[name] != after[name]).any() for name in before)


@pytest.mark.filterwarnings("ignore:update .* the relative residual of the backward solve")
@pytest.mark.parametrize(
    "change",
    [
        {"gradient": "one-step"},
        {"gradient": "gmres"},
        {"dtype": "bfloat16"},
        {"loss": "cat-rs", "draws": 2, "loss_weight": 0.5, "adversarial_radius": 0.1},
        pytest.param({"gradient": "broyden", "solver": "broyden"}, marks=pytest.mark.slow),
        pytest.param({"optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4}, marks=pytest.mark.slow),
        pytest.param({"adversarial_radius": 0.1, "adversarial_epochs": 0.0, "draws": 2}, marks=pytest.mark.slow),
        pytest.param({"loss": "consistency", "draws": 2, "loss_weight": 1.0}, marks=pytest.mark.slow),
        pytest.param({"loss": "macer", "draws": 3, "loss_weight": 1.0}, marks=pytest.mark.slow),
        {"model": EXPLICIT, "jacobian_weight": 0.0, "learning_rate": 2e-2},
    ],
    ids=lambda change: "-".join(str(x) for x in change.values() if x is not EXPLICIT),
)
def test_every_choice_trains(splits, change):
    settings = dataclasses.replace(SETTINGS, pretraining_epochs=0.0, batch_size=64, **change)
    found = [p.metrics for p in itertools.islice(fit(splits, settings), 12)]
    assert all(np.isfinite(jax.tree.leaves(metrics)).all() for metrics in found)
    if settings.loss == "cat-rs":
        # The loss can grow, because it counts more draws as more are correct.
        assert np.mean([metrics.accuracy for metrics in found[-3:]]) > 0.15 + found[0].accuracy
    else:
        assert np.mean([metrics.loss for metrics in found[-3:]]) < 0.8 * found[0].loss


@pytest.mark.slow
def test_mdeq_trains_on_tfds_data(tmp_path):
    """The training pipeline of CIFAR-10 on random images."""
    settings = dataclasses.replace(
        SETTINGS,
        dataset="cifar10",
        model=architecture.MdeqModel(channels=(8, 8), head_channels=(2, 2), final_channels=4, dropout=0.3),
        batch_size=8,
        epochs=2,
        pretraining_epochs=0.0,
        budget=1,
        gradient="one-step",
        jacobian_frequency=0.0,
        reference_budget=9,
    )
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
        prepared.write(tmp_path, "cifar10", images, rng.integers(0, 10, 16), split=split)
    train, test = (data.load("cifar10", split, str(tmp_path)) for split in ("train", "test"))
    found = list(fit((train, test), settings))
    assert len(found) == 4
    assert all(np.isfinite(jax.tree.leaves(p.metrics)).all() and p.waited >= 0 for p in found)
    assert found[-1].evaluation.median_residual > 0
    states = model_training.init(models.build(settings.model), settings), found[-1].state
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for collection in ("params", "batch_stats"):
        changed = jax.tree.map(lambda x, y: bool((x != y).any()), *(s.variables[collection] for s in states))
        assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    "change", [{"gradient": "one-step"}, {"gradient_budget": 1}, {"model": EXPLICIT, "jacobian_weight": 0.0}]
)
def test_nothing_solved_has_no_residual(splits, change):
    settings = dataclasses.replace(SETTINGS, pretraining_epochs=0.0, batch_size=32, **change)
    model = models.build(settings.model)
    variables = model.init(jax.random.key(0))
    images, labels = (jax.numpy.asarray(x) for x in splits[0].take(range(2)))
    fn = functools.partial(
        model_training.gradient_fn, task=schedules.Task(False, False, 3), model=model, settings=settings
    )
    keys = jax.random.split(jax.random.key(0), 2)
    _, (_, found) = jax.eval_shape(fn, variables["params"], variables, images, labels, keys, NOTHING)
    assert found.backward_residual is None


@pytest.mark.parametrize(
    "change",
    [
        {},
        pytest.param({"draws": 2}, marks=pytest.mark.slow),
        pytest.param({"loss": "cat-rs", "draws": 2, "adversarial_radius": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_gradient_is_that_of_loss(splits, change):
    """The probe of the backward solve changes nothing, and the residual is that of the rows of this batch."""
    settings = dataclasses.replace(SETTINGS, gradient_budget=4, adversarial_steps=1, **change)
    task = schedules.Task(False, False, 3, settings.adversarial_radius > 0)
    model = models.build(SMALL)
    variables = model_training.init(model, settings).variables
    images, labels = (jax.numpy.asarray(x) for x in splits[0].take(range(4)))
    rest = variables, images, labels, jax.random.split(jax.random.key(0), 4), schedules.Weights(0.0, 0.1)
    given = {"task": task, "model": model, "settings": settings}
    both = (
        functools.partial(model_training.gradient_fn, **given),
        jax.grad(functools.partial(model_training.loss_fn, **given), has_aux=True),
    )
    (found, (_, measured)), (expected, _) = (jax.jit(fn)(variables["params"], *rest) for fn in both)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert 0 < measured.backward_residual < 1


@pytest.mark.parametrize(("largest", "warned"), [(0.0, 1), (10.0, 0)])
def test_unsolved_backward_pass_warns_once(splits, monkeypatch, largest, warned):
    monkeypatch.setattr(backward_residual, "LARGEST", largest)
    settings = dataclasses.replace(SETTINGS, pretraining_epochs=0.0, batch_size=64)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        list(itertools.islice(fit(splits, settings), 3))
    assert len(found) == warned
    for one in found:
        assert "update 1: the relative residual of the backward solve is" in str(one.message)
        assert "raise gradient_budget (now 4)" in str(one.message)


def test_penalty_enters_loss_with_its_weight(splits):
    model = models.build(SMALL)
    state = model_training.init(model, SETTINGS)
    images, labels = (jax.numpy.asarray(x) for x in splits[0].take(range(16)))
    keys = jax.random.split(jax.random.key(0), 16)

    @jax.jit
    def measure(weight):
        task = schedules.Task(False, True, 3)
        fn = functools.partial(model_training.loss_fn, model=model, settings=SETTINGS)
        return fn(
            state.variables["params"], state.variables, images, labels, keys, schedules.Weights(weight, 0.0), task
        )[1][1]

    plain, heavy = measure(0.0), measure(2.5)
    assert plain.penalty == heavy.penalty > 0
    assert heavy.loss == pytest.approx(float(plain.loss + 2.5 * plain.penalty), rel=1e-6)


def test_adversarial_loss_grows_with_radius(splits):
    """For the same noise draws, the loss grows with the radius."""
    model = models.build(SMALL)
    settings = dataclasses.replace(SETTINGS, adversarial_radius=1.0, adversarial_steps=4, draws=2)
    state = model_training.init(model, settings)
    images, labels = (jax.numpy.asarray(x) for x in splits[0].take(range(32)))
    keys = jax.random.split(jax.random.key(0), 32)

    @jax.jit
    def loss(radius):
        task = schedules.Task(False, False, 3, True)
        fn = functools.partial(model_training.loss_fn, model=model, settings=settings)
        weights = schedules.Weights(0.0, radius)
        found, (_, measured) = fn(state.variables["params"], state.variables, images, labels, keys, weights, task)
        return found, measured.residual

    (none, near, far), residuals = zip(*(loss(radius) for radius in (1e-9, 0.3, 1.0)), strict=True)
    assert min(residuals) > 0
    assert none < near < far
    # To first order the growth of the loss is proportional to the radius: a factor of 1 / 0.3.
    assert 2 < (far - none) / (near - none) < 5
