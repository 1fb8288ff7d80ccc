"""Packs the records of a folder into one archive, `records.tar.gz`.

Records are the `.jsonl` and `.json` files of the folder and its subfolders; a subfolder that has an archive of its
own is left out. Records of an earlier archive stay in the archive unless a loose file has the same name. The
archive depends only on names and contents of the records. Loose files are not removed; `tar xzf records.tar.gz`
restores them in the folder.

    python benchmarks/pack.py runs/certification/digits-0.5
    python benchmarks/pack.py --check runs/certification/digits-0.5
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import pathlib
import sys
import tarfile

import tyro

ARCHIVE = "records.tar.gz"
_SUFFIXES = (".jsonl", ".json")


@dataclasses.dataclass(frozen=True)
class Pack:
    """Packing of records.

    Attributes:
      folders: folders to pack, each into an archive of its own.
      check: write nothing; report loose records that the archive lacks or holds with other bytes. Exit status 1 if
        there are any.
    """

    folders: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    check: bool = False


def main() -> int:
    """Packs or checks every folder; returns the exit status."""
    arguments = tyro.cli(Pack)
    status = 0
    for folder in arguments.folders:
        if arguments.check:
            for name in unpacked(folder):
                print(f"{folder / name} is not in {folder / ARCHIVE} with these bytes")
                status = 1
        else:
            pack(folder)
    return status


def pack(folder: pathlib.Path) -> None:
    """Writes the archive of a folder.

    Raises:
      ValueError: if the folder has no records.
    """
    found = {**archived(folder), **loose(folder)}
    if not found:
        raise ValueError(f"{folder} has no records; they are files that end with {' or '.join(_SUFFIXES)}")
    content = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=content, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(found):
            # Time, owner and group of a new member are 0.
            member = tarfile.TarInfo(name)
            member.size = len(found[name])
            archive.addfile(member, io.BytesIO(found[name]))
    (folder / ARCHIVE).write_bytes(content.getvalue())


def unpacked(folder: pathlib.Path) -> list[str]:
    """Returns the names of loose records that the archive lacks or holds with other bytes."""
    packed = archived(folder)
    return sorted(name for name, content in loose(folder).items() if packed.get(name) != content)


def loose(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the contents of the loose records by their paths relative to the folder."""
    separate = [archive.parent for archive in folder.rglob(ARCHIVE) if archive.parent != folder]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES and not any(path.is_relative_to(other) for other in separate)
    }


def archived(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the contents of the packed records by their names; empty if the folder has no archive."""
    path = folder / ARCHIVE
    if not path.exists():
        return {}
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


if __name__ == "__main__":
    sys.exit(main())
