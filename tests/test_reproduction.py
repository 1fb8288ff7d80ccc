"""Experiments of the paper: settings that hold, and pages whose every number follows from verified records."""

import dataclasses
import importlib.util
import json
import math
import sys

import numpy as np
import pytest
from conftest import SERIAL
from matplotlib.figure import Figure
from scipy import stats
from support import certificate, rewritten

from deqsmooth import config
from deqsmooth.certificates import bound, record, rounding, truth, writing
from deqsmooth.commands import reproduce
from deqsmooth.config import presets, serialization
from deqsmooth.experiments import definitions, page, results, scales
from deqsmooth.models import checkpoints
from deqsmooth.reports import figures
from deqsmooth.smoothing import certification, provenance
from deqsmooth.statistics import bounds

NAMES = list(definitions.EXPERIMENTS)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deqsmooth-reproduce", *map(str, arguments)])
    return reproduce.main()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "scale", [scales.scale(*one) for one in (*((name, "digits") for name in scales.SCALES), ("small", "cifar10"))]
)
def test_every_row_is_one_that_can_certify(name, scale):
    experiment = definitions.find(name)
    rows = experiment.rows(scale)
    assert len(set(rows.values())) == len(rows)
    # As long as the chain an interval does nothing, and the row is another one again.
    chain = math.ceil(scale.num_estimation / scale.lanes)
    assert all(settings.warmup_interval is None or settings.warmup_interval < chain for settings in rows.values())
    assert len(rows) >= 2 or experiment.models or experiment.attacks
    assert all(settings.cap > 0 for settings in rows.values())


def test_the_main_rows_at_full_scale_are_the_paper_s():
    scale = scales.SCALES["full"]
    assert scale.num_images == 500
    rows = definitions.find("main-cifar10").rows(scale)
    for row, name in (("standard 30", "mdeq-30a"), ("serial 1N", "srs-mdeq-1n"), ("serial 3A", "srs-mdeq-3a")):
        assert rows[row] == presets.SMOOTHING[name]
    # Shared rows are certified once: experiments name them alike.
    assert definitions.find("acr").rows(scale)["serial 3A"] == rows["serial 3A"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs_and_a_second_time_only_shows(name, tmp_path, monkeypatch, capsys):
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


def test_the_numbers_of_a_page_are_those_of_its_records(run, tmp_path):
    """Here from the raw lines; of serial votes also under the formulas that were published."""
    experiment = definitions.find("acr")
    written = page.write(experiment, "a command", {"the table": [results.Row("a row", run)]}, tmp_path)
    header, *lines = map(json.loads, run.read_text().splitlines())
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
                p = bounds.audited_lower(
                    line["count"], sum(line["counts"]), line["mismatches"], line["num_audit"],
                    line["alpha_audit"], line["alpha"] - line["alpha_audit"], formula,
                )  # fmt: skip
            else:
                p = line["p_lower"]
            radii.append(bounds.radius(p, 0.5))
            right.append(p > 0.5 and line["selected"] == line["label"])
        values = by_name[name][4:]
        assert values[1] == rounding.down(sum(radii) / 9, 3)
        assert values[0] == rounding.down(sum(r * ok for r, ok in zip(radii, right, strict=True)) / 9, 3)
        assert values[2] == rounding.percent(sum(right) / 9)
    assert f"`{run.name}`" in written.read_text().replace("../", "").replace(f"{run.parent.name}/", "")


def test_a_page_is_made_of_what_verifies(run, tmp_path):
    def more_votes(header, records):
        records[0]["count"] += 1

    changed = rewritten(run, tmp_path / "changed.jsonl", more_votes)
    rows = {"the table": [results.Row("a row", changed)]}
    with pytest.raises(ValueError, match="a page is made of what verifies"):
        page.write(definitions.find("acr"), "a command", rows, tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "imagenet"])
@pytest.mark.parametrize("scale", scales.SCALES)
def test_every_model_is_one_that_can_be_trained(dataset, scale):
    """The first as the recipe says; the others differ from it, and from each other."""
    recipe = scales.recipe(dataset, scales.scale(scale, dataset), None)
    assert recipe.dataset == dataset and recipe.epochs >= 1
    for experiment in definitions.EXPERIMENTS.values():
        if experiment.models is not None:
            models = experiment.models(recipe)
            assert next(iter(models.values())) == recipe and len(set(models.values())) == len(models) >= 2
    with pytest.raises(ValueError, match="unknown dataset 'arrays'"):
        scales.recipe("arrays", scales.scale(scale, "arrays"), None)


def test_gaps_are_the_bound_less_the_truth():
    """The least number of wrong votes that is ruled out, by enumeration, is one more than the bound."""
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


def test_gaps_are_those_of_audits_of_the_same_votes(small, tmp_path):
    """An audit of all of other votes says nothing of them."""

    def row(name, num_estimation, num_audit):
        settings = dataclasses.replace(SERIAL, num_estimation=num_estimation, num_audit=num_audit)
        header = provenance.header(small, config.Selection(dataset="digits"), settings, "")
        path, votes = tmp_path / f"{name}.jsonl", np.array([num_estimation, *[0] * 10])
        fields = bound.fields(
            settings, True, selected=0, counts_selection=np.array([20, *[0] * 10]), counts=votes,
            residual=np.zeros(num_estimation), evaluations=1, fallbacks=0,
            audit={"audited": num_audit, "mismatches": 1, "residual": np.zeros(num_audit)},
        )  # fmt: skip
        with writing.Writer(path, header) as writer:
            writer.write(certification.certificate(0, 0, fields, 1.0))
        return results.Row(name, path)

    all_of_96, some_of_96 = row("all of 96", 96, 96), row("some of 96", 96, 48)
    all_of_48 = row("all of 48", 48, 48)

    def gaps(*rows):
        written = page.write(definitions.find("audit"), "a command", {"the table": rows}, tmp_path / "page")
        _, *after = written.read_text().split("Bound on wrong votes less their number, in percent of ")
        tables = [text.split("\n\n")[1].splitlines()[2:] for text in after]
        return [[line.split(" | ")[0].removeprefix("| ") for line in lines] for lines in tables]

    assert gaps(all_of_48, all_of_96, some_of_96) == [["all of 96", "some of 96"]]
    assert [path.name for path in (tmp_path / "page").glob("*.png")] == ["gaps-0.5.png"]
    assert gaps(all_of_48, some_of_96) == []


