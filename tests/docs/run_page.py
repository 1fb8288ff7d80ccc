"""Runs the code blocks of a page as its reader would: `python run_page.py PAGE`, in the folder to run them in.

Blocks of `python` run in one namespace, and their examples (`>>>`) are compared to what they give. Blocks of
`bash` run in a shell. A block of `text` below `<!-- output -->` is compared with what the block before it printed,
and `...` stands for anything. A block below `<!-- not run: REASON -->` is left out, and one below
`<!-- file: NAME -->` is saved under that name.
"""

import contextlib
import doctest
import io
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S
)


class Block(NamedTuple):
    """A fenced block: its language, its code, the line of the page before it, and the comment above it."""

    language: str
    code: str
    line: int
    note: str

    @property
    def reason(self):
        """Why the block is not run; None if it is."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else None

    @property
    def file(self):
        """The name under which the reader saves the block; None if the block is run."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None


def blocks(text):
    """The fenced blocks of a page."""
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield Block(found["language"], found["code"], line, found["note"] or "")


def run(page):
    """Runs the blocks of a page.

    Raises:
      Exception: what a block raises, with the line of the page, or an output that differs.
    """
    namespace, printed = {"__name__": "__main__"}, ""
    # As in a session of Python, modules are found in the folder of the reader.
    sys.path.insert(0, "")
    for block in blocks(page.read_text()):
        print(f"{page.name}:{block.line}: {block.language}", file=sys.stderr, flush=True)
        if block.note == "output":
            if not doctest.OutputChecker().check_output(block.code, printed, FLAGS):
                raise AssertionError(
                    f"{page}:{block.line}: the page shows\n{block.code}\nand what is printed is\n{printed}"
                )
        elif block.file is not None:
            pathlib.Path(block.file).write_text(block.code)
        elif block.reason is None and block.language in ("python", "bash"):
            printed = _python(page, block, namespace) if block.language == "python" else _bash(page, block)


def _python(page, block, namespace):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if ">>> " in block.code:
            test = doctest.DocTestParser().get_doctest(block.code, namespace, page.name, str(page), block.line)
            # Without a copy, so that the blocks that follow see its names.
            test.globs = namespace
            if doctest.DocTestRunner(optionflags=FLAGS).run(test, clear_globs=False).failed:
                raise AssertionError(out.getvalue())
        else:
            exec(compile("\n" * block.line + block.code, page, "exec"), namespace)
    return out.getvalue()


def _bash(page, block):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{page}:{block.line}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    run(pathlib.Path(sys.argv[1]))
