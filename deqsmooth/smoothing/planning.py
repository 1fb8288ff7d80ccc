"""Planning: finds the cheapest settings that certify a radius, from pilot runs on a few images.

Takes a model and a radius; gives plans with their expected cost and certified accuracy. These are estimates. The
bounds of certificates made by a plan hold whether or not the estimates are right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from deqsmooth import config, data
from deqsmooth.config import checks
from deqsmooth.models import classifiers
from deqsmooth.smoothing import certification, layout
from deqsmooth.statistics import bounds, robustness

_NUM_SELECTION = 100
_NUM_PATHS = 1000
_SIZES = [int(x) for k in range(2, 8) for x in (10**k, 2 * 10**k, 5 * 10**k)]
# Shares of N at which votes may be read, beside the end.
_LOOKS: tuple[tuple[float, ...], ...] = ((), (0.1,), (0.05, 0.2), (0.02, 0.1, 0.3))
_AUDITS = (100, 400, 1000, 4000)
_AUDIT_SHARES = (0.25, 0.5, 0.75)
_SERIAL_BUDGETS = (1, 3)
_ZERO_BUDGETS = {"sketched-anderson": (3, 5, 8, 30), "plain": (3, 5, 8)}
_LEARNED_BUDGETS = (1, 2, 3)
_AS_BY_DEFAULT: dict[str, Any] = {"seed": 0, "images_per_batch": None, "block": None, "lanes": None}


class Pilot(NamedTuple):
    """The result of a pilot run of one classifier.

    Attributes:
      settings: of the pilot.
      correct: whether the selected class is the image's [images].
      counts: votes for it, of `settings.num_estimation` [images].
      mismatches: audited votes that the reference does not confirm, of `audited` [images].
      audited: votes audited [images].
      evaluations: cell evaluations a sample.
      seconds: seconds an evaluation.
    """

    settings: config.Smoothing
    correct: np.ndarray
    counts: np.ndarray
    mismatches: np.ndarray
    audited: np.ndarray
    evaluations: float
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Settings of certificates, with their expected result and cost.

    The result and the cost are estimates. The bounds of certificates made with the settings hold whether or not
    the estimates are right.

    Attributes:
      settings: of the certificates, for `ds.certify`.
      reached: probability that an image of the pilot is certified as its label to the radius [images].
      evaluations: expected cell evaluations an image.
      seconds: expected seconds an image, on the pilot's machine.
    """

    settings: config.Smoothing
    reached: np.ndarray
    evaluations: float
    seconds: float

    @property
    def certified(self) -> float:
        """Expected certified accuracy at the wanted radius."""
        return float(np.mean(self.reached))

    @property
    def standard_error(self) -> float:
        """Standard error of `certified`, since the images of the pilot are few."""
        return float(np.std(self.reached) / np.sqrt(len(self.reached)))


def candidates(classifier: classifiers.Classifier, settings: config.Planning) -> list[config.Smoothing]:
    """Settings of the pilot for every sampler, start, solver and budget that a plan can use."""
    common: dict[str, Any] = {
        "sigma": settings.sigma,
        "alpha": settings.alpha,
        "num_selection": _NUM_SELECTION,
        "num_estimation": settings.pilot_samples,
        "dtype": settings.dtype,
        "seed": settings.seed,
    }
    independent: dict[str, Any] = {**common, "sampler": "independent"}
    if not classifier.solves:
        return [config.Smoothing(**independent)]
    chosen = [
        config.Smoothing(**independent, solver=solver, budget=k)
        for solver, budgets in _ZERO_BUDGETS.items()
        for k in budgets
    ]
    if classifier.start_training is not None:
        chosen += [config.Smoothing(**independent, start="learned", budget=k) for k in _LEARNED_BUDGETS]
    common["num_audit"] = settings.pilot_audit
    return chosen + [config.Smoothing(**common, budget=k) for k in _SERIAL_BUDGETS]


def pilots(
    classifier: classifiers.Classifier, dataset: data.Dataset, settings: config.Planning
) -> Iterator[Pilot]:
    """Draws the pilot of every candidate on the same images of a data set, evenly spaced."""
    for number, one in enumerate(candidates(classifier, settings)):
        yield pilot(classifier, dataset, one, settings.pilot_images, skip_soundness_check=number > 0)


