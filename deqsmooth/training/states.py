"""States of a training run on disk, in Orbax's format: writes them, and gives the newest one to resume from."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from deqsmooth import config
from deqsmooth.config import serialization
from deqsmooth.training import loop

# Orbax logs every step at a lower level, through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)


class Run:
    """States of a training run in its working folder; use as a context manager.

    Args:
      workdir: working folder.
      settings: settings of the training.
      teacher: SHA-256 of the checkpoint that the training starts from, or None.

    Attributes:
      workdir: working folder.

    Raises:
      ValueError: if the folder cannot be written.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], settings: config.Descent, teacher: str | None = None
    ) -> None:
        self.workdir = pathlib.Path(workdir)
        folder = self.workdir.resolve() / "states"
        self._settings, self._teacher = settings, teacher
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=False)
            )
        except OSError as error:
            raise ValueError(f"cannot write {folder}: {error.strerror}") from None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def wait(self) -> None:
        """Returns when every state is on disk."""
        self._manager.wait_until_finished()

    def latest(self, like: loop.State) -> loop.State | None:
        """Returns the newest state, or None if there is none yet.

        Args:
          like: a state of the same structure and shapes.

        Raises:
          ValueError: if the state belongs to a run with other settings or another teacher.
        """
        self.wait()
        step = self._manager.latest_step()
        if step is None:
            return None
        template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template), config=ocp.args.JsonRestore())
        )
        teacher = restored.config.pop("frozen", None)
        settings = serialization.from_json(type(self._settings), restored.config)
        found = vars(dataclasses.replace(settings, data_dir=self._settings.data_dir))
        different = [name for name, value in vars(self._settings).items() if found[name] != value]
        different += ["checkpoint"] if teacher != self._teacher else []
        if different:
            raise ValueError(
                f"{self._manager.directory} holds a run with other settings ({', '.join(different)} differ); "
                "give another --workdir, or the same settings to resume"
            )
        return jax.tree.map(jnp.asarray, restored.state)

    def save(self, state: loop.State) -> None:
        """Writes a state in the background; every process of a run must call this."""
        if self._manager.latest_step() == int(state.update):
            return
        settings = serialization.to_json(dataclasses.replace(self._settings, data_dir=None))
        self._manager.save(
            int(state.update),
            args=ocp.args.Composite(
                # A copy: the next update donates the buffers of this state.
                state=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)),
                config=ocp.args.JsonSave({**settings, "frozen": self._teacher}),
            ),
        )
