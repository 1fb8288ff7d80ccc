"""Settings are the same after a journey through JSON."""

import dataclasses
import json

import pytest

from deqsmooth import config
from deqsmooth.config import architecture, serialization


@pytest.mark.parametrize(
    "settings",
    [
        config.Training(sigma=0.25, model=architecture.ConvModel(channels=16, mean=(0.1,))),
        config.Training(held_out=7, model=None),
        config.Smoothing(),
        config.Smoothing(sampler="independent", tolerance=1e-3),
        config.Selection(max_images=3),
        config.Paired(num_pairs=30),
    ],
)
def test_json_round_trip(settings):
    encoded = json.loads(json.dumps(serialization.to_json(settings)))
    assert serialization.from_json(type(settings), encoded) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": "much"}, "sigma"),
        ({"sigma": -1}, "sigma is -1"),
        ({"colour": 1}, "no settings.*colour"),
        ({"model": {"name": "mdek"}}, "unknown model"),
    ],
)
def test_foreign_json_is_refused(change, message):
    encoded = {**serialization.to_json(config.Training()), **change}
    with pytest.raises(ValueError, match=message):
        serialization.from_json(config.Training, encoded)


def test_later_setting_is_written_if_given():
    """The digest of what was recorded before it must stay."""
    independent = config.Smoothing(sampler="independent", looks=(5000, 10_000))
    assert "spending" not in serialization.to_json(independent)
    assert "only_correct" not in serialization.to_json(independent)
    given = dataclasses.replace(independent, only_correct=True)
    assert serialization.from_json(config.Smoothing, serialization.to_json(given)).only_correct is True
    given = dataclasses.replace(independent, spending="equal")
    assert serialization.to_json(given)["spending"] == "equal"
    assert serialization.to_json(config.Smoothing())["tolerance"] is None


def test_missing_setting_takes_its_default():
    encoded = serialization.to_json(config.Training(epochs=7))
    del encoded["seed"]
    assert serialization.from_json(config.Training, encoded) == config.Training(epochs=7)


def test_the_digest_depends_on_every_setting():
    base = serialization.digest(serialization.to_json(config.Smoothing()))
    assert base != serialization.digest(serialization.to_json(config.Smoothing(seed=1)))
    assert base == serialization.digest(json.loads(json.dumps(serialization.to_json(config.Smoothing()))))


def test_recorded_training_is_read_as_it_was():
    """The settings of a training that was recorded before `held_out`, with a number of epochs of pre-training."""
    settings = config.Training(pretraining_epochs=5.0)
    encoded = serialization.to_json(settings)
    assert "held_out" not in encoded and encoded["pretraining_epochs"] == 5.0
    assert serialization.from_json(config.Training, encoded) == settings == config.Training().resolved()
