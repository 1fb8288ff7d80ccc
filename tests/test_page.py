"""Reports: from files alone, complete in themselves, and loud about what does not verify."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from support import rewritten

from deqsmooth.certificates import cohen, verification
from deqsmooth.commands import report
from deqsmooth.reports import html, runs

TSV = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deqsmooth-report", *map(str, arguments)])
    return report.main()


@pytest.fixture
def published(run, tmp_path):
    """A published result about the same images."""
    path = tmp_path / "published.tsv"
    cohen.write(path, verification.verify(run).found)
    return path


def test_a_report_says_what_the_files_say(run, published, tmp_path, monkeypatch, capsys):
    out = tmp_path / "report"
    assert main(monkeypatch, run, published, "--out", out) == 0
    assert "without a difference" in capsys.readouterr().out
    text = (out / "index.html").read_text()
    # Nothing is fetched: every source is data, and there is no script.
    assert not re.search(r"<script|<link|@import|url\(", text)
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', text)
    assert len(sources) >= 6 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    found = verification.verify(run).found
    correct = [c.correct and c.radius >= 0.25 for c in found]
    for kind in ("md", "tex"):
        table = (out / f"tables.{kind}").read_text()
        assert f"{int(1000 * sum(correct) / len(found)) / 10:.1f} (" in table
    assert "counts are not known" in text and "McNemar" in text and "published" in text
    assert {path.suffix for path in out.iterdir()} == {".html", ".md", ".tex", ".svg", ".png", ".tsv"}
    assert [x.index for x in cohen.read(out / "run.tsv")] == [c.index for c in found]


def test_reports_of_the_same_files_are_the_same(run, tmp_path):
    for name in ("one", "two"):
        html.write(runs.read([run]), tmp_path / name)
    for path in (tmp_path / "one").glob("*.[hmts]*"):
        assert path.read_text() == (tmp_path / "two" / path.name).read_text()


def test_what_does_not_verify_raises_an_alarm(run, tmp_path, monkeypatch, capsys):
    def enlarge(header, records):
        records[0]["radius"] += 1.0

    changed = rewritten(run, tmp_path / "changed.jsonl", enlarge)
    assert main(monkeypatch, run, changed, "--out", tmp_path / "report") == 1
    assert "1 values do not follow" in capsys.readouterr().err
    assert "class=alarm" in (tmp_path / "report" / "index.html").read_text()


def test_what_is_no_bound_gets_no_guarantee(run, tmp_path, monkeypatch):
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


def test_bad_input_is_refused(run, tmp_path, monkeypatch, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text(run.read_text().splitlines()[0] + "\n")
    other = tmp_path / "other.tsv"
    other.write_text(TSV + "3\t1\t1\t0.5\t1\t0.1\n")
    for files, message in (
        ([empty], "holds no image yet"),
        ([run, run], "given twice"),
        ([tmp_path / "none.jsonl"], "cannot read"),
        ([run, other], "no image in common"),
    ):
        assert main(monkeypatch, *files, "--out", tmp_path / "report") == 2
        assert message in capsys.readouterr().err
    assert main(monkeypatch, run, "--out", run) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_names_are_as_short_as_they_can_be():
    paths = [pathlib.Path("a/x/run.jsonl"), pathlib.Path("b/x/run.jsonl"), pathlib.Path("b/y/other.tsv")]
    assert runs._names(paths) == ["a/x/run", "b/x/run", "b/y/other"]
    assert runs._names(paths[1:]) == ["run", "other"]


def test_a_report_needs_neither_jax_nor_the_model(run, tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'orbax', 'optax', 'grain']))\n"
        "from deqsmooth.commands import report\nraise SystemExit(report.main())"
    )
    arguments = [sys.executable, "-c", code, str(run), "--out", str(tmp_path / "report")]
    assert subprocess.run(arguments, capture_output=True, text=True).returncode == 0
