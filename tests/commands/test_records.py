"""Records of the commands: a finished, an extended and an edited file of certificates, predictions and attacks."""

import json
import sys

import pytest

from deqsmooth.certificates import verification
from deqsmooth.commands import attack, certify, recertify, verify
from deqsmooth.models import checkpoints

QUICK = (
    "--sampler", "independent", "--start", "learned", "--budget", "1", "--num-estimation", "200", "--lanes", "40",
    "--block", "40",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates, predictions and attacks of digits, each written by its command."""
    path = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(path)
        for command, *arguments in COMMANDS.values():
            monkeypatch.setattr(sys, "argv", ["command", *arguments])
            assert command() == 0
    return path


# The commands, by the files that they write.
COMMANDS = {
    "certificates.jsonl": (certify.main, *QUICK, "--max-images", "2", "--out", "certificates.jsonl"),
    "predictions.jsonl": (certify.main, "--predict", *QUICK, "--max-images", "2", "--out", "predictions.jsonl"),
    "attacks.jsonl": (
        attack.main, "certificates.jsonl", "--steps", "2", "--draws", "2", "--num-estimation", "200",
        "--radii", "0.2", "--out", "attacks.jsonl",
    ),
    "again.jsonl": (
        recertify.main, "certificates.jsonl", "--budget", "2", "--num-pairs", "100", "--out", "again.jsonl",
    ),
}  # fmt: skip


@pytest.fixture
def call(monkeypatch, capsys, folder, tmp_path):
    """Function that calls a command in a copy of the folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def command(function, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        status = function()
        return (status, *capsys.readouterr())

    return command


def test_written_files_are_complete(call):
    status, output, errors = call(verify.main, *COMMANDS)
    assert (status, errors) == (0, "") and output.count(" 0 differences") == 4 and "incomplete" not in output


def test_extended_run_is_complete(call, tmp_path):
    before = (tmp_path / "certificates.jsonl").read_bytes()
    for num in ("1", "3"):
        assert call(*COMMANDS["certificates.jsonl"], "--max-images", num)[0] == 0
        content = (tmp_path / "certificates.jsonl").read_bytes()
        assert content.startswith(before) and (content == before) == (num == "1")
    checked = verification.verify(tmp_path / "certificates.jsonl")
    assert (checked.planned, checked.differences, checked.incomplete) == ([0, 8, 16], [], None)


def test_unfit_model_leaves_no_file(call, small, tmp_path):
    checkpoints.save(tmp_path / "no-start", small)
    out = tmp_path / "other.jsonl"
    arguments = ("certificates.jsonl", "--checkpoint", tmp_path / "no-start", "--out", out)
    status, _, errors = call(recertify.main, *arguments)
    assert status == 2 and "no trained start" in errors and not out.exists()


EDITED = {
    "certificates.jsonl": ("radius", 2.5, "line 3: the chain is broken"),
    "predictions.jsonl": ("prediction", 7, "line 2: prediction is 7; it should be "),
    "attacks.jsonl": ("radius", 2.5, "line 2: radius is 2.5; by the certificate of image 0 it is "),
    "again.jsonl": ("radius", 2.5, "line 3: the chain is broken"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_edited_file_is_not_resumed(call, tmp_path, name):
    entry, value, message = EDITED[name]
    lines = (tmp_path / name).read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if '"index"' in line)
    lines[place] = json.dumps(json.loads(lines[place]) | {entry: value})
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    before = (tmp_path / name).read_bytes()
    status, output, errors = call(*COMMANDS[name])
    assert status == 2 and f"error: {name}, {message}" in errors and "give another --out" in errors
    assert errors.count("\n") == 1 and "certified accuracy" not in output
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["attacks.jsonl", "again.jsonl"])
def test_edited_source_is_not_used(call, tmp_path, name):
    path = tmp_path / "certificates.jsonl"
    path.write_text(path.read_text().replace('"correct": true', '"correct": false', 1))
    status, _, errors = call(*COMMANDS[name])
    assert status == 2 and "certificates.jsonl, line 3: the chain is broken" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("name", ["certificates.jsonl", "predictions.jsonl"])
def test_changed_settings_are_named(call, name):
    status, _, errors = call(*COMMANDS[name], "--seed", "5", "--alpha", "0.01", "--num-estimation", "300")
    assert status == 2 and errors.count("\n") == 1 and "sha256" not in errors
    named = "alpha is 0.001 in the file and 0.01 now; num_estimation is 200 in the file and 300 now; seed is 0 in"
    assert f"{name} was begun by another run: {named} the file and 5 now; a file holds one run" in errors


def test_files_of_other_kinds_are_named(call):
    for name, other, kinds in (
        ("certificates.jsonl", "attacks.jsonl", '"attack" in the file and "header" now'),
        ("predictions.jsonl", "certificates.jsonl", '"header" in the file and "predictions" now'),
        ("attacks.jsonl", "predictions.jsonl", '"predictions" in the file and "attack" now'),
    ):
        status, _, errors = call(*COMMANDS[name], "--out", other)
        assert status == 2 and f"{other} was begun by another run: kind is {kinds}" in errors


def test_recertification_needs_certificates(call, tmp_path):
    lines = (tmp_path / "certificates.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "certificates.jsonl").write_text("".join(lines[:2]))
    for name in ("attacks.jsonl", "again.jsonl"):
        status, _, errors = call(*COMMANDS[name], "--out", "new.jsonl")
        assert status == 2 and "file is certificates.jsonl; it must be one with certificates" in errors


def test_share_without_images_predicts_nothing(folder, monkeypatch, capsys):
    words = ("--predict", *QUICK, "--max-images", "2", "--share", "3/4", "--out", "share.jsonl")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["command", *words])
    assert certify.main() == 0
    assert [json.loads(line)["kind"] for line in (folder / "share.3-of-4.jsonl").read_text().splitlines()] == [
        "predictions"
    ]
