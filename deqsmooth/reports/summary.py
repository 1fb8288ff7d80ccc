"""The summary of a run: from the certificates of its images to averages and accuracies with their intervals."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.console

from deqsmooth.certificates import record, rounding, statements
from deqsmooth.config import checks
from deqsmooth.reports import tables
from deqsmooth.statistics import means

# Another version of scipy may compute radii that differ by this.
_RELATIVE = 1e-9


class Mean(NamedTuple):
    """A mean over images.

    Attributes:
      value: mean of these images.
      lower: lower end of the interval for all images that these were drawn from.
      upper: upper end.
    """

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        """Returns value and interval as text, each rounded away from saying too much."""
        return f"{rounding.radius(self.value)} ({self.interval})"

    @property
    def interval(self) -> str:
        """The interval as text."""
        return f"{rounding.radius(self.lower)}-{rounding.radius(self.upper, up=True)}"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the certificates of some images say together.

    Intervals are for the images that these were drawn from, independently; each holds by itself with probability
    at least 1 - alpha.

    Attributes:
      num_images: number of images.
      alpha: largest probability that an interval misses.
      acr: average certified radius (Zhai et al. 2020): wrong predictions and abstentions count 0. None if a label
        is unknown.
      mean_radius: mean radius, wrong predictions included; abstentions count 0.
      certified_accuracy: at each radius the share of images whose prediction is right and certified to it. None if
        a label is unknown.
      certified: at each radius the share of images with a prediction that is certified to it, right or wrong.
      abstentions: images without a prediction.
      evaluations: mean cell evaluations per image.
      seconds: mean wall time per image.
      num_audit: votes that were audited, of all images.
      mismatches: of these, votes that the reference does not confirm.
      num_pairs: samples on which two classifiers were compared, of all images.
      lost: of these, samples to which only the original classifier gives the class.
      invalid: samples that were not finite.
      fallbacks: solver steps that were replaced by plain iteration.
      warning: says that the bound is not valid; None if it is.
    """

    num_images: int
    alpha: float
    acr: Mean | None
    mean_radius: Mean
    certified_accuracy: tuple[statements.Accuracy, ...] | None
    certified: tuple[statements.Accuracy, ...]
    abstentions: int
    evaluations: float
    seconds: float
    num_audit: int
    mismatches: int
    num_pairs: int
    lost: int
    invalid: int
    fallbacks: int
    warning: str | None

    def to_dict(self) -> dict[str, Any]:
        """The same as numbers, strings, lists and dicts, as JSON has them."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def tables(self) -> Iterator[tables.Table]:
        """Yields a table of accuracies at radii, in percent, and one of averages."""
        shares, what = self.certified_accuracy, "certified accuracy"
        if shares is None:
            shares, what = self.certified, "share of images with a certificate, labels unknown"
        yield tables.Table(
            f"{what}, {self.num_images} images, by L2 radius (pixels in [0, 1])",
            ("radius", *(f"{x.radius:g}" for x in shares)),
            (
                ("%", *(rounding.percent(x.share) for x in shares)),
                (f"lower end, {self._level}", *(rounding.percent(x.lower) for x in shares)),
                (f"upper end, {self._level}", *(rounding.percent(x.upper, up=True) for x in shares)),
            ),
        )
        yield tables.Table(
            f"intervals over images, {self._level}, each by itself", ("", ""), tuple(self._averages())
        )

    @property
    def _level(self) -> str:
        return f"{100 * (1 - self.alpha):g} %"

    def _averages(self) -> Iterator[tuple[str, str]]:
        """Yields the rows of the second table; errors that did not occur have none."""
        if self.acr is not None:
            yield "ACR (wrong predictions count 0)", str(self.acr)
        yield "mean radius (wrong predictions included)", str(self.mean_radius)
        yield "abstentions", f"{self.abstentions} of {self.num_images}"
        yield "evaluations per image", rounding.evaluations(self.evaluations)
        yield "seconds per image", rounding.seconds(self.seconds)
        if self.num_audit:
            shown = rounding.errors(self.mismatches, self.num_audit)
            yield "audited votes that the reference does not confirm", shown
        if self.num_pairs:
            shown = rounding.errors(self.lost, self.num_pairs)
            yield "pairs in which only the original classifier gives the class", shown
        for name, number in (
            ("samples that were not finite", self.invalid),
            ("solver steps replaced by plain iteration", self.fallbacks),
        ):
            if number:
                yield name, f"{number:,}"
        if self.warning is not None:
            yield "WARNING", self.warning

    def __rich__(self) -> rich.console.Group:
        """The tables for a terminal."""
        return rich.console.Group(*map(tables.to_rich, self.tables()))

    def _repr_html_(self) -> str:
        """The tables for a notebook."""
        return "\n".join(map(tables.to_html, self.tables()))


def summary(
    certificates: Iterable[record.Certificate], radii: Sequence[float] | None = None, alpha: float = 0.05
) -> Summary:
    """The average certified radius and the certified accuracy of a run, with confidence intervals over images.

    Certified accuracies have the intervals of Clopper & Pearson (1934), mean radii those of Waudby-Smith & Ramdas
    (2024), which are valid for any number of images since the largest radius that the settings allow is known.

    Args:
      certificates: of images that were drawn independently, in any order, such as `certify` yields them.
      radii: radii of the accuracies; by default 0, 0.25, ... up to the largest certified radius.
      alpha: largest probability that an interval misses.

    Raises:
      ValueError: there is no certificate, an item is none or has a radius above that of unanimous votes, or a
        radius or alpha is out of range.

    Example:
      >>> from deqsmooth.certificates import jsonl
      >>> header, certificates = jsonl.read("runs/digits.jsonl")  # doctest: +SKIP
      >>> print(summary(certificates).acr)  # doctest: +SKIP
      0.481 (0.402-0.571)
    """
    checks.holds(isinstance(alpha, float) and 0 < alpha < 1, "alpha", alpha, "a number between 0 and 1")
    found = _checked(certificates)
    if radii is None:
        radii = statements.radii(min(c.sigma for c in found), max(c.radius for c in found))
    checks.holds(isinstance(radii, Iterable), "radii", radii, "a sequence of numbers")
    for radius in radii:
        checks.holds(
            isinstance(radius, numbers.Real) and 0 <= radius < math.inf,
            "a radius",
            radius,
            "a finite number from 0",
        )
    labelled = all(c.correct is not None for c in found)
    return Summary(
        num_images=len(found),
        alpha=alpha,
        acr=_mean(found, [c.radius if c.correct else 0.0 for c in found], alpha) if labelled else None,
        mean_radius=_mean(found, [c.radius for c in found], alpha),
        certified_accuracy=tuple(statements.accuracies(found, radii, alpha)) if labelled else None,
        certified=tuple(statements.certified(found, radii, alpha)),
        abstentions=sum(c.prediction is None for c in found),
        evaluations=sum(c.evaluations for c in found) / len(found),
        seconds=sum(c.seconds for c in found) / len(found),
        num_audit=sum(c.num_audit for c in found),
        mismatches=sum(c.mismatches for c in found),
        num_pairs=sum(c.num_pairs for c in found),
        lost=sum(c.lost for c in found),
        invalid=sum(c.invalid for c in found),
        fallbacks=sum(c.fallbacks for c in found),
        warning=next((f"bound {c.bound}: {c.warning}" for c in found if c.warning), None),
    )


def difference(first: Sequence[record.Certificate], second: Sequence[record.Certificate], alpha: float) -> Mean:
    """The average certified radius of a run minus that of the first, on the images that both have.

    A difference of an image lies between minus the largest radius that the settings of the first run allow, and
    the largest that those of the second allow. The interval is that of Waudby-Smith & Ramdas (2024).

    Args:
      first: certificates of a run that verifies, with labels.
      second: certificates of the other.
      alpha: largest probability that the interval misses.

    Raises:
      ValueError: they have no image in common, or give one of them different labels.
    """
    pairs = sorted(statements.paired(first, second), key=lambda pair: pair[0].index)
    counted = [np.array([x.radius if x.correct else 0.0 for x in run]) for run in zip(*pairs, strict=True)]
    largest = [max(map(statements.largest_radius, run)) for run in (first, second)]
    below, above = (np.minimum(radii, most) for radii, most in zip(counted, largest, strict=True))
    lower, upper = means.interval(largest[0] - below + above, sum(largest), alpha)
    return Mean(float(np.mean(counted[1] - counted[0])), lower - largest[0], upper - largest[0])


def _checked(certificates: Iterable[record.Certificate]) -> list[record.Certificate]:
    """The certificates by index.

    Raises:
      ValueError: see `summary`.
    """
    is_none = isinstance(certificates, str) or not isinstance(certificates, Iterable)
    found = [] if is_none else list(certificates)
    for one in found:
        if not isinstance(one, record.Certificate):
            raise ValueError(
                f"an item of certificates is of type {type(one).__name__}; it must be a certificate, as `certify` "
                "yields them; `read` returns the header of a file and the list of its certificates"
            )
    if not found:
        kind = f" (it is {certificates!r})" if is_none else ""
        raise ValueError(f"certificates holds no certificate{kind}; a summary needs at least one")
    problem = statements.impossible(found)
    if problem is not None:
        raise ValueError(problem)
    for one in found:
        largest = statements.largest_radius(one)
        if one.radius > largest * (1 + _RELATIVE):
            raise ValueError(
                f"radius of image {one.index} is {one.radius:g}; with its settings unanimous votes give "
                f"{rounding.radius(largest)}"
            )
    return sorted(found, key=lambda one: one.index)


def _mean(found: Sequence[record.Certificate], radii: Sequence[float], alpha: float) -> Mean:
    """Mean of radii, in the order of the certificates, with its interval."""
    largest = max(map(statements.largest_radius, found))
    lower, upper = means.interval(np.minimum(radii, largest), largest, alpha)
    return Mean(float(np.mean(radii)), lower, upper)


def _plain(value: Any) -> Any:
    if isinstance(value, Mean | statements.Accuracy):
        return value._asdict()
    return [one._asdict() for one in value] if isinstance(value, tuple) else value
