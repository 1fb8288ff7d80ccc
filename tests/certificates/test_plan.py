"""Plans: the text form holds the same images, and what is no plan is refused."""

import numpy as np
import pytest

from deqsmooth.certificates import plan


def test_text_holds_the_same_images():
    rng = np.random.default_rng(0)
    for density in (0.05, 0.5, 0.95):
        for _ in range(50):
            images = np.flatnonzero(rng.random(60) < density).tolist() or [7]
            share = (int(rng.integers(3)), 3)
            again = plan.from_json(plan.Plan(images, share).to_json())
            assert (list(again.images), again.share) == (images, share)
            assert list(again.own) == [x for place, x in enumerate(images) if place % 3 == share[0]]


def test_shares_hold_every_image_once():
    whole = plan.Plan(range(3, 50, 4))
    shares = [plan.Plan(whole.images, (number, 5)) for number in range(5)]
    assert sorted(index for share in shares for index in share.own) == list(whole.own)


def test_regular_indices_are_one_slice():
    assert plan.text(range(0, 360, 8)) == "0:360:8"
    assert plan.text([*range(5), 9, *range(20, 100, 10)]) == "0:5,9,20:100:10"
    assert plan.text([4]) == "4" and plan.text([4, 9]) == "4,9"


LINE = {"kind": "plan", "images": "0:40:8", "share": [0, 1]}
BAD = [
    ({"images": "0:40:0"}, "positive step"),
    ({"images": "0:40:-8"}, "slices such as"),
    ({"images": "0:40:8:1"}, "slices such as"),
    ({"images": "0;8"}, "slices such as"),
    ({"images": ""}, "slices such as"),
    ({"images": "8:8"}, "images is 0 indices"),
    ({"images": "8,0"}, "increasing"),
    ({"images": "0:16,8"}, "increasing"),
    ({"images": "0:999999999999"}, "at most 10,000,000 indices"),
    ({"images": [0, 8]}, "a text such as"),
    ({"share": [1, 1]}, "share is 1 of 1"),
    ({"share": [0, 0]}, "share is 0 of 0"),
    ({"share": [-1, 2]}, "share is"),
    ({"share": [False, True]}, "share is"),
    ({"share": 3}, "share is 3"),
    ({"shares": 3}, "the plan line is"),
    ({"kind": "plans"}, "kind is 'plans'"),
    ({"kind": "end"}, "the end line is"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_no_plan_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        plan.from_json({**LINE, **change})


@pytest.mark.parametrize("number", [-1, 1.0, True, None, "1"])
def test_end_line_counts_images(number):
    assert plan.from_json({"kind": "end", "certificates": 3, "unreadable": 0}) == plan.End(3, 0)
    with pytest.raises(ValueError, match="unreadable is"):
        plan.from_json({"kind": "end", "certificates": 3, "unreadable": number})
