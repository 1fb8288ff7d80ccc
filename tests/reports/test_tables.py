"""Tables as HTML and Markdown: cells with special characters are read back as they were."""

import html.parser
import io
import re

import rich.console

from deqsmooth.reports import tables

TABLE = tables.Table("50 % & <more>", ("name", "r_1"), (("a|b", "1.5"), ("<i>x\\y", "#2 {3} ~^$")))


def test_html_is_escaped():
    cells = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            cells.append([tag, ""])

        def handle_data(self, data):
            cells[-1][1] += data

    Reader().feed(tables.to_html(TABLE))
    found = [text for tag, text in cells if tag in ("caption", "th", "td")]
    assert [text.strip("\n") for text in found] == [TABLE.title, *TABLE.headings, *TABLE.rows[0], *TABLE.rows[1]]


def test_wide_tables_are_divided():
    """No part has more than nine columns, each has the names of the rows, and no cell is lost."""
    rows = tuple((f"run {row}", *(f"{row}:{column}" for column in range(20))) for row in range(2))
    text = tables.to_html(tables.Table("title", ("", *map(str, range(20))), rows))
    parts = [re.findall(r"<tr>(.*?)</tr>", part) for part in text.split("<table>")[1:]]
    cells = [[re.findall(r"<t[hd]>(.*?)</t[hd]>", line) for line in part] for part in parts]
    assert (
        all(len(line) <= 9 for part in cells for line in part) and text.count("title, continued") == len(parts) - 1
    )
    for place, row in enumerate(rows, 1):
        assert [line for part in cells for line in part[place][1:]] == list(row[1:])
        assert {part[place][0] for part in cells} == {row[0]}


def test_terminal_shows_text_as_it_is():
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(tables.to_rich(tables.Table("[a] title", ("", ""), (("[bold]name", "1"), ("b", "[2]")))))
    shown = console.file.getvalue()
    assert all(text in shown for text in ("[a] title", "[bold]name", "[2]")) and len(shown.splitlines()) == 5


def test_markdown_escapes_column_separators():
    lines = tables.to_markdown(TABLE).splitlines()
    assert lines[:2] == [TABLE.title, ""] and lines[3] == "|---|---:|"
    for line, row in zip([lines[2], *lines[4:]], [TABLE.headings, *TABLE.rows], strict=True):
        assert re.split(r"(?<!\\)\|", line)[1:-1] == [f" {cell} ".replace("a|b", "a\\|b") for cell in row]


def test_empty_last_column_is_removed():
    rows = (("a", "1", ""), ("b", "", ""))
    table = tables.Table("title", ("", "x", "y"), rows)
    assert tables.without_empty_end(table) == tables.Table("title", ("", "x"), (("a", "1"), ("b", "")))
    kept = tables.Table("title", ("", "x", "y"), (*rows, ("c", "", "2")))
    assert tables.without_empty_end(kept) == kept
