"""Tables of text: from headings and rows to HTML and Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table.

    Attributes:
      title: text above the table.
      headings: headings of the columns; the first column names the rows.
      rows: cells of each row.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def without_empty_end(table: Table) -> Table:
    """Returns the table without its last column if no cell of that column has text."""
    if any(row[-1] for row in table.rows):
        return table
    return Table(table.title, table.headings[:-1], tuple(row[:-1] for row in table.rows))


def to_html(table: Table) -> str:
    """Returns the table as an HTML element, in a box that scrolls horizontally if the table is too wide."""
    body = "\n".join(_html_row(row, "td") for row in table.rows)
    return (
        f'<div class="wide"><table><caption>{html.escape(table.title)}</caption>\n'
        f"<thead>{_html_row(table.headings, 'th')}</thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def to_markdown(table: Table) -> str:
    """Returns the table in GitHub's Markdown, below its title."""
    rule = "|---" + "|---:" * (len(table.headings) - 1) + "|"
    lines = [f"{table.title}\n", _markdown_row(table.headings), rule, *map(_markdown_row, table.rows)]
    return "\n".join(lines) + "\n"


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
