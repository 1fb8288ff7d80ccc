"""Runs to report: which files are read, which are left out and said so, and which are refused in a sentence."""

import json
import sys
import tarfile

import pytest
from support import rewritten

from deqsmooth.certificates import cohen, verification
from deqsmooth.commands import report
from deqsmooth.reports import canvas, runs

TSV = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
OTHERS = {
    "predictions": (json.dumps({"kind": "predictions"}) + '\n{"index": 0, "prediction": 3}\n', "predictions"),
    "metrics": ('{"update": 1, "loss": 2.5}\n{"update": 2, "loss": NaN}\n', "neither certificates nor attacks"),
    "list": ("[1, 2]\n", None),
    "attacks": (json.dumps({"kind": "attack", "certificates": "0" * 64}) + "\n", "no attack yet"),
    "empty": ("", "is empty"),
    "blank": ("\n\n", "is empty"),
    "killed": ('{"kind": "head', "beginning of a line"),
}


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Empty images in place of figures."""
    monkeypatch.setattr(canvas.Figure, "_render", lambda figure, page, kind: b"")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Function that runs the command on files; returns the exit status and what it says on stderr."""

    def run(*files):
        arguments = ["deqsmooth-report", *map(str, files), "--out", str(tmp_path / "report")]
        monkeypatch.setattr(sys, "argv", arguments)
        status = report.main()
        return status, capsys.readouterr().err

    return run


def published(path, *lines):
    path.write_text(TSV + "".join(f"{line}\n".replace(" ", "\t") for line in lines))
    return path


def test_other_files_are_left_out(run, tmp_path, call):
    """Each by itself is nothing to report; beside certificates it is named, and the report is written."""
    header = run.read_text().splitlines(keepends=True)[0]
    unlabelled = rewritten(
        run,
        tmp_path / "unlabelled.jsonl",
        lambda header, records: [r.update(label=None, correct=None) for r in records],
    )
    reasons = {unlabelled: "images without a label"}
    for name, (text, reason) in OTHERS.items():
        if reason:
            path = tmp_path / f"{name}.jsonl"
            path.write_text(text)
            reasons[path] = reason
    (tmp_path / "header.jsonl").write_text(header)
    reasons[tmp_path / "header.jsonl"] = "no image yet"
    reasons[published(tmp_path / "none.tsv")] = "no image yet"
    for path, reason in reasons.items():
        status, errors = call(path)
        assert status == 2 and errors.count("\n") == 1
        assert errors.startswith("error: there is no run to report") and f"{path} is left out" in errors
        assert reason in errors and not (tmp_path / "report").exists()
    status, errors = call(run, *reasons)
    assert status == 0 and errors.count("\n") == len(reasons)
    assert all(f"{path} is left out: " in errors for path in reasons)
    assert (tmp_path / "report" / "index.html").read_text().count("is left out: ") == len(reasons)