def pilot(
    classifier: classifiers.Classifier,
    dataset: data.Dataset,
    settings: config.Smoothing,
    num: int,
    *,
    skip_soundness_check: bool = False,
) -> Pilot:
    """Draws the pilot of one candidate on some images of a data set, evenly spaced.

    Args:
      classifier: the classifier.
      dataset: the images, with labels.
      settings: of the candidate.
      num: largest number of images.
      skip_soundness_check: see `certification.certify_dataset`.

    Raises:
      ValueError: see `plan`.
    """
    indices = np.linspace(0, len(dataset) - 1, min(num, len(dataset))).astype(int)
    found = list(
        certification.certify_dataset(
            classifier, dataset, indices, settings, skip_soundness_check=skip_soundness_check
        )
    )
    for c in found:
        checks.holds(c.label is not None, f"the label of image {c.index}", c.label, "known for a plan")
    evaluations = sum(c.evaluations for c in found)
    num_samples = settings.num_selection + settings.num_estimation
    return Pilot(
        settings,
        np.array([c.selected == c.label for c in found]),
        np.array([c.count for c in found]),
        np.array([c.mismatches for c in found]),
        np.array([c.num_audit for c in found]),
        evaluations / (num_samples * len(found)),
        sum(c.seconds for c in found) / evaluations,
    )


def plans(found: Pilot, settings: config.Planning) -> Iterator[Plan]:
    """Plans for the classifier of a pilot: all considered settings whose largest radius reaches the wanted one."""
    sizes = [size for size in _SIZES if size <= settings.max_samples]
    if found.settings.sampler == "serial":
        yield from _serial_plans(found, settings, sizes)
        return
    for size in sizes:
        for shares in _LOOKS:
            looks = (*(int(share * size) for share in shares), size)
            if looks[0] < 20:
                continue
            chosen = dataclasses.replace(
                found.settings,
                num_estimation=size,
                looks=looks if shares else None,
                stop_radius=settings.radius if shares else None,
                **_AS_BY_DEFAULT,
            )
            if chosen.cap >= settings.radius:
                reached, samples = _simulate(found, chosen, settings)
                yield _plan(found, chosen, reached, found.evaluations * (_NUM_SELECTION + samples))


def plan(classifier: classifiers.Classifiable, dataset: data.Dataset, settings: config.Planning) -> Plan | None:
    """Finds the cheapest settings with which a classifier is expected to certify a radius.

    A pilot certifies `pilot_images` images with each sampler, start, solver and budget that the classifier
    allows. The plan is the fastest of the settings whose expected certified accuracy is nearly that of the best.
    Settings are taken as nearly as good within `slack`, between classifiers also within one standard error
    (Breiman et al. 1984).

    Args:
      classifier: see `ds.certify`.
      dataset: images like those to certify, with labels; use others than those that you certify.
      settings: of the plan: the wanted radius, sigma and alpha.

    Returns:
      The best plan, a `deqsmooth.smoothing.planning.Plan`; None if none is expected to certify anything.

    Raises:
      ValueError: the classifier is no function of one image, the images do not fit it, or a label is not known.

    Example:
      >>> import deqsmooth as ds
      >>> import numpy as np
      >>> import jax.numpy as jnp
      >>> def brightness(images):
      ...     score = images.mean((1, 2, 3)) - 0.3
      ...     return jnp.stack([score, -score], -1)
      >>> dataset = ds.arrays(np.linspace(0.4, 0.6, 256).reshape(4, 8, 8, 1), [0, 0, 0, 0])
      >>> settings = ds.Planning(radius=0.25, sigma=0.25, pilot_samples=100)
      >>> plan = ds.plan(brightness, dataset, settings)
      >>> plan.certified > 0.9, plan.settings.sampler, plan.settings.cap > 0.25
      (True, 'independent', True)
    """
    checks.kind("settings", settings, config.Planning, "settings of a plan, made by ds.Planning")
    made = classifiers.classifier(classifier)
    return choose([list(plans(one, settings)) for one in pilots(made, dataset, settings)], settings.slack)


