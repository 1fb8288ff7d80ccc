"""Outcome: what a verification found, in a sentence."""

from __future__ import annotations

from deqsmooth.certificates import bound, rounding, verification


def summary(checked: verification.Checked) -> str:
    """The result of a verification in one sentence; of a file that differs, nothing is said of its alphas."""
    certified = [c for c in checked.found if c.prediction is not None]
    not_valid = sum(c.warning is not None for c in certified)
    text = f"{rounding.number(len(checked.found), 'certificate')}, {len(certified):,} with a prediction"
    if num := len(checked.unreadable):
        images = f"{rounding.number(num, 'image')} without one because {'it' if num == 1 else 'they'}"
        text += f", {images} could not be read"
    text = verdict(text, len(checked.differences))
    if checked.header.get("soundness_check") == "skipped":
        text += "; whether the classifier is a function of one image was not checked"
    if not_valid:
        return f"{text}; the radii of {not_valid:,} are no certificates: {bound.NOT_VALID}"
    if checked.differences:
        return text
    expected = rounding.at_most(sum(c.alpha for c in certified))
    return f"{text}; expected number of false certificates: at most {expected}"


def verdict(text: str, num: int) -> str:
    """What a file holds, with the number of its differences; these come first if there are any.

    Example:
      >>> verdict("9 attacks", 0), verdict("9 attacks", 1)
      ('9 attacks, 0 differences', 'NOT VERIFIED: 1 difference; 9 attacks')
    """
    return f"NOT VERIFIED: {rounding.number(num, 'difference')}; {text}" if num else f"{text}, 0 differences"