def damaged(run, tmp_path):
    """Files that are refused, by what the sentence says."""
    whole = run.read_text()
    _, *lines = whole.splitlines(keepends=True)
    found = verification.verify(run).found

    def file(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    def change(name, value):
        return rewritten(
            run, tmp_path / f"{name}-{value}.jsonl", lambda header, records: records[3].update({name: value})
        )

    label = found[3].label
    image = found[3].index
    with tarfile.open(tmp_path / "none.tar.gz", "w:gz"):
        pass
    yield [], "no file of certificates is given"
    yield [tmp_path / "none.tar.gz"], "holds no .jsonl file"
    yield [tmp_path], "no regular file"
    yield [tmp_path / "missing.jsonl"], "cannot read"
    yield [run, run], "given twice"
    yield [run, run.parent / "." / run.name], "given twice"
    yield [file("binary.jsonl", b"\xff\xfe\x00" * 30)], "cannot read"
    yield [file("half.jsonl.gz", b"\x1f\x8b\x08\x00half")], "cannot read"
    yield [file("text.jsonl", "# A page\n\nof text\n")], "no JSON object"
    yield [file("headless.jsonl", "".join(lines))], "no header"
    yield [file("kind.jsonl", whole.replace('"kind": "header"', '"kind": "heather"'))], "no header"
    yield [file("schema.jsonl", whole.replace('"schema": ', '"schema": 9'))], "schema"
    yield [file("columns.tsv", "idx\tlabel\n1\t2\n")], "does not begin with the columns"
    yield [published(tmp_path / "nan.tsv", "0 1 1 nan 1 0.1")], "radius of image 0 is nan"
    yield [published(tmp_path / "minus.tsv", "0 1 1 -0.5 1 0.1")], "radius of image 0 is -0.5"
    yield [published(tmp_path / "wrong.tsv", "0 1 2 0.5 1 0.1")], "correct is 1 for label 1"
    yield [change("seconds", float("nan"))], "seconds"
    yield [change("evaluations", -5)], "evaluations"
    yield [change("radius", float("inf"))], "radius"
    yield [change("radius", "large")], "radius"
    yield [run, published(tmp_path / "far.tsv", "3 1 1 0.5 1 0.1")], "no image in common"
    yield [run, published(tmp_path / "label.tsv", f"{image} {label + 1} 0 0.5 0 0.1")], f"image {image} has label"
    yield (
        [run, rewritten(run, tmp_path / "other.jsonl", lambda header, records: header.update(data="other/3.0"))],
        "a report compares the same images",
    )


def test_damaged_files_are_refused(run, tmp_path, call):
    """One sentence that names the file, exit status 2, and nothing written."""
    for files, message in damaged(run, tmp_path):
        status, errors = call(*files)
        assert status == 2, (files, errors)
        assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors
        if files:
            assert str(files[-1]) in errors
        assert not (tmp_path / "report").exists()


def test_unusual_runs_are_reported(run, tmp_path, call):
    """One image, no certificate, a radius of any size, and files that differ only in their endings."""
    found = verification.verify(run).found
    one = published(tmp_path / "one.tsv", "0 1 1 0.5 1 0.1")
    cases = (
        ([one], 0),
        ([published(tmp_path / "abstains.tsv", "0 1 -1 0.0 0 0.1", "8 2 -1 0.0 0 0.1")], 0),
        ([published(tmp_path / "huge.tsv", "0 1 1 1e300 1 0.1"), one], 0),
        (
            [
                rewritten(
                    run, tmp_path / "head.jsonl", lambda header, records: header.update(reference={"solver": "x"})
                )
            ],
            1,
        ),
        ([rewritten(run, tmp_path / "large.jsonl", lambda header, records: records[0].update(radius=1e12))], 1),
    )
    for files, expected in cases:
        status, errors = call(*files)
        assert status == expected, errors
    (tmp_path / "twin.jsonl").write_bytes(run.read_bytes())
    cohen.write(tmp_path / "twin.tsv", found)
    read, left_out = runs.read([tmp_path / "twin.jsonl", tmp_path / "twin.tsv"])
    assert [one.stem for one in read] == ["twin.jsonl", "twin.tsv"] and left_out == []
    assert read[1].label == "B: twin.tsv" and read[0].label.startswith("A: ")


def test_all_runs_have_the_same_data(run, tmp_path):
    """Also if the first file is a published result, which does not say of which data it is."""
    tsv = tmp_path / "first.tsv"
    cohen.write(tsv, verification.verify(run).found)
    other = rewritten(run, tmp_path / "other.jsonl", lambda header, records: header.update(data="other/3.0"))
    with pytest.raises(ValueError, match="a report compares the same images"):
        runs.read([tsv, run, other])


def test_incomplete_files_are_said(run, tmp_path):
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(run.read_bytes()[:-40])
    (found,), _ = runs.read([cut])
    assert found.is_sound and found.is_alarming and found.label == f"{found.name} [incomplete]"
    assert "INCOMPLETE: all 9 images are there, but the end line is missing; line " in found.verdict()
