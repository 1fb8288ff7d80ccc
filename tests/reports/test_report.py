"""Reports: pages that are complete without a network, repeatable, and that mark files that do not verify."""

import dataclasses
import html
import json
import os
import re
import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from support import rewritten

import deqsmooth as ds
from deqsmooth.certificates import cohen, verification
from deqsmooth.commands import report
from deqsmooth.reports import canvas, overview

COMMAND = "from deqsmooth.commands import report\nraise SystemExit(report.main())"


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deqsmooth-report", *map(str, arguments)])
    return report.main()


@pytest.fixture
def unrendered(monkeypatch):
    """Empty images in place of figures: for tests of the text of a page."""
    monkeypatch.setattr(canvas.Figure, "_render", lambda figure, page, kind: b"")


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The report of a run and a published result on the same images, written without JAX and without the model."""
    folder = tmp_path_factory.mktemp("report")
    cohen.write(folder / "published.tsv", verification.verify(run).found)
    code = "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'orbax', 'optax', 'grain']))\n" + COMMAND
    files = (str(run), str(folder / "published.tsv"))
    arguments = [sys.executable, "-c", code, *files, "--out", str(folder / "report")]
    process = subprocess.run(arguments, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "without a difference" in process.stdout
    return folder / "report"


def test_report_shows_numbers_without_jax(run, written):
    text, table = ((written / name).read_text() for name in ("index.html", "tables.md"))
    found = verification.verify(run).found
    correct = [c.correct and c.radius >= 0.25 for c in found]
    assert f"{int(1000 * sum(correct) / len(found)) / 10:.1f} (" in table
    assert "counts are not known" in text and "McNemar" in text and "published" in text
    assert {path.suffix for path in written.iterdir()} == {".html", ".md", ".svg", ".png", ".tsv"}
    assert [x.index for x in cohen.read(written / "run.tsv")] == [c.index for c in found]


def test_report_loads_nothing_from_network(written):
    """Every source is embedded data, and there is no script."""
    text = (written / "index.html").read_text()
    assert not re.search(r"<script|<link|@import|url\(", text)
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', text)
    assert len(sources) >= 6 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_reports_of_equal_files_are_equal(run, written, tmp_path):
    ds.report([run, written.parent / "published.tsv"]).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes()


def enlarge(header, records):
    records[0]["radius"] += 1.0


def test_difference_is_said_first(run, tmp_path, monkeypatch, capsys, unrendered):
    changed = rewritten(run, tmp_path / "changed.jsonl", enlarge)
    assert main(monkeypatch, run, changed, "--out", tmp_path / "report") == 1
    assert "changed.jsonl: NOT VERIFIED: 1 value does not follow" in capsys.readouterr().err
    text = (tmp_path / "report" / "index.html").read_text()
    alarm, whole = text.index('class="alarm"'), text.index("without a difference")
    assert text.index("<h1>") < alarm < whole < text.index("<table>")


def test_unverified_numbers_are_marked(run, tmp_path, monkeypatch, unrendered):
    """In every table, legend and caption; there is no guarantee, no `all at once`, and no file of results."""
    changed = rewritten(run, tmp_path / "changed.jsonl", enlarge)
    found = ds.report([changed, run], ds.load_dataset("digits"))
    assert not found.is_sound
    page = found.save(tmp_path / "report")
    marked = f"A: {found.runs[0].name} [NOT VERIFIED]"
    for table in found.tables:
        named = [row[0] for row in table.rows if "changed" in row[0]] + [table.title] * ("changed" in table.title)
        assert all(marked in name and "all at once" not in name for name in named)
        is_marked = named or "B minus A [NOT VERIFIED]" in table.title
        assert is_marked or table.title == "Settings that all runs have in common"
    assert all(marked in row.title for row in found.album.extremes)
    assert all("B and A [NOT VERIFIED] differ" in row.title for row in found.album.differing)
    (picture,) = found.album.differing[0].pictures
    assert any(line.startswith("A [NOT VERIFIED]: ") for line in picture.lines)
    labels, entry = [], canvas.entry
    monkeypatch.setattr(canvas, "entry", lambda name: labels.append(name) or entry(name))
    for figure in found.figures:
        figure.draw(Figure().add_subplot())
    assert all(marked in label for label in labels if "changed" in label)
    assert len([label for label in labels if "changed" in label]) >= len(found.figures)
    text = page.read_text()
    assert "they are no result" in text and f"does not hold for {marked}" in text
    # The guarantee is that of the other run.
    num = len(overview.alphas(found.runs[1]))
    assert text.count("is false with probability") == (num > 0)
    assert num == 0 or f"Of the {num} certificate{'s' * (num > 1)} of {found.runs[1].label}" in text
    assert not (page.parent / "changed.tsv").exists() and (page.parent / "run.tsv").exists()


def test_notebook_shows_the_page(run, tmp_path, unrendered):
    found = ds.report(str(run))
    body, page = found._repr_html_(), found.save(tmp_path).read_text()
    assert body in page and "<html" not in body and found.is_sound
    # Every rule of the style is below the class of the report.
    rules = re.findall(r"([^{}]+)\{[^{}]*:[^{}]*\}", body[body.index("<style>") + 7 : body.index("</style>")])
    assert rules and all(".deqsmooth" in selector for rule in rules for selector in rule.split(","))
    assert repr(found) == f"{run}: {found.runs[0].verdict()}."
    assert str(found.__rich__()) == repr(found)


def test_figures_may_be_missing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(canvas.importlib.util, "find_spec", lambda name: None)
    assert main(monkeypatch, run, "--out", tmp_path) == 0
    assert "pip install matplotlib\n" in capsys.readouterr().err
    assert "pip install matplotlib" in (tmp_path / "index.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "tables.md", "run.tsv"}


def test_names_survive_the_plain_locale(run, tmp_path):
    names = ["é.jsonl", "a&b <i> $x$.tsv", "_日本.tsv"]
    (tmp_path / names[0]).write_bytes(run.read_bytes())
    for name in names[1:]:
        cohen.write(tmp_path / name, verification.verify(run).found)
    out = tmp_path / "report"
    process = subprocess.run(
        [sys.executable, "-c", COMMAND, *(str(tmp_path / name) for name in names), "--out", str(out)],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert process.returncode == 0, process.stderr.decode()
    text = (out / "index.html").read_text("utf-8")
    # Published results have the names of their files.
    shown = [f"<td>{letter}: {html.escape(name[:-4])}</td>" for letter, name in zip("BC", names[1:], strict=True)]
    shown += [html.escape(str(tmp_path / name)) for name in names]
    assert [name for name in shown if name not in text] == []
    written = {path.name for path in out.iterdir()}
    assert {"é.tsv", "radii-a&b <i> $x$.svg", "radii-_日本.svg"} <= written
    assert [x for x in names if x.encode() not in process.stdout] == []
    assert b"Warning" not in process.stderr


def test_report_spares_its_own_files(run, tmp_path, unrendered):
    published = tmp_path / "run.tsv"
    cohen.write(published, verification.verify(run).found)
    before = published.read_bytes()
    found = ds.report([run, published])
    with pytest.raises(ValueError, match=r"would write over .*run\.tsv"):
        dataclasses.replace(found, runs=[dataclasses.replace(one, stem="run") for one in found.runs]).save(
            tmp_path
        )
    assert published.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.tsv"]


def test_invalid_bound_gets_no_guarantee(run, tmp_path, monkeypatch, unrendered):
    if json.loads(run.read_text().splitlines()[0])["smoothing"]["sampler"] != "serial":
        pytest.skip("only the serial sampler has such a bound")

    def release(header, records):
        header["smoothing"]["bound"] = "reference-code"
        for record in records:
            record |= {"bound": "reference-code", "warning": "not a valid bound"}

    released = rewritten(run, tmp_path / "released.jsonl", release)
    main(monkeypatch, released, "--out", tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "not a valid bound" in text or "do not follow" in text
    assert "is false with probability" not in text and "all at once" not in text
