"""Files of JSON lines, written: a run appends to one line by line, and loses nothing that it reported."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from deqsmooth.certificates import jsonl
from deqsmooth.certificates.record import Certificate, Unreadable


class Lines:
    """Appends records to a file, each on disk before the next is begun; use as a context manager.

    A file that does not exist is made, with the header. One that exists must have the same header; its records are
    in `records`, and a last line that a killed run left unfinished is cut off. While one process writes, no other
    can.

    Attributes:
      records: that the file already holds, in its order.

    Raises:
      ValueError: the file has another header or is none of its kind, another process writes to it, or it cannot be
        written, or was removed or replaced while it was written.
    """

    records: list[dict[str, Any]]

    def __init__(self, path: jsonl.Path, header: dict[str, Any]):
        self._path = pathlib.Path(path)
        self._header = json.loads(json.dumps(header))
        self.records = []
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise ValueError(f"cannot write {self._path}: {error.strerror}") from None
        try:
            self._lock()
            self._file.seek(0)
            content = self._file.read()
            complete = content[: content.rfind(b"\n") + 1]
            if complete:
                self._load(complete.decode())
            self._file.truncate(len(complete))
            if not complete:
                self.append(self._header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _load(self, content: str) -> None:
        header, *self.records = jsonl.objects(self._path, content)
        jsonl.same_run(self._path, header, self._header)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self._path} is being written by another process; give another --out") from None
        except OSError as error:
            raise ValueError(f"cannot lock {self._path}: {error.strerror}") from None

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def append(self, values: dict[str, Any]) -> None:
        """Appends a line and waits until it is on disk."""
        left = json.dumps(values, allow_nan=False).encode() + b"\n"
        if not self._is_in_place():
            raise ValueError(f"{self._path} was removed or replaced while it was written; the run cannot go on")
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ValueError(
                f"cannot write {self._path}: {error.strerror}; every line before is whole, and the same command "
                "goes on from there"
            ) from None


class Writer(Lines):
    """Appends certificates to a file; see `Lines`.

    Attributes:
      done: certificates that the file holds, in its order.
    """

    def __init__(self, path: jsonl.Path, header: dict[str, Any]):
        self.done: list[Certificate] = []
        self._unreadable: set[Unreadable] = set()
        self._chain: str = header["sha256"]
        super().__init__(path, header)

    def __enter__(self) -> Writer:
        return self

    def _load(self, content: str) -> None:
        file = jsonl.parse(self._path, content)
        jsonl.same_run(self._path, file.header, self._header)
        self.done, self._unreadable = file.certificates, set(file.unreadable)
        self._chain = (file.lines[-1].chain if file.lines else None) or self._chain

    def left(self, indices: Iterable[int]) -> list[int]:
        """Those of some images that have no certificate yet."""
        done = {certificate.index for certificate in self.done}
        return [index for index in indices if index not in done]

    def write(self, entry: Certificate | Unreadable) -> None:
        """Appends a certificate or an unreadable image, and waits until it is on disk.

        An unreadable image that the file already has with the same error is skipped.
        """
        if isinstance(entry, Unreadable):
            if entry in self._unreadable:
                return
            self._unreadable.add(entry)
        self.write_values(dataclasses.asdict(entry))
        if isinstance(entry, Certificate):
            self.done.append(entry)

    def write_values(self, values: dict[str, Any]) -> None:
        """Appends the values of a line, and its chain."""
        self._chain = jsonl.link(self._chain, values)
        self.append({**values, "chain": self._chain})
