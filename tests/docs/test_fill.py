"""The command that fills in the manual: its tables, help texts and figures are those of the kept records."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree

import numpy as np
import pytest

from deqsmooth.reports import canvas

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import drawings  # noqa: E402
import fill  # noqa: E402
import kept  # noqa: E402

MANUAL = [page for page in fill.PAGES if page.parent != ROOT / "results"]
LARGEST = 60_000
NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ?[%x]| m?s)?")
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
TABLE = re.compile(r"(?:^(<!-- .*)\n)?^\|.*\n\|[-:| ]+\n((?:\|.*\n?)+)", re.M)
IMAGE = re.compile(
    r"!\[[^]]*\]\(([^)\s]+)|<(?:img|source)\b[^>]*\bsrc(?:set)?=\"([^\"]+)|^[`:]{3,}\{(?:image|figure)\} (\S+)",
    re.M,
)
PAGE = """Text | with a bar.

<!-- records: certification/digits-0.5 -->
| the solve of a sample | images | evaluations | fewer | mismatch % | ACR | r 0 | **0.5** |
|---|---:|---|---|---|---|---|---|
| zero 30: standard smoothing | 60 | 303,000 | 1 | | 0.477 | 88.3 | 48.3 |
| **learned 1, looks** | 60 | 9,042 | **33.5** | | 0.476 | 88.3 | 50.0 |
| serial 3, audited | 60 | 62,300 | 4.9 | 11.9 | 0.406 | 85.0 | 36.6 |

