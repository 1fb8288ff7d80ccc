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
    ({"start": "zero", "sampler": "serial"}, "start is 'zero'"),
    ({"tolerance": float("inf")}, "tolerance is inf"),
    ({"looks": (50, 10_000), "stop_gain": float("inf")}, "stop_gain is inf"),
    ({"num_estimation": 2**31}, "num_estimation is 2147483648"),
    ({"lanes": 10**9}, "lanes is 1000000000; it must be at most 1,000,000"),
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
    serial, independent = (config.Smoothing(sampler=name) for name in ("serial", "independent"))
    assert (serial.start, serial.budget, serial.alpha_audit) == ("previous", 3, 0.0005)
    assert (independent.start, independent.budget, independent.num_audit) == ("zero", 30, None)
    assert dataclasses.replace(serial, budget=1).budget == 1


def test_cap_without_a_sampler_counts_the_looks():
    settings = config.Smoothing()
    caps = [settings.recommended(has_start).cap for has_start in (False, True)]
    assert settings.cap == caps[0] == caps[1] < config.Smoothing(sampler="independent").cap


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


def test_recommended_method_follows_the_start():
    given = config.Smoothing()
    assert (given.sampler, given.start, given.budget, given.looks) == (None,) * 4
    learned, zero = given.recommended(True), given.recommended(False)
    assert (learned.sampler, learned.start, learned.budget) == ("independent", "learned", 2)
    assert (zero.sampler, zero.start, zero.budget) == ("independent", "zero", 30)
    for one in (learned, zero):
        assert one.looks == (500, 2000, 10_000) and one.stop_gain == 0.02
        assert one.recommended(True) == one


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"budget": 5}, {"start": "learned", "budget": 5}),
        ({"start": "zero"}, {"start": "zero", "budget": 30}),
        ({"num_estimation": 100}, {"looks": (20, 100)}),
        ({"num_estimation": 60}, {"looks": (60,)}),
        ({"looks": (50, 10_000)}, {"looks": (50, 10_000), "stop_gain": 0.02}),
        ({"stop_radius": 0.5}, {"stop_radius": 0.5, "stop_gain": None}),
        (
            {"stop_radii": (0, 0.5), "num_estimation": 1000},
            {"stop_radii": (0.0, 0.5), "stop_gain": None, "looks": (100, 200, 300, 400, 500, 600, 800, 1000)},
        ),
        ({"tolerance": 1e-3}, {"tolerance": 1e-3, "start": "learned"}),
    ],
)
def test_recommended_method_keeps_what_is_given(change, expected):
    found = config.Smoothing(**change).recommended(True)
    assert {name: getattr(found, name) for name in expected} == expected


def test_settings_of_serial_mean_serial():
    for change in ({"num_audit": 100}, {"start": "previous"}, {"warmup_budget": 5}, {"bound": "paper"}):
        assert config.Smoothing(**change).sampler == "serial"
    assert config.Smoothing(sampler="serial").num_audit == 1000
    assert config.Smoothing(sampler="serial", num_estimation=200).num_audit == 100
