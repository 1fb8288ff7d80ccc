"""Sentences of a report: from runs to the title, alarms, what was certified, the verdict and what it means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from deqsmooth.certificates import rounding, statements
from deqsmooth.reports import overview
from deqsmooth.reports.runs import Run

_MOST_NAMES = 3
_DIGEST = len("sha256:") + 8


def title(runs: Sequence[Run]) -> str:
    """What was certified, in a few words, with the marks of runs if every run has one."""
    marks = sorted({run.mark for run in runs})
    text = f"Certified robustness of {data}" if (data := _data(runs)) else f"Published radii: {_several(runs)}"
    sigmas = sorted({run.checked.settings.sigma for run in runs if run.checked is not None})
    if sigmas:
        text += f", sigma {_listed([f'{sigma:g}' for sigma in sigmas])}"
    return text if "" in marks else f"{text} {' '.join(marks)}"


def alarms(runs: Sequence[Run]) -> list[str]:
    """What a reader must know before any number, in a sentence for each verdict of runs that alarm."""
    return list(_verdicts([run for run in runs if run.is_alarming], num=len(runs)))


def verification(runs: Sequence[Run]) -> list[str]:
    """A sentence for each verdict of the other runs."""
    return list(_verdicts([run for run in runs if not run.is_alarming], num=len(runs)))


def claims(runs: Sequence[Run]) -> Iterator[str]:
    """Yields what was certified in a sentence or two; of published results alone, what they say."""
    certified = [run for run in runs if run.is_certified]
    # The images of an incomplete run need not be like those of the others.
    whole = [run for run in certified if not run.mark] or certified
    if whole:
        yield _claim(whole, runs)
    elif all(run.checked is None for run in runs):
        yield _claim(runs, runs)


def meaning(runs: Sequence[Run]) -> Iterator[str]:
    """Yields paragraphs that explain the guarantee."""
    yield (
        "The certified classifier adds Gaussian noise to an image many times and answers with the class that the "
        "network gives most often. A certificate of radius r says: no change of the image of L2 length below r, "
        "with pixels as numbers in [0, 1], changes this answer. It speaks of this classifier, with exactly the "
        "settings of the record. It does not speak of the network without noise, of other kinds of change, or of "
        "whether the answer is right."
    )
    yield from _scale(runs)
    if any(run.checked is not None and run.checked.settings.looks for run in runs):
        yield (
            "Looks are numbers of samples at which the votes of an image may be read. Sampling stops at a look "
            "where more samples would add too little to the radius, by the rule of the settings. Alpha is divided "
            "among the looks, so that a certificate holds at whichever look sampling stopped."
        )
    unsound = [run.label for run in runs if not run.is_sound]
    if unsound:
        yield (
            f"This does not hold for {_listed(unsound)}. The numbers are shown as the file states them, to find "
            "out what is wrong; they are no result."
        )
    certified = [run for run in runs if run.is_certified and overview.alphas(run)]
    if not certified:
        return
    totals = [sum(overview.alphas(run)) for run in certified]
    counts = sorted({len(overview.alphas(run)) for run in certified})
    largest = max(max(overview.alphas(run)) for run in certified)
    num = _number(counts, "certificate")
    whose = ""
    if len(certified) < len(runs):
        whose = f"{'' if len(certified) == 1 else ' each'} of {_several(certified)}"
    elif len(runs) > 1:
        whose = " of a run"
    yield (
        f"A certificate is false with probability at most {largest:g}, by chance of the noise. Of the "
        f"{num}{whose}, at most {rounding.at_most(max(totals))} are false in expectation (number times alpha), "
        f"and with probability at least {rounding.percent(max(0.0, 1 - max(totals)))} % none is (1 minus number "
        "times alpha). Rows 'all at once' under Intervals have smaller radii, which hold for all images of a run "
        f"together with probability at least {1 - largest:g}."
    )


def _claim(runs: Sequence[Run], of: Sequence[Run]) -> str:
    """Certified accuracy at the radius nearest to sigma, and ACR: of one run or two, or the range of several.

    Args:
      runs: runs with certificates, or published results.
      of: all runs of the report.
    """
    radius = _radius(runs, of)
    shares = [statements.certified_accuracy(run.found, radius) for run in runs]
    means = [statements.average_certified_radius(run.found) for run in runs]
    data, counts = _data(of), sorted({len(run.found) for run in runs})
    images = _number(counts, "image")
    whose = f"{images} of {data}" if data else images
    if len(of) == 1:
        whole, mean = f"{rounding.percent(shares[0])} %", overview.acr(runs[0])
    else:
        whole = _ranged(runs, shares, [f"{rounding.percent(share)} %" for share in shares])
        mean = _ranged(runs, means, [rounding.radius(one) for one in means])
    if runs[0].checked is None:
        begin, verb = f"By the published radii, of {whose}", "classified correctly and keep their class under"
    else:
        begin, verb = f"Of {whose}", "classified correctly and certified against"
    marked = f"{runs[0].label}: " if len(of) == 1 and runs[0].mark else ""
    return (
        f"{marked}{begin}, {whole} are {verb} every change of L2 length below {radius:g}, with pixels in [0, 1]. "
        f"The average certified radius is {mean.removesuffix(',')}."
    )


def _ranged(runs: Sequence[Run], values: Sequence[float], texts: Sequence[str]) -> str:
    """Numbers of one run or two, each with the letter of its run; of more runs the first number and the range.

    All runs that have an end of the range are named, or none if they are many. A range ends with a comma.
    """
    if len(runs) <= 2 and len(set(texts)) == len(texts):
        return " and ".join(f"{text} ({run.short})" for run, text in zip(runs, texts, strict=True))
    if len(set(texts)) == 1:
        return f"{texts[0]} ({'both' if len(runs) == 2 else f'all {len(runs)}'})"

    def end(text: str) -> str:
        same = [run.short for run, other in zip(runs, texts, strict=True) if other == text]
        return f"{text} ({_listed(same)})" if len(same) <= _MOST_NAMES else text

    least, largest = (texts[values.index(one)] for one in (min(values), max(values)))
    return (
        f"{texts[0]} ({runs[0].short}), with a range of the {len(runs)} runs from {end(least)} to {end(largest)},"
    )


def _radius(runs: Sequence[Run], of: Sequence[Run]) -> float:
    """The radius of the first table that is nearest to sigma, except 0."""
    sigmas = [run.checked.settings.sigma for run in runs if run.checked is not None]
    radii = overview.few_radii(of)[1:]
    return min(radii, key=lambda one: abs(one - min(sigmas, default=radii[0])))


def _scale(runs: Sequence[Run]) -> Iterator[str]:
    """Yields how large a change of the claimed radius is in each value of an image, if its shape is known."""
    for checked in (run.checked for run in runs if run.checked is not None):
        model = checked.header.get("model")
        shape = checked.header.get("image_shape") or (
            model.get("image_shape") if isinstance(model, dict) else None
        )
        if isinstance(shape, list) and len(shape) == 3 and all(isinstance(one, int) and one > 0 for one in shape):
            radius, num = _radius(runs, runs), math.prod(shape)
            yield (
                f"For scale: a change of L2 length {radius:g} that is spread evenly over an image of this shape, "
                f"{' x '.join(map(str, shape))}, is a change of {radius / math.sqrt(num):.2g} in each of {num:,} "
                "values."
            )
            return


def _number(counts: Sequence[int], noun: str) -> str:
    """A number, or the range of several that increase, with a noun."""
    begin = f"{counts[0]:,} to " if len(counts) > 1 else ""
    return f"{begin}{rounding.number(counts[-1], noun)}"


def _verdicts(runs: Sequence[Run], num: int) -> Iterator[str]:
    """Yields the verdicts of runs as sentences, each once; the runs that have it are named before it."""
    by_verdict: dict[str, list[Run]] = {}
    for run in runs:
        by_verdict.setdefault(run.verdict(), []).append(run)
    for verdict, same in by_verdict.items():
        if num == 1:
            yield f"{verdict[0].upper()}{verdict[1:]}."
        elif len(same) == 1:
            yield f"{same[0].title}: {verdict}."
        else:
            verb = " verify" if all(run.is_certified for run in same) else ""
            yield f"{_several(same, num)}{verb}: {verdict}."


def _several(runs: Sequence[Run], num: int = 0) -> str:
    """Runs by their labels if they are few, else by their letters; by their number if they are all of so many."""
    if len(runs) == num:
        return "Both files" if num == 2 else f"All {num} files"
    return _listed([run.label if len(runs) <= _MOST_NAMES else run.short for run in runs])


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _data(runs: Sequence[Run]) -> str:
    """Data set and split that the headers name, of arrays their digest; empty if there is no header."""
    for checked in (run.checked for run in runs if run.checked is not None):
        identity, selection = str(checked.header.get("data") or ""), checked.selection
        # Arrays have one split, and no name but their digest.
        is_digest = selection.dataset == "arrays" and identity
        return f"{selection.dataset} ({identity[:_DIGEST] if is_digest else selection.split})"
    return ""
