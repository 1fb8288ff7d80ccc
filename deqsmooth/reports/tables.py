"""Tables of text: from headings and rows to HTML, Markdown and a table on a terminal."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import rich.console
import rich.table
import rich.text

_MOST_COLUMNS = 8


class Table(NamedTuple):
    """A table.

    Attributes:
      title: text above the table.
      headings: headings of the columns; the first column names the rows.
      rows: cells of each row.
      is_text: whether the cells are words rather than numbers, and so are aligned to the left.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False


def without_empty_end(table: Table) -> Table:
    """Returns the table without its last column if no cell of that column has text."""
    if any(row[-1] for row in table.rows):
        return table
    return table._replace(headings=table.headings[:-1], rows=tuple(row[:-1] for row in table.rows))


def to_html(table: Table) -> str:
    """Returns the table as an HTML element.

    Columns that do not fit on a page go below the others, each part with the column of names. The box around a
    part scrolls horizontally where even that is too wide.
    """
    return "\n".join(map(_html_part, _parts(table)))


def to_markdown(table: Table) -> str:
    """Returns the table in GitHub's Markdown, below its title."""
    rule = "|---" + ("|---" if table.is_text else "|---:") * (len(table.headings) - 1) + "|"
    lines = [f"{table.title}\n", _markdown_row(table.headings), rule, *map(_markdown_row, table.rows)]
    return "\n".join(lines) + "\n"


def to_rich(table: Table) -> rich.console.Group:
    """Returns the table for a terminal, in parts if it has many columns, without a line of empty headings."""
    return rich.console.Group(*map(_rich_part, _parts(table)))


def _parts(table: Table) -> Iterator[Table]:
    """Yields the table in parts of few columns, each with the first column."""
    for start in range(1, max(len(table.headings), 2), _MOST_COLUMNS):
        columns = slice(start, start + _MOST_COLUMNS)
        title = f"{table.title}, continued" if start > 1 else table.title
        rows = tuple((row[0], *row[columns]) for row in table.rows)
        yield Table(title, (table.headings[0], *table.headings[columns]), rows, table.is_text)


def _html_part(table: Table) -> str:
    body = "\n".join(_html_row(row, "td") for row in table.rows)
    head = f"<thead>{_html_row(table.headings, 'th')}</thead>\n" if any(table.headings) else ""
    kind = "wide text" if table.is_text else "wide"
    return (
        f'<div class="{kind}"><table><caption>{html.escape(table.title)}</caption>\n'
        f"{head}<tbody>\n{body}\n</tbody></table></div>"
    )


def _rich_part(table: Table) -> rich.table.Table:
    shown = rich.table.Table(title=rich.text.Text(table.title), show_header=any(table.headings))
    for place, heading in enumerate(table.headings):
        is_number = place and not table.is_text
        shown.add_column(rich.text.Text(heading), justify="right" if is_number else "left")
    for row in table.rows:
        shown.add_row(*map(rich.text.Text, row))
    return shown


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