def test_a_trained_experiment_takes_no_model(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "smoothadv", "--checkpoint", tmp_path) == 2
    assert "smoothadv trains models of its own" in capsys.readouterr().err


def test_every_noise_has_its_model(monkeypatch, capsys, tmp_path):
    """Before anything is run: a noise without a shipped model, and fewer models than noises."""
    arguments = ("acr", "--sigma", "0.25", "1", "--out", tmp_path / "out")
    assert call(monkeypatch, *arguments) == 2
    assert "no model is shipped for data set digits at sigma 1" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "--checkpoint", tmp_path) == 2
    assert "there must be one for each sigma, and these are 0.25, 1.0" in capsys.readouterr().err
    assert call(monkeypatch, "acr", "--sigma", "0.5", "0.5", "--out", tmp_path / "out") == 2
    assert "sigma is 0.5, 0.5; it must be without repetition" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_row_of_every_noise_is_checked_before_the_first_is_run(monkeypatch, capsys, tmp_path):
    """Here the model of the second noise takes other images."""
    folders = [checkpoints.shipped("digits", 0.25), checkpoints.shipped("cifar10", 0.5)]
    arguments = ("acr", "--scale", "smoke", "--sigma", "0.25", "0.5", "--checkpoint", *folders)
    assert call(monkeypatch, *arguments, "--out", tmp_path / "out") == 2
    assert "images have shape (8, 8, 1); the model takes (32, 32, 3)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_noise_is_certified_with_its_model(monkeypatch, tmp_path):
    sigmas, folders = (0.25, 0.5), [checkpoints.shipped("digits", sigma) for sigma in (0.5, 0.25)]
    arguments = ("acr", "--scale", "smoke", "--sigma", *sigmas, "--checkpoint", *folders, "--out", tmp_path)
    assert call(monkeypatch, *arguments) == 0
    headers = [record.read(path)[0] for path in (tmp_path / "records").iterdir()]
    found = {(header["smoothing"]["sigma"], header["training"]["sigma"]) for header in headers}
    assert found == {(0.25, 0.5), (0.5, 0.25)}


def test_a_page_says_how_its_models_were_trained_and_what_they_reserve(run, tmp_path):
    """From the header of the records, the last evaluation of the metrics, and the file of bytes."""
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


def test_experiments_are_listed_and_unknown_ones_refused(monkeypatch, capsys):
    assert call(monkeypatch, "list") == 0
    assert all(name in capsys.readouterr().out for name in NAMES[:1])
    assert call(monkeypatch, "main-cifar") == 2
    assert "did you mean 'main-cifar10'?" in capsys.readouterr().err


def test_a_bound_above_the_truth_is_seen():
    """Independent votes of a fair coin leave 0.6 for no bound, and 0.4 for any."""
    votes = [_certificate(index, counts=(500, 500, 0), p_lower=0.45) for index in range(3)]
    limit = stats.binomtest(500, 1000).proportion_ci(0.998, "exact").high
    found = [
        _certificate(i, counts=(900, 100, 0), p_lower=p) for i, p in enumerate((0.6, limit + 1e-9, limit - 1e-9))
    ]
    assert truth.above(found, votes) == 2
    assert truth.above(votes, votes) == 0


@pytest.mark.slow
def test_a_page_names_what_lies_above_the_truth(tmp_path, monkeypatch):
    """Serial votes of one evaluation, whose wrong ones the formula of the released code ignores."""
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


def test_radii_stand_in_the_column_of_what_is_possible(monkeypatch):
    """Columns grow; one without an upper end reaches the top."""
    drawn = []
    monkeypatch.setattr(figures, "_render", lambda draw, style, kind: drawn.append(draw) or b"")
    possible = [(0.5, np.inf), (0.0, 0.0), (0.25, 0.75), (0.25, 0.5)]
    sound, paper, released = ([x + shift for x in (0.4, 0.0, 0.2, 0.1)] for shift in (0.0, 0.01, 1.0))
    figures.beside_truth("name", "caption", possible, {"a": sound, "b": paper, "c": released})
    axes = Figure().add_subplot()
    drawn[0](axes)
    top = 1.05 * max(released)
    columns = [
        (bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches
    ]
    np.testing.assert_allclose(columns, [(0, 0, 0), (1, 0.25, 0.5), (2, 0.25, 0.75), (3, 0.5, top)])
    order = [1, 3, 2, 0]
    for line, radii in zip(axes.lines, (sound, paper, released), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), [(i, radii[place]) for i, place in enumerate(order)])


def test_figures_are_refused_before_the_work(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(monkeypatch, "bounds", "--scale", "smoke", "--out", tmp_path / "out") == 2
    assert "pip install 'deqsmooth[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _certificate(index, **change):
    return certificate(index, **{"selected": 0, "alpha": 0.001, **change})
