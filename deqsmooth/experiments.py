"""The experiments of the paper (Gao et al. 2024) as data: what each asks, what it runs, and what was published.

An experiment certifies the same images once for each of its rows. Its scale says how many images and samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from deqsmooth import checks, config, presets, tables

Rows = dict[str, config.Smoothing]


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment is.

    Attributes:
      num_images: images of each noise, evenly spaced.
      num_selection: samples that choose the class.
      num_estimation: samples that are counted.
      num_audit: audited votes of the serial rows.
      lanes: samples of an image side by side; the number of chains of the serial rows.
    """

    num_images: int
    num_selection: int
    num_estimation: int
    num_audit: int
    lanes: int


SCALES = {
    "smoke": Scale(3, 20, 300, 60, 40),
    "small": Scale(30, 100, 10_000, 400, 400),
    # The paper's.
    "full": Scale(500, 100, 10_000, 400, 400),
}
# With fewer audited votes nothing can be certified at the scale `smoke`.
_LEAST_AUDIT = 30


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question and what is run to answer it.

    Attributes:
      name: its name.
      question: what it asks.
      expected: what the paper reports, or a sound bound lets expect.
      rows: scale -> the settings of every row, without the noise; the first is what the others are compared with.
      published: the paper's table; None if its numbers are not at hand.
    """

    name: str
    question: str
    expected: str
    rows: Callable[[Scale], Rows]
    published: tables.Table | None = None


def find(name: str) -> Experiment:
    """The experiment with a name.

    Raises:
      ValueError: there is none; names the nearest.
    """
    checks.known("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def _settings(name: str, scale: Scale, **change) -> config.Smoothing:
    """The paper's settings with a name of the presets, at a scale."""
    sizes = {"num_selection": scale.num_selection, "num_estimation": scale.num_estimation, "lanes": scale.lanes}
    if presets.SMOOTHING[name].sampler == "serial":
        sizes["num_audit"] = scale.num_audit
    return dataclasses.replace(presets.SMOOTHING[name], **{**sizes, **change})


def _main(scale: Scale) -> Rows:
    names = {
        "standard 30": "mdeq-30a", "standard 5": "mdeq-5a", "standard 1": "mdeq-1a",
        "serial 1N": "srs-mdeq-1n", "serial 1A": "srs-mdeq-1a", "serial 3A": "srs-mdeq-3a",
    }  # fmt: skip
    return {row: _settings(name, scale) for row, name in names.items()}


def _main_broyden(scale: Scale) -> Rows:
    names = {
        "standard 14B": "mdeq-14b", "standard 5B": "mdeq-5b", "standard 1B": "mdeq-1b",
        "serial 1B": "srs-mdeq-1b", "serial 3B": "srs-mdeq-3b",
    }  # fmt: skip
    return {row: _settings(name, scale) for row, name in names.items()}


def _start_point(scale: Scale) -> Rows:
    standard = {"standard 30, zero": _settings("mdeq-30a", scale)}
    fixed = {
        f"standard {budget}, {start}": _settings("mdeq-1a", scale, start=start, budget=budget)
        for budget in (1, 3)
        for start in ("zero", "constant", "learned")
    }
    serial = {
        f"serial {budget}, {start}": _settings("srs-mdeq-1a", scale, start=start, budget=budget)
        for budget in (1, 3)
        for start in ("previous", "first", "clean")
    }
    return standard | fixed | serial


def _solvers(scale: Scale) -> Rows:
    standard = {
        f"standard {budget}, {solver}": _settings("mdeq-30a", scale, solver=solver, budget=budget)
        for budget in (30, 5, 3)
        for solver in ("anderson", "broyden", "plain")
    }
    serial = {
        f"serial 3, {solver}": _settings("srs-mdeq-3a", scale, solver=solver)
        for solver in ("anderson", "broyden", "plain")
    }
    return standard | serial


