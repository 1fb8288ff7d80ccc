"""Independent sampling with looks: the same counts whatever the schedule, and images that stop make room."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from deqsmooth import config, data
from deqsmooth.certificates import bound, verification
from deqsmooth.models import checkpoints
from deqsmooth.smoothing import certification, independent, sampler, tally
from deqsmooth.statistics import bounds, looks, robustness

LOOKS = config.Smoothing(
    sampler="independent", budget=2, num_selection=20, num_estimation=400, looks=(50, 100, 400), alpha=0.01,
    lanes=16, block=16,
)  # fmt: skip
GAIN = 0.25


@pytest.fixture(scope="module")
def model():
    """The shipped model: surer of some images than of others."""
    return checkpoints.load_shipped("digits", 0.5)


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "test").take(range(12))[0]


def certify(model, images, settings, **change):
    found = list(certification.certify(model, images, dataclasses.replace(settings, **change)))
    return {c.index: {name: x for name, x in vars(c).items() if name != "seconds"} for c in found}


@pytest.mark.usefixtures("optimised")
def test_image_stops_at_the_named_look(model, images):
    stopped = certify(model, images, LOOKS, stop_gain=GAIN)
    whole = {
        look: certify(model, images, LOOKS, num_estimation=look, looks=None, alpha=0.01) for look in LOOKS.looks
    }
    for index, found in stopped.items():
        for look in LOOKS.looks:
            count = whole[look][index]["counts"][found["selected"]]
            if looks.is_last(count, look, LOOKS.look_alphas, sigma=0.5, stop_gain=GAIN):
                break
        assert found["num_estimation"] == look
        assert found["counts"] == whole[look][index]["counts"]
        assert found["counts_selection"] == whole[look][index]["counts_selection"]
        assert found["p_lower"] == bounds.clopper_pearson_lower(count, look, 0.01 * look / 550)
        assert found["evaluations"] == 2 * (20 + look)
        assert found["looks"] == LOOKS.looks and found["alpha_count"] == LOOKS.look_alphas[look]
    assert {found["num_estimation"] for found in stopped.values()} == {50, 100, 400}


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("change", [{"images_per_batch": 3}, {"images_per_batch": 40}, {"lanes": 48}])
def test_certificates_ignore_the_schedule(model, images, change):
    one, other = (certify(model, images, LOOKS, stop_gain=GAIN, **x) for x in ({}, change))
    assert one.keys() == other.keys() == set(range(12))
    for index, found in one.items():
        assert {**found, "lanes": None} == {**other[index], "lanes": None}


def test_calls_are_full_until_the_end(model, images, monkeypatch):
    """What images that stop leave free is used by those that come."""
    calls = []
    start = sampler.Programs.start

    def counted(self, pixels, *arguments, **options):
        calls.append(len(pixels))
        return start(self, pixels, *arguments, **options)

    monkeypatch.setattr(sampler.Programs, "start", counted)
    found = certify(model, images, LOOKS, stop_gain=GAIN, images_per_batch=4)
    units = sum(
        2 + 4 + (look > 50) * 4 + (look > 100) * 19 for look in (c["num_estimation"] for c in found.values())
    )
    assert sum(calls) == units
    # Only at the end, when no image is left to enter, can a call be short.
    short = [number for number, size in enumerate(calls) if size < 4]
    assert not short or short[0] > len(calls) - 25


def test_the_next_call_runs_while_votes_are_counted(model, images, monkeypatch):
    settings = dataclasses.replace(LOOKS, looks=None, images_per_batch=8)
    programs = certification.prepare(model, settings, images.shape[1:], 4)
    events = []
    start = sampler.Programs.start

    def recorded(self, *arguments):
        events.append("start")
        read = start(self, *arguments)
        return lambda: (events.append("read"), read())[1]

    monkeypatch.setattr(sampler.Programs, "start", recorded)
    entered = (tally.Image(index, images[index], None) for index in range(4))
    for found in independent.tallies(programs, programs.settings, entered):
        events.append(found.image.index)
    # 27 units an image, of which 8 are in a call: the images end in the calls 4, 7, 11 and 14.
    ended = {4: [0], 7: [1], 11: [2], 14: [3]}
    calls = [["read", *(["start"] if call < 14 else []), *ended.get(call, [])] for call in range(1, 15)]
    assert events == ["start", *itertools.chain(*calls)]


def test_settings_of_looks_are_checked():
    for change, message in (
        ({"looks": (100, 50, 400)}, "increasing, at least 1, and end with num_estimation, 400"),
        ({"looks": (50, 100)}, "increasing, at least 1, and end with num_estimation, 400"),
        ({"looks": None, "stop_gain": 0.1}, "stop_gain is 0.1; it must be left out without looks"),
        ({"stop_radius": -1.0}, "stop_radius is -1.0; it must be a finite positive number"),
        ({"stop_radii": (0.5, 0.25)}, "must be increasing finite numbers from 0"),
        ({"stop_radii": (-0.25, 0.25)}, "must be increasing finite numbers from 0"),
        ({"stop_radii": ()}, "must be increasing finite numbers from 0"),
        ({"looks": None, "stop_radii": (0.5,)}, "must be left out without looks"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(LOOKS, **change)
    with pytest.raises(ValueError, match="with looks, which read its votes"):
        config.Smoothing(sampler="serial", looks=(100, 10_000))
    # Unanimous votes at their part of alpha: 400 of the 550 samples of all the looks, or a third.
    for spending, part in ((None, 400 / 550), ("equal", 1 / 3)):
        settings = dataclasses.replace(LOOKS, spending=spending)
        expected = robustness.radius(bounds.clopper_pearson_lower(400, 400, 0.01 * part), 0.5)
        assert settings.cap == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("optimised")
def test_wrong_classes_end_after_selection(model, images, tmp_path):
    whole = certify(model, images, LOOKS)
    labels = np.array([whole[index]["selected"] for index in range(12)])
    labels[::3] = (labels[::3] + 1) % 10
    settings, out = dataclasses.replace(LOOKS, only_correct=True), tmp_path / "run.jsonl"
    found = list(certification.certify(model, images, settings, labels=labels, out=out))
    for c in found:
        ended = c.index % 3 == 0
        expected = (
            (0, None, 0.0, "none") if ended else (400, whole[c.index]["prediction"], whole[c.index]["radius"])
        )
        assert (c.num_estimation, c.prediction, c.radius, c.bound)[: len(expected)] == expected
        assert c.counts_selection == whole[c.index]["counts_selection"]
        assert c.counts == ((0,) * 11 if ended else whole[c.index]["counts"])
        assert c.evaluations == 2 * (20 + c.num_estimation) and c.correct == (c.prediction == c.label)
    assert verification.verify(out).differences == []
    # The same lines do not follow from a header without the setting, or from other labels.
    for change, line in (({"only_correct": False}, {}), ({}, {"label": 11})):
        text = out.read_text().splitlines()
        header = json.loads(text[0])
        header["smoothing"].update(change)
        lines = [{**json.loads(one), **(line if "radius" in one else {})} for one in text[1:]]
        path = tmp_path / "changed.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in (header, *lines)))
        messages = [str(one) for one in verification.verify(path).differences]
        assert sum("counts add up to 0" in one or "counts add up to 400" in one for one in messages) >= 4
    paired = config.Paired(**{**vars(settings), "budget": 3, "num_pairs": 20, "bound": "paired"})
    again = bound.of_votes(paired, found[0].counts_selection, (0,) * 11, pairs=paired.pairs(1))
    assert (again.formula, again.radius, again.pairs) == ("none", 0.0, None)


def test_only_correct_needs_labels(model, images):
    with pytest.raises(ValueError, match="the label of image 0 is None; it must be known with only_correct"):
        certify(model, images, LOOKS, only_correct=True)
    with pytest.raises(ValueError, match="only_correct is True; it must be left out with serial sampling"):
        config.Smoothing(sampler="serial", only_correct=True)


def wrong_probability(p, alphas, **rule):
    """Exact probability that the bound at the look where a run stops exceeds p: counts look by look."""
    log = {0: 1.0}
    wrong, seen = 0.0, 0
    for look, alpha in alphas.items():
        drawn = np.arange(look - seen + 1)
        chances = np.exp(
            np.array([np.sum(np.log(np.arange(look - seen, look - seen - k, -1))) for k in drawn])
            - np.array([np.sum(np.log(np.arange(1, k + 1))) for k in drawn])
            + drawn * np.log(p)
            + (look - seen - drawn) * np.log1p(-p)
        )
        after: dict[int, float] = {}
        for count, weight in log.items():
            for k, chance in zip(drawn, chances, strict=True):
                after[count + int(k)] = after.get(count + int(k), 0.0) + weight * chance
        seen, log = look, {}
        for count, weight in after.items():
            if looks.is_last(count, look, alphas, sigma=0.5, **rule):
                lower = bounds.clopper_pearson_lower(count, look, alpha)
                wrong += weight * (lower > p and lower > 0.5)
            else:
                log[count] = weight
    return wrong


@pytest.mark.parametrize("spending", looks.SPENDING)
@pytest.mark.parametrize("rule", [{}, {"stop_gain": 0.2}, {"stop_radius": 0.4}, {"stop_radii": (0.0, 0.2, 0.4)}])
def test_coverage_by_enumeration_whatever_the_rule(rule, spending):
    alpha = 0.1
    alphas = looks.alphas(alpha, (10, 20, 40), spending)
    assert sum(alphas.values()) == pytest.approx(alpha, rel=1e-12)
    found = [wrong_probability(p, alphas, **rule) for p in np.linspace(0.5, 0.99, 15)]
    assert max(found) <= alpha
    # The looks are not so cautious that the test could not fail: without dividing alpha the bound is broken.
    assert max(found) > alpha / 10


def test_undivided_alpha_would_not_cover():
    # Reading each of three looks at the whole of alpha and stopping at the first large radius.
    alpha = 0.1
    found = [
        wrong_probability(p, dict.fromkeys((10, 20, 40), alpha), stop_radius=0.1) for p in np.linspace(0.5, 0.7, 9)
    ]
    assert max(found) > alpha
