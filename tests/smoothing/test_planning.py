"""Plans: what they expect, against closed forms and against what comes true."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
import rich.console
from scipy import stats

from deqsmooth import config, data
from deqsmooth.certificates import statements
from deqsmooth.commands import plan as plan_command
from deqsmooth.models import checkpoints
from deqsmooth.smoothing import certification, planning
from deqsmooth.statistics import bounds, robustness

SETTINGS = config.Planning(radius=0.5, max_samples=5000)
COUNTS = np.array([400, 396, 380, 350, 300, 90])
CORRECT = np.array([True, True, True, True, False, True])


def pilot(**change):
    settings = config.Smoothing(num_estimation=400, **{"sampler": "independent", "budget": 2, **change})
    none = np.zeros(6, int)
    return planning.Pilot(settings, CORRECT, COUNTS, none, none, 2.0, 1e-4)


@pytest.mark.parametrize(("trials", "alpha", "radius"), [(100, 0.001, 0.5), (5000, 0.0003, 0.9), (20, 0.05, 0.1)])
def test_least_count_is_first_that_certifies(trials, alpha, radius):
    least = bounds.least_count(trials, alpha, robustness.probability(radius, 0.5))

    def reaches(count):
        return robustness.radius(bounds.clopper_pearson_lower(count, trials, alpha), 0.5) >= radius

    assert reaches(least) and not reaches(least - 1)


def test_expectation_equals_beta_binomial_tail():
    for plan in planning.plans(pilot(), SETTINGS):
        size = plan.settings.num_estimation
        if plan.settings.looks is None:
            goal = bounds.least_count(size, 0.001, robustness.probability(0.5, 0.5))
            tails = stats.betabinom.sf(goal - 1, size, COUNTS + 0.5, 400 - COUNTS + 0.5)
            # A mean of 1,000 paths of six images: four standard errors at most 0.03.
            assert plan.certified == pytest.approx(np.mean(tails * CORRECT), abs=0.03)
            assert plan.evaluations == 2 * (100 + size)
            assert plan.seconds == pytest.approx(1e-4 * plan.evaluations)


def test_looks_spend_fewer_samples():
    found = list(planning.plans(pilot(), SETTINGS))
    without = {plan.settings.num_estimation: plan for plan in found if plan.settings.looks is None}
    with_looks = [plan for plan in found if plan.settings.looks]
    assert len(with_looks) > 5
    for plan in with_looks:
        same = without[plan.settings.num_estimation]
        assert plan.evaluations <= same.evaluations
        assert plan.certified <= same.certified + 0.03
        assert plan.settings.stop_radius == 0.5 and plan.settings.looks[-1] == plan.settings.num_estimation
    assert min(plan.evaluations / without[plan.settings.num_estimation].evaluations for plan in with_looks) < 0.5


def test_plans_respect_their_cap():
    found = list(planning.plans(pilot(), dataclasses.replace(SETTINGS, radius=1.2)))
    assert found and all(plan.settings.cap >= 1.2 for plan in found)
    assert min(plan.settings.num_estimation for plan in found) > 400
    assert not list(planning.plans(pilot(), dataclasses.replace(SETTINGS, radius=1.7)))


def test_audited_plans_pay_for_the_audit():
    serial = {"sampler": "serial", "budget": 3, "num_audit": 100, "lanes": 50}
    clean = pilot(**serial)._replace(audited=np.full(6, 100))
    wrong = clean._replace(mismatches=np.full(6, 10))
    settings = dataclasses.replace(SETTINGS, radius=0.3)
    by_audit = {}
    for one, other in zip(planning.plans(clean, settings), planning.plans(wrong, settings), strict=True):
        chosen = one.settings
        steps = 3 * (100 + chosen.num_estimation)
        warm_up_and_audit = 2 * 50 * chosen.warmup_budget + chosen.num_audit * chosen.reference_budget
        assert one.evaluations == other.evaluations == steps + warm_up_and_audit
        assert other.certified <= one.certified
        by_audit[chosen.num_audit] = max(one.certified, by_audit.get(chosen.num_audit, 0))
    assert by_audit[1000] > by_audit[100]


def test_classifier_names_are_unique():
    chosen = planning.candidates(checkpoints.load_shipped("digits", 0.5), SETTINGS)
    names = {plan_command.classifier_name(one, True) for one in chosen}
    assert len(names) == len(set(chosen)) == len(chosen)
    assert {"zero 5", "zero 5, plain", "learned 1", "serial 3"} <= names


def plan(reached, seconds):
    return planning.Plan(pilot().settings, np.array(reached, float), 1.0, seconds)


def test_cheapest_nearly_best_plan_is_chosen():
    found = [plan([0.5], 9.0), plan([0.495], 2.0), plan([0.45], 1.0), plan([0.492], 3.0)]
    assert planning.choose([found], 0.01) == found[1]
    assert planning.choose([found], 0.0) == found[0]
    assert planning.choose([found[:1], [], found[1:]], 0.01) == found[1]
    assert planning.choose([[plan([0.0], 1.0)]], 0.01) is None and planning.choose([[], []], 0.01) is None


def test_one_image_does_not_decide_classifiers():
    best, other = plan([1] * 12 + [0] * 12, 9.0), plan([1] * 11 + [0] * 13, 2.0)
    assert planning.choose([[best], [other]], 0.01) == other
    assert planning.choose([[best, other]], 0.01) == best
    assert planning.choose([[best], [plan([1] * 10 + [0] * 14, 2.0)]], 0.01) == best
    # What is as good as the best may be nothing but the slack behind itself.
    assert planning.choose([[best], [other, plan([1] * 10 + [0] * 14, 1.0)]], 0.01) == other
    # A little behind on every image is no chance.
    assert planning.choose([[best], [plan([0.9] * 12 + [0] * 12, 2.0)]], 0.01) == best


@pytest.mark.slow
def test_plan_predicts_its_run():
    checkpoint, dataset = checkpoints.load_shipped("digits", 0.5), data.load("digits")
    settings = dataclasses.replace(SETTINGS, pilot_images=16, pilot_samples=200, max_samples=2000)
    chosen = [one for one in planning.candidates(checkpoint, settings) if one.start == "learned"]
    assert {one.seed for one in chosen} == {settings.seed}
    found = planning.pilot(checkpoint, dataset, chosen[0], 16)
    assert found.evaluations == 1 and found.seconds > 0
    (best,) = itertools.islice(
        (x for x in planning.plans(found, settings) if x.settings.looks and x.settings.num_estimation == 2000), 1
    )
    indices = np.linspace(0, len(dataset) - 1, 16).astype(int)
    made = list(certification.certify_dataset(checkpoint, dataset, indices, best.settings))
    certified = statements.certified_accuracy(made, 0.5)
    # 16 images whose shares are known from 200 votes: one image more or less.
    assert certified == pytest.approx(best.certified, abs=1.5 / 16)
    assert np.mean([c.evaluations for c in made]) == pytest.approx(best.evaluations, rel=0.35)


def test_narrow_terminal_shows_plans_whole():
    sizes = {"looks": (1000, 5000, 15000, 50000), "stop_radius": 0.5, "num_estimation": 50000}
    solvers = ("sketched-anderson", "plain")
    chosen = [dataclasses.replace(pilot().settings, solver=solver, **sizes) for solver in solvers]
    found = [planning.Plan(one, np.array([0.5]), 2e6, 60.0) for one in chosen]
    console = rich.console.Console(width=80, record=True, file=io.StringIO())
    console.print(plan_command.plans(found, found[0], SETTINGS, True))
    shown = console.export_text()
    assert "zero 2, plain" in shown and "2,000,000" in shown and "…" not in shown


def test_printed_flags_give_the_settings():
    chosen = config.Smoothing(
        sampler="independent", start="learned", budget=1, sigma=0.25, num_estimation=2000, looks=(200, 2000),
        stop_radius=0.5,
    )  # fmt: skip
    assert plan_command.as_flags({"dataset": "digits", "data_dir": None}, chosen) == (
        "--dataset digits --sigma 0.25 --start learned --budget 1 --num-estimation 2000 --looks 200,2000 "
        "--stop-radius 0.5 --sampler independent"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0.0}, "radius is 0.0; it must be a finite positive number"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"slack": 1.0}, "slack is 1.0"),
        ({"pilot_audit": 500}, "pilot_audit is 500; it must be at most pilot_samples, 400"),
        ({"dtype": "float16"}, "unknown dtype"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)
