"""The house: which module may import which, and how long a file may be."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "deqsmooth"
MODULES = sorted(PACKAGE.rglob("*.py"))

JAX = {"jax", "jaxopt", "flax", "optax", "orbax", "jaxtyping"}
FORBIDDEN = {
    "statistics": JAX,
    "config": JAX,
    "certificates": JAX,
    "experiments": JAX,
    "smoothing/kernels": {"scipy", "deqsmooth.statistics", "deqsmooth.certificates", "deqsmooth.config"},
    "models/base_classifier": {"deqsmooth.smoothing", "deqsmooth.statistics"},
    "data": {"jax", "flax", "deqsmooth.smoothing", "deqsmooth.models"},
    "smoothing/noise": {"numpy", "deqsmooth.models", "deqsmooth.smoothing"},
    "devices": {"deqsmooth"},
    "commands/main": {"jax", "numpy", "scipy"},
}
SOLVER_METHODS = {"picard", "anderson", "broyden"}


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found |= {".".join(name.split(".")[:i]) for name in found for i in range(1, name.count(".") + 1)}
    return found


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_module_does_not_know_what_it_must_not(name):
    for path in [PACKAGE / f"{name}.py", *PACKAGE.glob(f"{name}/*.py")]:
        assert not path.exists() or not imports(path) & FORBIDDEN[name]
    assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def test_solvers_do_not_know_models_noise_or_each_other():
    for path in (PACKAGE / "solvers").glob("*.py"):
        found = imports(path)
        assert not found & {"flax", "deqsmooth.models", "deqsmooth.smoothing"}
        if path.stem in SOLVER_METHODS:
            others = SOLVER_METHODS - {path.stem} | {"gradients", "loop", "jaxopt_anderson"}
            assert not found & {f"deqsmooth.solvers.{other}" for other in others}
        if path.stem != "gradients":
            assert "deqsmooth.solvers.gradients" not in found


@pytest.mark.parametrize(
    ("package", "owners"),
    [
        ("jaxopt", {"solvers/gradients.py", "solvers/jaxopt_anderson.py"}),
        ("orbax", {"models/checkpoints.py", "training/states.py"}),
        ("grain", {"data.py"}),
        ("sklearn", {"data.py"}),
        ("optax", {"training/loop.py", "training/losses.py", "training/start_training.py"}),
        ("scipy", {"statistics/bounds.py"}),
    ],
)
def test_a_library_has_one_home(package, owners):
    users = {str(path.relative_to(PACKAGE)) for path in MODULES if package in imports(path)}
    assert users == owners


def test_only_devices_asks_which_process_this_is():
    assert [path.stem for path in MODULES if "process_index" in path.read_text()] in ([], ["devices"])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 320
    assert path.stem not in {"utils", "core", "common", "helpers"}


@pytest.mark.parametrize("script", ["certify.py", "train.py"])
def test_the_scripts_hold_no_mathematics(script):
    assert len((PACKAGE.parent / script).read_text().splitlines()) < 80
