"""Programs that run as a reader runs them: in a process of their own, in an empty folder."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run_python(tmp_path, cache):
    """Function that runs Python in the folder of the test; keywords are further variables of the environment."""

    def run(*arguments, **variables):
        return subprocess.run(
            [sys.executable, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                **variables,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run
