"""Metrics of a training as lines of JSON."""

import json
from typing import NamedTuple

import jax.numpy as jnp
import pytest

from deqsmooth.training import loop, metrics, updates


class Values(NamedTuple):
    loss: float
    residual: float | None = 0.5


def progress(update, loss=1.0, evaluation=None):
    return loop.Progress(updates.State({}, (), jnp.int32(update)), Values(loss), evaluation, 0.0, 100)


def strict(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with metrics.Log(tmp_path / "metrics.jsonl") as log:
        log.write(progress(10, evaluation=Values(float("inf"), float("nan"))))
        log.write(progress(11))
        log.write(progress(20, float("nan")))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=strict) for line in lines] == [
        {"update": 10, "loss": 1.0, "residual": 0.5},
        {"update": 10, "loss": None, "residual": None},
        {"update": 20, "loss": None, "residual": 0.5},
    ]


GOOD = ['{"update": 10, "loss": 1}', '{"update": 20, "loss": 0.5}', '{"update": 30, "loss": 0.4}']


@pytest.mark.parametrize("broken", ['{"update": 1', "[]", '{"loss": 1}', '{"update": null}', "\udcff\udcfe"])
@pytest.mark.parametrize(("update", "place"), [(20, 0), (20, 1), (30, 2)])
def test_broken_line_is_named(tmp_path, broken, update, place):
    lines = [*GOOD[:place], broken, *GOOD[place:]]
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join(lines) + "\n", errors="surrogateescape")
    before = file.read_bytes()
    with (
        metrics.Log(file) as log,
        pytest.raises(ValueError, match=f"line {place + 1} of .*metrics.jsonl is no JSON"),
    ):
        log.cut(update)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("broken", "is_named"), [('{"update": 1\n', True), ("caf\u00e9\n", True), ('{"upd', False)]
)
def test_broken_line_of_later_updates_is_cut(tmp_path, caplog, broken, is_named):
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join(GOOD[:2]) + "\n" + broken, encoding="utf-8")
    with metrics.Log(file) as log:
        log.cut(20)
        log.write(progress(30, 0.25))
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["loss"] for line in kept] == [1, 0.5, 0.25]
    assert ("line 3 of" in caplog.text) == is_named


@pytest.mark.parametrize(("update", "num"), [(0, 0), (10, 1), (25, 2), (99, 3)])
def test_lines_of_later_updates_are_cut(tmp_path, update, num):
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join(GOOD) + "\n")
    with metrics.Log(file) as log:
        log.cut(update)
    assert file.read_text().splitlines() == GOOD[:num]


def test_unusable_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot write"):
        metrics.Log(tmp_path / "missing" / "metrics.jsonl")


def test_file_of_another_kind_is_kept(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("years\nof work\n")
    with metrics.Log(file) as log, pytest.raises(ValueError, match=r"line 1 of .* is no JSON object"):
        log.cut(0)
    assert file.read_text() == "years\nof work\n"
