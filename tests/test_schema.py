"""The shipped JSON Schema: that of the certificates, by an independent validator."""

import json
import pathlib

import jsonschema
import pytest

from deqsmooth.certificates import schema

ROOT = pathlib.Path(__file__).parent.parent


def test_what_is_shipped_is_the_schema_of_the_code():
    shipped = json.loads((ROOT / "deqsmooth" / "certificate.schema.json").read_text())
    assert shipped == schema.certificate()
    jsonschema.Draft202012Validator.check_schema(shipped)
    assert all(entry["description"] for entry in shipped["properties"].values())


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/**/*.jsonl")), ids=lambda path: path.stem)
def test_kept_records_are_valid(path):
    validator = jsonschema.Draft202012Validator(schema.certificate())
    header, *records = [json.loads(line) for line in path.read_text().splitlines()]
    if header.get("kind") == "header":
        for record in records[:5]:
            validator.validate(record)
        for broken in (header, {**records[0], "radius": "wide"}, {**records[0], "more": 1}, {"index": 1}):
            with pytest.raises(jsonschema.ValidationError):
                validator.validate(broken)