More text.
"""


def name(page):
    return page.relative_to(ROOT).as_posix()


def raw(row, folder="digits-0.5"):
    """The lines of a run, as JSON values, without the package."""
    with tarfile.open(kept.RESULTS / "certification" / folder / "records.tar.gz") as archive:
        lines = archive.extractfile(f"{row}.jsonl").read().splitlines()[1:]
    return [line for line in map(json.loads, lines) if "radius" in line]


@pytest.mark.parametrize("page", fill.PAGES, ids=name)
def test_filling_a_page_changes_nothing(page):
    assert fill.filled(page.read_text()) == page.read_text()


def test_wrong_cells_are_corrected():
    right = fill.filled(PAGE)
    assert right == PAGE
    cells = list(re.finditer(r"(?<=\| )(\*\*)?[\d.,]+(\*\*)?(?= \|)", right))[1:]
    assert len(cells) == 19
    for found in cells:
        wrong = "**9.87**" if found[1] else "9.87"
        assert fill.filled(right[: found.start()] + wrong + right[found.end() :]) == right
    assert fill.filled(re.sub(r"(?<=audited \|).*", "", right)) == right


def test_files_of_lines_fill_tables():
    text = (fill.ROOT / "docs" / "proof.md").read_text()
    lines = kept.lines("settled", "digits-0.5.jsonl")
    (serial,) = (line for line in lines if line["way"] == "settled, previous")
    row = next(row for row in text.splitlines() if row.startswith("| settled, previous |"))
    assert float(row.split("|")[-2]) == pytest.approx(serial["less time"], rel=5e-3)
    wrong = text.replace(row, "| settled, previous | 1 | 1 | 1 |")
    assert wrong != text and fill.filled(wrong) == text
    for old, new in (("| settled, previous |", "| settled, never |"), ("| s/image |", "| s/photo |")):
        with pytest.raises(ValueError, match=r"digits-0\.5\.jsonl has shipped, zero 30"):
            fill.filled(text.replace(old, new))


def test_command_corrects_pages_and_figures(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("303,000", ""))
    monkeypatch.setattr(fill, "PAGES", [page])
    monkeypatch.setattr(fill, "FIGURES", tmp_path)
    monkeypatch.setattr(drawings, "DRAWINGS", {"p-a": drawings.p_a})
    assert fill.main() == 0
    assert page.read_text() == PAGE
    assert drawings.p_a().digest in (tmp_path / "p-a.svg").read_text()


def test_cells_follow_from_the_records():
    rows = [re.split(r" *\| *", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")][1:]
    first = raw("zero-30")
    for (title, *cells), row in zip(rows, ("zero-30", "learned-1-looks", "serial-3-audited"), strict=True):
        lines = raw(row)
        cost, base = (np.mean([line["evaluations"] for line in found]) for found in (lines, first))
        radii = [line["radius"] if line["prediction"] == line["label"] else -1 for line in lines]
        at = [100 * np.mean([radius >= least for radius in radii]) for least in (0, 0.5)]
        numbers = [float(cell.strip("*").replace(",", "")) for cell in cells if cell]
        assert numbers[0] == len(lines), title
        assert numbers[1] == pytest.approx(cost, abs=0.5)
        assert numbers[2] == pytest.approx(base / cost, abs=0.05)
        assert numbers[-3] == pytest.approx(np.mean(np.maximum(radii, 0)), abs=0.001)
        assert numbers[-2:] == pytest.approx(at, abs=0.1)
    audited = raw("serial-3-audited")
    wrong = sum(line["mismatches"] for line in audited) / sum(line["num_audit"] for line in audited)
    assert float(rows[2][4]) == pytest.approx(100 * wrong, abs=0.05)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("zero 30", "zero 31", "zero-31.jsonl"),
        ("digits-0.5", "digits-0.6", "digits-0.6"),
        ("mismatch %", "errors", "a heading is errors"),
        ("-->\n|", "-->\n\n|", "directly above"),
        ("records: certification/digits-0.5", "help: deqsmooth-certify", "directly above"),
    ],
)
def test_impossible_markers_are_named(old, new, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        fill.filled(PAGE.replace(old, new))


@pytest.mark.parametrize("flag", ["", " --help-all"])
def test_help_is_what_users_see(flag, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    page = "# Commands\n\n<!-- help: deqsmooth-merge{} -->\n```text\n{}```\n\n```text\nother\n```\n"
    code = (
        "import sys; from deqsmooth.commands.merge import main; sys.argv[0] = 'deqsmooth-merge'; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, flag.strip() or "--help"],
        env={**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    filled = fill.filled(page.format(flag, "old text\n"))
    assert filled == page.format(flag, done.stdout.rstrip() + "\n")
    assert "usage: deqsmooth-merge" in filled
    assert fill.filled(filled) == filled


def test_unknown_commands_have_no_help():
    with pytest.raises(ValueError, match="deqsmooth-nothing is no command"):
        fill.filled("<!-- help: deqsmooth-nothing -->\n```text\n```\n")


@pytest.mark.parametrize("figure", drawings.DRAWINGS)
def test_figures_show_the_records(figure):
    text = (fill.FIGURES / f"{figure}.svg").read_text()
    assert f"<!-- data: {drawings.DRAWINGS[figure]().digest} -->" in text
    assert len(text.encode()) < LARGEST
    assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")


def test_every_kept_figure_is_drawn():
    assert sorted(path.name for path in fill.FIGURES.iterdir()) == sorted(f"{x}.svg" for x in drawings.DRAWINGS)


def test_digest_sees_a_changed_number():
    drawing = drawings.p_a()
    digits = drawing.data["p_a"]["digits"]

    def moved(by):
        return drawing._replace(
            data={**drawing.data, "p_a": {**drawing.data["p_a"], "digits": [x + by for x in digits]}}
        )

    assert moved(1e-9).digest == drawing.digest != moved(1e-4).digest


@pytest.mark.parametrize("radius", [0.0, 0.25, 0.5, 0.75])
def test_steps_are_certified_accuracies(radius):
    drawing, lines = drawings.what_the_audit_costs(), {}

    def draw(axes):
        drawing.draw(drawing.data, axes)
        lines.update({line.get_label(): line.get_xydata() for line in axes.get_lines()})

    assert canvas.Figure("steps", "", draw).narrow
    for label, row in (("standard: zero 30", "zero-30"), ("serial 3, audited", "serial-3-audited")):
        x, y = lines[label].T
        right = [
            line["prediction"] == line["label"] and line["radius"] >= radius for line in raw(row, "cifar10-0.5")
        ]
        assert y[np.searchsorted(x, radius, side="right") - 1] == pytest.approx(100 * np.mean(right))


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_images_are_figures_or_results(page):
    for found in IMAGE.finditer(page.read_text()):
        link = next(filter(None, found.groups()))
        path = (page.parent / link).resolve()
        is_drawn = path.parent == fill.FIGURES and path.stem in drawings.DRAWINGS
        assert "://" in link or is_drawn or (path.is_relative_to(kept.RESULTS) and path.exists()), link


def is_measured(rows):
    """Whether more than half of the cells of a table, but those that name the rows and empty ones, are numbers."""
    cells = [cell.strip(" *") for row in rows.splitlines() for cell in row.strip("|").split("|")[1:]]
    filled = [cell for cell in cells if cell]
    return 2 * sum(bool(NUMBER.fullmatch(cell)) for cell in filled) > len(filled)


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_measured_tables_have_a_marker(page):
    for note, rows in TABLE.findall(FENCED.sub("", page.read_text())):
        # Numbers that others have published are marked, too.
        marks = ("<!-- records: ", "<!-- lines: ", "<!-- quoted: ")
        assert note.startswith(marks) or not is_measured(rows), rows


def test_typed_numbers_are_noticed():
    marked, unmarked = PAGE, PAGE.replace("<!-- records: certification/digits-0.5 -->\n", "")
    assert [(note[:13], is_measured(rows)) for note, rows in TABLE.findall(marked)] == [("<!-- records:", True)]
    assert [(note, is_measured(rows)) for note, rows in TABLE.findall(unmarked)] == [("", True)]
    flags = "| flag | meaning |\n|---|---|\n| `--budget 3` | 3 evaluations |\n| `--sigma` | noise |\n"
    assert [is_measured(rows) for _, rows in TABLE.findall(flags)] == [False]
