"""Examples: the notebook is the page and runs, and examples that pages show are the files."""

import base64
import doctest
import json
import pathlib
import platform
import re
import sys

import pytest
from run_page import FLAGS, blocks

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import notebook  # noqa: E402

FAST = "EPOCHS, IMAGES, SAMPLES = 1, 4, 200"
LARGEST = 400_000
MACHINE = re.compile(r"/(?:home|tmp|root|work|Users|usr|opt|private|mnt)/[\w./-]*")


def source(cell):
    return "".join(cell["source"])


def printed(cell):
    return "".join("".join(x["text"]) for x in cell["outputs"] if x["output_type"] == "stream")


def shown(cells):
    """All that the outputs of cells show: texts, pages, and the figures in pages."""
    text = json.dumps([cell.get("outputs") for cell in cells])
    pictures = [base64.b64decode(found) for found in re.findall(r"base64,([\w+/=]+)", text)]
    return re.sub(r"base64,[\w+/=]+", "", text), "".join(x.decode("utf-8", "replace") for x in pictures)


@pytest.fixture(scope="module")
def page():
    return notebook.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def kept():
    return json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_cells_are_those_of_page(page, kept):
    found = [(cell["cell_type"], source(cell), tuple(cell["metadata"].get("tags", ()))) for cell in kept]
    assert found == [tuple(cell) for cell in notebook.cells(page)]


def test_every_block_has_a_cell(page):
    run = [x for x in blocks(page) if x.language in ("python", "bash") and x.reason is None]
    code = [cell.source for cell in notebook.cells(page) if cell.kind == "code"]
    assert len(code) == len(run) > 10
    assert all(source.endswith(block.code.rstrip()) for source, block in zip(code, run, strict=True))
    assert "<!--" not in "".join(cell.source for cell in notebook.cells(page) if cell.kind == "markdown")


def test_parameters_are_replaced_once(page):
    first, other = notebook.cells(page), notebook.cells(page, FAST)
    changed = [b for a, b in zip(first, other, strict=True) if a != b]
    assert changed == [notebook.Cell("code", FAST, ("parameters",))]


def test_kept_outputs_name_no_machine(kept):
    text, pictures = shown(kept)
    assert not MACHINE.findall(text + pictures)
    assert notebook.NOTEBOOK.stat().st_size < LARGEST
    assert "image/png" in text and "<svg" in pictures


@pytest.mark.slow
def test_notebook_runs(page, run_python, tmp_path):
    out = tmp_path / "run.ipynb"
    done = run_python(notebook.__file__, "--parameters", FAST, "--out", out)
    assert done.returncode == 0, done.stderr
    run = json.loads(out.read_text())["cells"]
    text, pictures = shown(run)
    assert not MACHINE.findall(text + pictures)
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text + pictures)
    outputs = [printed(cell) for cell in run if cell["cell_type"] == "code"]
    check_outputs(page, outputs)


def check_outputs(page, outputs):
    """Asserts that cells of code printed what the page shows below their blocks."""
    checker, coming, last = doctest.OutputChecker(), iter(outputs), ""
    for block in blocks(page):
        if block.note == "output":
            assert checker.check_output(block.code, last, FLAGS), f"{block.code}\nand what is printed is\n{last}"
        elif block.reason is None:
            last = next(coming)


def test_page_shows_the_example_file():
    page = (ROOT / "docs" / "any_classifier.md").read_text()
    saved = {block.file: block.code for block in blocks(page) if block.file}
    assert saved == {"any_classifier.py": (ROOT / "examples" / "any_classifier.py").read_text()}
