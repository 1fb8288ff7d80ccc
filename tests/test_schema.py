"""The shipped JSON Schema: that of the certificates, by an independent validator."""

import json
import pathlib

import jsonschema
import pytest
from test_verification import run  # noqa: F401

from deqsmooth import schema

ROOT = pathlib.Path(__file__).parent.parent


def test_what_is_shipped_is_the_schema_of_the_code():
    shipped = json.loads((ROOT / "deqsmooth" / "certificate.schema.json").read_text())
    assert shipped == schema.certificate()
    jsonschema.Draft202012Validator.check_schema(shipped)
    assert all(entry["description"] for entry in shipped["properties"].values())


def test_certificates_are_valid_and_others_are_not(run):  # noqa: F811
    validator = jsonschema.Draft202012Validator(schema.certificate())
    records = [json.loads(line) for line in run.read_text().splitlines()]
    for record in records[1:]:
        validator.validate(record)
    for broken in (records[0], {**records[1], "radius": "wide"}, {**records[1], "more": 1}, {"index": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(broken)


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/*/*.jsonl")), ids=lambda path: path.stem)
def test_kept_records_are_valid(path):
    validator = jsonschema.Draft202012Validator(schema.certificate())
    header, *records = [json.loads(line) for line in path.read_text().splitlines()]
    if header["kind"] == "header":
        for record in records[:5]:
            validator.validate(record)
