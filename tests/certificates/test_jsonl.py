"""Files of certificates: nothing lost, nothing mixed, nothing half written."""

import errno
import json
import os

import pytest
from support import certificate

from deqsmooth.certificates import jsonl, record, writing

HEADER = {"kind": "header", "schema": record.SCHEMA, "smoothing": {"sigma": 0.5}, "sha256": "ab"}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "folder" / "run.jsonl"
    with writing.Writer(path, HEADER) as writer:
        for index in range(3):
            writer.write(certificate(index))
    header, found = jsonl.read(path)
    assert header == HEADER and found == [certificate(index) for index in range(3)]
    assert found[0].radius == 0.1 + 0.2


def test_certificate_is_on_disk_before_next(tmp_path):
    with writing.Writer(tmp_path / "run.jsonl", HEADER) as writer:
        for index in range(3):
            writer.write(certificate(index))
            assert len(jsonl.read(tmp_path / "run.jsonl")[1]) == index + 1


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_unfinished_line_is_cut_off(tmp_path, cut):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER) as writer:
        writer.write(certificate(0))
        writer.write(certificate(1))
    path.write_bytes(path.read_bytes()[:-cut])
    with writing.Writer(path, HEADER) as writer:
        assert writer.done == [certificate(0)]
        assert writer.left([2, 0, 1]) == [2, 1]
        writer.write(certificate(1))
        assert writer.done == [certificate(0), certificate(1)]
        assert writer.left([2, 0, 1]) == [2]
    assert jsonl.read(path)[1] == [certificate(0), certificate(1)]


def test_unfinished_header_is_written_again(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps(HEADER)[:20])
    with writing.Writer(path, HEADER) as writer:
        assert writer.done == []
    assert jsonl.read(path) == (HEADER, [])


def test_other_header_is_refused_untouched(tmp_path):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER) as writer:
        writer.write(certificate(0))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"smoothing.*0\.25"):
        writing.Writer(path, {**HEADER, "smoothing": {"sigma": 0.25}})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json\n", "line 1"),
        ('{"kind": "header", "schema": 99}\n', "line 1.*schema"),
        ("[1]\n", "line 1"),
        (json.dumps(HEADER) + '\n{"index": 1}\n', "line 2"),
        (json.dumps(HEADER) + '\n{"index": 1, "other": 2}\n', "line 2"),
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
            writing.Writer(path, HEADER)
        assert path.read_text() == text


def test_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        writing.Writer(tmp_path / "file" / "run.jsonl", HEADER)
    with pytest.raises(ValueError, match="cannot write"):
        writing.Writer(tmp_path, HEADER)
    with pytest.raises(ValueError, match="cannot read"):
        jsonl.read(tmp_path / "missing.jsonl")


def test_second_writer_is_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER) as writer:
        writer.write(certificate(0))
        with pytest.raises(ValueError, match="is being written by another process"):
            writing.Writer(path, HEADER)
        writer.write(certificate(1))
    with writing.Writer(path, HEADER) as writer:
        assert len(writer.done) == 2


def test_full_disk_loses_no_line(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER) as writer:
        writer.write(certificate(0))
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
            writer.write(certificate(1))
        monkeypatch.undo()
    assert path.read_bytes()[:-20] == before
    with writing.Writer(path, HEADER) as writer:
        assert writer.done == [certificate(0)]


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_vanished_file_ends_the_run(tmp_path, change):
    path = tmp_path / "run.jsonl"
    with writing.Writer(path, HEADER) as writer:
        writer.write(certificate(0))
        path.rename(tmp_path / "elsewhere.jsonl")
        if change == "replaced":
            path.write_text("something else")
        with pytest.raises(ValueError, match="was removed or replaced while it was written"):
            writer.write(certificate(1))
    assert not path.exists() or path.read_text() == "something else"
    assert len(jsonl.read(tmp_path / "elsewhere.jsonl")[1]) == 1


def test_unreadable_image_is_noted_once(tmp_path):
    path = tmp_path / "run.jsonl"
    torn = record.Unreadable(1, "torn")
    for _ in range(2):
        with writing.Writer(path, HEADER) as writer:
            assert writer.done == []
            writer.write(torn)
    file = jsonl.parse(path, path.read_text())
    assert [line.entry for line in file.lines] == [torn] == file.unreadable
    with writing.Writer(path, HEADER) as writer:
        writer.write(certificate(1))
    file = jsonl.parse(path, path.read_text())
    assert (file.certificates, file.unreadable) == ([certificate(1)], [])
    assert file.lines[1].chain == jsonl.link(file.lines[0].chain, file.lines[1].values)


def test_endless_file_is_not_read(tmp_path):
    for path in ("/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="cannot read"):
            jsonl.read(path)
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(ValueError, match="it has 4,294,967,296 bytes"):
        jsonl.read(tmp_path / "huge.jsonl")
