"""Certificates from those of another network: pairs counted by hand, and a bound that errs as rarely as alpha."""

import dataclasses
import sys

import pytest
from scipy import stats
from support import labels_of, rewritten

from deqsmooth import config, data
from deqsmooth.certificates import jsonl, plan, verification, writing
from deqsmooth.commands import certify, recertify
from deqsmooth.smoothing import certification, noise, provenance, recertification
from deqsmooth.statistics import bounds

BEFORE = config.Smoothing(
    sampler="independent",
    budget=4,
    num_selection=20,
    num_estimation=200,
    alpha=0.02,
    sigma=0.5,
    lanes=16,
    block=16,
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def found(small, digits):
    return list(certification.certify_dataset(small, digits, [0, 8, 16], BEFORE))


def test_pairs_equal_single_solves(small, digits, found):
    settings = recertification.settings_after(BEFORE, budget=1, num_pairs=60, alpha_pairs=0.005)
    again = list(recertification.recertify(found, (small, BEFORE), (small, settings), digits))
    assert sum(c.lost for c in again) > 0
    for old, new in zip(found, again, strict=True):
        image = digits.take([old.index])[0][0]
        votes = [labels_of(small, image, old.index, noise.AUDIT, range(60), budget=k) for k in (4, 1)]
        lost = (votes[0] == old.selected) & (votes[1] != old.selected)
        assert (new.lost, new.num_pairs, new.mismatches) == (lost.sum(), 60, 0) and new.evaluations == 60 * (4 + 1)
        left = bounds.clopper_pearson_lower(old.count, 200, 0.015)
        left -= stats.beta.ppf(1 - 0.005, lost.sum() + 1, 60 - lost.sum())
        assert new.p_lower == pytest.approx(max(0.0, left), rel=1e-12)
        assert (new.counts, new.label, new.budget) == (old.counts, old.label, 1)
        assert (new.prediction is None) == (new.p_lower <= 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 5}, "budget of the certificate of image 0 is 4; it must be 5"),
        ({"solver": "anderson"}, "solver of the certificate of image 0 is sketched-anderson"),
        ({"tolerance": 1e-3}, "tolerance of the certificate of image 0 is None"),
    ],
)
def test_certificates_of_another_solve_are_refused(small, digits, found, change, message):
    """The pairs would be with another classifier than the certified one."""
    before = dataclasses.replace(BEFORE, **change)
    after = recertification.settings_after(before, num_pairs=60)
    with pytest.raises(ValueError, match=message):
        list(recertification.recertify(found, (small, before), (small, after), digits))


def test_same_network_pays_for_pairs_only(small, digits, found):
    settings = recertification.settings_after(BEFORE, num_pairs=100, alpha_pairs=0.002)
    same = small._replace(sha256="1" * 64)
    again = list(recertification.recertify(found, (small, BEFORE), (same, settings), digits))
    for old, new in zip(found, again, strict=True):
        assert new.lost == 0
        price = 1 - 0.002 ** (1 / 100)
        lower = bounds.clopper_pearson_lower(old.count, 200, 0.018)
        assert new.p_lower == pytest.approx(max(0.0, lower - price))
    assert max(new.p_lower for new in again) > 0


@pytest.mark.parametrize(("share", "lost"), [(0.9, 0.02), (0.7, 0.2), (1.0, 0.0), (0.6, 0.01)])
def test_paired_miscoverage_is_below_alpha(share, lost):
    """Every outcome of 40 votes and 30 pairs, where the other network loses as much as it can."""
    missed = sum(
        stats.binom.pmf(count, 40, share) * stats.binom.pmf(differing, 30, lost)
        for count in range(41)
        for differing in range(31)
        if bounds.paired_lower(count, 40, bounds.Pairs(30, differing, 0.02), 0.08) > share - lost
    )
    assert missed <= 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (config.Smoothing(num_estimation=200, num_audit=100), "sampler 'serial'"),
        (config.Paired(), "bound 'paired'"),
    ],
)
def test_other_certificates_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        recertification.settings_after(settings)


def test_paired_bound_needs_pairs(small, digits):
    settings = config.Paired(budget=1)
    assert (settings.num_pairs, settings.alpha_pairs, settings.num_audit) == (1000, 0.0001, None)
    with pytest.raises(ValueError, match="it is that of certificates made from those of another"):
        next(certification.certify(small, digits.take([0])[0], settings))
    with pytest.raises(ValueError, match=r"alpha_pairs is 0\.5; it must be in"):
        config.Paired(alpha_pairs=0.5)


@pytest.fixture(scope="module")
def run(small, digits, found, tmp_path_factory):
    settings = recertification.settings_after(BEFORE, budget=2, num_pairs=60, alpha_pairs=0.005)
    selection = config.Selection(dataset="digits")
    before = provenance.header(small, selection, BEFORE, digits, (8, 8, 1))
    header = provenance.header(small, selection, settings, digits, (8, 8, 1), before=before)
    path = tmp_path_factory.mktemp("paired") / "run.jsonl"
    with writing.Writer(path, header, plan.Plan(sorted(c.index for c in found))) as writer:
        for certificate in recertification.recertify(found, (small, BEFORE), (small, settings), digits):
            writer.write(certificate)
    return path


def test_paired_certificates_verify_and_name_source(run):
    checked = verification.verify(run)
    assert checked.differences == [] and checked.header["before"]["reference"]["budget"] == 4
    assert checked.header["reference"]["budget"] == 2


@pytest.mark.parametrize("change", [{"lost": 0}, {"num_pairs": 600}, {"alpha_pairs": 0.01}, {"bound": "exact"}])
def test_changed_pairs_are_found(run, tmp_path, change):
    def tamper(header, records):
        for line in records:
            line |= change

    changed = [one for one in jsonl.read(run)[1] if any(getattr(one, k) != v for k, v in change.items())]
    found = verification.verify(rewritten(run, tmp_path / "changed.jsonl", tamper)).differences
    assert changed and len({difference.line for difference in found}) == len(changed)


@pytest.mark.slow
def test_recertify_command_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = (
        "--num-estimation",
        "200",
        "--num-selection",
        "20",
        "--lanes",
        "24",
        "--block",
        "24",
        "--max-images",
        "3",
    )
    sampler = ("--sampler", "independent", "--start", "learned", "--budget", "2")

    def command(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return {"certify": certify, "recertify": recertify}[name].main()

    assert command("certify", *sampler, *common, "--out", "old.jsonl") == 0
    assert command("recertify", "old.jsonl", "--budget", "1", "--num-pairs", "150", "--out", "new.jsonl") == 0
    assert "cell evaluations; the original certificates took 1,320" in capsys.readouterr().out
    whole = (tmp_path / "new.jsonl").read_text()
    (tmp_path / "new.jsonl").write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert command("recertify", "old.jsonl", "--budget", "1", "--num-pairs", "150", "--out", "new.jsonl") == 0
    again = jsonl.read("new.jsonl")[1]
    assert [dataclasses.replace(c, seconds=0.0) for c in again] == [
        dataclasses.replace(c, seconds=0.0) for c in jsonl.parse(tmp_path / "whole", whole).certificates
    ]
    assert verification.verify("new.jsonl").differences == []
    broken = (tmp_path / "old.jsonl").read_text().replace('"label": ', '"label": 1')
    (tmp_path / "old.jsonl").write_text(broken)
    assert command("recertify", "old.jsonl") == 2
    assert "only verified certificates can be used" in capsys.readouterr().err
