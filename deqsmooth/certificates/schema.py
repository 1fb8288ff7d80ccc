"""The JSON Schema of a certificate's line, from the certificate itself; `certificate.schema.json` is its text.

python -m deqsmooth.certificates.schema > deqsmooth/certificate.schema.json
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from typing import Any

from deqsmooth.certificates import record

_NAMES = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}


def certificate() -> dict[str, Any]:
    """The schema (JSON Schema, draft 2020-12) of every line but the first of a file of certificates."""
    texts = _descriptions()
    hints = typing.get_type_hints(record.Certificate)
    properties = {name: {**_kind(hint), "description": texts[name]} for name, hint in hints.items()}
    properties["chain"] = {"type": "string", "description": "digest of this line and of the chain before it."}
    fields = dataclasses.fields(record.Certificate)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"deqsmooth certificate, schema {record.SCHEMA}",
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        "additionalProperties": False,
    }


def _kind(hint: Any) -> dict[str, Any]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [
        {"type": "array", "items": {"type": _NAMES[typing.get_args(option)[0]]}}
        if typing.get_origin(option) is tuple
        else {"type": _NAMES[option]}
        for option in options
    ]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _descriptions() -> dict[str, str]:
    """What the docstring says of each attribute."""
    section = record.Certificate.__doc__.split("Attributes:")[1]
    found = re.findall(r"^ {6}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


if __name__ == "__main__":
    print(json.dumps(certificate(), indent=2))
