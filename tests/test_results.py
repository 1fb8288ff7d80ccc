"""Results: pages and links agree with the packed records, which verify."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest

from deqsmooth.certificates import attempts, jsonl, verification

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "results"
LARGEST = 6_000_000
ARCHIVES = sorted(path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("records.tar.gz"))
QUICK = "serial_against_independent/digits-0.25"
PAGES = [ROOT / "README.md", *sorted(RESULTS.rglob("*.md"))]
BENCHMARKS = sorted(path for path in ROOT.glob("benchmarks/*.py") if "tyro.cli(" in path.read_text())
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
LISTED = re.compile(r"^- `(.+)`$", re.MULTILINE)


def packed(folder):
    """The texts of a folder's records, by the paths of their members."""
    archive = folder / "records.tar.gz"
    return {name.removeprefix(f"{archive}/"): text for name, text in jsonl.texts(archive)}


@pytest.mark.parametrize(
    "folder", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHIVES]
)
def test_archived_certificates_and_attacks_verify(folder):
    for name, text in packed(RESULTS / folder).items():
        if attempts.is_file(text):
            assert attempts.differences(attempts.parse(name, text)) == []
        elif jsonl.objects(name, text.partition("\n")[0])[0].get("kind") == "header":
            assert verification.verify_text(name, text).differences == []


def in_git():
    """The files of the results that git tracks, or all of them where there is no repository."""
    listed = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines()] or [p for p in RESULTS.rglob("*") if p.is_file()]


def test_results_are_below_six_megabytes():
    assert sum(path.stat().st_size for path in in_git()) < LARGEST


def test_results_hold_no_loose_records():
    assert [path for path in in_git() if path.suffix in (".jsonl", ".json")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page):
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("folder", ["reproduce", "reproduce-cifar10"])
def test_listed_records_are_packed(folder):
    members = set()
    for archive in (RESULTS / folder).rglob("records.tar.gz"):
        with tarfile.open(archive) as file:
            members |= {(archive.parent / name).resolve() for name in file.getnames()}
    for page in (RESULTS / folder).glob("*/README.md"):
        listed = LISTED.findall(page.read_text())
        assert listed
        assert [name for name in listed if (page.parent / name).resolve() not in members] == []


@pytest.mark.parametrize("folder", ["reproduce", "reproduce-cifar10"])
def test_pages_contain_their_findings(folder):
    for page in (RESULTS / folder).glob("*/README.md"):
        assert (page.parent / "finding.md").read_text().strip() in page.read_text(), page


def test_equal_records_give_equal_archives(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import pack

    contents = []
    for time, name in ((1, "a"), (10**9, "b")):
        folder = tmp_path / name
        (folder / "records").mkdir(parents=True)
        for record in ("records/y.jsonl", "x.memory.json"):
            (folder / record).write_text(record)
            os.utime(folder / record, (time, time))
        pack.pack(folder)
        contents.append((folder / pack.ARCHIVE).read_bytes())
    assert contents[0] == contents[1]
    assert pack.archived(folder) == {"records/y.jsonl": b"records/y.jsonl", "x.memory.json": b"x.memory.json"}


def test_packing_keeps_archived_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import pack

    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("old")
    pack.pack(tmp_path)
    old.unlink()
    new.write_text("new")
    assert pack.unpacked(tmp_path) == ["new.jsonl"]
    pack.pack(tmp_path)
    assert pack.archived(tmp_path) == {"old.jsonl": b"old", "new.jsonl": b"new"}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_print_their_help(benchmark):
    done = subprocess.run(
        [sys.executable, benchmark, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
