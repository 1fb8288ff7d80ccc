"""Merging: the merged file equals that of a single run, and inconsistent files are refused."""

import dataclasses
import errno
import os
import sys

import pytest
from support import VOTES, header_of, rewritten, voted

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


@pytest.fixture
def shares(tmp_path):
    """The files of four machines that share 18 images, and the file that one machine writes."""
    images, header = range(0, 144, 8), header_of()
    found = [voted(index, votes=(90 - index // 8, 10 + index // 8, 0)) for index in images]
    whole = write(tmp_path / "whole.jsonl", header, found, images)
    paths = []
    for number in range(4):
        path, planned = tmp_path / f"run.{number}-of-4.jsonl", plan.Plan(images, (number, 4))
        with writing.Writer(path, header, planned) as writer:
            for index in writer.left():
                writer.write(found[index // 8])
        paths.append(path)
    return whole, paths


def test_shares_merge_to_whole_run(shares, tmp_path):
    whole, paths = shares
    for order in (paths, paths[::-1]):
        out = tmp_path / f"merged-{order[0].name}"
        assert merging.merge(order, out) == merging.Merged(18, 18, [], [])
        assert out.read_bytes() == whole.read_bytes()


@pytest.fixture
def main(monkeypatch, capsys, tmp_path):
    """Function that calls the command; returns exit status, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["deqsmooth-merge", *map(str, arguments)])
        capsys.readouterr()
        status = merge.main()
        return (status, *capsys.readouterr())

    return call


def test_missing_shares_are_named(shares, tmp_path, main):
    _, paths = shares
    out = tmp_path / "merged.jsonl"
    for chosen, message in (
        ([0, 2, 3], "5 of 18 images are missing (8, 40, 72, 104, 136); share 1 of 4 was not given (5 images); "),
        ([0, 1], "8 of 18 images are missing (16, 24, 48, 56, 80, ...); shares 2 and 3 of 4 were not given"),
        ([3], "14 of 18 images are missing (0, 8, 16, 32, 40, ...); shares 0, 1 and 2 of 4 were not given"),
    ):
        status, output, errors = main(*(paths[number] for number in chosen), "--out", out)
        assert (status, output) == (2, "") and message in errors and errors.count("\n") == 1
        assert "--partial merges what is there" in errors and not out.exists()


def test_share_that_has_not_ended_is_named(shares, tmp_path, main):
    _, paths = shares
    lines = paths[1].read_text().splitlines(keepends=True)
    paths[1].write_text("".join(lines[:4]) + lines[4][:50])
    out = tmp_path / "merged.jsonl"
    status, _, errors = main(*paths[:3], "--out", out)
    assert status == 2 and "7 of 18 images are missing (24, 56, 72, 88, 104, ...)" in errors
    assert f"; {paths[1]} has 2 of 5 images; share 3 of 4 was not given (4 images); " in errors
    assert errors.count("\n") == 1 and not out.exists()


def test_partial_merge_keeps_whole_plan(shares, tmp_path, main):
    whole, paths = shares
    out = tmp_path / "merged.jsonl"
    status, output, errors = main(*paths[1:], "--partial", "--out", out)
    assert (status, output, errors) == (0, f"13 certificates of 18 images: {out}\n", "")
    checked = verification.verify(out)
    assert checked.differences == [] and len(checked.found) == 13
    assert checked.incomplete.startswith("13 of 18 images; 5 are missing (0, 32, 64, 96, 128)")
    # The missing share completes it.
    assert main(out, paths[0], "--out", tmp_path / "all.jsonl")[0] == 0
    assert (tmp_path / "all.jsonl").read_bytes() == whole.read_bytes()


def test_doubled_images_are_named(shares, tmp_path, main):
    whole, paths = shares
    out = tmp_path / "merged.jsonl"
    status, output, _ = main(*paths, whole, "--out", out)
    assert status == 0 and out.read_bytes() == whole.read_bytes()
    assert "18 images are in several files, of which the first was taken: 0, 8, 16, 24, 32, ..." in output


def test_run_extended_in_one_share(shares, tmp_path, main):
    """One share was run again with more images: those of the others are missing."""
    _, paths = shares
    with writing.Writer(paths[0], header_of(), plan.Plan(range(0, 176, 8), (0, 4))) as writer:
        for index in writer.left():
            writer.write(voted(index))
    status, _, errors = main(*paths, "--out", tmp_path / "merged.jsonl")
    assert status == 2 and "3 of 22 images are missing (144, 152, 168)" in errors
    told = [f"; {paths[number]} has {have}" for number, have in ((1, "5 of 6"), (2, "4 of 5"), (3, "4 of 5"))]
    assert " images".join([*told, "; --partial"]) in errors


def test_old_shares_merge_without_plan(tmp_path, main):
    header, paths = header_of(schema=3), [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, index in zip(paths, (8, 0), strict=True):
        with writing.Writer(path, header, None) as writer:
            writer.write(voted(index))
    out = tmp_path / "merged.jsonl"
    assert main(*paths, "--out", out) == (0, f"2 certificates: {out}\n", "")
    assert [c.index for c in verification.verify(out).found] == [0, 8]
    paths[1].write_text(paths[1].read_text() + '{"index": ')
    status, _, errors = main(*paths, "--out", tmp_path / "other.jsonl")
    assert status == 2 and "b.jsonl is incomplete: 1 of 1 image; line 3 was cut off" in errors
    assert main(*paths, "--partial", "--out", tmp_path / "other.jsonl")[0] == 0


def test_other_settings_are_named(shares, tmp_path, main):
    _, paths = shares
    other = header_of(dataclasses.replace(VOTES, seed=7, alpha=0.05))
    write(tmp_path / "other.jsonl", other, [voted(0, settings=dataclasses.replace(VOTES, seed=7, alpha=0.05))])
    status, _, errors = main(*paths, tmp_path / "other.jsonl", "--out", tmp_path / "merged.jsonl")
    assert status == 2 and errors.count("\n") == 1
    assert f"{paths[0]} and {tmp_path / 'other.jsonl'} are of different runs: alpha is 0.01 in the first" in errors
    assert "seed is 0 in the first and 7 in the second; only one run is merged" in errors
    status, _, errors = main(paths[0], "--partial", "--out", "/dev/full")
    assert status == 2 and "exists; it must be a new file" in errors


def test_parts_of_different_processors_merge(parts, tmp_path):
    def moved(header, records):
        header["processor"] = "another one"
        del header["sha256"]
        header["sha256"] = serialization.digest(header)

    other = rewritten(parts[1], tmp_path / "other.jsonl", moved)
    merging.merge([parts[0], other], tmp_path / "whole.jsonl")
    checked = verification.verify(tmp_path / "whole.jsonl")
    assert checked.differences == [] and checked.incomplete is None
    assert checked.header["processor"] is None and checked.header["vector"] is None


@pytest.mark.parametrize("is_last", [False, True])
def test_full_disk_leaves_no_part(shares, tmp_path, main, monkeypatch, is_last):
    whole, paths = shares
    failing = whole.read_text().count("\n") if is_last else 7
    calls, fsync = [], os.fsync

    def full(file):
        calls.append(file)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    out = tmp_path / "merged.jsonl"
    monkeypatch.setattr(os, "fsync", full)
    status, _, errors = main(*paths, "--out", out)
    assert status == 2 and "No space left on device" in errors and not out.exists()
    monkeypatch.undo()
    assert merging.merge(paths, out).num_certificates == 18 and out.read_bytes() == whole.read_bytes()
