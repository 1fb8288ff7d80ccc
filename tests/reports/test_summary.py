"""Summaries: their numbers against plain arithmetic, and what they refuse."""

import dataclasses
import io
import json

import numpy as np
import pytest
import rich.console
from support import certificate

import deqsmooth as ds
from deqsmooth.certificates import rounding
from deqsmooth.reports import summary
from deqsmooth.statistics import bounds, means, robustness

RADII = [0.75, 0.0, 0.5, 0.25, 0.0, 0.6]
RIGHT = [True, False, True, False, False, True]


def made(radius, right, index, **change):
    values = {
        "label": 1, "prediction": None if radius == 0 else 1 if right else 2, "correct": right, "radius": radius,
        "sigma": 0.5, "num_estimation": 1000, "looks": None, "alpha": 0.001, "evaluations": 10 * index,
        "seconds": 0.5 * index, "num_audit": 0, "num_pairs": 0, "invalid": 0, "fallbacks": 0,
    }  # fmt: skip
    return certificate(index, **{**values, **change})


FOUND = [made(radius, right, index) for index, (radius, right) in enumerate(zip(RADII, RIGHT, strict=True))]


def printed(shown, width=80):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(shown)
    return console.file.getvalue()


def test_numbers_follow_from_certificates():
    found = ds.summary(iter(FOUND), [0.0, 0.5, 0.7], alpha=0.1)
    cap = robustness.radius(0.001 ** (1 / 1000), 0.5)
    counted = [radius * right for radius, right in zip(RADII, RIGHT, strict=True)]
    assert found.acr.value == pytest.approx(1.85 / 6) and found.mean_radius.value == pytest.approx(2.1 / 6)
    assert found.acr[1:] == pytest.approx(means.interval(counted, cap, 0.1))
    assert [x.share for x in found.certified_accuracy] == [3 / 6, 3 / 6, 1 / 6]
    assert [x.share for x in found.certified] == [4 / 6, 3 / 6, 1 / 6]
    assert tuple(found.certified_accuracy[2][2:]) == bounds.binomial_interval(1, 6, 0.1)
    assert (found.num_images, found.abstentions, found.evaluations, found.seconds) == (6, 2, 25.0, 1.25)


def test_difference_is_of_paired_images():
    """B minus A on the images of both, in any order; the interval is that of the differences, moved and back."""
    others = [made(radius, True, index, sigma=1.0) for index, radius in enumerate([0.5, 0.5, 0.0, 0.7, 1.0], 1)]
    found = summary.difference(FOUND, others, 0.1)
    counted = np.array([0.5 - 0, 0.5 - 0.5, 0 - 0, 0.7 - 0, 1.0 - 0.6])
    least, most = (robustness.radius(0.001 ** (1 / 1000), sigma) for sigma in (0.5, 1.0))
    assert found.value == pytest.approx(counted.mean())
    expected = np.array(means.interval(counted + least, least + most, 0.1)) - least
    assert found[1:] == pytest.approx(expected) and found.lower < found.value < found.upper
    assert summary.difference(FOUND[::-1], others[::-1], 0.1) == pytest.approx(found)
    back = summary.difference(others, FOUND, 0.1)
    assert back.value == pytest.approx(-found.value) and back.lower < -found.value < back.upper


def test_order_of_certificates_is_free():
    assert ds.summary(FOUND[::-1]) == ds.summary(FOUND)


def test_values_are_plain_json():
    encoded = ds.summary(FOUND).to_dict()
    assert json.loads(json.dumps(encoded, allow_nan=False)) == encoded
    assert set(encoded["acr"]) == {"value", "lower", "upper"}
    assert [set(one) for one in encoded["certified_accuracy"]] == [{"radius", "share", "lower", "upper"}] * 4


def test_shown_numbers_claim_no_more():
    """The same texts on a terminal and in a notebook: values and lower ends rounded down, upper ends up."""
    found = ds.summary([dataclasses.replace(c, radius=0.7 * c.radius) for c in FOUND])
    text, page = printed(found), found._repr_html_()
    for value in (found.acr, found.mean_radius):
        lower, upper = rounding.radius(value.lower), rounding.radius(value.upper, up=True)
        assert float(lower) <= value.lower < value.upper <= float(upper)
        assert all(f"{rounding.radius(value.value)} ({lower}-{upper})" in shown for shown in (text, page))
    assert "certified accuracy, 6 images" in text and "50.0" in text and "2 of 6" in text


def test_errors_have_rows_if_any():
    plain = printed(ds.summary(FOUND))
    assert not any(word in plain for word in ("audited", "pairs", "finite", "replaced", "WARNING"))
    change = {
        "num_audit": 100, "mismatches": 1, "num_pairs": 50, "lost": 1, "invalid": 2, "fallbacks": 3,
        "bound": "reference-code", "warning": "not a valid bound",
    }  # fmt: skip
    text = printed(ds.summary([dataclasses.replace(c, **change) for c in FOUND]), width=120)
    for row in ("1.00 %", "2.00 %", " 12 ", " 18 ", "bound reference-code: not a valid bound"):
        assert row in text


def test_unknown_labels_leave_no_accuracy():
    """One is enough; the share of certified images is still there."""
    unknown, whole = [dataclasses.replace(c, label=None, correct=None) for c in FOUND], ds.summary(FOUND)
    for found in (ds.summary(unknown), ds.summary([*FOUND[:-1], unknown[-1]])):
        assert found.acr is None and found.certified_accuracy is None
        assert found.certified == whole.certified and found.mean_radius == whole.mean_radius
        text = " ".join(printed(found).split())
        assert "certificate, labels unknown, 6 images" in text and "ACR" not in text
        json.dumps(found.to_dict(), allow_nan=False)


def test_narrow_terminal_shows_every_radius():
    shown = printed(ds.summary(FOUND, np.arange(0, 4, 0.25).tolist()))
    assert "…" not in shown and all(f" {radius:g} " in shown for radius in np.arange(0, 4, 0.25))


def test_settings_bound_the_interval():
    """Unanimous votes at the whole alpha; with looks at the last of them."""
    few = [dataclasses.replace(c, num_estimation=100) for c in FOUND]
    looks = [dataclasses.replace(c, num_estimation=100, looks=(100, 1000)) for c in FOUND]
    assert ds.summary(few).acr.upper < ds.summary(FOUND).acr.upper
    assert ds.summary(looks).acr == ds.summary(FOUND).acr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "holds no certificate"),
        (("runs/digits.jsonl",), "it is 'runs/digits.jsonl'"),
        ((({"kind": "header"}, FOUND),), "of type dict; it must be a certificate"),
        (([made(2.5, True, 3)],), r"radius of image 3 is 2\.5; with its settings unanimous votes give 1\.231"),
        (([made(float("nan"), True, 3)],), "radius of image 3 is nan"),
        (([made(0.5, True, 3, seconds=float("inf"))],), "seconds of image 3 is inf"),
        (([made(0.5, True, 3, evaluations=-5)],), "evaluations of image 3 is -5"),
        ((FOUND, [-0.5]), r"radius is -0\.5"),
        ((FOUND, [float("nan")]), "radius is nan"),
        ((FOUND, None, 0.0), r"alpha is 0\.0"),
        ((FOUND, None, 5), "alpha is 5"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ds.summary(*arguments)
