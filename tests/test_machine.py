"""The description of a machine and of a checkout, from made up ones."""

import getpass
import importlib.util
import os
import platform
import shutil
import socket
import subprocess

import pytest
from support import ROOT

from deqsmooth import machine

INTEL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold\nflags\t\t: fpu sse4_2 avx avx2 avx512f\n"
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd sve\n"


@pytest.fixture
def fresh():
    """Lets the cached functions look again, in a test and after it."""
    forget()
    yield
    forget()


def forget():
    for function in (machine.processor, machine.vector, machine.commit):
        function.cache_clear()


@pytest.mark.parametrize(
    ("cpuinfo", "name", "vector"),
    [
        (INTEL, "Intel(R) Xeon(R) Gold", "avx512f"),
        (INTEL.replace(" avx512f", ""), "Intel(R) Xeon(R) Gold", "avx2"),
        (INTEL.replace("avx avx2 avx512f", ""), "Intel(R) Xeon(R) Gold", "sse4_2"),
        (ARM, "aarch64", "sve"),
        ("", "aarch64", None),
        (None, "aarch64", None),
    ],
)
def test_processor_is_read_from_kernel(monkeypatch, tmp_path, fresh, cpuinfo, name, vector):
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    monkeypatch.setattr(machine, "_CPUINFO", file)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert (machine.processor(), machine.vector()) == (name, vector)


@pytest.mark.parametrize(
    ("values", "kind", "vector"),
    [
        ({"machdep.cpu.brand_string": "Apple M2"}, "arm64", "neon"),
        ({"machdep.cpu.brand_string": "Intel i7", "machdep.cpu.features": "FPU SSE4_2 AVX2"}, "x86_64", "avx2"),
    ],
)
def test_processor_is_read_on_macos(monkeypatch, tmp_path, fresh, values, kind, vector):
    def output(command):
        return "\n".join(filter(None, map(values.get, command[2:]))) or None

    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "_output", output)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: kind)
    assert (machine.processor(), machine.vector()) == (values["machdep.cpu.brand_string"], vector)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("", None),
        ("--xla_force_host_platform_device_count=8", None),
        ("--xla_dump_to=/home/someone/dump --xla_cpu_enable_fast_math=true", "--xla_cpu_enable_fast_math=true"),
        ("--xla_b=1  --xla_a=2", "--xla_a=2 --xla_b=1"),
    ],
)
def test_xla_flags_without_places(monkeypatch, given, kept):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    assert machine.xla_flags() == kept


def git(folder, *arguments):
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.com")
    environment = {name: x for name, x in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def commit_of(package):
    """What a copy of the module says about its own checkout."""
    spec = importlib.util.spec_from_file_location("copied", package / "machine.py")
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    return copied.commit()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_names_changes_of_package(monkeypatch, tmp_path):
    package = tmp_path / "deqsmooth"
    package.mkdir()
    shutil.copy(ROOT / "deqsmooth" / "machine.py", package)
    (package / "other.py").write_text("x = 1\n")
    assert commit_of(package) is None
    git(tmp_path, "init")
    assert commit_of(package) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    # Variables that a hook of another repository sets are not heeded, nor changes beside the package.
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    (tmp_path / "notes.txt").write_text("notes")
    assert commit_of(package) == head
    (package / "other.py").write_text("x = 2\n")
    changed = commit_of(package)
    (package / "new.py").write_text("y = 1\n")
    grown = commit_of(package)
    (package / "new.py").write_text("y = 2\n")
    found = [changed, grown, commit_of(package)]
    assert len(set(found)) == 3 and all(one.startswith(f"{head}+changes-") for one in found)
    (package / "new.py").unlink()
    assert commit_of(package) == changed
    git(tmp_path, "checkout", "--", "deqsmooth")
    assert commit_of(package) == head
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(package) is None


def test_description_names_no_person(fresh):
    text = f"{machine.processor()} {machine.vector()} {machine.xla_flags()} {machine.commit()}"
    assert socket.gethostname() not in text and "/" not in text
    assert f" {getpass.getuser()} " not in f" {text} "
