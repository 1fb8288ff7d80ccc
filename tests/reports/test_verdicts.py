"""Sentences of a report: what was certified, each verdict once, alarms, and no claim for runs that have none."""

import dataclasses
import pathlib
import re

import pytest
from support import header_of, voted

from deqsmooth import config
from deqsmooth.certificates import attempts, cohen, plan, writing
from deqsmooth.reports import overview, runs, verdicts

ZERO = config.Smoothing(sampler="independent", num_selection=20, num_estimation=100, alpha=0.01, lanes=10)


def write(path, settings=ZERO, votes=((100, 0, 0), (90, 10, 0), (10, 90, 0), (50, 50, 0)), **header):
    """A file of certificates of images 0, 8, ..., all with label 0."""
    path.unlink(missing_ok=True)
    found = [voted(8 * place, counts, settings) for place, counts in enumerate(votes)]
    with writing.Writer(path, header_of(settings, **header), plan.Plan([one.index for one in found])) as writer:
        for one in found:
            writer.write(one)
    return path


@pytest.fixture
def read(tmp_path):
    """Function that reads as many equal runs, each with the entries of the header given for it."""

    def read(*headers, **options):
        files = [write(tmp_path / f"{place}.jsonl", **options, **one) for place, one in enumerate(headers)]
        return runs.read(files).runs

    return read


def test_single_run_is_claimed(read):
    """Two of four images reach the radius, of which one has the wrong class."""
    found = read({})
    assert verdicts.title(found) == "Certified robustness of digits (test), sigma 0.5"
    (claim,) = verdicts.claims(found)
    shares = [c.correct and c.radius >= 0.5 for c in found[0].found]
    assert claim.startswith(
        f"Of 4 images of digits (test), {25.0 * sum(shares)} % are classified correctly and certified against "
        "every change of L2 length below 0.5, with pixels in [0, 1]. The average certified radius is "
    )
    assert "95 % interval over images from 0.0" in claim
    text = "Every bound and radius was computed again from its votes, without a difference."
    assert verdicts.verification(found) == [text] and verdicts.alarms(found) == []


def test_arrays_are_named_by_digest(read):
    found = read({"selection": {"dataset": "arrays", "stride": 8}, "data": "sha256:" + "0123456789abcdef" * 4})
    assert verdicts.title(found) == "Certified robustness of arrays (sha256:01234567), sigma 0.5"


def test_equal_verdicts_are_said_once(read):
    same = "verify: every bound and radius was computed again from its votes, without a difference."
    assert verdicts.verification(read({}, {})) == [f"Both files {same}"]
    assert verdicts.verification(read({}, {}, {})) == [f"All 3 files {same}"]
    skipped = {"soundness_check": "skipped"}
    found = read({}, {}, skipped)
    assert verdicts.verification(found) == [f"{found[0].label} and {found[1].label} {same}"]
    (alarm,) = verdicts.alarms(found)
    assert alarm.startswith(found[2].label) and "was NOT CHECKED" in alarm
    assert verdicts.alarms(read(skipped, skipped))[0].startswith("Both files verify: every bound")


def test_several_runs_are_claimed_as_range(read, tmp_path):
    found = read({}, {})
    (claim,) = verdicts.claims(found)
    assert "(both) are classified correctly" in claim
    worse = runs.read(
        [*(run.path for run in found), write(tmp_path / "worse.jsonl", votes=[(60, 40, 0)] * 4)]
    ).runs
    (claim,) = verdicts.claims(worse)
    assert claim.startswith(
        "Of 4 images of digits (test), 25.0 % (A), with a range of the 3 runs from 0.0 % (C) to "
    )
    # Both of the runs that are best are named.
    assert " to 25.0 % (A and B), are classified correctly" in claim
    assert re.search(
        r"is [\d.]+ \(A\), with a range of the 3 runs from [\d.]+ \(C\) to [\d.]+ \(A and B\)\.$", claim
    )
    # Of many that are equal none is named.
    (claim,) = verdicts.claims(
        runs.read([write(tmp_path / f"more-{place}.jsonl") for place in range(4)] + [worse[2].path]).runs
    )
    assert "25.0 % (A), with a range of the 5 runs from 0.0 % (E) to 25.0 %, are" in claim


def test_runs_without_certificates_claim_nothing(read, tmp_path):
    (run,) = read({})
    refuting = attempts.Attempt(0, 0, 0.25, 0.1, 1, 0, run.found[0].radius, True)
    run.attempts.append(refuting)
    assert list(verdicts.claims([run])) == [] and verdicts.verification([run]) == []
    assert verdicts.alarms([run])[0].startswith("REFUTED") and verdicts.title([run]).endswith(" [REFUTED]")
    assert "is false with probability" not in " ".join(verdicts.meaning([run]))


def test_published_radii_are_no_certificates(read, tmp_path):
    (run,) = read({})
    cohen.write(tmp_path / "a.tsv", run.found)
    published = runs.read([tmp_path / "a.tsv"]).runs
    assert verdicts.title(published) == "Published radii: a"
    assert next(verdicts.claims(published)).startswith("By the published radii, of 4 images, ")
    assert (
        "certified against" not in next(verdicts.claims(published)) and len(list(verdicts.meaning(published))) == 1
    )
    # Beside certificates, only these are claimed.
    (claim,) = verdicts.claims(runs.read([tmp_path / "a.tsv", run.path]).runs)
    assert claim.startswith("Of 4 images") and "(B)" in claim and "(A)" not in claim


def test_expected_false_certificates_are_stated(read):
    found = read({})
    num = len(overview.alphas(found[0]))
    assert num == sum(c.prediction is not None for c in found[0].found) and 0 < num < 4
    *_, text = verdicts.meaning(found)
    assert f"at most {num * 0.01:g} are false in expectation (number times alpha)" in text
    assert f"Of the {num} certificates, at most" in text and "none is (1 minus number times alpha)" in text
    assert (
        f"probability at least {100 - num}.0 % none is" in text
        and "together with probability at least 0.99." in text
    )


def test_radius_has_a_scale(read):
    """The length of equal changes of all values is the radius of the claim."""
    (text,) = [one for one in verdicts.meaning(read({"image_shape": [8, 16, 3]})) if "For scale" in one]
    assert "L2 length 0.5 " in text and "8 x 16 x 3, is a change of 0.026 in each of 384 values." in text
    assert float("0.026") * 384**0.5 == pytest.approx(0.5, rel=0.05)
    assert not [one for one in verdicts.meaning(read({})) if "For scale" in one]


def test_looks_are_explained_where_used(read):
    looks = dataclasses.replace(ZERO, num_estimation=100, looks=(50, 100))
    assert not [one for one in verdicts.meaning(read({})) if one.startswith("Looks are")]
    assert len([one for one in verdicts.meaning(read({}, {}, settings=looks)) if one.startswith("Looks are")]) == 1


def test_incomplete_runs_alarm(read):
    (run,) = read({})
    lines = run.path.read_text().splitlines(keepends=True)
    pathlib.Path(run.path).write_text("".join(lines[:-2]))
    found = runs.read([run.path]).runs
    assert "INCOMPLETE: 3 of 4 images" in verdicts.alarms(found)[0]
    assert verdicts.title(found).endswith(" [incomplete]")
    assert next(verdicts.claims(found)).startswith(f"{found[0].name} [incomplete]: Of 3 images")
    # Beside a whole run it is not claimed.
    (claim,) = verdicts.claims(runs.read([run.path, write(run.path.parent / "whole.jsonl")]).runs)
    assert "(B)" in claim and "incomplete" not in claim
