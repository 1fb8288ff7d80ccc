"""Names of runs: from what headers lay down to short names that tell the runs of a report apart."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from deqsmooth import config
from deqsmooth.certificates import verification
from deqsmooth.statistics import bounds

_STARTS = {
    "zero": "zero",
    "constant": "the constant start",
    "learned": "the learned start",
    "previous": "the sample before",
    "clean": "the image without noise",
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def names(files: Sequence[tuple[str, verification.Checked | None]]) -> list[str]:
    """Names of runs by what they are, all different, such as "30 evaluations from zero, looks".

    Of runs that would have the same name, each also says what tells it apart: sigma, the solver, the number of
    samples, the model and so on; at last the stem of its file.

    Args:
      files: stem of each file, unique, and its content; None for a published result, which is named by its stem.
    """
    found = [stem if checked is None else _kind(checked) for stem, checked in files]
    details = [[] if checked is None else list(_details(checked)) for _, checked in files]
    for place in range(max(map(len, details), default=0)):
        for same in _equal(found):
            values = [details[i][place] if details[i] else "" for i in same]
            if len(set(values)) > 1:
                for i, value in zip(same, values, strict=True):
                    found[i] += f", {value}" if value else ""
    for same in _equal(found):
        for i in same:
            found[i] += f" ({files[i][0]})"
    return found if len(set(found)) == len(found) else [stem for stem, _ in files]


def letters(num: int) -> list[str]:
    """Letters by which a report calls its runs for short: A, B, ..., Z, AA, AB, ...; none for a single run."""
    if num == 1:
        return [""]
    pairs = ("".join(two) for two in itertools.product(_LETTERS, repeat=2))
    triples = ("".join(three) for three in itertools.product(_LETTERS, repeat=3))
    return list(itertools.islice(itertools.chain(_LETTERS, pairs, triples), num))


def stems(paths: Sequence[pathlib.Path]) -> list[str]:
    """Stems of paths, each preceded by the fewest folders that make all of them different.

    Files are named after them, with a hyphen for each slash, and these names differ, too.

    Raises:
      ValueError: a path is given twice.
    """
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{twice} is given twice")
    for is_stem in (True, False):
        for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
            found = ["/".join(path.parts[-depth:]) for path in paths]
            if is_stem:
                whole = [name.removesuffix(".gz") for name in found]
                found = [name.rpartition(".")[0] or name for name in whole]
            if len({name.replace("/", "-") for name in found}) == len(found):
                return [readable(name) for name in found]
    return [f"{number} {readable(path.name)}" for number, path in enumerate(paths, 1)]


def readable(text: str) -> str:
    """A text with the letters of the names of files in it, also where the locale does not decode their bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _equal(found: Sequence[str]) -> list[list[int]]:
    """Places of each name that is there several times."""
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate(found):
        by_name.setdefault(name, []).append(place)
    return [places for places in by_name.values() if len(places) > 1]


def _kind(checked: verification.Checked) -> str:
    """What a run is, in a few words."""
    settings = checked.settings
    looks = ", looks" if settings.looks else ""
    dtype = "" if settings.dtype == "float32" else f", {settings.dtype}"
    if checked.header["reference"]["solver"] is None:
        return f"an explicit network{looks}"
    start = _STARTS.get(str(settings.start), settings.start)
    if settings.settle is not None:
        return f"the equilibrium, settled by {settings.settle} from {start}{looks}"
    evaluations = f"{settings.budget} evaluation{'' if settings.budget == 1 else 's'}"
    if settings.sampler == "serial":
        return f"{evaluations}, serial, audited{dtype}"
    paired = ", recertified" if settings.bound == bounds.PAIRED else ""
    return f"{evaluations} from {start}{looks}{dtype}{paired}"


def _details(checked: verification.Checked) -> Iterator[str]:
    """Yields what may tell runs of one kind apart, the most telling first; empty where there is nothing to say."""
    settings, selection, reference = checked.settings, checked.selection, checked.header["reference"]
    yield f"sigma {settings.sigma:g}"
    yield str(settings.solver)
    yield "" if settings.tolerance is None else f"tolerance {settings.tolerance:g}"
    yield f"{settings.num_estimation:,} samples"
    yield f"alpha {settings.alpha:g}"
    yield f"bound {settings.bound or bounds.CLOPPER_PEARSON}"
    yield f"exact noise on a grid of 1/{settings.grid}" if settings.grid else ""
    yield f"K = {settings.num_audit:,}" if settings.num_audit else ""
    yield f"model {str(reference.get('checkpoint'))[:8]}"
    yield str(checked.header.get("classifier") or "")
    yield f"start {settings.start}"
    yield f"reference of {settings.reference_budget} evaluations" if settings.reference_budget else ""
    yield f"warm-up of {settings.warmup_budget} evaluations" if settings.warmup_budget else ""
    yield f"looks at {', '.join(f'{look:,}' for look in settings.looks)}" if settings.looks else ""
    yield _stopping(settings)
    yield f"{settings.num_selection:,} selection samples"
    yield f"{settings.num_pairs:,} pairs" if isinstance(settings, config.Paired) else ""
    yield f"seed {settings.seed}"
    yield f"every {selection.stride} images from {selection.start_index}"
    yield f"{settings.lanes} lanes"
    yield f"code {str(reference.get('program'))[:8]}"
    yield f"on {checked.header.get('device')}"


def _stopping(settings: config.Smoothing) -> str:
    found = []
    if settings.stop_radius is not None:
        found.append(f"stops at radius {settings.stop_radius:g}")
    if settings.stop_gain is not None:
        found.append(f"stops at gain {settings.stop_gain:g}")
    if settings.stop_radii is not None:
        found.append(f"stops at radii {', '.join(f'{radius:g}' for radius in settings.stop_radii)}")
    if settings.only_correct:
        found.append("only correct classes")
    return ", ".join(found)
