"""Sentences of a report: from runs to the title, alarms, what was certified, the verdict and what it means."""

from __future__ import annotations

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
    num = f"{' to '.join(map(str, (counts[0], *counts[1:][-1:])))} certificate{'s' * (counts[-1] > 1)}"
    whose = ""
    if len(certified) < len(runs):
        whose = f"{'' if len(certified) == 1 else ' each'} of {_several(certified)}"
    elif len(runs) > 1:
        whose = " of a run"
    yield (
        f"A certificate is false with probability at most {largest:g}, by chance of the noise. Of the "
        f"{num}{whose}, at most {rounding.at_most(max(totals))} are false in expectation, and with probability "
        f"at least {rounding.percent(max(0.0, 1 - max(totals)))} % none is. Rows 'all at once' under Intervals "
        "have smaller radii, which hold for all images of a run together with probability at least "
        f"{1 - largest:g}."
    )


def _claim(runs: Sequence[Run], of: Sequence[Run]) -> str:
    """Certified accuracy at the radius nearest to sigma, and ACR: of one run or two, or the range of several.

    Args:
      runs: runs with certificates, or published results.
      of: all runs of the report.
    """
    sigmas = [run.checked.settings.sigma for run in runs if run.checked is not None]
    radii = overview.few_radii(of)[1:]
    radius = min(radii, key=lambda one: abs(one - min(sigmas, default=radii[0])))
    shares = [statements.certified_accuracy(run.found, radius) for run in runs]
    means = [statements.average_certified_radius(run.found) for run in runs]
    data, counts = _data(of), sorted({len(run.found) for run in runs})
    images = f"{' to '.join(f'{num:,}' for num in (counts[0], *counts[1:][-1:]))} image{'s' * (counts[-1] > 1)}"
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
        f"The average certified radius is {mean}."
    )


def _ranged(runs: Sequence[Run], values: Sequence[float], texts: Sequence[str]) -> str:
    """Numbers of one run or two; of more runs the least and the largest; each with the letter of its run."""
    if len(runs) <= 2 and len(set(texts)) == len(texts):
        return " and ".join(f"{text} ({run.short})" for run, text in zip(runs, texts, strict=True))
    ordered = sorted(range(len(runs)), key=lambda place: values[place])
    least, largest = ordered[0], ordered[-1]
    if texts[least] == texts[largest]:
        return f"{texts[0]} ({'both' if len(runs) == 2 else f'all {len(runs)}'})"
    return f"between {texts[least]} ({runs[least].short}) and {texts[largest]} ({runs[largest].short})"


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
