"""The page of records: its tables have the fields that are written, with their types, and no others."""

import dataclasses
import json
import pathlib
import re
import sys

import jax
import pytest

import deqsmooth as ds
from deqsmooth.certificates import attempts, plan, predictions, record
from deqsmooth.commands import attack as attack_command
from deqsmooth.config import fields as fields_of_settings
from deqsmooth.smoothing import provenance, recertification

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "records.md"
TYPES = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "tuple[int, ...]": "integers",
    "tuple[float, ...]": "numbers",
    "None": "null",
}


def tables():
    """For each heading the tables below it, each as types by the names of the fields."""
    found, heading = {}, ""
    for line in PAGE.read_text().splitlines():
        if title := re.match(r"#+ (.*)", line):
            heading = title[1]
        elif line.startswith(("| field |", "| entry |")):
            found.setdefault(heading, []).append({})
        elif row := re.match(r"\| `([\w.]+)` \| ([^|]+) \|", line):
            found[heading][-1][row[1]] = row[2]
    return found


def written(kind):
    """The fields of a kind of line, and what the page calls their types."""
    return {
        field.name: " or ".join(TYPES[name] for name in str(field.type).split(" | "))
        for field in dataclasses.fields(kind)
    }


@pytest.fixture(scope="module")
def header():
    """From settings to the header that a certification of digits writes."""
    dataset, model = ds.load_dataset("digits", "test"), ds.load_checkpoint("digits", 0.5)

    def make(settings, classifier=model, **options):
        return provenance.header(classifier, ds.Selection(), settings, dataset, (8, 8, 1), **options)

    return make


@pytest.mark.parametrize(
    ("heading", "kind", "chained"),
    [
        ("Certificates", record.Certificate, True),
        ("Images without a certificate", record.Unreadable, True),
        ("Predictions", predictions.Prediction, False),
    ],
)
def test_fields_of_lines_are_named(heading, kind, chained):
    (table,) = tables()[heading]
    assert table == {**written(kind), **({"chain": "string"} if chained else {})}


def test_plan_and_end_are_named():
    lines = [plan.Plan((0, 8)).to_json(), plan.End(2, 0).to_json()]
    assert [set(table) for table in tables()["Plan and end"]] == [{*line, "chain"} for line in lines]


def test_entries_of_headers_are_named(header):
    old = header(ds.Smoothing(sampler="independent"))
    again = header(recertification.settings_after(ds.Smoothing(sampler="independent"), budget=8), before=old)
    serial = header(ds.Smoothing(sampler="serial", bound="reference-code"))
    size = ds.ContractionModel(channels=(4,), width=8)
    contraction = ds.classifier(size, ds.build(size).init(jax.random.key(0)))
    settled = header(ds.Smoothing(settle="proof", sampler="independent"), contraction)
    named = {*old, *again, *serial, *settled}
    nested = {f"{name}.{entry}" for name in ("reference", "before", "noise") for entry in again[name]}
    nested |= {f"reference.{entry}" for entry in settled["reference"]}
    (table,) = tables()["The header"]
    assert set(table) == named | nested


def test_types_of_headers_are_right(header):
    kinds = {str: "string", int: "integer", dict: "object", float: "number", list: "integers", type(None): "null"}
    (table,) = tables()["The header"]
    for made in (header(ds.Smoothing(sampler="independent")), header(ds.Smoothing(sampler="serial"))):
        parts = {f"{part}.{name}": x for part in ("reference", "noise") for name, x in made[part].items()}
        flat = {**made, **parts}
        wrong = {name for name, value in flat.items() if kinds[type(value)] not in table[name].split(" or ")}
        assert not wrong


def test_page_describes_written_settings(header):
    smoothing = header(ds.Smoothing(sampler="independent"))["smoothing"]
    fields = dataclasses.fields(ds.Smoothing)
    every = {field.name for field in fields} - {"images_per_batch"}
    # Written only if they are given.
    later = {field.name for field in fields if field.metadata == fields_of_settings.LATER}
    assert every - later <= set(smoothing) <= every


@pytest.mark.slow
def test_fields_of_attacks_are_named(tmp_path, monkeypatch):
    settings = ds.Smoothing(sampler="independent", start="learned", budget=1, num_estimation=100, alpha=0.1)
    out = tmp_path / "attack.jsonl"
    model = ds.load_checkpoint("digits", 0.5)
    selection = ds.Selection()
    dataset = ds.load_dataset("digits", "test")
    list(ds.certify_dataset(model, dataset, [0], settings, out=tmp_path / "one.jsonl", selection=selection))
    flags = ["--radii", "0.25", "--steps", "1", "--draws", "1", "--num-estimation", "50", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["deqsmooth-attack", str(tmp_path / "one.jsonl"), *flags])
    assert attack_command.main() in (0, 1)
    first, line = map(json.loads, out.read_text().splitlines())
    of_header, of_line = tables()["Attacks"]
    assert (set(of_header), set(of_line)) == (set(first), set(line))
    assert of_line == written(attempts.Attempt)
