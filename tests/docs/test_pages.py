"""The manual: its code runs, its commands parse, its links lead somewhere, and it builds without a warning."""

import importlib
import os
import pathlib
import re
import shlex
import sys

import pytest
from run_page import blocks

from deqsmooth.commands import flags
from deqsmooth.commands import main as commands

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose code takes a minute or so: it trains, converts, or certifies many images. That of `your_own_deq.md`
# also runs as a notebook, with smaller numbers.
SLOW = {
    f"{name}.md"
    for name in (
        "accelerators",
        "any_classifier",
        "paper",
        "people_of_pytorch",
        "proof",
        "records",
        "results",
        "start",
        "train",
        "without_noise",
        "your_data",
        "your_own_deq",
    )
}
CODE = [page for page in PAGES if any(block.language in ("python", "bash") for block in blocks(page.read_text()))]
# What a reader's folder holds who starts in the checkout.
CHECKOUT = ("certify.py", "train.py", "examples", "results")
COMMAND = re.compile(r"(?:python (certify|train)\.py|\bdeqsmooth-([a-z]+))((?: [^|&;<>\"]*)?)")


def name(page):
    return page.relative_to(ROOT).as_posix()


def commands_of(page):
    """(command, arguments) of every line of the page's shell blocks that calls a command of the package."""
    for block in blocks(page.read_text()):
        if block.language == "bash":
            for line in block.code.replace("\\\n", " ").splitlines():
                for script, command, arguments in COMMAND.findall(line.partition(" #")[0]):
                    yield script or command, shlex.split(arguments)


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=name(p), marks=pytest.mark.slow if p.name in SLOW else ()) for p in CODE]
)
def test_code_of_page_runs(page, run_python, tmp_path):
    for file in CHECKOUT:
        (tmp_path / file).symlink_to(ROOT / file)
    path = os.pathsep.join((str(pathlib.Path(sys.executable).parent), os.environ["PATH"]))
    done = run_python(ROOT / "tests" / "docs" / "run_page.py", page, PATH=path, COLUMNS="120")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", CODE, ids=name)
def test_commands_of_page_parse(page, monkeypatch):
    def parse(arguments, run, *, prog, preset=None, **_):
        flags.parse(arguments, prog, preset)
        return 0

    monkeypatch.setattr(commands, "run", parse)
    for command, arguments in commands_of(page):
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        try:
            assert importlib.import_module(f"deqsmooth.commands.{command}").main() == 0
        except SystemExit as end:
            assert end.code == 0, f"{command} {arguments}"


def test_manual_builds_without_a_warning(run_python, tmp_path):
    pytest.importorskip("sphinx", reason="the manual is built with pip install '.[docs]'")
    flags = ("-W", "-n", "-q", "--keep-going")
    done = run_python("-m", "sphinx", *flags, "-c", ROOT / "docs", ROOT, tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_documented():
    import deqsmooth

    text = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"auto(?:function|class|data):: deqsmooth\.(\w+)$", text, re.M)
    assert sorted(documented) == sorted(deqsmooth.__all__)


def test_citation_names_this_version():
    import deqsmooth

    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    assert cited == deqsmooth.__version__
