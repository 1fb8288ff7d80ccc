"""Names of runs: short, unique, and as long as needed to tell runs apart."""

import dataclasses
import itertools
import pathlib

import pytest

from deqsmooth import config
from deqsmooth.certificates import jsonl, verification
from deqsmooth.reports import names

ZERO = config.Smoothing(sampler="independent", budget=30)


def checked(settings=ZERO, solver="anderson", **header):
    """A file of certificates without one, that has these settings."""
    reference = {"solver": solver, "checkpoint": "0" * 64}
    file = jsonl.File({"reference": reference, **header}, [], True)
    return verification.Checked("x", file, settings, config.Selection(), [])


def change(**settings):
    return checked(dataclasses.replace(ZERO, **settings))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (checked(), "30 evaluations from zero"),
        (change(budget=1, start="learned", looks=(500, 10_000)), "1 evaluation from the learned start, looks"),
        (change(start="constant", dtype="bfloat16"), "30 evaluations from the constant start, bfloat16"),
        (checked(config.Smoothing(sampler="serial")), "3 evaluations, serial, audited"),
        (checked(config.Paired(sampler="independent", budget=8)), "8 evaluations from zero, recertified"),
        (checked(solver=None), "an explicit network"),
        (change(settle="proof", start="previous"), "the equilibrium, settled by proof from the sample before"),
        (None, "stem"),
    ],
)
def test_run_is_named_by_what_it_is(file, name):
    assert names.names([("stem", file)]) == [name]


def test_equal_names_get_what_differs():
    files = [checked(), change(sigma=0.25), change(sigma=0.25, alpha=0.01), change(budget=2, alpha=0.01)]
    assert names.names([(str(i), file) for i, file in enumerate(files)]) == [
        "30 evaluations from zero, sigma 0.5",
        "30 evaluations from zero, sigma 0.25, alpha 0.001",
        "30 evaluations from zero, sigma 0.25, alpha 0.01",
        "2 evaluations from zero",
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tolerance": 1e-3}, "tolerance 0.001"),
        ({"solver": "broyden"}, "broyden"),
        ({"num_estimation": 1000}, "1,000 samples"),
        ({"seed": 7}, "seed 7"),
    ],
)
def test_any_setting_tells_runs_apart(settings, told):
    first, second = names.names([("a", checked()), ("b", change(**settings))])
    assert second == f"30 evaluations from zero, {told}" and first != second


def test_stem_is_the_last_resort():
    """Also beside a published result whose file has the name of a run."""
    twins = [("a", checked()), ("b", checked())]
    assert names.names(twins) == ["30 evaluations from zero (a)", "30 evaluations from zero (b)"]
    files = [*twins, ("30 evaluations from zero", None), ("30 evaluations from zero (a)", None)]
    assert len(set(names.names(files))) == len(files)


def test_models_and_classifiers_tell_apart():
    files = [checked(reference={"solver": "anderson", "checkpoint": c * 64}) for c in "ab"]
    found = names.names([("x", files[0]), ("y", files[1])])
    assert found == [f"30 evaluations from zero, model {c * 8}" for c in "ab"]


def test_letters_are_unique():
    assert names.letters(1) == [""] and names.letters(3) == ["A", "B", "C"]
    found = names.letters(1000)
    assert found[25:28] == ["Z", "AA", "AB"] and len(set(found)) == 1000


def test_stems_are_shortest_unique_ones():
    paths = [pathlib.Path("a/x/run.jsonl"), pathlib.Path("b/x/run.jsonl"), pathlib.Path("b/y/other.tsv")]
    assert names.stems(paths) == ["a/x/run", "b/x/run", "b/y/other"]
    assert names.stems(paths[1:]) == ["run", "other"]
    # Files are named after them, with hyphens for slashes.
    paths = [pathlib.Path("c/a/b-c.jsonl"), pathlib.Path("d/a-b/c.jsonl"), pathlib.Path("e/c.jsonl")]
    for some in itertools.permutations(paths):
        assert len({name.replace("/", "-") for name in names.stems(some)}) == 3
