"""Merging: the merged file equals that of a single run, and inconsistent files are refused."""

import sys

import pytest
from support import rewritten

from deqsmooth.certificates import jsonl, merging, plan, verification, writing
from deqsmooth.commands import merge
from deqsmooth.config import serialization


def write(path, header, found, images=range(0, 360, 40)):
    with writing.Writer(path, header, plan.Plan(images)) as writer:
        for certificate in found:
            writer.write(certificate)
    return path


@pytest.fixture
def parts(run, tmp_path):
    """The files of two machines that share a run, with one image in both files."""
    header, found = jsonl.read(run)
    return [write(tmp_path / "a.jsonl", header, found[4::-1]), write(tmp_path / "b.jsonl", header, found[4:])]


def test_merged_parts_equal_whole_run(run, parts, tmp_path):
    assert merging.merge(parts, tmp_path / "whole.jsonl") == merging.Merged(9, 9, [], [160])
    header, found = jsonl.read(run)
    ordered = write(tmp_path / "ordered.jsonl", header, sorted(found, key=lambda c: c.index))
    assert (tmp_path / "whole.jsonl").read_bytes() == ordered.read_bytes()
    assert verification.verify(tmp_path / "whole.jsonl").differences == []


def test_inconsistent_parts_are_refused(parts, tmp_path, monkeypatch, capsys):
    def other_seed(header, records):
        header["smoothing"]["seed"] = 1

    def more_votes(header, records):
        records[0]["count"] += 1

    def other_cost(header, records):
        records[-1]["evaluations"] += 1

    def main(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["deqsmooth-merge", *map(str, arguments), "--out", str(tmp_path / "x.jsonl")]
        )
        return merge.main()

    for change, message in (
        (other_seed, "only what verifies is merged"),
        (more_votes, "only what verifies is merged"),
        (other_cost, "what a file before it does not"),
    ):
        changed = rewritten(parts[0], tmp_path / f"{change.__name__}.jsonl", change)
        assert main(parts[1], parts[0], changed) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "x.jsonl").exists()
    assert main(tmp_path / "none.jsonl") == 2
    assert main(*parts) == 0 and "9 certificates" in capsys.readouterr().out
    assert main(*parts) == 2 and "exists" in capsys.readouterr().err


def test_other_run_is_refused(parts, tmp_path):
    header, found = jsonl.read(parts[0])
    entries = {name: x for name, x in header.items() if name != "sha256"} | {"device": "another"}
    entries |= {"sha256": serialization.digest(entries)}
    other = write(tmp_path / "other.jsonl", entries, found)
    assert verification.verify(other).differences == []
    with pytest.raises(ValueError, match=r"other.jsonl are of different runs: device is .cpu. in the first"):
        merging.merge([*parts, other], tmp_path / "x.jsonl")