def _samples(scale: Scale) -> Rows:
    sizes = [scale.num_estimation // 10, scale.num_estimation]
    if scale == SCALES["full"]:
        sizes.append(10 * scale.num_estimation)
    rows = {}
    for size in reversed(sizes):
        audit = min(scale.num_audit, size)
        rows[f"standard 30, N {size:,}"] = _settings("mdeq-30a", scale, num_estimation=size)
        rows[f"serial 3A, N {size:,}"] = _settings("srs-mdeq-3a", scale, num_estimation=size, num_audit=audit)
    return rows


def _audit(scale: Scale) -> Rows:
    total = scale.num_estimation
    sizes = [total // part for part in (1, 5, 10, 25, 100) if total // part >= _LEAST_AUDIT]
    return {
        f"serial 3A, K {size:,}{' (all)' * (size == total)}": _settings("srs-mdeq-3a", scale, num_audit=size)
        for size in sizes
    }


def _warm_up(scale: Scale) -> Rows:
    return {
        f"serial {budget}A, warm-up {steps}": _settings("srs-mdeq-3a", scale, budget=budget, warmup_budget=steps)
        for budget in (3, 1)
        for steps in (30, 10, 5, 1)
    }


_CIFAR10 = tables.Table(
    "CIFAR-10, sigma 0.5: certified accuracy in percent at radii, and seconds an image on an A100, as published",
    ("", "0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "s"),
    (
        ("MDEQ-LARGE-1A", "28", "19", "13", "8", "5", "3", "1", "1.06"),
        ("MDEQ-LARGE-5A", "50", "41", "32", "21", "15", "10", "6", "2.59"),
        ("MDEQ-LARGE-30A", "67", "55", "45", "33", "23", "16", "12", "12.89"),
        ("SRS-MDEQ-LARGE-1N", "61", "52", "44", "31", "22", "15", "11", "1.02"),
        ("SRS-MDEQ-LARGE-1A", "63", "53", "45", "32", "22", "16", "12", "1.79"),
        ("SRS-MDEQ-LARGE-3A", "66", "54", "45", "33", "23", "16", "11", "2.55"),
        ("MDEQ-SMALL-30A", "62", "50", "38", "30", "22", "13", "9", ""),
        ("SRS-MDEQ-SMALL-3A", "60", "50", "38", "29", "21", "12", "8", ""),
        ("ResNet-110", "65", "54", "41", "32", "23", "15", "9", ""),
    ),
)

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "main-cifar10",
            "What do standard and serialized smoothing certify, and at what cost?",
            "The paper: serial 3A certifies what standard 30 certifies, 5 times as fast. With an audit of 400 "
            "votes no sound radius exceeds 1.99 sigma, so that at sigma 0.5 the published serial accuracies at 1 "
            "and beyond cannot be had, and below that each mismatch costs.",
            _main,
            _CIFAR10,
        ),
        Experiment(
            "main-imagenet",
            "The same with Broyden's method, as the paper certifies ImageNet.",
            "As with Anderson mixing. On digits and CIFAR-10 it is the solver that is tried.",
            _main_broyden,
        ),
        Experiment(
            "acr",
            "How far apart are the two definitions of the average certified radius?",
            "The mean over all images with wrong ones as zero (ACR) is the smaller; the paper's code averages the "
            "radii of wrong predictions too.",
            lambda scale: {name: x for name, x in _main(scale).items() if name in ("standard 30", "serial 3A")},
        ),
        Experiment(
            "start-point",
            "Where should a solve begin?",
            "The paper: the previous draw's equilibrium is better than the clean image's or the first draw's. A "
            "start that depends on the noisy input alone (zero, constant, learned) needs no audit.",
            _start_point,
        ),
        Experiment(
            "solvers",
            "Which solver certifies most at which budget?",
            "The paper: Anderson and Broyden beat plain iteration from a few evaluations on; all agree at 30.",
            _solvers,
        ),
        Experiment(
            "samples",
            "What do more samples buy?",
            "Standard: radii grow with N. Serial: the audit caps them, whatever N is.",
            _samples,
        ),
        Experiment(
            "audit",
            "What do audited votes cost and buy, and how many votes are really wrong?",
            "The larger K, the nearer the bound on wrong votes is to their true number, which the row that audits "
            "all of them shows.",
            _audit,
        ),
        Experiment(
            "bounds",
            "Do the bounds hold on real serial chains?",
            "The sound bound and the paper's formula do; that of the released code ignores wrong votes, and lies "
            "above the truth wherever there are some.",
            lambda scale: {
                name: x for name, x in _main(scale).items() if name not in ("standard 5", "standard 1")
            },
        ),
        Experiment(
            "warm-up",
            "How long must the first solve of a chain be?",
            "The paper: a short one is enough, since the chain goes on converging.",
            _warm_up,
        ),
    )
}
