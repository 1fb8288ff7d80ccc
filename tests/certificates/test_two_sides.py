"""Two-sided bounds in settings and certificates: the parts of alpha, who may have them, and votes read again."""

import dataclasses

import pytest
from support import VOTES, certificate, voted

import deqsmooth as ds
from deqsmooth.certificates import bound, statements, verification
from deqsmooth.config import serialization

TWO = dataclasses.replace(VOTES, bound="two-sided")


def test_recommended_method_has_two_sides():
    settings = ds.Smoothing().recommended(has_start=True)
    assert (settings.bound, settings.alpha_upper) == ("two-sided", settings.alpha / 10)
    parts = [sum(x.values()) for x in (settings.look_alphas, settings.upper_alphas)]
    assert sum(parts) == pytest.approx(settings.alpha, rel=1e-12) and parts[1] == pytest.approx(1e-4)
    assert ds.Smoothing(bound="clopper-pearson").recommended(has_start=True).bound is None
    assert ds.Smoothing(alpha_upper=2e-4).recommended(has_start=False).alpha_upper == 2e-4


def test_old_settings_are_written_as_before():
    encoded = serialization.to_json(ds.Smoothing(sampler="independent", bound="clopper-pearson"))
    assert encoded["bound"] is None and not {"alpha_upper", "noise", "grid"} & encoded.keys()
    again = serialization.from_json(ds.Smoothing, serialization.to_json(TWO))
    assert again == TWO


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": "exact"}, "bound is exact; it must be one of clopper-pearson, two-sided"),
        ({"bound": "two-sided", "sampler": "serial"}, "one of exact, paper, reference-code with sampler 'serial'"),
        ({"bound": "garbage", "sampler": None}, "unknown bound 'garbage'"),
        ({"alpha_upper": 0.001}, "left out without the bound 'two-sided'"),
        ({"bound": "two-sided", "alpha_upper": 0.01}, "in \\(0, alpha = 0.01\\)"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(VOTES, **change)


@pytest.mark.parametrize("bounds", [{"bound": "two-sided"}, {"bound": "two-sided", "alpha_upper": 0.009}])
def test_no_radius_exceeds_the_cap(bounds):
    settings = dataclasses.replace(VOTES, **bounds)
    for counts in ((100, 0, 0), (99, 1, 0), (100, 0, 0, 0, 0), (97, 1, 1, 1, 0)):
        proved = bound.of_votes(settings, (20, *[0] * (len(counts) - 1)), counts)
        assert 0 < proved.radius <= settings.cap


def test_half_of_the_votes_is_not_needed():
    counts = (45, 10, 10, 10, 10, 15, 0)
    one, two = (bound.of_votes(x, (20, *[0] * 6), counts) for x in (VOTES, TWO))
    assert one.prediction is None and one.radius == 0
    assert two.prediction == 0 and two.radius > 0 and two.p_upper < two.p_lower < 0.5


def test_votes_are_read_again_with_two_sides():
    again = statements.two_sided(voted(0, (70, 30, 0)))
    expected = bound.of_votes(TWO, (20, 0, 0), (70, 30, 0))
    assert (again.p_lower, again.p_upper, again.radius) == (expected.p_lower, expected.p_upper, expected.radius)
    assert statements.simultaneous_radii([again]) == [again.radius]
    for other in ("paired", "exact"):
        with pytest.raises(ValueError, match=f"bound is '{other}'"):
            statements.two_sided(certificate(0, bound=other))


def test_made_up_upper_bound_is_found():
    made = dataclasses.replace(voted(0, (70, 30, 0), settings=TWO), p_upper=0.2)
    terms = verification.headers.Terms(5, TWO, ds.Selection(), True, None, 0.0)
    found = list(verification._check_votes(made, terms))
    assert [x for x in found if x.startswith("p_upper is 0.2")]


def test_predictions_take_no_bound():
    settings = ds.Smoothing(sampler="independent", bound="two-sided", num_estimation=100)
    with pytest.raises(ValueError, match="bound is two-sided; it must be left out in a prediction"):
        next(ds.predict(lambda images: images.mean((1, 2)), [[[[0.5, 0.4]]]], settings))
