"""Figures of the manual: what each shows, as numbers from kept records, and how these are drawn.

A file of a figure ends with a digest of its numbers, from which tests see whether it shows what the records say.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import kept
import numpy as np
from matplotlib import patches

from deqsmooth.certificates import rounding, statements
from deqsmooth.reports import canvas
from deqsmooth.statistics import bounds

if TYPE_CHECKING:
    from deqsmooth.reports.canvas import Axes

DIGITS, CIFAR10 = "certification/digits-0.5", "certification/cifar10-0.5"
COLOURS = dict(zip(("zero", "serial", "learned", "constant"), canvas.COLOURS, strict=False))
"""Colour of each way to begin the solve of a sample, in every figure."""
SMALL = 9
"""Size of the text at marks, in points."""
_DIGITS = 6


class Drawing(NamedTuple):
    """A figure.

    Attributes:
      data: the numbers that it shows, as JSON values.
      draw: (data, axes) -> None.
    """

    data: Any
    draw: Callable[[Any, Axes], None]

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers, rounded to six decimals."""
        return hashlib.sha256(json.dumps(_rounded(self.data), sort_keys=True).encode()).hexdigest()

    def svg(self, name: str) -> str:
        """The drawing, with the digest in a comment at its end."""
        drawn = canvas.Figure(name, "", functools.partial(self.draw, self.data)).narrow
        head, end, _ = drawn.rpartition("</svg>")
        return f"{head}<!-- data: {self.digest} -->\n{end}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(float(value), _DIGITS) if isinstance(value, float) else value


def accuracy_against_cost(folder: str, radius: float, budgets: Sequence[int], places: Sequence[Any]) -> Drawing:
    """Certified accuracy at a radius against evaluations: for each way, (evaluations, accuracy, budget) by budget."""
    kinds = [(way, looks) for way in ("zero", "constant", "learned") for looks in ("", ", looks")]
    rows = {f"{way}{looks}": [(b, f"{way} {b}{looks}") for b in budgets] for way, looks in kinds}
    rows |= {"zero": [*rows["zero"], (8, "zero 8"), (30, "zero 30")]}
    rows |= {"zero, looks": [*rows["zero, looks"], (8, "zero 8, looks"), (30, "zero 30, looks")]}
    rows["serial"] = [(b, f"serial {b}, audited") for b in (1, 2, 3)]
    data: dict[str, Any] = {"radius": radius, "lines": {}}
    for kind, named in rows.items():
        runs = [(budget, kept.run(folder, row).certificates) for budget, row in named]
        data["lines"][kind] = [
            (
                float(np.mean([c.evaluations for c in found])),
                100 * statements.certified_accuracy(found, radius),
                budget,
            )
            for budget, found in runs
        ]

    def draw(data: Any, axes: Axes) -> None:
        for kind, points in data["lines"].items():
            way = kind.removesuffix(", looks")
            x, y, names = zip(*points, strict=True)
            style = {"ls": "-"} if way == kind else {"ls": (0, (4, 2)), "mfc": canvas.PAPER, "lw": 1}
            axes.plot(x, y, marker="o", ms=5, color=COLOURS[way], **style)
            if way == kind:
                for point in zip(x, y, names, strict=True):
                    _mark(axes, point[:2], str(point[2]), (0, 6), COLOURS[way])
        for text, colour, place in places:
            _mark(axes, place, text, (0, 0), colour, size=10, ha="left")
        axes.set(xscale="log", xlabel="cell evaluations an image")
        axes.set(ylabel=f"certified accuracy at radius {data['radius']:g}, %")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.margins(0.08, 0.12)

    return Drawing(data, draw)


def what_a_start_buys(name: str) -> Drawing:
    """Share of noisy images with the class of 30 evaluations: for each start, (evaluations, percent)."""
    lines = [line for line in kept.lines("starts", f"{name}.jsonl") if line["solver"] == "anderson"]
    starts = ("zero", "constant", "learned")
    data = {s: [(x["budget"], 100 * x["agreement"]) for x in lines if x["start"] == s] for s in starts}

    def draw(data: Any, axes: Axes) -> None:
        for start, points in data.items():
            axes.plot(*zip(*points, strict=True), "o-", ms=5, color=COLOURS[start])
            _mark(axes, points[0], start, (10, -3), COLOURS[start], size=10, ha="left", va="top")
        axes.set(xlabel="cell evaluations a sample", ylabel="class of 30 evaluations, % of samples", ylim=(0, 102))
        axes.set_xticks([evaluations for evaluations, _ in points])

    return Drawing(data, draw)


