"""Files of JSON lines, written: a run appends to one line by line, and loses nothing that it reported."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from deqsmooth.certificates import headers, jsonl, verification
from deqsmooth.certificates.plan import End, Plan
from deqsmooth.certificates.record import Certificate, Unreadable

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


class Lines(Generic[Record]):
    """Appends records to a file, each on disk before the next is begun; use as a context manager.

    A file that does not exist is made, with the header. One that exists must have the same header and verify, and
    a last line that a killed run left unfinished is cut off. While one process writes, no other can.

    Args:
      path: the file.
      header: of the run.
      read: from name and text of a file to its records; raises `ValueError` unless it verifies.

    Attributes:
      done: records that the file holds, in its order.

    Raises:
      ValueError: the file has another header, does not verify or is none of its kind, another process writes to
        it, or it cannot be written, is no regular file, or was removed or replaced while it was written.
    """

    done: list[Record]

    def __init__(self, path: jsonl.Path, header: dict[str, Any], read: Callable[[str, str], list[Record]]):
        if not isinstance(path, str | os.PathLike):
            raise ValueError(f"out is {path!r}; it must be the path of a file")
        self._path = pathlib.Path(path)
        self._header = json.loads(json.dumps(header))
        try:
            if self._path.exists() and not self._path.is_file():
                raise ValueError(f"cannot write {self._path}: it is no regular file")
            if self._path.suffix == ".gz":
                raise ValueError(f"cannot write {self._path}: lines are appended to a file without compression")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise ValueError(f"cannot write {self._path}: {error.strerror}") from None
        try:
            self._lock()
            content = jsonl.text(self._path)
            whole = content[: content.rfind("\n") + 1]
            if whole:
                headers.same_run(self._path, jsonl.header(self._path, whole), self._header)
            elif not json.dumps(self._header).startswith(content):
                raise ValueError(f"{self._path} holds something else than records; give another --out")
            self.done = read(str(self._path), whole) if whole else []
            self._file.truncate(len(whole.encode()))
            if not whole:
                self._append(self._header)
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def _begin(self) -> None:
        """Appends what comes before the first record of this run."""

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

    def write(self, entry: Record) -> None:
        """Appends a record and waits until it is on disk."""
        self._append(dataclasses.asdict(entry))
        self.done.append(entry)

    def _append(self, values: dict[str, Any]) -> None:
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


class Writer(Lines[Certificate]):
    """Appends certificates to a file, each on disk before the next is begun; use as a context manager.

    `ds.certify` and `ds.certify_dataset` do this themselves if `out` is given. The writer is for programs that
    write the certificates of several calls into one file, or those of `ds.recertify`.

    A file that does not exist is made, with the header. One that exists must have the same header and verify, and
    a last line that a killed run left unfinished is cut off. While one process writes, no other can. The plan is
    written before the first certificate, also into a file that other images were planned for; one that adds no
    image is not written again. When the block of the context manager ends and every planned image has a line, an
    end line is written.

    Args:
      path: the file.
      header: of the run, as `ds.read` returns it, or made by `deqsmooth.smoothing.provenance.header`.
      plan: images that the file is to hold; None only with a header of schema 1 to 3.

    Attributes:
      done: certificates that the file holds, in its order.

    Raises:
      ValueError: the file has another header, does not verify or is none of its kind, another process writes to
        it, or it cannot be written, is no regular file, or was removed or replaced while it was written.

    Example:
      >>> import deqsmooth as ds
      >>> header, found = ds.read("part.jsonl")  # doctest: +SKIP
      >>> plan = ds.Plan([one.index for one in found])  # doctest: +SKIP
      >>> with ds.Writer("copy.jsonl", header, plan) as writer:  # doctest: +SKIP
      ...     for one in found:
      ...         writer.write(one)
    """

    def __init__(self, path: jsonl.Path, header: dict[str, Any], plan: Plan | None):
        self._plan = plan
        self._planned: set[int] = set()
        self._unreadable: set[Unreadable] = set()
        self._has_plan = False
        self._end: End | None = None
        self._chain: str = header["sha256"]
        super().__init__(path, header, self._read)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            super().__exit__(kind, error, traceback)

    def _read(self, name: str, text: str) -> list[Certificate]:
        checked = verification.verify_text(name, text).must_hold(jsonl.RULE)
        lines = checked.file.lines
        if lines:
            self._chain = lines[-1].chain or self._chain
            self._end = lines[-1].entry if isinstance(lines[-1].entry, End) else None
        self._planned, self._has_plan = set(checked.planned or ()), bool(checked.file.plans)
        self._unreadable = set(checked.unreadable)
        return checked.found

    def _begin(self) -> None:
        if self._plan is None or (self._has_plan and self._planned.issuperset(self._plan.own)):
            return
        self._append_linked(self._plan.to_json())
        self._planned.update(self._plan.own)

    def left(self) -> list[int]:
        """The images of the plan that have no certificate yet."""
        done = {certificate.index for certificate in self.done}
        return [index for index in self._plan.own if index not in done] if self._plan else []

    def write(self, entry: Certificate | Unreadable) -> None:
        """Appends a certificate or an unreadable image, and waits until it is on disk.

        An unreadable image that the file already has with the same error is skipped.

        Args:
          entry: the certificate or the unreadable image.

        Raises:
          ValueError: no plan has the image, or the file cannot be written, or was removed or replaced.
        """
        if self._plan is not None and entry.index not in self._planned:
            raise ValueError(f"index is {entry.index}; it must be an image of the plan")
        if isinstance(entry, Unreadable):
            if entry in self._unreadable:
                return
            self._unreadable.add(entry)
        self._append_linked(dataclasses.asdict(entry))
        if isinstance(entry, Certificate):
            self.done.append(entry)

    def write_line(self, line: jsonl.Line) -> None:
        """Appends a certificate or an unreadable image with the values that it has in another file."""
        self._append_linked(line.values)
        if isinstance(line.entry, Certificate):
            self.done.append(line.entry)
        elif isinstance(line.entry, Unreadable):
            self._unreadable.add(line.entry)

    def _append_linked(self, values: dict[str, Any]) -> None:
        """Appends the values of a line, and its chain."""
        chain = jsonl.link(self._chain, values)
        self._append({**values, "chain": chain})
        self._chain, self._end = chain, None

    def _finish(self) -> None:
        """Appends an end line if every planned image has a line, and the last line is no end line."""
        done = {certificate.index for certificate in self.done}
        unreadable = {entry.index for entry in self._unreadable} - done
        if self._plan is not None and self._end is None and self._planned <= done | unreadable:
            self._append_linked(End(len(done), len(unreadable)).to_json())
