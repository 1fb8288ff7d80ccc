"""Devices that a process asks for, as separate processes."""

import os
import subprocess
import sys

import jax
import pytest
from support import ROOT

PROGRAMS = {
    "attack": ("x.jsonl",),
    "certify": ("--max-images", "1"),
    "convert": ("x.npz", "--out", "x"),
    "plan": ("--radius", "0.1"),
    "recertify": ("x.jsonl",),
    "reproduce": ("bounds",),
    "train": (),
}


def run(command, *arguments, cwd, **environment):
    code = f"import sys; from deqsmooth.commands import {command}; sys.exit({command}.main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is an accelerator")
@pytest.mark.parametrize(
    "command", ["train", *(pytest.param(x, marks=pytest.mark.slow) for x in PROGRAMS if x != "train")]
)
@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_missing_platform_is_named(tmp_path, command, platform):
    status, output, errors = run(command, *PROGRAMS[command], cwd=tmp_path, JAX_PLATFORMS=platform)
    assert (status, output) == (2, "")
    assert errors == (
        f"error: JAX_PLATFORMS is {platform}, but this machine has no such device; it has cpu (unset "
        "JAX_PLATFORMS to use what is there)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_ENABLE_X64", "maybe"), ("JAX_NUMPY_DTYPE_PROMOTION", "lenient")]
)
def test_malformed_setting_is_named(tmp_path, name, value):
    status, output, errors = run("certify", cwd=tmp_path, **{name: value})
    assert (status, output) == (2, "") and errors.count("\n") == 1
    assert errors.startswith("error: ") and value in errors and name.lower() in errors.lower()
    assert list(tmp_path.iterdir()) == []


def test_reserved_devices_and_order_of_start(tmp_path):
    """`start` sets the number of CPU devices although it looks for devices itself."""
    code = "import jax; from deqsmooth import devices; devices.start(); print(jax.local_device_count())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
