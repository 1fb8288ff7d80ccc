"""Runs that go on: only in a file that verifies, with a plan of the images and an end line when all are there."""

import json
import os

import pytest
from support import header_of, relinked, voted

from deqsmooth.certificates import jsonl, plan, record, verification, writing

HEADER = header_of()
PLAN = plan.Plan(range(0, 40, 8))


def write(path, planned=PLAN, num=None):
    """A run, whole or after so many of the images that it lacks."""
    with writing.Writer(path, HEADER, planned) as writer:
        for index in writer.left()[:num]:
            writer.write(voted(index))
    return path


def kinds(path):
    return [values.get("kind", values.get("index")) for values in map(json.loads, path.read_text().splitlines())]


def test_plan_and_end_enclose_certificates(tmp_path):
    path = write(tmp_path / "run.jsonl")
    assert kinds(path) == ["header", "plan", 0, 8, 16, 24, 32, "end"]
    checked = verification.verify(path)
    assert (checked.differences, checked.incomplete, checked.missing) == ([], None, [])


def test_run_in_parts_equals_whole_run(tmp_path):
    whole, parts = write(tmp_path / "whole.jsonl"), tmp_path / "parts.jsonl"
    # Killed while the header was written.
    parts.write_text(json.dumps(HEADER)[:20])
    for _ in range(3):
        write(parts, num=2)
        checked = verification.verify(parts)
        assert checked.differences == [] and (checked.incomplete is None) == (checked.missing == [])
    write(parts)
    assert parts.read_bytes() == whole.read_bytes()


def test_extended_run_has_second_plan(tmp_path):
    path = write(tmp_path / "run.jsonl")
    # Fewer images than planned are no reason for a new plan.
    write(path, plan.Plan([0, 8]))
    assert kinds(path)[-1] == "end" and len(kinds(path)) == 8
    write(path, plan.Plan(range(0, 56, 8)), num=1)
    assert kinds(path)[8:] == ["plan", 40]
    assert verification.verify(path).incomplete.startswith("6 of 7 images; 1 is missing (48)")
    write(path, plan.Plan(range(0, 56, 8)))
    assert kinds(path)[8:] == ["plan", 40, 48, "end"]
    checked = verification.verify(path)
    assert (checked.differences, checked.incomplete) == ([], None)


def test_share_without_images_ends_at_once(tmp_path):
    path = write(tmp_path / "run.jsonl", plan.Plan([0, 8], (2, 3)))
    assert kinds(path) == ["header", "plan", "end"]
    checked = verification.verify(path)
    assert (checked.differences, checked.incomplete) == ([], None)


def test_image_of_no_plan_is_refused(tmp_path):
    refused = pytest.raises(ValueError, match="index is 40; it must be an image of the plan")
    with writing.Writer(tmp_path / "run.jsonl", HEADER, PLAN) as writer, refused:
        writer.write(voted(40))


def test_unreadable_image_is_tried_after_end(tmp_path):
    path = tmp_path / "run.jsonl"
    write(path, num=4)
    for _ in range(2):
        with writing.Writer(path, HEADER, PLAN) as writer:
            assert writer.left() == [32]
            writer.write(record.Unreadable(32, "torn"))
    assert json.loads(path.read_text().splitlines()[-1])["unreadable"] == 1
    assert verification.verify(path).incomplete == "4 of 5 images; 1 could not be read (32)"
    write(path)
    assert kinds(path)[6:] == [32, "end", 32, "end"]
    checked = verification.verify(path)
    assert (checked.differences, checked.incomplete, len(checked.found)) == ([], None, 5)


def test_interrupted_run_has_no_end(tmp_path):
    path = tmp_path / "run.jsonl"
    with pytest.raises(KeyboardInterrupt), writing.Writer(path, HEADER, PLAN) as writer:
        for index in writer.left():
            writer.write(voted(index))
        raise KeyboardInterrupt
    assert kinds(path)[-1] == 32
    assert verification.verify(path).incomplete == "all 5 images are there, but the end line is missing"
    write(path)
    assert kinds(path)[-1] == "end"


def edited(run, path, change):
    """A run whose lines of text were edited, without a new chain."""
    lines = run.read_text().splitlines(keepends=True)
    change(lines)
    path.write_text("".join(lines))
    return path


def with_radius(lines):
    radius = json.loads(lines[3])["radius"]
    lines[3] = lines[3].replace(f'"radius": {radius}', '"radius": 2.5')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_radius, r"line 4: the chain is broken"),
        (lambda lines: lines.pop(3), r"line 4: the chain is broken"),
        (lambda lines: lines.insert(4, lines[3]), r"line 5: the chain is broken"),
        (lambda lines: lines.pop(1), r"line 2: the chain is broken"),
        (lambda lines: lines.insert(4, "\n"), r"line 5, is no JSON object"),
        (lambda lines: lines.extend(lines), r"line 7, is a second header"),
    ],
    ids=["radius", "dropped", "doubled", "plan dropped", "empty line", "joined"],
)
def test_run_resumes_only_what_verifies(tmp_path, change, message):
    path = edited(write(tmp_path / "run.jsonl", num=4), tmp_path / "edited.jsonl", change)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"edited.jsonl, {message}") as error:
        writing.Writer(path, HEADER, PLAN)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_edited_radius_is_named_despite_chain(tmp_path):
    lines = [json.loads(line) for line in write(tmp_path / "run.jsonl").read_text().splitlines()]
    radius = lines[3]["radius"]
    lines[3]["radius"] = 2.5
    path = relinked(tmp_path / "edited.jsonl", lines)
    with pytest.raises(ValueError, match=rf"line 4: radius is 2.5; it should be {radius}; .* give another --out"):
        writing.Writer(path, HEADER, PLAN)


def test_only_regular_files_are_written(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/null")
    places = ("/dev/null", "/dev/full", "/dev/zero", tmp_path, tmp_path / "fifo", tmp_path / "link")
    for path in places:
        with pytest.raises(ValueError, match=f"cannot write {path}: it is no regular file"):
            writing.Writer(path, HEADER, PLAN)
    with pytest.raises(ValueError, match="without compression"):
        writing.Writer(tmp_path / "run.jsonl.gz", HEADER, PLAN)
    with pytest.raises(ValueError, match=r"cannot write .*: File name too long"):
        writing.Writer(tmp_path / ("x" * 300), HEADER, PLAN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "link"]


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b'{"kind": "header"}\n\xff\n', b"\x00\x00\n", b"a note"])
def test_foreign_bytes_are_refused(tmp_path, content):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.jsonl"):
        writing.Writer(path, HEADER, PLAN)
    assert path.read_bytes() == content


def test_old_file_is_read_not_resumed(tmp_path):
    """Files of schema 3 have no plan: nothing is missing, and a run of today does not go on in one."""
    header = header_of(schema=3)
    path = tmp_path / "old.jsonl"
    with writing.Writer(path, header, None) as writer:
        writer.write(voted(0))
    assert kinds(path) == ["header", 0]
    checked = verification.verify(path)
    assert (checked.differences, checked.incomplete, checked.planned) == ([], None, None)
    with pytest.raises(ValueError, match="schema is 3 in the file and 5 now"):
        writing.Writer(path, HEADER, PLAN)
    assert jsonl.read(path) == (header, [voted(0)])