def choose(found: Iterable[Iterable[Plan]], slack: float) -> Plan | None:
    """The fastest plan among those nearly as good as the best; None if no plan is expected to certify anything.

    A pilot has few images, and a single image must not decide between classifiers. So a classifier counts as good
    as the best one if its best plan is behind by at most the slack plus the standard error of the difference (the
    rule of one standard error, Breiman et al. 1984). Plans of one classifier are compared with the slack alone.

    Args:
      found: plans of every classifier, from pilots of the same images.
      slack: difference of expected certified accuracy that is tolerated.
    """
    groups = [own for own in map(list, found) if own]
    tops = [max(own, key=lambda plan: plan.certified) for own in groups]
    best = max(tops, key=lambda plan: plan.certified, default=None)
    if best is None or best.certified <= 0:
        return None
    good: list[Plan] = []
    for own, top in zip(groups, tops, strict=True):
        behind = best.reached - top.reached
        is_as_good = np.mean(behind) <= slack + np.std(behind) / np.sqrt(len(behind))
        goal = (top if is_as_good else best).certified
        good += [plan for plan in own if plan.certified >= goal - slack]
    return min(good, key=lambda plan: plan.seconds)


def _plan(found: Pilot, settings: config.Smoothing, reached: np.ndarray, evaluations: float) -> Plan:
    return Plan(settings, reached, float(evaluations), evaluations * found.seconds)


def _shares(rng: np.random.Generator, counts: np.ndarray, trials: int | np.ndarray) -> np.ndarray:
    """Posterior draws of binomial probabilities [paths, images], by Jeffreys' prior."""
    return rng.beta(counts + 0.5, trials - counts + 0.5, (_NUM_PATHS, len(counts)))


def _simulate(found: Pilot, chosen: config.Smoothing, settings: config.Planning) -> tuple[np.ndarray, float]:
    """Probability that an image reaches the radius [images], and the mean number of estimation samples."""
    rng = np.random.default_rng(settings.seed)
    share = _shares(rng, found.counts, found.settings.num_estimation)
    asked = robustness.probability(settings.radius, settings.sigma)
    goals = {look: bounds.least_count(look, alpha, asked) for look, alpha in chosen.look_alphas.items()}
    looks = tuple(goals)
    count, done, spent = np.zeros(share.shape, int), np.zeros(share.shape, bool), np.zeros(share.shape)
    reached = np.zeros(share.shape, bool)
    for before, look in zip((0, *looks), looks, strict=False):
        spent += ~done * (look - before)
        count += rng.binomial(look - before, share)
        reached |= ~done & (count >= goals[look])
        done |= reached | (count + looks[-1] - look < goals[looks[-1]])
    return np.mean(reached * found.correct, 0), float(np.mean(spent))


def _serial_plans(found: Pilot, settings: config.Planning, sizes: Sequence[int]) -> Iterator[Plan]:
    """Plans of the serial sampler; their results are estimated by the formula `paper`, whatever their bound."""
    rng = np.random.default_rng(settings.seed)
    share = _shares(rng, found.counts, found.settings.num_estimation)
    wrong = _shares(rng, found.mismatches, found.audited)
    asked = robustness.probability(settings.radius, settings.sigma)
    for size in sizes:
        count = rng.binomial(size, share)
        for num_audit in (num for num in _AUDITS if num <= size // 2):
            mismatches = rng.binomial(num_audit, wrong)
            for part in _AUDIT_SHARES:
                chosen = dataclasses.replace(
                    found.settings,
                    num_estimation=size,
                    num_audit=num_audit,
                    alpha_audit=part * settings.alpha,
                    **_AS_BY_DEFAULT,
                )
                if chosen.cap < settings.radius:
                    continue
                table = [
                    bounds.clopper_pearson_upper(m, num_audit, part * settings.alpha)
                    for m in range(int(mismatches.max()) + 1)
                ]
                surviving = np.floor(count * (1 - np.array(table)[mismatches]))
                reached = surviving >= bounds.least_count(size, chosen.alpha_count, asked)
                resolved = layout.resolve(dataclasses.replace(chosen, lanes=found.settings.lanes))
                yield _plan(found, chosen, np.mean(reached * found.correct, 0), float(resolved.evaluations))
