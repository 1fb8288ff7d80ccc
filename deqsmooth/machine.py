"""The machine and the code that compute, described without names of hosts, users or folders."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import platform
import re
import subprocess

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_VECTORS = ("avx512f", "avx2", "avx", "sse4_2", "sve2", "sve", "asimd", "neon")
"""Vector extensions that XLA compiles for, the widest of each family first."""
_PLACES = re.compile(r"dump|/|\\|device_count")
"""XLA flags that say where something is written, or how many devices there are; neither changes a result."""
_TIMEOUT = 5.0
"""Seconds that git may take."""


@functools.cache
def processor() -> str | None:
    """Returns the name of the processor's model; None if it is unknown."""
    name = _cpuinfo("model name") or _sysctl("machdep.cpu.brand_string")
    return name or platform.processor() or platform.machine() or None


@functools.cache
def vector() -> str | None:
    """Returns the widest vector extension of the processor, such as `avx512f` or `avx2`; None if it is unknown."""
    listed = (
        _cpuinfo("flags") or _cpuinfo("Features") or _sysctl("machdep.cpu.features", "machdep.cpu.leaf7_features")
    )
    # Apple's ARM processors list none; all of them have this one.
    default = "neon" if platform.machine() == "arm64" else None
    found = set((listed or "").lower().split())
    return next((name for name in _VECTORS if name in found), default)


def xla_flags() -> str | None:
    """Returns the XLA flags of the environment, sorted, without paths and numbers of devices; None without any."""
    given = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(sorted(flag for flag in given if not _PLACES.search(flag))) or None


@functools.cache
def commit() -> str | None:
    """Returns the commit of the package if it is imported from a checkout, otherwise None.

    Changes of the package that are not committed are named by a digest: `COMMIT+changes-DIGEST`.
    """
    package = pathlib.Path(__file__).parent
    if not (package.parent / ".git").exists():
        return None
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    changes = _git(package, "diff", "HEAD", "--", ".")
    new = _git(package, "ls-files", "--others", "--exclude-standard", "--", ".")
    if changes is None or new is None:
        return None
    if not changes and not new:
        return head
    digest = hashlib.sha256(changes.encode())
    for name in new.splitlines():
        digest.update((package / name).read_bytes())
    return f"{head}+changes-{digest.hexdigest()[:8]}"


def _cpuinfo(entry: str) -> str | None:
    """The first entry of a name in the kernel's description of the processors; None if there is none."""
    if not _CPUINFO.exists():
        return None
    found = re.search(
        rf"^{entry}\s*:\s*(.+)$", _CPUINFO.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
    )
    return found[1].strip() if found else None


def _sysctl(*names: str) -> str | None:
    """Values that macOS has for some names, joined; None elsewhere."""
    if platform.system() != "Darwin":
        return None
    return _output(["sysctl", "-n", *names])


def _git(folder: pathlib.Path, *arguments: str) -> str | None:
    """Output of git in a folder; None if it fails."""
    return _output(["git", "-C", str(folder), *arguments])


def _output(command: list[str]) -> str | None:
    # Variables of git, which hooks set, would name another repository.
    environment = {name: x for name, x in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
