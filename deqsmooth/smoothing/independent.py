"""Independent sampling: images share the calls of the compiled programs, and leave at the look where they stop.

Every call solves the same number of samples, in units of one image and phase each. An image whose sampling stops
makes room for the next, so that no call waits for the slowest image. Which samples an image gets does not depend
on the calls. While a call runs, the host counts the votes of the call before.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from deqsmooth import config
from deqsmooth.certificates import bound, record
from deqsmooth.smoothing import noise, sampler
from deqsmooth.smoothing.tally import Image, Tally
from deqsmooth.statistics import looks


class _Unit(NamedTuple):
    """Samples of one image and phase that are solved in one call."""

    owner: _Active
    phase: int
    first: int
    size: int


class _Active:
    """An image that is being sampled: its counts so far, and the units left until its next look."""

    def __init__(self, image: Image, settings: config.Independent, num_classes: int) -> None:
        self.image = image
        self.counts = {phase: np.zeros(num_classes + 1, np.int64) for phase in (noise.SELECTION, noise.ESTIMATION)}
        self.residual: list[np.ndarray] = []
        self.evaluations = self.fallbacks = self.unread = 0
        self.seconds = 0.0
        self.waiting: collections.deque[_Unit] = collections.deque()
        self._settings = settings
        self._looks = collections.deque(settings.looks or (settings.num_estimation,))
        self._drawn = 0
        self._ask(noise.SELECTION, 0, settings.num_selection)
        if not settings.only_correct:
            self._ask_next_look()

    def _ask(self, phase: int, first: int, last: int) -> None:
        for begin in range(first, last, self._settings.lanes):
            self.waiting.append(_Unit(self, phase, begin, min(self._settings.lanes, last - begin)))
            self.unread += 1

    def _ask_next_look(self) -> None:
        look = self._looks.popleft()
        self._ask(noise.ESTIMATION, self._drawn, look)
        self._drawn = look

    def take(self, unit: _Unit, votes: sampler.Votes, number: int, seconds: float) -> None:
        """Counts a unit, which was solved as the one with a number in a call."""
        counts = self.counts[unit.phase]
        counts += np.bincount(votes.votes[number, : unit.size], minlength=len(counts))
        self.evaluations += int(votes.evaluations[number, : unit.size].sum() + votes.warm_up[number])
        self.fallbacks += int(votes.fallbacks[number, : unit.size].sum())
        self.seconds += seconds
        self.unread -= 1
        if unit.phase == noise.ESTIMATION:
            self.residual.append(votes.residual[number, : unit.size])

    def is_finished(self) -> bool:
        """Reads what is counted, the selection or a look, and asks for the next look unless sampling stops."""
        settings = self._settings
        selected = bound.selected_class(self.counts[noise.SELECTION].tolist())
        if not self._drawn:
            is_wrong = selected != self.image.label
            if not is_wrong:
                self._ask_next_look()
            return is_wrong
        *votes, unknown = self.counts[noise.ESTIMATION].tolist()
        count = votes.pop(selected)
        if looks.is_last(
            count,
            self._drawn,
            settings.look_alphas,
            sigma=settings.sigma,
            other=max(votes) + unknown,
            upper_parts=self._upper_parts(len(votes)),
            stop_radius=settings.stop_radius,
            stop_gain=settings.stop_gain,
            stop_radii=settings.stop_radii,
        ):
            return True
        self._ask_next_look()
        return False

    def _upper_parts(self, num_others: int) -> dict[int, float] | None:
        if self._settings.alpha_upper is None:
            return None
        return {look: part / num_others for look, part in self._settings.upper_alphas.items()}

    def tally(self) -> Tally:
        """The counts of the finished image."""
        selection, estimation = (
            tuple(self.counts[phase].tolist()) for phase in (noise.SELECTION, noise.ESTIMATION)
        )
        work = record.Work(
            self.evaluations,
            self.fallbacks,
            np.concatenate([np.empty(0), *self.residual]),
            np.empty(0),
            self.seconds,
        )
        return Tally(self.image, selection, estimation, None, work)


def tallies(programs: sampler.Programs, settings: config.Independent, images: Iterator[Image]) -> Iterator[Tally]:
    """Counts the votes of images, each until its sampling stops.

    Args:
      programs: compiled sampling.
      settings: those of the programs.
      images: read as they are needed.

    Yields:
      The tally of each image, as soon as it is finished.
    """
    active: list[_Active] = []

    def enter() -> bool:
        image = next(images, None)
        if image is not None:
            active.append(_Active(image, settings, programs.assembly.num_classes))
        return image is not None

    def gather() -> list[_Unit]:
        units: list[_Unit] = []
        position = 0
        while len(units) < settings.images_per_batch and (position < len(active) or enter()):
            waiting = active[position].waiting
            while waiting and len(units) < settings.images_per_batch:
                units.append(waiting.popleft())
            position += 1
        return units

    def start(units: list[_Unit]) -> Callable[[], sampler.Votes]:
        return programs.start(
            np.stack([unit.owner.image.pixels for unit in units]),
            np.array([unit.owner.image.index for unit in units]),
            np.array([unit.phase for unit in units]),
            np.stack([np.arange(unit.first, unit.first + settings.lanes) for unit in units]),
        )

    while True:
        begun = time.perf_counter()
        units = gather()
        if not units:
            return
        running = start(units)
        while units:
            # Units that do not wait for the running call follow it at once.
            following = gather()
            votes = running()
            if following:
                running = start(following)
            ended = time.perf_counter()
            for number, unit in enumerate(units):
                unit.owner.take(unit, votes, number, (ended - begun) / len(units))
            begun, units = ended, following
            for one in [one for one in active if not one.unread]:
                if one.is_finished():
                    active.remove(one)
                    yield one.tally()


def votes(
    programs: sampler.Programs, images: np.ndarray, indices: np.ndarray, phase: int, num: int
) -> Iterator[tuple[np.ndarray, int]]:
    """The votes of the first samples of a phase, image by image.

    Args:
      programs: compiled sampling.
      images: [images, H, W, C].
      indices: of the images in their data set [images].
      phase: of the noise.
      num: samples of every image.

    Yields:
      Votes [num] and the cell evaluations that they took.
    """
    lanes, batch = programs.settings.lanes, programs.settings.images_per_batch
    num_units = -(-num // lanes)
    waiting: list[tuple[np.ndarray, int]] = []
    for begin in range(0, len(images) * num_units, batch):
        places, units = np.divmod(np.arange(begin, min(begin + batch, len(images) * num_units)), num_units)
        samples = units[:, None] * lanes + np.arange(lanes)
        found = programs(images[places], indices[places], np.full(len(places), phase), samples)
        rows = zip(found.votes, found.evaluations, found.warm_up, samples < num, strict=True)
        for own, evaluations, first, drawn in rows:
            waiting.append((own[drawn], int(evaluations[drawn].sum() + first)))
            if len(waiting) == num_units:
                yield np.concatenate([own for own, _ in waiting]), sum(spent for _, spent in waiting)
                waiting = []
