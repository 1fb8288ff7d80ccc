"""Files of certificates: nothing lost, nothing mixed, nothing half written."""

import dataclasses
import errno
import json
import os

import pytest
from support import VOTES, header_of, voted

from deqsmooth.certificates import jsonl, plan, record, writing

EVERY = {"dataset": "digits", "split": "test", "stride": 1}
HEADER = header_of(selection=EVERY)
PLAN = plan.Plan(range(3))


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "folder" / "run.jsonl"
    with writing.Writer(path, HEADER, PLAN) as writer:
        for index in range(3):
            writer.write(voted(index))
    header, found = jsonl.read(path)
    assert header == HEADER and found == [voted(index) for index in range(3)]
    assert len(path.read_text().splitlines()) == 6


def test_certificate_is_on_disk_before_next(tmp_path):
    with writing.Writer(tmp_path / "run.jsonl", HEADER, PLAN) as writer:
        for index in range(3):
            writer.write(voted(index))
            assert len(jsonl.read(tmp_path / "run.jsonl")[1]) == index + 1


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_unfinished_line_is_cut_off(tmp_path, cut):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER, PLAN) as writer:
        writer.write(voted(0))
        writer.write(voted(1))
    path.write_bytes(path.read_bytes()[:-cut])
    with writing.Writer(path, HEADER, PLAN) as writer:
        assert writer.done == [voted(0)]
        assert writer.left() == [1, 2]
        writer.write(voted(1))
        assert writer.done == [voted(0), voted(1)]
        assert writer.left() == [2]
    assert jsonl.read(path)[1] == [voted(0), voted(1)]


def test_unfinished_header_is_written_again(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps(HEADER)[:20])
    with writing.Writer(path, HEADER, PLAN) as writer:
        assert writer.done == []
    assert jsonl.read(path) == (HEADER, [])


def test_other_header_is_refused_untouched(tmp_path):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER, PLAN) as writer:
        writer.write(voted(0))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"another run: sigma is 0\.5 in the file and 0\.25 now; a file"):
        writing.Writer(path, header_of(dataclasses.replace(VOTES, sigma=0.25), selection=EVERY), PLAN)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json\n", "line 1"),
        ('{"kind": "header", "schema": 99}\n', "line 1.*schema|begun by another run: schema is 99"),
        ("[1]\n", "line 1"),
        (json.dumps(HEADER) + '\n{"index": 1}\n', "line 2.*those of a certificate: label, prediction.* missing"),
        (json.dumps(HEADER) + '\n{"index": 1, "error": "torn", "other": 2}\n', "line 2.*: other unknown"),
        ("", "empty"),
    ],
)
def test_file_without_certificates_is_refused(tmp_path, text, message):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        jsonl.read(path)
    if text:
        with pytest.raises(ValueError, match=message):
            writing.Writer(path, HEADER, PLAN)
        assert path.read_text() == text


def test_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        writing.Writer(tmp_path / "file" / "run.jsonl", HEADER, PLAN)
    with pytest.raises(ValueError, match="cannot write"):
        writing.Writer(tmp_path, HEADER, PLAN)
    with pytest.raises(ValueError, match="cannot read"):
        jsonl.read(tmp_path / "missing.jsonl")


def test_second_writer_is_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER, PLAN) as writer:
        writer.write(voted(0))
        with pytest.raises(ValueError, match="is being written by another process"):
            writing.Writer(path, HEADER, PLAN)
        writer.write(voted(1))
    with writing.Writer(path, HEADER, PLAN) as writer:
        assert len(writer.done) == 2


def test_full_disk_loses_no_line(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER, PLAN) as writer:
        writer.write(voted(0))
        before = path.read_bytes()
        file = writer._file

        class Full:
            """A disk that takes twenty bytes more."""

            fileno, close = file.fileno, file.close

            def write(self, data):
                if path.stat().st_size - len(before) >= 20:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return file.write(data[:20])

        monkeypatch.setattr(writer, "_file", Full())
        with pytest.raises(ValueError, match="No space left on device; every line before is whole"):
            writer.write(voted(1))
        monkeypatch.undo()
    assert path.read_bytes()[:-20] == before
    with writing.Writer(path, HEADER, PLAN) as writer:
        assert writer.done == [voted(0)]


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_vanished_file_ends_the_run(tmp_path, change):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER, PLAN) as writer:
        writer.write(voted(0))
        path.rename(tmp_path / "elsewhere.jsonl")
        if change == "replaced":
            path.write_text("something else")
        with pytest.raises(ValueError, match="was removed or replaced while it was written"):
            writer.write(voted(1))
    assert not path.exists() or path.read_text() == "something else"
    assert len(jsonl.read(tmp_path / "elsewhere.jsonl")[1]) == 1


def test_unreadable_image_is_noted_once(tmp_path):
    path = tmp_path / "run.jsonl"
    torn = record.Unreadable(1, "torn")
    for _ in range(2):
        with writing.Writer(path, HEADER, PLAN) as writer:
            assert writer.done == []
            writer.write(torn)
    file = jsonl.parse(path, path.read_text())
    assert [line.entry for line in file.lines[1:]] == [torn] == file.unreadable
    with writing.Writer(path, HEADER, PLAN) as writer:
        writer.write(voted(1))
    file = jsonl.parse(path, path.read_text())
    assert (file.certificates, file.unreadable) == ([voted(1)], [])
    assert file.lines[2].chain == jsonl.link(file.lines[1].chain, file.lines[2].values)


def test_endless_file_is_not_read(tmp_path):
    for path in ("/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="cannot read"):
            jsonl.read(path)
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(ValueError, match="it has 4,294,967,296 bytes"):
        jsonl.read(tmp_path / "huge.jsonl")


def test_archive_is_no_single_file(tmp_path):
    with pytest.raises(ValueError, match="is an archive and must be one file"):
        jsonl.text(tmp_path / "records.tar.gz")
