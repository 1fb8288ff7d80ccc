"""Schedules: the task and the weights of every update."""

import dataclasses

import pytest

from deqsmooth import config
from deqsmooth.config import architecture
from deqsmooth.training import schedules

SETTINGS = config.Training(
    epochs=10,
    batch_size=50,
    pretraining_epochs=2.0,
    pretraining_budget=4,
    budget=8,
    jacobian_weight=0.5,
    jacobian_frequency=0.25,
    jacobian_budget=(-2, 1),
    jacobian_increment=0.1,
    jacobian_interval=100,
    jacobian_epochs=6.0,
    pretraining_jacobian_weight=0.0,
)
NUM_IMAGES = 5000


def test_tasks_follow_the_settings():
    found = list(schedules.tasks(SETTINGS, NUM_IMAGES))
    assert len(found) == 1000 and [task.pretraining for task, _ in found] == [True] * 200 + [False] * 800
    for number, (task, (weight, radius)) in enumerate(found):
        assert radius == 0 and not task.adversarial
        if number < 200:
            assert (task.budget, task.penalised, weight) == (4, False, 0.0)
        elif not task.penalised:
            assert (task.budget, weight) == (8, 0.0)
        else:
            assert number < 600 and 6 <= task.budget <= 9
            assert weight == pytest.approx(0.5 + 0.1 * (number // 100))
    penalised = [task.budget for task, _ in found[200:600] if task.penalised]
    # A quarter of 400 updates: mean 100, standard deviation 8.7. Each of 4 budgets: mean 25, standard deviation
    # 4.3.
    assert abs(len(penalised) - 100) < 35
    assert all(abs(penalised.count(budget) - 25) < 20 for budget in (6, 7, 8, 9))


def test_tasks_of_resumed_run_are_equal():
    assert list(schedules.tasks(SETTINGS, NUM_IMAGES))[731:] == list(schedules.tasks(SETTINGS, NUM_IMAGES, 731))


def test_penalty_weight_is_constant_by_default():
    settings = config.Training(epochs=2, pretraining_epochs=1.0, jacobian_weight=0.7)
    assert {(task.penalised, weight) for task, (weight, _) in schedules.tasks(settings, 1000)} == {(True, 0.7)}
    without = dataclasses.replace(settings, jacobian_weight=0.0)
    assert {(task.penalised, weight) for task, (weight, _) in schedules.tasks(without, 1000)} == {(False, 0.0)}


def test_adversarial_radius_grows_after_pretraining():
    settings = dataclasses.replace(SETTINGS, adversarial_radius=0.5, adversarial_epochs=3.0)
    found = list(schedules.tasks(settings, NUM_IMAGES))
    radii = [weights.radius for _, weights in found]
    assert [task.adversarial for task, _ in found] == [False] * 200 + [True] * 800
    assert radii[:200] == [0.0] * 200 and radii[500:] == [0.5] * 500
    assert radii[200:500] == pytest.approx([0.5 * (i + 1) / 300 for i in range(300)])


@pytest.mark.parametrize(
    ("epochs", "given", "expected"),
    [(80, None, 5.0), (20, None, 5.0), (3, None, 0.75), (1, None, 0.25), (3, 3.0, 3.0)],
)
def test_pretraining_adapts_to_epochs(epochs, given, expected):
    settings = config.Training(epochs=epochs, pretraining_epochs=given)
    assert settings.resolved().pretraining_epochs == expected
    tasks = [task for task, _ in schedules.tasks(settings, 64 * settings.batch_size)]
    assert sum(task.pretraining for task in tasks) == 64 * expected
    assert len(tasks) == 64 * epochs


def test_explicit_model_has_no_pretraining():
    settings = config.Training(model=architecture.ResnetModel(), jacobian_weight=0.0)
    assert settings.resolved().pretraining_epochs == 0.0
    with pytest.raises(ValueError, match=r"pretraining_epochs is 1\.0; it must be 0 for a model without"):
        dataclasses.replace(settings, pretraining_epochs=1.0)
    with pytest.raises(ValueError, match=r"pretraining_epochs is 5\.0; it must be between 0 and epochs, 3"):
        config.Training(epochs=3, pretraining_epochs=5.0)
