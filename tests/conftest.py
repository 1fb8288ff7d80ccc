"""Eight simulated devices, checked shapes, and models small enough to solve in a test."""

import os
import pathlib

import jax
import jaxtyping

# Compiled programs are kept from run to run, as users keep them. Workers inherit the environment.
_CACHES = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
_CACHE = pathlib.Path(_CACHES) / "deqsmooth" / f"tests-{jax.__version__}"
os.environ.setdefault("DEQSMOOTH_TESTS_CACHE", str(_CACHE))

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", os.environ["DEQSMOOTH_TESTS_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# Most of the time of these tests is that of compilation; see also the fixture `optimised`.
jax.config.update("jax_disable_most_optimizations", True)
# The rooms whose functions have arrays with named axes.
_ARRAYS = ("devices", "solvers", "models", "smoothing", "training")
jaxtyping.install_import_hook([f"deqsmooth.{room}" for room in _ARRAYS], "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from support import INDEPENDENT, SERIAL, SMALL, write_run  # noqa: E402

from deqsmooth import config, devices, models  # noqa: E402
from deqsmooth.models import classifiers  # noqa: E402


@pytest.fixture(scope="session")
def small():
    """An untrained model that all classes get votes from: a readout wide enough to tell noise apart."""
    model = models.build(SMALL)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(1)))
    readout = variables["params"]["readout"]["Dense_0"]
    readout["kernel"] = readout["kernel"] * 3
    settings = config.Training(model=SMALL)
    return classifiers.of_size(SMALL, variables, settings)


@pytest.fixture(scope="session", params=[INDEPENDENT, SERIAL], ids=["independent", "serial"])
def run(request, small, tmp_path_factory):
    """A file of nine certificates of digits."""
    return write_run(tmp_path_factory.mktemp("run") / "run.jsonl", small, request.param, stride=40)


@pytest.fixture(scope="session")
def cache():
    """Folder of the programs that processes of tests compile."""
    return f"{os.environ['DEQSMOOTH_TESTS_CACHE']}-processes"


@pytest.fixture
def optimised():
    """Programs as users have them: for tests that ask whether different programs agree in every bit."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def use_devices(monkeypatch):
    """Function that restricts the mesh to the first devices."""

    def restrict(num):
        full = devices.mesh

        def mesh(dividing=None):
            local = full(dividing).devices[:num]
            return jax.sharding.Mesh(local, ("devices",), axis_types=(jax.sharding.AxisType.Auto,))

        monkeypatch.setattr(devices, "mesh", mesh)

    return restrict
