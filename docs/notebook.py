"""Makes the notebook of a page: `python docs/notebook.py` writes `examples/your_own_deq.ipynb`, with its outputs.

Text becomes Markdown cells. Blocks of `python` become code cells, blocks of `bash` cells of the shell, and a
block that the reader saves becomes a cell that writes the file. Outputs that the page shows are left out, as the
notebook has its own. The block below `<!-- parameters -->` becomes the cell with that tag, which may be replaced.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGE, NOTEBOOK = ROOT / "docs" / "your_own_deq.md", ROOT / "examples" / "your_own_deq.ipynb"
PARAMETERS = "parameters"
_BLOCK = re.compile(r"(?:^<!-- (?P<note>.*?) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"^<!--.*?-->\n?", re.M | re.S)
# Pages link to each other by their names; the notebook lies in another folder.
_LINK = re.compile(r"\]\((?=[\w-]+\.md)")
# The report has a second copy of each figure for narrow screens, which would double the size of the notebook.
_NARROW = re.compile(r"<source srcset=[^>]*>")
_CELL_SECONDS = 600


class Cell(NamedTuple):
    """A cell: `markdown` or `code`, its source and its tags."""

    kind: str
    source: str
    tags: tuple[str, ...] = ()


def cells(page, parameters=None):
    """The cells of a page, a text.

    Args:
      page: the text.
      parameters: source of the cell of parameters; None for that of the page.
    """
    found, end, text = [], 0, ""
    for block in _BLOCK.finditer(page):
        text, end = text + page[end : block.start()], block.end()
        cell = _code(block["note"] or "", block["language"], block["code"].rstrip())
        if cell is None:
            # What the reader only reads stays in the text; outputs go.
            text += "" if block["note"] == "output" else block[0]
            continue
        if PARAMETERS in cell.tags and parameters is not None:
            cell = cell._replace(source=parameters)
        found += [*_markdown(text), cell]
        text = ""
    return [*found, *_markdown(text + page[end:])]


def _code(note, language, code):
    """The cell of a block; None if it is not run."""
    if note.startswith("not run: ") or language not in ("python", "bash"):
        return None
    if note.startswith("file: "):
        return Cell("code", f"%%writefile {note.removeprefix('file: ')}\n{code}")
    if language == "bash":
        return Cell("code", f"%%bash -e\n{code}")
    return Cell("code", code, (PARAMETERS,) if note == PARAMETERS else ())


def _markdown(text):
    """The cells of text between two blocks: one, or none if there is no text."""
    text = _LINK.sub("](../docs/", re.sub(r"\n{3,}", "\n\n", _COMMENT.sub("", text))).strip()
    return [Cell("markdown", text)] if text else []


def executed(found):
    """A notebook of cells, run in a folder of its own.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor

    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    made = [
        new[cell.kind](cell.source, id=f"cell-{number}", metadata={"tags": list(cell.tags)} if cell.tags else {})
        for number, cell in enumerate(found)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    with tempfile.TemporaryDirectory() as folder:
        runner = ExecutePreprocessor(timeout=_CELL_SECONDS, record_timing=False)
        runner.preprocess(notebook, {"metadata": {"path": folder}})
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if "text/html" in output.get("data", {}):
            output.data["text/html"] = _NARROW.sub("", output.data["text/html"])
    nbformat.validate(notebook)
    return notebook


def main():
    """Writes the notebook; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--parameters", help="source of the cell of parameters, by default that of the page")
    parser.add_argument("--out", type=pathlib.Path, default=NOTEBOOK)
    given = parser.parse_args()
    import nbformat

    # Commands of the package lie beside its Python.
    os.environ["PATH"] = os.pathsep.join((str(pathlib.Path(sys.executable).parent), os.environ["PATH"]))
    found = executed(cells(PAGE.read_text(encoding="utf-8"), given.parameters))
    given.out.write_text(nbformat.writes(found) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