def what_the_audit_costs() -> Drawing:
    """The radii of the images that are right, of three ways, and the largest radius that an audit leaves possible."""
    rows = {"zero": "zero 30", "learned": "learned 1", "serial": "serial 3, audited"}
    runs = {way: kept.run(DIGITS, row) for way, row in rows.items()}
    data = {
        "images": len(runs["zero"].certificates),
        "radii": {way: sorted(c.radius for c in run.certificates if c.correct) for way, run in runs.items()},
        "cap": kept.settings(runs["serial"]).cap,
    }

    def draw(data: Any, axes: Axes) -> None:
        names = {"zero": "standard, 30 from zero", "learned": "1 from the learned start", "serial": "serial 3, audited"}
        for way, radii in data["radii"].items():
            shares = 100 * np.arange(len(radii), -1, -1) / data["images"]
            axes.step([0, *radii], shares, where="pre", color=COLOURS[way], label=names[way])
        axes.axvline(data["cap"], color=COLOURS["serial"], ls="--", lw=1)
        axes.set(xlabel="L2 radius (pixels in [0, 1])", ylabel="certified accuracy, %", ylim=(0, 100))
        axes.legend()

    return Drawing(data, draw)


def p_a() -> Drawing:
    """The estimated probability of the class of each image, for two data sets."""
    runs = {"digits": kept.run(DIGITS, "zero 30"), "CIFAR-10": kept.run(CIFAR10, "zero 30")}
    shares = {name: sorted(c.count / c.num_estimation for c in run.certificates) for name, run in runs.items()}
    data = {"sigma": kept.settings(runs["digits"]).sigma, "p_a": shares}

    def draw(data: Any, axes: Axes) -> None:
        sigma, end = data["sigma"], 1.75

        def radius_of(p: float) -> float:
            return bounds.radius(p, sigma) if p < 1 else 2 * end

        for (name, found), style in zip(data["p_a"].items(), ("-", "--"), strict=True):
            above = [p for p in found if p >= 0.5]
            shares = 100 * np.arange(len(above), -1, -1) / len(found)
            places = [0, *map(radius_of, above)]
            axes.step(places, shares, where="pre", color=COLOURS["zero"], ls=style, label=name)
        ticks = (0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
        axes.set_xticks([radius_of(p) for p in ticks], [f"{p:g}" for p in ticks])
        axes.set(xlabel="$p_A$, estimated", ylabel="images with at least this $p_A$, %", xlim=(0, end), ylim=(0, 100))
        axes.secondary_xaxis("top").set_xlabel(f"radius that it means at sigma {sigma:g}")
        axes.legend()

    return Drawing(data, draw)


def _mark(
    axes: Axes, place: Any, text: str, offset: tuple[float, float], colour: str, size: float = SMALL, **how: str
) -> None:
    """Writes a text at a place of the data, moved by some points."""
    how = {"ha": "center", "va": "baseline", **how}
    axes.annotate(text, place, offset, textcoords="offset points", color=colour, fontsize=size, **how)


def way_of_a_sample() -> Drawing:
    """An image, noisy copies of it and their labels, the counts of its record, and its bound and radius."""
    run = kept.run(DIGITS, "zero 30")
    certificate = next(c for c in run.certificates if c.index == _IMAGE)
    image, copies, labels = _copies(_IMAGE, certificate.seed, certificate.sigma, certificate.budget)
    data = {
        "image": image,
        "copies": copies,
        "labels": labels,
        "class": certificate.selected,
        "counts": list(certificate.counts[:-1]),
        "samples": certificate.num_estimation,
        "alpha": certificate.alpha,
        "p_lower": certificate.p_lower,
        "radius": certificate.radius,
    }
    return Drawing(data, _draw_way)


_IMAGE = 234


def _copies(index: int, seed: int, sigma: float, budget: int | None) -> tuple[Any, Any, list[int]]:
    """An image of digits, its first three noisy copies as a run draws them, and the labels that the model gives."""
    import jax.numpy as jnp

    import deqsmooth as ds
    from deqsmooth import solvers
    from deqsmooth.models import base_classifier, starts
    from deqsmooth.smoothing import noise

    image, _ = ds.load_dataset("digits", "test")[index]
    keys = jnp.stack([noise.phase_key(seed, index, noise.ESTIMATION)] * 3)
    noisy = image + sigma * noise.gaussian(keys, jnp.arange(3, dtype=jnp.int32), image.shape)
    classifier = ds.load_checkpoint("digits", sigma)
    solver = solvers.build("anderson", budget)
    output = base_classifier.classify(
        classifier.model, classifier.variables, solver, noisy, starts.zero(classifier.model)
    )
    # As they are shown: from white to black, in 100 levels, which do not depend on the machine.
    shown = np.round(np.clip(noisy[..., 0], 0, 1), 2).astype(float)
    return image[..., 0].tolist(), np.round(shown, 2).tolist(), jnp.argmax(output.logits, -1).tolist()


def _draw_way(data: Any, axes: Axes) -> None:
    """Draws in inches: from an image at the top left to labels at the right, and back below to a radius."""
    width, height = 6.3, 3.3
    axes.figure.set_size_inches(width + 0.1, height + 0.1)
    chosen, other = COLOURS["zero"], "#888888"

    def write(x: float, y: float, text: str, colour: str = canvas.TEXT, size: float = 11, **how: Any) -> None:
        axes.text(x, y, text, color=colour, fontsize=size, **{"ha": "center", "va": "center", **how})

    def show(pixels: Any, x: float, y: float, size: float) -> None:
        extent = (x - size / 2, x + size / 2, y - size / 2, y + size / 2)
        axes.imshow(pixels, "gray_r", vmin=0, vmax=1, extent=extent, interpolation="none", zorder=2)
        corner = (extent[0], extent[2])
        axes.add_patch(patches.Rectangle(corner, size, size, fc="none", ec=canvas.FAINT, lw=0.8, zorder=3))

    def arrow(start: Any, end: Any, colour: str = canvas.TEXT, bend: float = 0) -> None:
        axes.add_patch(
            patches.FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=9, color=colour, lw=1, shrinkA=0, shrinkB=0,
                connectionstyle=f"arc3,rad={bend}",
            )
        )  # fmt: skip

    def box(left: float, bottom: float, wide: float, high: float, colour: str = canvas.TEXT) -> None:
        style = "round,pad=0,rounding_size=0.08"
        axes.add_patch(patches.FancyBboxPatch((left, bottom), wide, high, boxstyle=style, fc="none", ec=colour, lw=1))

    heights = (2.66, 2.14, 1.62)
    middle, top = heights[1], 3.14
    write(0.5, top, "image")
    show(data["image"], 0.5, middle, 0.9)
    write(1.4, top, "+ noise")
    write(2.1, top, "$N$ copies")
    write(3.7, top, "deep equilibrium model")
    write(5.6, top, "labels")
    box(2.7, 1.4, 2.0, 1.5)
    for pixels, label, y in zip(data["copies"], data["labels"], heights, strict=True):
        arrow((1.02, middle + 0.3 * (y - middle)), (1.82, y))
        show(pixels, 2.1, y, 0.46)
        arrow((2.38, y), (2.66, y))
        arrow((4.74, y), (5.4, y))
        write(5.6, y, str(label), chosen if label == data["class"] else other, 14, weight="bold")
    for x in (2.1, 5.6):
        write(x, 1.26, "⋮")
    write(3.7, 2.14, "$z \\leftarrow$ cell$(z, u)$", size=12)
    arrow((4.2, 2.28), (3.15, 2.28), bend=0.6)
    write(3.12, 1.56, "start", size=10)
    arrow((3.12, 1.68), (3.12, 2.02))

    bars = [4.35 + 0.19 * k for k in range(len(data["counts"]))]
    for k, (x, count) in enumerate(zip(bars, data["counts"], strict=True)):
        colour = chosen if k == data["class"] else other
        axes.add_patch(patches.Rectangle((x - 0.07, 0.22), 0.14, 0.85 * count / max(data["counts"]), fc=colour, lw=0))
        write(x, 0.1, str(k), colour, 9)
    arrow((5.6, 1.1), (5.6, 0.75))
    write(bars[4] - 0.04, 0.9, f"{max(data['counts']):,}\nof {data['samples']:,}", size=9, ha="left")
    arrow((4.2, 0.55), (3.72, 0.55))
    box(2.3, 0.32, 1.38, 0.46)
    write(2.99, 0.55, f"$p_A \\geq {rounding.radius(data['p_lower'])}$", chosen)
    write(2.99, 0.16, f"confidence {100 * (1 - data['alpha']):g} %", size=9)
    arrow((2.26, 0.55), (1.75, 0.55))
    axes.add_patch(patches.Circle((0.5, 0.55), 0.5, fc="none", ec=chosen, lw=1.2))
    show(data["image"], 0.5, 0.55, 0.3)
    arrow((0.5, 0.55), (0.98, 0.67), chosen)
    write(1.4, 0.55, f"radius\n{rounding.radius(data['radius'])}", chosen)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "way-of-a-sample": way_of_a_sample,
    "accuracy-against-cost": lambda: accuracy_against_cost(DIGITS, 0.5, (1, 2, 3, 5), ()),
    "accuracy-against-cost-cifar10": lambda: accuracy_against_cost(CIFAR10, 0.5, (1, 2, 3, 5), ()),
    "what-a-start-buys": lambda: what_a_start_buys("digits-0.5"),
    "what-a-start-buys-cifar10": lambda: what_a_start_buys("cifar10-0.5"),
    "what-the-audit-costs": what_the_audit_costs,
    "p-a": p_a,
}
"""Every figure by the stem of its file."""
