"""Tables as HTML and Markdown: cells with special characters are read back as they were."""

import html.parser
import re

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
