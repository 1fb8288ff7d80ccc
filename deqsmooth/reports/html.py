"""HTML of a report: from its sentences and sections to a page that embeds everything it shows."""

from __future__ import annotations

import base64
import html
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence

from deqsmooth.reports import canvas, names, pictures, style, tables
from deqsmooth.reports.sections import Part, Section

_MARK = '<meta name="generator" content="deqsmooth">'
# Commands in paragraphs, as in Markdown.
_CODE = re.compile("`([^`]+)`")
# Images with a shorter side than this are shown enlarged, so that their pixels are seen.
_SMALL = 100


def is_page(path: pathlib.Path) -> bool:
    """Whether a file is a page that `page` made."""
    return path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")


def page(title: str, body: str) -> str:
    """Returns a whole page around a body."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{_MARK}\n'
        f"<title>{html.escape(title)}</title>\n<style>{style.PAGE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def body(
    title: str, alarms: Sequence[str], lead: Sequence[str], notes: Sequence[str], sections: Sequence[Section]
) -> str:
    """Returns the body of a page with its style.

    Args:
      title: the title.
      alarms: sentences that come before everything else.
      lead: sentences that the page begins with: what was certified, and the verdict.
      notes: sentences on what is not in the report, without full stops.
      sections: everything else.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="alarm" role="alert">{html.escape(text)}</p>' for text in alarms),
        *(f'<p class="lead">{html.escape(text)}</p>' for text in lead),
        *(f'<p class="faint">{html.escape(text)}.</p>' for text in notes),
    ]
    if not canvas.is_possible():
        parts.append(
            f"<p>There are no figures, because matplotlib is not installed: <code>{canvas.ADVICE}</code>.</p>"
        )
    parts += (line for section in sections for line in _section(section))
    return names.readable(f'<div class="deqsmooth"><style>{style.BODY}</style>\n' + "\n".join(parts) + "\n</div>")


def _section(section: Section) -> Iterator[str]:
    heading = html.escape(section.heading)
    if section.is_folded:
        yield f"<details><summary>{heading}</summary>"
    elif heading:
        yield f"<h2>{heading}</h2>"
    yield from map(_part, section.parts)
    if section.is_folded:
        yield "</details>"


def _part(part: Part) -> str:
    if isinstance(part, str):
        text = _CODE.sub(r"<code>\1</code>", html.escape(part))
        return f"<p>{text}</p>"
    if isinstance(part, tables.Table):
        return tables.to_html(part)
    return _album(part) if isinstance(part, pictures.Row) else _figure(part)


def _figure(figure: canvas.Figure) -> str:
    """The figure as HTML; the browser chooses the copy for the width of the page."""
    wide, narrow = (base64.b64encode(text.encode()).decode() for text in (figure.wide, figure.narrow))
    kind, width = "data:image/svg+xml;base64,", style.WIDTH * figure.size[0] / canvas.PAGE[0]
    return (
        f'<figure><picture><source srcset="{kind}{narrow}" media="screen and (max-width: 600px)">'
        f'<img src="{kind}{wide}" alt="{html.escape(figure.caption)}" style="max-width: {width:.1f}rem"></picture>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def _album(row: pictures.Row) -> str:
    shown = "\n".join(map(_picture, row.pictures))
    return f'<h3>{html.escape(row.title)}</h3>\n<div class="album">\n{shown}\n</div>'


def _picture(picture: pictures.Picture) -> str:
    lines = [html.escape(line) for line in picture.lines]
    kind = ' class="small"' if min(_size(picture.png)) < _SMALL else ""
    return (
        f'<figure><img{kind} src="data:image/png;base64,{base64.b64encode(picture.png).decode()}" '
        f'alt="{", ".join(lines)}"><figcaption>{"<br>".join(lines)}</figcaption></figure>'
    )


def _size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, which it says in its first chunk."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
