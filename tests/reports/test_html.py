"""Reports: pages that are complete without a network, repeatable, and that show files that do not verify."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from support import rewritten

from deqsmooth.certificates import cohen, verification
from deqsmooth.commands import report
from deqsmooth.reports import figures, html, runs

TSV = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deqsmooth-report", *map(str, arguments)])
    return report.main()


@pytest.fixture
def unrendered(monkeypatch):
    """Empty images in place of figures: for tests of the text of a page."""
    monkeypatch.setattr(figures.Figure, "_render", lambda figure, page, kind: b"")


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The report of a run and a published result on the same images, written without JAX and without the model."""
    folder = tmp_path_factory.mktemp("report")
    cohen.write(folder / "published.tsv", verification.verify(run).found)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'orbax', 'optax', 'grain']))\n"
        "from deqsmooth.commands import report\nraise SystemExit(report.main())"
    )
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
    html.write(runs.read([run, written.parent / "published.tsv"]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes()


def test_figures_render_each_image_once(monkeypatch):
    asked = []
    monkeypatch.setattr(figures.Figure, "_render", lambda figure, page, kind: asked.append((page, kind)) or b"")
    figure = figures.slack("name", "caption", {"an audit": [1.0]})
    assert asked == []
    for _ in range(2):
        assert figure.png == b"" and figure.light == ""
    assert asked == [("light", "png"), ("light", "svg")]


def test_difference_raises_alarm(run, tmp_path, monkeypatch, capsys, unrendered):
    def enlarge(header, records):
        records[0]["radius"] += 1.0

    changed = rewritten(run, tmp_path / "changed.jsonl", enlarge)
    assert main(monkeypatch, run, changed, "--out", tmp_path / "report") == 1
    assert "1 values do not follow" in capsys.readouterr().err
    assert "class=alarm" in (tmp_path / "report" / "index.html").read_text()


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


def test_bad_input_is_refused(run, tmp_path, monkeypatch, capsys, unrendered):
    empty = tmp_path / "empty.jsonl"
    empty.write_text(run.read_text().splitlines()[0] + "\n")
    other = tmp_path / "other.tsv"
    other.write_text(TSV + "3\t1\t1\t0.5\t1\t0.1\n")
    for files, message in (
        ([empty], "has no image yet"),
        ([run, run], "given twice"),
        ([tmp_path / "none.jsonl"], "cannot read"),
        ([run, other], "no image in common"),
    ):
        assert main(monkeypatch, *files, "--out", tmp_path / "report") == 2
        assert message in capsys.readouterr().err
    assert main(monkeypatch, run, "--out", run) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_names_are_shortest_unique_ones():
    paths = [pathlib.Path("a/x/run.jsonl"), pathlib.Path("b/x/run.jsonl"), pathlib.Path("b/y/other.tsv")]
    assert runs._names(paths) == ["a/x/run", "b/x/run", "b/y/other"]
    assert runs._names(paths[1:]) == ["run", "other"]
