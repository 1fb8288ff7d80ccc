"""Settings are checked when they are made."""

import dataclasses
import re

import pytest

from deqsmooth import config

BAD = [
    ({"sigma": 0.0}, "sigma is 0.0"),
    ({"sigma": -0.5}, "sigma is -0.5"),
    ({"sigma": float("nan")}, "sigma is nan"),
    ({"alpha": 0.0}, "alpha is 0.0"),
    ({"alpha": 1.0}, "alpha is 1.0"),
    ({"alpha_audit": 0.001}, "alpha_audit"),
    ({"num_estimation": 500, "num_audit": 501}, "num_audit is 501; it must be at most num_estimation, 500"),
    ({"num_estimation": 9, "sampler": "independent"}, "num_estimation is 9"),
    ({"num_estimation": 9, "num_audit": 9}, "num_estimation is 9"),
    ({"num_selection": 0}, "num_selection is 0"),
    ({"budget": 0}, "budget is 0"),
    ({"lanes": 0}, "lanes is 0"),
    ({"tolerance": 0.0}, "tolerance is 0.0"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**32}, "seed is 4294967296"),
    ({"sampler": "seriall"}, "did you mean 'serial'"),
    ({"solver": "andersen"}, "did you mean 'anderson'"),
    ({"bound": "exakt"}, "did you mean 'exact'"),
    ({"start": "prevoius"}, "did you mean 'previous'"),
    ({"start": "zero"}, "start is 'zero'"),
    ({"start": "previous", "sampler": "independent"}, "start is 'previous'"),
    ({"num_audit": 100, "sampler": "independent"}, "num_audit is 100"),
    ({"bound": "exact", "sampler": "independent"}, "bound is exact"),
    ({"bound": "paired", "sampler": "independent"}, "bound is paired"),
    ({"warmup_budget": 5, "sampler": "independent"}, "warmup_budget is 5"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_broken_rule_names_value_and_rule(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config.Smoothing(**change)


def test_ten_samples_are_fewest_that_certify():
    assert config.Smoothing(num_estimation=10, sampler="independent").cap > 0


def test_sampler_fills_in_its_defaults_only():
    serial, independent = config.Smoothing(), config.Smoothing(sampler="independent")
    assert (serial.start, serial.budget, serial.alpha_audit) == ("previous", 3, 0.0005)
    assert (independent.start, independent.budget, independent.num_audit) == ("zero", 30, None)
    assert dataclasses.replace(serial, budget=1).budget == 1


def test_serial_cap_is_below_independent_cap():
    serial = config.Smoothing(num_audit=400)
    assert serial.cap == pytest.approx(0.995, abs=0.003)
    assert config.Smoothing(sampler="independent").cap == pytest.approx(1.600, abs=0.001)


def test_selection_by_stride_start_and_number():
    assert list(config.Selection(stride=3, start_index=1, max_images=2).indices(10)) == [1, 4]
    assert list(config.Selection(stride=4).indices(10)) == [0, 4, 8]
    with pytest.raises(ValueError, match="start_index is 10"):
        config.Selection(start_index=10).indices(10)
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        config.Selection(dataset="digit")
