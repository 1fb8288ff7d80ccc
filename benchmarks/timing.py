"""How long calls take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax


def seconds(run: Callable[..., Any], *arguments: Any, repeats: int) -> float:
    """Least wall seconds of a call, after one that compiles and one that warms up.

    The least, because whatever else the machine does only adds to a call.
    """
    return seconds_in_turn({"": lambda: run(*arguments)}, repeats)[""]


def seconds_in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The same of several calls, made one after the other in every round, so that a slow moment spares none."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 2):
        for name, run in runs.items():
            begun = time.perf_counter()
            jax.block_until_ready(run())
            spent[name].append(time.perf_counter() - begun)
    return {name: min(found[2:]) for name, found in spent.items()}
