"""Outcomes of verifications as sentences."""

from deqsmooth.certificates import outcome, verification


def test_false_certificates_are_expected(run):
    checked = verification.verify(run)
    certified = sum(c.prediction is not None for c in checked.found)
    assert outcome.summary(checked) == (
        f"9 certificates, {certified} with a prediction, 0 differences; "
        f"expected number of false certificates: at most {0.01 * certified:.2g}"
    )


def test_verdict_counts_every_difference(run):
    """Those of the file and of what else was found; nothing is then said of the alphas."""
    checked = verification.verify(run)
    once = checked.with_differences([(checked.found[2].index, "the votes differ")])
    assert str(once.differences[0]) == f"{run}, line 5: the votes differ" and checked.differences == []
    assert outcome.summary(once).startswith("NOT VERIFIED: 1 difference; 9 certificates, ")
    twice = once.with_differences([(checked.found[0].index, "and these")])
    assert outcome.summary(twice).startswith("NOT VERIFIED: 2 differences; 9 certificates, ")
    assert "expected" not in outcome.summary(twice)
