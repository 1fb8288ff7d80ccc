"""The warning at the end of a training that has learned nothing."""

import warnings
from types import SimpleNamespace

import pytest

from deqsmooth import config
from deqsmooth.training import chance, evaluation, loop


def run(accuracy, updates=3):
    """Progress of a training whose every update is evaluated."""
    found = evaluation.Evaluation(accuracy, accuracy, 1e-6, 0.05)
    for update in range(1, updates + 1):
        yield loop.Progress(SimpleNamespace(update=update), found, found, 0.0, 3)


@pytest.mark.parametrize(("weight", "advice"), [(1.0, "below 1 is better"), (0.0, "another learning_rate$")])
def test_guessing_is_warned_of_once(weight, advice):
    settings = config.Training(jacobian_weight=weight)
    with pytest.warns(UserWarning, match=advice) as caught:
        assert len(list(chance.warned(run(0.12), settings, 10))) == 3
    assert len(caught) == 1
    assert "right about 12 % of noisy images, no more than guessing among 10 classes" in str(caught[0].message)


@pytest.mark.parametrize(("accuracy", "updates"), [(0.3, 3), (0.12, 2)], ids=["has learned", "not at its end"])
def test_other_trainings_are_not_warned_of(accuracy, updates):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(chance.warned(run(accuracy, updates), config.Training(), 10))) == updates
