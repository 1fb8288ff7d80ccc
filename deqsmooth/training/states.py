"""States of a training run on disk, in Orbax's format: writes them, and gives the newest one to resume from."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from deqsmooth import config
from deqsmooth.config import serialization
from deqsmooth.models import checkpoints
from deqsmooth.training import updates

_LOG = logging.getLogger(__name__)

# Orbax logs every step at a lower level, through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)


class Run:
    """States of a training run in its working folder; use as a context manager.

    Args:
      workdir: working folder.
      settings: settings of the training.
      teacher: SHA-256 of the checkpoint that the training starts from, or None.
      data: identities of the images that the model is trained on and evaluated on.

    Attributes:
      workdir: working folder.

    Raises:
      ValueError: if the folder cannot be written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        settings: config.Descent,
        teacher: str | None = None,
        data: tuple[str, ...] = (),
    ) -> None:
        self.workdir = pathlib.Path(workdir)
        folder = self.workdir.resolve() / "states"
        self._settings, self._teacher, self._data = settings, teacher, list(data)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=False)
            )
        except OSError as error:
            raise ValueError(f"workdir is {workdir}; cannot write {folder}: {error.strerror}") from None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def wait(self) -> None:
        """Returns when every state is on disk."""
        self._manager.wait_until_finished()

    def newest_update(self) -> int | None:
        """The number of finished updates of the newest state, damaged or not; None if there is no state."""
        self.wait()
        return self._manager.latest_step()

    def latest(self, like: updates.State) -> updates.State | None:
        """Returns the newest state that can be read, or None if there is no state yet.

        Newer states that are damaged, because a file was cut off or is missing, are removed with a warning.

        Args:
          like: a state of the same structure and shapes.

        Raises:
          ValueError: if the states belong to a run with other settings, data or teacher, or none can be read.
        """
        self.wait()
        damaged: dict[int, str] = {}
        template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            recorded = self._read(step, damaged, config=ocp.args.JsonRestore())
            if recorded is None:
                continue
            self._check_same_run(recorded.config)
            found = self._read(step, damaged, state=ocp.args.StandardRestore(template))
            if found is None:
                continue
            shapes, expected = ([np.shape(x) for x in jax.tree.leaves(tree)] for tree in (found.state, template))
            if shapes != expected:
                raise self._other("its model has arrays of other shapes")
            for worse, reason in damaged.items():
                self._manager.delete(worse)
                _LOG.warning(
                    f"the state after update {worse} was damaged and is removed ({reason}); the run continues "
                    f"after update {step}"
                )
            return jax.tree.map(jnp.asarray, found.state)
        if damaged:
            reasons = "; ".join(f"that after update {step}: {reason}" for step, reason in damaged.items())
            raise ValueError(
                f"{self._manager.directory} has no state that can be read ({reasons}); give another workdir"
            )
        return None

    def _read(self, step: int, damaged: dict[int, str], **items: ocp.args.CheckpointArgs) -> Any:
        """Items of the state after an update; None, with the reason in `damaged`, if they cannot be read."""
        try:
            with checkpoints.quiet_reading():
                return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError, TypeError) as error:
            # What Orbax raises if a file was cut off, changed or removed.
            damaged[step] = checkpoints.reason_of(error)
            return None

    def _check_same_run(self, encoded: dict[str, Any]) -> None:
        """Raises `ValueError` if settings that were saved are not those of this run."""
        teacher, data = encoded.pop("frozen", None), encoded.pop("data", self._data)
        try:
            settings = serialization.from_json(type(self._settings), encoded)
        except ValueError as error:
            raise self._other(str(error)) from None
        found = vars(dataclasses.replace(settings, data_dir=self._settings.data_dir))
        changes = [
            f"{name} was {found[name]} and is {value}"
            for name, value in vars(self._settings).items()
            if found[name] != value
        ]
        changes += ["it started from another checkpoint"] if teacher != self._teacher else []
        changes += ["it had other images"] if data != self._data else []
        if changes:
            raise self._other("; ".join(changes))

    def _other(self, what: str) -> ValueError:
        return ValueError(
            f"{self._manager.directory} holds another run ({what}); give another workdir, or the settings of that "
            "run to resume it"
        )

    def save(self, state: updates.State) -> None:
        """Writes a state in the background; every process of a run must call this."""
        if self._manager.latest_step() == int(state.update):
            return
        settings = serialization.to_json(dataclasses.replace(self._settings, data_dir=None))
        self._manager.save(
            int(state.update),
            args=ocp.args.Composite(
                # A copy: the next update donates the buffers of this state.
                state=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)),
                config=ocp.args.JsonSave({**settings, "frozen": self._teacher, "data": self._data}),
            ),
        )
