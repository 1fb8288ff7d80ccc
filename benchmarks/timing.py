"""Timing of calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

import deqsmooth as ds
from deqsmooth.smoothing import certification


def seconds(run: Callable[..., Any], *arguments: Any, repeats: int) -> float:
    """Returns the least wall-clock seconds of `repeats` calls, after one call to compile and one to warm up.

    Other work on the machine can only lengthen a call, so the least is the best estimate.
    """
    return seconds_in_turn({"": lambda: run(*arguments)}, repeats)[""]


def certifying(classifier, images, settings) -> Callable[[], list[ds.Certificate]]:
    """Returns a call that certifies images [num, H, W, C] by programs that are compiled before.

    The check of the classifier, which a run makes once, is left out.
    """
    programs = certification.prepare(classifier, settings, images.shape[1:], len(images))
    return lambda: list(ds.certify(classifier, images, settings, programs=programs, skip_soundness_check=True))


def once(run: Callable[[], Any]) -> float:
    """Returns the wall-clock seconds of one call."""
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


def seconds_in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Returns the least seconds of each of several calls, after one round to compile and one to warm up."""
    return {name: min(found[2:]) for name, found in rounds(runs, repeats + 2).items()}


def rounds(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each of several calls in `repeats` rounds.

    Every round makes each call once, so that a slow period of the machine affects all of them.
    """
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            spent[name].append(once(run))
    return spent
