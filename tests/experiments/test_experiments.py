"""Experiments of the paper: their settings are valid, and every number of a page follows from verified records."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats
from support import SERIAL, certificate, rewritten

from deqsmooth import config, data
from deqsmooth.certificates import bound, jsonl, plan, record, rounding, truth, writing
from deqsmooth.commands import reproduce
from deqsmooth.config import presets, serialization
from deqsmooth.experiments import definitions, page, results, scales
from deqsmooth.models import shipped
from deqsmooth.reports import figures
from deqsmooth.smoothing import provenance
from deqsmooth.statistics import bounds, robustness

NAMES = list(definitions.EXPERIMENTS)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deqsmooth-reproduce", *map(str, arguments)])
    return reproduce.main()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "scale", [scales.scale(*one) for one in (*((name, "digits") for name in scales.SCALES), ("small", "cifar10"))]
)
def test_every_row_can_certify(name, scale):
    experiment = definitions.find(name)
    rows = experiment.rows(scale)
    assert len(set(rows.values())) == len(rows)
    assert len(rows) >= 2 or experiment.models or experiment.attacks
    assert all(settings.cap > 0 for settings in rows.values())


def test_main_rows_are_the_presets():
    scale = scales.SCALES["full"]
    assert scale.num_images == 500
    rows = definitions.find("main-cifar10").rows(scale)
    for row, name in (("standard 30", "mdeq-30a"), ("serial 1N", "srs-mdeq-1n"), ("serial 3A", "srs-mdeq-3a")):
        assert rows[row] == presets.SMOOTHING[name]
    # Experiments with equal rows share their records.
    assert definitions.find("acr").rows(scale)["serial 3A"] == rows["serial 3A"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_second_run_certifies_nothing_again(name, tmp_path, monkeypatch, capsys):
    arguments = (name, "--scale", "smoke", "--sigma", "0.5", "--out", tmp_path)
    assert call(monkeypatch, *arguments) == 0
    assert f"page: {tmp_path}" in capsys.readouterr().out.replace("\n", "")
    text = (tmp_path / name / "README.md").read_text()
    experiment = definitions.find(name)
    rows = experiment.rows(scales.SCALES["smoke"])
    records = {path: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    if experiment.models is None:
        assert all(f"| {row} |" in text for row in rows)
        assert len(records) == len(rows) * (1 + len(experiment.attacks) + experiment.measures_memory)
    else:
        models = experiment.models(scales.recipe("digits", scales.SCALES["smoke"], None))
        assert all(f"| {model} | " in text for model in models) and "under noise %" in text
        assert len(list((tmp_path / "models").iterdir())) == len(models)
    (tmp_path / name / "finding.md").write_text("As was to be expected.")
    assert call(monkeypatch, *arguments) == 0
    assert records == {path: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    assert "As was to be expected." in (tmp_path / name / "README.md").read_text()


def test_numbers_follow_from_records(run, tmp_path):
    """Computed from the lines of the file; for serial votes also by the published formulas."""
    experiment = definitions.find("acr")
    written = page.write(experiment, "a command", {"the table": [results.Row("a row", run)]}, tmp_path)
    header, *lines = map(json.loads, run.read_text().splitlines())
    lines = [line for line in lines if "kind" not in line]
    serial = header["smoothing"]["sampler"] == "serial"
    cells = [line.strip("| ").split(" | ") for line in written.read_text().splitlines() if line.startswith("| ")]
    by_name = {line[0]: line for line in cells}
    evaluations = sum(line["evaluations"] for line in lines) / len(lines)
    assert by_name["a row"][1] == f"{evaluations:,.0f}"
    for name, formula in (("a row", "exact"), ("*paper*", "paper"), ("*reference-code*", "reference-code")):
        if not serial and name != "a row":
            assert name not in by_name
            continue
        radii, right = [], []
        for line in lines:
            if serial:
                audit = bounds.Audit(line["num_audit"], line["mismatches"], line["alpha_audit"], formula)
                alpha_count = line["alpha"] - line["alpha_audit"]
                p = bounds.audited_lower(line["count"], sum(line["counts"]), audit, alpha_count)
            else:
                p = line["p_lower"]
            radii.append(robustness.radius(p, 0.5))
            right.append(p > 0.5 and line["selected"] == line["label"])
        values = by_name[name][4:]
        assert values[1] == rounding.radius(sum(radii) / 9)
        assert values[0] == rounding.radius(sum(r * ok for r, ok in zip(radii, right, strict=True)) / 9)
        assert values[2] == rounding.percent(sum(right) / 9)
    assert f"`{run.name}`" in written.read_text().replace("../", "").replace(f"{run.parent.name}/", "")


def test_unverified_records_make_no_page(run, tmp_path):
    def more_votes(header, records):
        records[0]["count"] += 1

    changed = rewritten(run, tmp_path / "changed.jsonl", more_votes)
    rows = {"the table": [results.Row("a row", changed)]}
    with pytest.raises(ValueError, match="a page needs files that verify"):
        page.write(definitions.find("acr"), "a command", rows, tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "imagenet"])
@pytest.mark.parametrize("scale", scales.SCALES)
def test_every_model_can_be_trained(dataset, scale):
    """The first has the settings of the recipe, and all differ from each other."""
    recipe = scales.recipe(dataset, scales.scale(scale, dataset), None)
    assert recipe.dataset == dataset and recipe.epochs >= 1
    for experiment in definitions.EXPERIMENTS.values():
        if experiment.models is not None:
            models = experiment.models(recipe)
            assert next(iter(models.values())) == recipe and len(set(models.values())) == len(models) >= 2
    with pytest.raises(ValueError, match="unknown dataset 'arrays'"):
        scales.recipe("arrays", scales.scale(scale, "arrays"), None)


def test_slack_is_bound_minus_truth():
    """The bound is the largest number of wrong votes that is not rejected, by enumeration."""
    found = [
        _certificate(i, count=50, num_audit=20, mismatches=m, alpha_audit=0.01) for i, m in enumerate((0, 2, 20))
    ]
    largest = []
    for one in found:
        possible = [
            wrong for wrong in range(one.mismatches, 50 - 20 + one.mismatches + 1)
            if stats.hypergeom.cdf(one.mismatches, 50, wrong, 20) > 0.01
        ]  # fmt: skip
        largest.append(max(possible))
    assert truth.gaps(found, {0: 0, 1: 7, 2: 50}) == [largest[0], largest[1] - 7, 0]


def test_slack_compares_audits_of_equal_votes(small, tmp_path):
    """A full audit of other votes gives no slack."""

    def row(name, num_estimation, num_audit):
        settings = dataclasses.replace(SERIAL, num_estimation=num_estimation, num_audit=num_audit)
        header = provenance.header(small, config.Selection(), settings, data.load("digits"), (8, 8, 1))
        votes = (num_estimation, *[0] * 10)
        proven = bound.of_votes(settings, (20, *[0] * 10), votes, audit=settings.audit(num_audit, 1))
        work = record.Work(1, 0, np.zeros(num_estimation), np.zeros(num_audit), 1.0)
        path = tmp_path / f"{name}.jsonl"
        with writing.Writer(path, header, plan.Plan([0])) as writer:
            writer.write(record.certificate(0, 0, proven, settings, solves=True, lanes=16, work=work))
        return results.Row(name, path)

    all_of_96, some_of_96 = row("all of 96", 96, 96), row("some of 96", 96, 48)
    all_of_48 = row("all of 48", 48, 48)

    def tables_of_slack(*rows):
        written = page.write(definitions.find("audit"), "a command", {"the table": rows}, tmp_path / "page")
        _, *after = written.read_text().split("Bound on wrong votes less their number, in percent of ")
        tables = [text.split("\n\n")[1].splitlines()[2:] for text in after]
        return [[line.split(" | ")[0].removeprefix("| ") for line in lines] for lines in tables]

    assert tables_of_slack(all_of_48, all_of_96, some_of_96) == [["all of 96", "some of 96"]]
    assert [path.name for path in (tmp_path / "page").glob("*.png")] == ["gaps-0.5.png"]
    assert tables_of_slack(all_of_48, some_of_96) == []


def test_training_experiment_refuses_checkpoint(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "smoothadv", "--checkpoint", tmp_path) == 2
    assert "smoothadv trains its models" in capsys.readouterr().err


def test_every_sigma_needs_one_model(monkeypatch, capsys, tmp_path):
    """Refused before any work: a sigma without a shipped model, and too few models."""
    arguments = ("acr", "--sigma", "0.25", "1", "--out", tmp_path / "out")
    assert call(monkeypatch, *arguments) == 2
    assert "no model is shipped for data set digits at sigma 1" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "--checkpoint", tmp_path) == 2
    assert "there must be one for each sigma, and these are 0.25, 1.0" in capsys.readouterr().err
    assert call(monkeypatch, "acr", "--sigma", "0.5", "0.5", "--out", tmp_path / "out") == 2
    assert "sigma is 0.5, 0.5; it must be without repetition" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_rows_are_checked_before_work(monkeypatch, capsys, tmp_path):
    """Here the model of the second sigma takes images of another shape."""
    folders = [shipped.folder("digits", 0.25), shipped.folder("cifar10", 0.5)]
    arguments = ("acr", "--scale", "smoke", "--sigma", "0.25", "0.5", "--checkpoint", *folders)
    assert call(monkeypatch, *arguments, "--out", tmp_path / "out") == 2
    assert "images have shape (8, 8, 1); the model takes (32, 32, 3)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_sigma_uses_its_model(monkeypatch, tmp_path):
    sigmas, folders = (0.25, 0.5), [shipped.folder("digits", sigma) for sigma in (0.5, 0.25)]
    arguments = ("acr", "--scale", "smoke", "--sigma", *sigmas, "--checkpoint", *folders, "--out", tmp_path)
    assert call(monkeypatch, *arguments) == 0
    headers = [jsonl.read(path)[0] for path in (tmp_path / "records").iterdir()]
    found = {(header["smoothing"]["sigma"], header["training"]["sigma"]) for header in headers}
    assert found == {(0.25, 0.5), (0.5, 0.25)}


def test_page_shows_models_and_memory(run, tmp_path):
    """The training settings of the header, the last evaluation of the metrics, and the measured memory."""
    lines = [{"update": 5, "loss": 1.0}]
    lines += [{"update": u, "clean_accuracy": u / 10, "noisy_accuracy": u / 20} for u in (5, 9)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "memory.json").write_text(json.dumps({"bytes": {"one": 3 * 2**20, "two": 2**19}}))

    def more_draws(header, records):
        header["training"]["draws"] = 7
        del header["sha256"]
        header["sha256"] = serialization.digest(header)

    other = rewritten(run, tmp_path / "other.jsonl", more_draws)
    trained = [results.Trained(name, tmp_path / "metrics.jsonl") for name in ("first", "second")]
    rows = [
        results.Row("a", run, memory=tmp_path / "memory.json", model=trained[0]),
        results.Row("b", other, model=trained[1]),
    ]
    text = page.write(definitions.find("jacobian"), "a command", {"the table": rows}, tmp_path).read_text()
    assert "| first |  | 9 | 90.0 | 45.0 |" in text and "| second | draws 7 | 9 | 90.0 | 45.0 |" in text
    assert "| a | 3.0 | 0.5 |" in text


def test_list_shows_every_experiment(monkeypatch, capsys):
    assert call(monkeypatch, "list") == 0
    output = capsys.readouterr().out
    assert all(name in output for name in NAMES)


def test_unknown_experiment_is_refused(monkeypatch, capsys):
    assert call(monkeypatch, "main-cifar") == 2
    assert "did you mean 'main-cifar10'?" in capsys.readouterr().err


def test_bounds_above_truth_are_counted():
    """500 of 1,000 independent votes rule out a lower bound of 0.6."""
    votes = [_certificate(index, counts=(500, 500, 0), p_lower=0.45) for index in range(3)]
    limit = stats.binomtest(500, 1000).proportion_ci(0.998, "exact").high
    found = [
        _certificate(i, counts=(900, 100, 0), p_lower=p) for i, p in enumerate((0.6, limit + 1e-9, limit - 1e-9))
    ]
    assert truth.above(found, votes) == 2
    assert truth.above(votes, votes) == 0


@pytest.mark.slow
def test_page_counts_bounds_above_truth(tmp_path, monkeypatch):
    """The formula of the released code ignores the wrong votes of a chain with one evaluation."""
    arguments = ("bounds", "--scale", "smoke", "--sigma", "0.5", "--out", tmp_path)
    assert call(monkeypatch, *arguments) == 0
    lines = (tmp_path / "bounds" / "README.md").read_text().splitlines()
    last = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in lines if "|" in line}
    assert last["serial 1A"] == last["*paper*"] == "0 of 3"
    assert last["standard 30"] == ""
    captions = [line for line in lines if line.startswith("serial 3A, sigma 0.5: certified radii of 3 images")]
    number = last["*reference-code*"].split()[0]
    assert [caption.split("Above it: ")[1] for caption in captions] == [
        f"0 (sound), 0 (paper), {number} (reference-code), which is not a valid bound."
    ]
    assert (tmp_path / "bounds" / "truth-0.5-serial-3A.png").read_bytes().startswith(b"\x89PNG")


def test_radii_share_columns_with_intervals():
    """Columns are sorted; an infinite upper end reaches the top of the axes."""
    possible = [(0.5, np.inf), (0.0, 0.0), (0.25, 0.75), (0.25, 0.5)]
    sound, paper, released = ([x + shift for x in (0.4, 0.0, 0.2, 0.1)] for shift in (0.0, 0.01, 1.0))
    figure = figures.possible_radii("name", "caption", possible, {"a": sound, "b": paper, "c": released})
    axes = Figure().add_subplot()
    figure.draw(axes)
    top = 1.05 * max(released)
    columns = [
        (bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches
    ]
    np.testing.assert_allclose(columns, [(0, 0, 0), (1, 0.25, 0.5), (2, 0.25, 0.75), (3, 0.5, top)])
    order = [1, 3, 2, 0]
    for line, radii in zip(axes.lines, (sound, paper, released), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), [(i, radii[place]) for i, place in enumerate(order)])


def test_missing_matplotlib_stops_before_work(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(monkeypatch, "bounds", "--scale", "smoke", "--out", tmp_path / "out") == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _certificate(index, **change):
    return certificate(index, **{"selected": 0, "alpha": 0.001, **change})
