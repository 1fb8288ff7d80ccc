"""Kept records: the runs and lines that are packed in the folders of `results/`."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

from deqsmooth import config
from deqsmooth.certificates import jsonl, record, statements
from deqsmooth.config import serialization

RESULTS = pathlib.Path(__file__).parents[1] / "results"


@functools.cache
def run(folder: str, row: str) -> jsonl.File:
    """A run of a folder, by the name of its row: `zero 30, looks` is in `zero-30-looks.jsonl`.

    With `, two-sided` at the end its votes are read with the two-sided bound.

    Raises:
      ValueError: there is no such folder or no such run.
    """
    row, two_sided, _ = row.partition(", two-sided")
    name = row.replace(",", "").replace(" ", "-") + ".jsonl"
    found = jsonl.parse(name, _text(folder, name))
    if not two_sided:
        return found
    lines = [line._replace(entry=_two_sided(line.entry)) for line in found.lines]
    return found._replace(lines=lines)


def settings(found: jsonl.File) -> config.Smoothing:
    """The settings of a run."""
    return serialization.from_json(config.Smoothing, found.header["smoothing"])


def lines(folder: str, name: str) -> list[dict[str, Any]]:
    """The lines of a file of a folder.

    Raises:
      ValueError: there is no such folder or no such file.
    """
    return jsonl.objects(name, _text(folder, name))


def _two_sided(entry: jsonl.Entry) -> jsonl.Entry:
    return statements.two_sided(entry) if isinstance(entry, record.Certificate) else entry


def _text(folder: str, name: str) -> str:
    texts = _texts(folder)
    if name not in texts:
        raise ValueError(f"results/{folder} has no {name}; its records are {', '.join(texts)}")
    return texts[name]


@functools.cache
def _texts(folder: str) -> dict[str, str]:
    archive = RESULTS / folder / "records.tar.gz"
    return {name.removeprefix(f"{archive}/"): text for name, text in jsonl.texts(archive)}
