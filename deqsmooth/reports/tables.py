"""Tables of text, as HTML, Markdown and LaTeX."""

from __future__ import annotations

import html
import re
from typing import NamedTuple

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


class Table(NamedTuple):
    """A table.

    Attributes:
      title: what it shows.
      headings: of its columns; the first names the rows.
      rows: their cells.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def to_html(table: Table) -> str:
    """The table as an HTML element in a box that scrolls by itself."""

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in table.rows)
    return (
        f'<div class="wide"><table><caption>{html.escape(table.title)}</caption>\n'
        f"<thead>{line(table.headings, 'th')}</thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def to_markdown(table: Table) -> str:
    """The table as GitHub's Markdown, its title above."""

    def line(cells):
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|---" + "|---:" * (len(table.headings) - 1) + "|"
    return "\n".join([f"{table.title}\n", line(table.headings), rule, *map(line, table.rows)]) + "\n"


def to_latex(table: Table) -> str:
    """The table as a LaTeX `table` with the rules of booktabs."""

    def line(cells):
        return " & ".join(map(_escape, cells)) + r" \\"

    columns = "l" + "r" * (len(table.headings) - 1)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.headings), r"\midrule"]
    body += [*map(line, table.rows), r"\bottomrule", r"\end{tabular}"]
    caption = rf"\caption{{{_escape(table.title)}}}"
    return "\n".join([r"\begin{table}", r"\centering", caption, *body, r"\end{table}"]) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda match: _LATEX[match.group()], text)
