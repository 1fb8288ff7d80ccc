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
from deqsmooth.statistics import robustness

if TYPE_CHECKING:
    from deqsmooth.reports.canvas import Axes

DIGITS, CIFAR10 = "certification/digits-0.5", "certification/cifar10-0.5"
COLOURS = dict(zip(("zero", "serial", "learned", "constant"), canvas.COLOURS, strict=False))
"""Colour of each way to begin the solve of a sample, in every figure."""
_OTHER = "#888888"
_SOLID: dict[str, Any] = {"marker": "o", "ms": 5}
_DASHED: dict[str, Any] = {"marker": "o", "ms": 5, "ls": (0, (4, 2)), "lw": 1, "mfc": canvas.PAPER}
_LOOKS = ", looks"
_BUDGETS = (1, 2, 3, 5, 8, 30)
_IMAGE = 234
_DECIMALS = 6


class Drawing(NamedTuple):
    """A figure.

    Attributes:
      data: the numbers that it shows, as JSON values.
      draw: (data, axes) -> None.
      size: width and height in inches; legible at half the width of a page.
    """

    data: Any
    draw: Callable[[Any, Axes], None]
    size: tuple[float, float] = (5.0, 3.6)

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers, rounded to six decimals."""
        return hashlib.sha256(json.dumps(_rounded(self.data), sort_keys=True).encode()).hexdigest()

    def svg(self, name: str) -> str:
        """The drawing, with the digest in a comment at its end."""
        drawn = canvas.Figure(name, "", functools.partial(self.draw, self.data), self.size).wide
        head, end, _ = drawn.rpartition("</svg>")
        return f"{head}<!-- data: {self.digest} -->\n{end}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(float(value), _DECIMALS) if isinstance(value, float) else value


def accuracy_against_cost(folder: str) -> Drawing:
    """Certified accuracy at radius 0.5 against evaluations: a pair for each budget, by way and looks."""
    budgets = {"zero": _BUDGETS, "constant": _BUDGETS[:4], "learned": _BUDGETS[:4]}
    rows = {
        f"{way}{looks}": [f"{way} {budget}{looks}" for budget in budgets[way]]
        for way in budgets
        for looks in ("", _LOOKS)
    }
    rows["serial"] = [f"serial {budget}, audited" for budget in (1, 2, 3)]
    data = {
        "radius": 0.5,
        "points": {kind: [_cost_and_accuracy(folder, row, 0.5) for row in named] for kind, named in rows.items()},
    }

    def draw(data: Any, axes: Axes) -> None:
        for kind, points in data["points"].items():
            colour = COLOURS[kind.removesuffix(_LOOKS)]
            axes.plot(*zip(*points, strict=True), color=colour, **(_DASHED if kind.endswith(_LOOKS) else _SOLID))
        lines = data["points"]
        _mark(axes, lines["learned"][0], "learned", (-8, 9), "learned")
        _mark(axes, lines["zero"][0], "zero", (9, -5), "zero")
        _mark(axes, lines["constant"][0], "constant", (0, -17), "constant", ha="center")
        _mark(axes, lines["serial"][0], "serial 1 to 3, audited", (-8, -17), "serial")
        for name, style in (("all samples", _SOLID), ("with looks", _DASHED)):
            axes.plot([], [], color=_OTHER, label=name, **style)
        axes.legend(loc="lower right")
        axes.set(xscale="log", xlabel="cell evaluations an image")
        axes.set(ylabel=f"certified accuracy at radius {data['radius']:g}, %")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.margins(y=0.15)
        axes.set_ylim(0)
        top = axes.secondary_xaxis("top")
        top.set_xticks([evaluations for evaluations, _ in lines["zero"]], _BUDGETS)
        top.set_xticks([], minor=True)
        top.set_xlabel("cell evaluations a sample")

    return Drawing(data, draw)


def _cost_and_accuracy(folder: str, row: str, radius: float) -> tuple[float, float]:
    found = kept.run(folder, row).certificates
    cost = float(np.mean([c.evaluations for c in found]))
    return cost, 100 * statements.certified_accuracy(found, radius)


def what_a_start_buys(name: str) -> Drawing:
    """Share of noisy images with the class of 30 evaluations: for each start, (evaluations, percent)."""
    lines = [line for line in kept.lines("starts", f"{name}.jsonl") if line["solver"] == "anderson"]
    starts = ("zero", "constant", "learned")
    data = {s: [(x["budget"], 100 * x["agreement"]) for x in lines if x["start"] == s] for s in starts}

    def draw(data: Any, axes: Axes) -> None:
        for start, points in data.items():
            axes.plot(*zip(*points, strict=True), color=COLOURS[start], **_SOLID)
            _mark(axes, points[0], start, (-8, 0), start, ha="right", va="center")
        axes.set(xlabel="cell evaluations a sample", ylabel="same class as after 30 evaluations, %")
        axes.set(xlim=(-0.8, 8.3), ylim=(0, 103))
        axes.set_xticks([evaluations for evaluations, _ in data["zero"]])

    return Drawing(data, draw)


def what_the_audit_costs() -> Drawing:
    """The radii of the images that are right, of three ways, and the cap that the audit puts on radii."""
    rows = {"zero": "zero 30", "learned": "learned 1", "serial": "serial 3, audited"}
    runs = {way: kept.run(CIFAR10, row) for way, row in rows.items()}
    data = {
        "images": len(runs["zero"].certificates),
        "radii": {way: sorted(c.radius for c in run.certificates if c.correct) for way, run in runs.items()},
        "cap": kept.settings(runs["serial"]).cap,
    }

    def draw(data: Any, axes: Axes) -> None:
        names = {"zero": "standard: zero 30", "learned": "learned 1", "serial": "serial 3, audited"}
        for way, radii in data["radii"].items():
            _steps(axes, radii, data["images"], color=COLOURS[way], label=names[way])
        cap, top = data["cap"], 1.3 * axes.get_ylim()[1]
        axes.axvline(cap, color=COLOURS["serial"], ls=(0, (4, 2)), lw=1)
        _mark(axes, (cap, top), f"cap of the audit\n{rounding.radius(cap)}", (5, -2), "serial", va="top")
        axes.set(xlabel="L2 radius (pixels in [0, 1])", ylabel="certified accuracy, %", ylim=(0, top))
        axes.set_xlim(0)
        axes.legend(loc="lower left")

    return Drawing(data, draw)


def p_a() -> Drawing:
    """The estimated probability of the class of each image, for two data sets."""
    runs = {"digits": kept.run(DIGITS, "zero 30"), "CIFAR-10": kept.run(CIFAR10, "zero 30")}
    shares = {name: sorted(c.count / c.num_estimation for c in run.certificates) for name, run in runs.items()}
    data = {"sigma": kept.settings(runs["digits"]).sigma, "p_a": shares}

    def draw(data: Any, axes: Axes) -> None:
        sigma, end = data["sigma"], 1.75

        def radius_of(p: float) -> float:
            return robustness.radius(p, sigma) if p < 1 else 2 * end

        looks = (((0.38, 78), "-"), ((1.0, 24), (0, (4, 2))))
        for (name, found), (place, style) in zip(data["p_a"].items(), looks, strict=True):
            _steps(axes, [radius_of(p) for p in found if p > 0.5], len(found), color=COLOURS["zero"], ls=style)
            _mark(axes, place, name, (0, 0), "zero")
        ticks = (0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
        axes.set_xticks([radius_of(p) for p in ticks], [f"{p:g}" for p in ticks])
        axes.set(
            xlabel="estimated $p_A$", ylabel="images with at least this $p_A$, %", xlim=(0, end), ylim=(0, 100)
        )
        axes.secondary_xaxis("top").set_xlabel(f"radius that this $p_A$ means at sigma {sigma:g}")

    return Drawing(data, draw)


def accuracy_against_training() -> Drawing:
    """Accuracy on noisy images against epochs, for the trainings of the CIFAR-10 models at sigma 0.5."""
    trainings = {
        "contraction": ("cifar10-0.5-contraction", 49_000 / 128),
        "then consistency": ("cifar10-0.5-contraction-consistency", 49_000 / 128),
        "MDEQ-SMALL": ("cifar10-0.5", 50_000 / 256),
    }
    data = {}
    for name, (file, updates) in trainings.items():
        lines = [line for line in kept.lines("training", f"{file}.jsonl") if "noisy_accuracy" in line]
        data[name] = [[line["update"] / updates, 100 * line["noisy_accuracy"]] for line in lines]
    last = data["contraction"][-1]
    data["then consistency"] = [last, *([last[0] + epochs, y] for epochs, y in data["then consistency"])]

    def draw(data: Any, axes: Axes) -> None:
        for (name, points), colour in zip(data.items(), canvas.COLOURS, strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, label=name, **_SOLID)
        axes.set(xlabel="epochs", ylabel="accuracy under noise, %", xlim=(0, None))
        axes.legend(loc="lower right")

    return Drawing(data, draw)


def _steps(axes: Axes, values: Sequence[float], num: int, **style: Any) -> None:
    """Draws the share, of so many images, whose value is at least x, from the sorted values of some of them."""
    axes.step([0, *values], 100 * np.arange(len(values), -1, -1) / num, where="post", **style)


def _mark(axes: Axes, place: Any, text: str, offset: tuple[float, float], way: str, **how: Any) -> None:
    """Writes a text in the colour of a way at a place of the data, moved by some points."""
    axes.annotate(text, place, offset, textcoords="offset points", color=COLOURS[way], **how)


def way_of_a_sample() -> Drawing:
    """An image, noisy copies of it and their labels, the counts of its record, and its bound and radius."""
    run = kept.run(DIGITS, "zero 30")
    certificate = next(c for c in run.certificates if c.index == _IMAGE)
    image, copies, labels = _copies(_IMAGE, certificate.seed, certificate.sigma, certificate.budget)
    data = {
        "image": image,
        "copies": copies,
        "labels": labels,
        "budget": certificate.budget,
        "class": certificate.selected,
        "counts": list(certificate.counts[:-1]),
        "samples": certificate.num_estimation,
        "alpha": certificate.alpha,
        "p_lower": certificate.p_lower,
        "radius": certificate.radius,
    }
    return Drawing(data, _draw_way, size=(5.5, 3.6))


def _copies(index: int, seed: int, sigma: float, budget: int | None) -> tuple[Any, Any, list[int]]:
    """An image of digits, its first three noisy copies as a run draws them, and the labels of these."""
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
    # As they are shown: -0.5 is white and 1.5 black, in 100 levels, which hardly depend on the machine.
    shown = np.clip((np.asarray(noisy[..., 0], float) + 0.5) / 2, 0, 1)
    return image[..., 0].tolist(), np.round(shown, 2).tolist(), jnp.argmax(output.logits, -1).tolist()


def _draw_way(data: Any, axes: Axes) -> None:
    """Draws in inches: from an image at the top left to labels at the right, and back below to a radius."""
    width, height = 5.4, 3.5
    chosen, other = COLOURS["zero"], _OTHER

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

    def box(left: float, bottom: float, wide: float, high: float) -> None:
        style = "round,pad=0,rounding_size=0.08"
        axes.add_patch(
            patches.FancyBboxPatch((left, bottom), wide, high, boxstyle=style, fc="none", ec=canvas.TEXT, lw=1)
        )

    heights = (2.86, 2.34, 1.82)
    middle, top = heights[1], 3.36
    write(0.5, top, "image")
    show(data["image"], 0.5, middle, 0.86)
    write(1.3, 1.62, "+ noise")
    write(1.95, top, "$N$ copies")
    write(3.4, top, "deep equilibrium model")
    write(5.0, top, "labels")
    box(2.55, 1.59, 1.7, 1.5)
    for pixels, label, y in zip(data["copies"], data["labels"], heights, strict=True):
        arrow((1.0, middle + 0.3 * (y - middle)), (1.66, y))
        show(pixels, 1.95, y, 0.48)
        arrow((2.24, y), (2.51, y))
        arrow((4.29, y), (4.8, y))
        write(5.0, y, str(label), chosen if label == data["class"] else other, 14, weight="bold")
    for x in (1.95, 5.0):
        write(x, 1.46, "⋮")
    write(3.4, 2.34, "$z \\leftarrow \\mathrm{cell}(z, u)$", size=12)
    arrow((3.85, 2.46), (2.94, 2.46), bend=0.6)
    write(3.4, 2.9, f"{data['budget']} times", size=10)
    write(2.9, 1.76, "start", size=10)
    arrow((2.9, 1.88), (2.9, 2.22))

    bars = [3.76 + 0.17 * k for k in range(len(data["counts"]))]
    for k, (x, count) in enumerate(zip(bars, data["counts"], strict=True)):
        colour = chosen if k == data["class"] else other
        axes.add_patch(
            patches.Rectangle((x - 0.06, 0.24), 0.12, 0.85 * count / max(data["counts"]), fc=colour, lw=0)
        )
        write(x, 0.12, str(k), colour, 10)
    arrow((5.0, 1.34), (5.0, 1.02))
    beside = bars[data["class"]] + 0.12
    write(beside, 0.78, f"{max(data['counts']):,}\nof {data['samples']:,}", size=10, ha="left")
    arrow((3.62, 0.58), (3.34, 0.58))
    box(2.05, 0.36, 1.25, 0.44)
    write(2.67, 0.58, f"$p_A \\geq {rounding.radius(data['p_lower'])}$", chosen)
    write(2.67, 0.2, f"confidence {100 * (1 - data['alpha']):g} %", size=10)
    arrow((2.01, 0.58), (1.73, 0.58))
    axes.add_patch(patches.Circle((0.54, 0.58), 0.52, fc="none", ec=chosen, lw=1.2))
    show(data["image"], 0.54, 0.58, 0.3)
    arrow((0.54, 0.58), (1.05, 0.7), chosen)
    write(1.4, 0.58, f"radius\n{rounding.radius(data['radius'])}", chosen)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "way-of-a-sample": way_of_a_sample,
    "accuracy-against-cost": lambda: accuracy_against_cost(DIGITS),
    "accuracy-against-cost-cifar10": lambda: accuracy_against_cost(CIFAR10),
    "what-a-start-buys": lambda: what_a_start_buys("digits-0.5"),
    "what-a-start-buys-cifar10": lambda: what_a_start_buys("cifar10-0.5"),
    "what-the-audit-costs": what_the_audit_costs,
    "p-a": p_a,
    "accuracy-against-training": accuracy_against_training,
}
"""Every figure by the stem of its file."""
