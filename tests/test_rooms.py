"""The order of the rooms: what each may import, directly or through other modules, and what it may never load."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "deqsmooth"
JAX = frozenset({"jax", "jaxlib", "jaxopt", "jaxtyping", "flax", "optax", "orbax", "grain"})

# Room: (rooms that it may import, packages that it never loads, not even through other modules).
ROOMS = {
    "types": ((), {"flax", "optax", "orbax", "scipy"}),
    "machine": ((), JAX),
    "arithmetic": (("machine",), {"flax", "optax", "orbax", "scipy"}),
    "devices": (("machine", "arithmetic"), {"flax", "optax", "orbax", "scipy"}),
    "statistics": ((), JAX),
    "config": (("statistics",), JAX),
    "data": (("config",), {"jax", "flax", "optax", "orbax"}),
    "solvers": (("types", "config"), {"flax", "optax", "orbax", "grain"}),
    "models": (("types", "arithmetic", "devices", "config", "solvers"), {"optax", "grain"}),
    "certificates": (("statistics", "config"), JAX),
    "smoothing": (
        ("types", "arithmetic", "devices", "statistics", "config", "data", "solvers", "models", "certificates"),
        {"optax"},
    ),
    "training": (("types", "arithmetic", "devices", "config", "data", "solvers", "models", "smoothing"), set()),
    "reports": (("statistics", "config", "certificates"), JAX),
    "experiments": (("statistics", "config", "certificates", "reports"), JAX),
    "commands": (
        (
            "types", "devices", "statistics", "config", "data", "solvers", "models", "certificates", "smoothing",
            "training", "reports", "experiments",
        ),
        set(),
    ),
}  # fmt: skip

# Library: the files that may name it.
HOMES = {
    "jaxopt": {"solvers/gradients.py", "solvers/jaxopt_anderson.py"},
    "orbax": {"models/checkpoints.py", "training/states.py"},
    "grain": {"data/batching.py"},
    "sklearn": {"data/loading.py"},
    "tensorflow_datasets": {"data/prepared.py"},
    "torch": {"models/state_dicts.py"},
    "matplotlib": {"reports/canvas.py"},
    "optax": {"training/losses.py", "training/optimiser.py", "training/start_training.py", "training/updates.py"},
    "scipy": {"statistics/bounds.py", "statistics/robustness.py", "statistics/significance.py"},
}
JAX_FREE = [room for room, (_, never) in ROOMS.items() if never >= JAX]
COMMANDS = (
    "attack", "certify", "convert", "merge", "plan", "recertify", "report", "reproduce", "train", "verify",
)  # fmt: skip
METHODS = ("picard", "anderson", "broyden")
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in MODULES}


@functools.cache
def imports(module):
    """(line, imported module) of every import in a module, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{FILES[module]}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in FILES else node.module) for name in names]
    return sorted(set(found))


def room_of(module):
    return (module.split(".") + [""])[1]


@functools.cache
def loads(module):
    """Packages that a module loads, directly or through others: package -> chain of 'file:line'."""
    found, left = {}, [(module, ())]
    seen = set()
    while left:
        one, chain = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for line, name in imports(one):
            step = (*chain, f"{FILES[one].relative_to(PACKAGE.parent)}:{line}")
            if name in FILES:
                left.append((name, step))
            else:
                found.setdefault(name.split(".")[0], step)
    return found


def test_every_room_has_its_line():
    assert {room_of(module) for module in FILES} - {""} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_downward_only(room):
    allowed = {room, *ROOMS[room][0]}
    wrong = [
        f"{FILES[module].relative_to(PACKAGE.parent)}:{line}: {room} may not import {name}"
        for module in FILES
        if room_of(module) == room
        for line, name in imports(module)
        if name.split(".")[0] == "deqsmooth" and room_of(name) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_load_no_forbidden_package(room):
    wrong = [
        f"{' -> '.join(chain)}: {room} may not load {package}"
        for module in FILES
        if room_of(module) == room
        for package, chain in loads(module).items()
        if package in ROOMS[room][1]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_imports_in_a_circle():
    order = list(ROOMS)
    for room, (below, _) in ROOMS.items():
        assert all(order.index(one) < order.index(room) for one in below)


@pytest.mark.parametrize("room", JAX_FREE)
def test_room_runs_without_jax(room):
    modules = [module for module in FILES if room_of(module) == room]
    code = f"import sys, {', '.join(modules)}; print(*sorted({set(JAX)} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "--no-such-flag"])
def test_flags_are_parsed_without_jax(command, flag):
    code = (
        f"import sys; from deqsmooth.commands import {command}; sys.argv[1:] = [{flag!r}]\n"
        f"try: {command}.main()\n"
        f"except SystemExit as exit: print(exit.code, *sorted({set(JAX) | {'scipy.stats'}} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == ("0" if flag == "--help" else "2")


@pytest.mark.parametrize("package", HOMES)
def test_library_has_one_home(package):
    users = {
        str(path.relative_to(PACKAGE))
        for module, path in FILES.items()
        if any(name.split(".")[0] == package for _, name in imports(module))
    }
    assert users == HOMES[package]


@pytest.mark.parametrize("method", METHODS)
def test_solver_methods_know_no_others(method):
    siblings = {
        f"deqsmooth.solvers.{one}" for one in (*METHODS, "gradients", "jacobian", "loop", "jaxopt_anderson")
    }
    assert not siblings & {name for _, name in imports(f"deqsmooth.solvers.{method}")}


def test_cells_know_no_solver():
    for one in ("layers", "conv", "mdeq", "resnet", "start_network", "precision", "starts"):
        found = {name for _, name in imports(f"deqsmooth.models.{one}")}
        assert not {name for name in found if name.startswith("deqsmooth.solvers")}


def test_only_devices_asks_for_the_process():
    assert [path.name for path in MODULES if "process_index" in path.read_text()] == ["devices.py"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_file_is_short_and_well_named(path):
    assert len(path.read_text().splitlines()) <= 320
    assert path.stem not in {"utils", "core", "common", "helpers"}


def opens_text(call):
    """Whether a call opens a file as text without naming its encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    home = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
    modes = [one.value for one in call.args if isinstance(one, ast.Constant)]
    is_text = name == "open" and home not in ("os", "tarfile") and not {"rb", "wb", "ab", "a+b", "r+b"} & {*modes}
    return (is_text or name in ("read_text", "write_text")) and "encoding" not in {
        keyword.arg for keyword in call.keywords
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_text_files_name_their_encoding(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if opens_text(call)] == []


@pytest.mark.parametrize("script", ["certify.py", "train.py"])
def test_scripts_only_call_a_command(script):
    assert len((PACKAGE.parent / script).read_text().splitlines()) < 20
