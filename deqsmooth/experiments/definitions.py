"""The experiments of the paper (Gao et al. 2024) as data: the question, the settings and the published results.

A row of an experiment is one run of certification with its own settings. All rows of an experiment certify the
same images, with a given model or with each model that the experiment trains. The scale sets the numbers of
images, samples and epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from deqsmooth import config
from deqsmooth.config import checks, presets
from deqsmooth.experiments import published
from deqsmooth.experiments.scales import SCALES, Scale
from deqsmooth.reports import tables

Rows = dict[str, config.Smoothing]
"""Settings of certification by the name of the row."""
Models = dict[str, config.Training]
"""Settings of training by the name of the model."""
# With fewer audited votes nothing can be certified at the scale `smoke`.
_LEAST_AUDIT = 30


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it.

    Attributes:
      name: name of the experiment.
      question: the question.
      expected: expected results, as text: what the paper reports, or what theory implies.
      rows: scale -> the settings of every row, except sigma; the other rows are compared with the first.
      published: table of the paper; None if it is not included.
      models: recipe of the data set -> the training settings of every model that the rows are run with, except
        sigma; None if the rows are run with a given model. An explicit model is run with the first row only.
      times_images: factor by which the number of images of the scale is multiplied.
      attacks: attacks on the images of every row; only independent rows can be attacked.
      measures_memory: whether the memory of the compiled programs is measured.
      draws: whether the page has figures that compare bounds with true values.
    """

    name: str
    question: str
    expected: str
    rows: Callable[[Scale], Rows]
    published: tables.Table | None = None
    models: Callable[[config.Training], Models] | None = None
    times_images: int = 1
    attacks: tuple[config.Attack, ...] = ()
    measures_memory: bool = False
    draws: bool = False


def find(name: str) -> Experiment:
    """Returns the experiment with this name.

    Raises:
      ValueError: there is no such experiment; the message suggests the nearest name.
    """
    checks.known("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def _settings(name: str, scale: Scale, **change: Any) -> config.Smoothing:
    """The settings of a preset, with the sizes of a scale and then with some changes."""
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
    solvers = ("anderson", "sketched-anderson", "broyden", "plain")
    standard = {
        f"standard {budget}, {solver}": _settings("mdeq-30a", scale, solver=solver, budget=budget)
        for budget in (30, 5, 3)
        for solver in solvers
    }
    serial = {f"serial 3, {solver}": _settings("srs-mdeq-3a", scale, solver=solver) for solver in solvers}
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


def _memory_and_time(scale: Scale) -> Rows:
    sizes = [scale.lanes // part for part in (1, 2, 4)]
    return {
        f"{row}, {lanes} lanes": _settings(name, scale, lanes=lanes, block=lanes)
        for row, name in (("standard 30", "mdeq-30a"), ("serial 3A", "srs-mdeq-3a"))
        for lanes in sizes
    }


def _one_row(row: str) -> Callable[[Scale], Rows]:
    return lambda scale: {row: _main(scale)[row]}


def _jacobian(recipe: config.Training) -> Models:
    without = dataclasses.replace(recipe, jacobian_weight=0.0, pretraining_jacobian_weight=None)
    return {"with the penalty": recipe, "without": without}


def _explicit(recipe: config.Training) -> Models:
    of_images = {name: getattr(recipe.model, name) for name in ("image_shape", "num_classes", "mean", "std")}
    explicit = dataclasses.replace(
        recipe,
        model=dataclasses.replace(presets.MODELS["resnet110"], **of_images),
        learning_rate=1e-3,
        pretraining_epochs=0.0,
        jacobian_weight=0.0,
    )
    return {"DEQ": recipe, "ResNet-110": explicit}


def _smoothadv(recipe: config.Training) -> Models:
    attacked = dataclasses.replace(recipe, adversarial_radius=0.5, draws=2)
    name, gradient, budget = "one-step", "one-step", 1
    if recipe.gradient == "one-step":
        name, gradient, budget = "implicit", "neumann", 8
    return {
        "Gaussian": recipe,
        "SmoothAdv": attacked,
        "SmoothAdv, no warm-up": dataclasses.replace(attacked, adversarial_epochs=0.0),
        f"SmoothAdv, {name} gradients": dataclasses.replace(attacked, gradient=gradient, gradient_budget=budget),
    }


def _training_tricks(recipe: config.Training) -> Models:
    return {
        "Gaussian": recipe,
        "SmoothAdv": _smoothadv(recipe)["SmoothAdv"],
        "consistency": dataclasses.replace(recipe, loss="consistency", loss_weight=10.0, draws=2),
        "MACER": dataclasses.replace(recipe, loss="macer", loss_weight=12.0, draws=4),
        "CAT-RS": dataclasses.replace(recipe, loss="cat-rs", loss_weight=0.5, draws=2, adversarial_radius=0.5),
    }


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
            published.CIFAR10,
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
            "The paper: Anderson and Broyden beat plain iteration from a few evaluations on; all agree at 30. "
            "Sketched Anderson mixing (3 evaluations, every fourth row) is ours; it should certify the same.",
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
            draws=True,
        ),
        Experiment(
            "bounds",
            "Do the bounds hold on real serial chains?",
            "The sound bound and the paper's formula do; that of the released code ignores wrong votes, and lies "
            "above the truth wherever there are some.",
            lambda scale: {
                name: x for name, x in _main(scale).items() if name not in ("standard 5", "standard 1")
            },
            draws=True,
        ),
        Experiment(
            "warm-up",
            "How long must the first solve of a chain be?",
            "The paper: a short one is enough, since the chain goes on converging.",
            _warm_up,
        ),
        Experiment(
            "jacobian",
            "What does regularising the Jacobian in training buy?",
            "The paper: with the penalty short solves converge, so that serial votes agree with the reference.",
            lambda scale: {row: _main(scale)[row] for row in ("standard 30", "standard 5", "serial 3A")},
            models=_jacobian,
        ),
        Experiment(
            "smoothadv",
            "Does training against attacks on the smoothed classifier certify more?",
            "Salman et al. 2019: less at small radii, more at large ones. The paper: so it is with DEQs.",
            _one_row("standard 5"),
            models=_smoothadv,
            times_images=4,
        ),
        Experiment(
            "explicit",
            "How does a DEQ compare with ResNet-110?",
            "The paper: MDEQ-LARGE certifies a little more than ResNet-110, MDEQ-SMALL a little less.",
            _one_row("standard 30"),
            published.CIFAR10,
            models=_explicit,
        ),
        Experiment(
            "memory-and-time",
            "How much memory and time do lanes cost?",
            "Memory grows with the lanes; serial sampling keeps a state a lane between draws besides. The paper: "
            "the same memory, less time.",
            _memory_and_time,
            measures_memory=True,
        ),
        Experiment(
            "attack",
            "Is any certificate broken by an attack, and how much is left between certificate and attack?",
            "Not one, whatever the attack: a broken certificate is an error of this software, or an event of "
            "probability alpha.",
            _one_row("standard 5"),
            attacks=tuple(config.Attack(target=target) for target in config.attack.TARGETS),
        ),
        Experiment(
            "training-tricks",
            "Which way of training under noise certifies most?",
            "The papers of the methods, on explicit networks: each more than Gaussian training at large radii. "
            "Here with fewer draws: 2 instead of 4 of CAT-RS, 4 instead of 16 of MACER.",
            _one_row("standard 5"),
            models=_training_tricks,
            times_images=4,
        ),
    )
}
