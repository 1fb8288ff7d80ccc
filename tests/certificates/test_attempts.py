"""Attacks from the command line and in reports: written, read, shown, and alarming where they should be."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from deqsmooth.certificates import attempts, jsonl, plan, writing
from deqsmooth.commands import attack, certify, recertify, report, verify
from deqsmooth.config import serialization
from deqsmooth.reports import runs

QUICK = (
    "--sampler",
    "independent",
    "--start",
    "learned",
    "--budget",
    "1",
    "--num-estimation",
    "200",
    "--lanes",
    "40",
)
HOW = ("--steps", "4", "--draws", "4", "--num-estimation", "200", "--radii", "0.2,6")


def call(monkeypatch, function, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    return function()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates of three digits and what attacks on them came to."""
    path = tmp_path_factory.mktemp("attacks")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(path)
        out = ("--max-images", "3", "--out", "certificates.jsonl")
        assert call(monkeypatch, certify.main, *QUICK, *out) == 0
        assert call(monkeypatch, attack.main, "certificates.jsonl", *HOW, "--out", "attacks.jsonl") == 0
    return path


def test_all_attempts_are_written(folder, monkeypatch, capsys):
    header, found, _ = attempts.parse("attacks.jsonl", (folder / "attacks.jsonl").read_text())
    chosen = jsonl.read(folder / "certificates.jsonl")
    assert header["certificates"] == chosen[0]["sha256"] and header["attack"]["steps"] == 4
    assert sorted((x.index, x.budget, x.radius) for x in found) == [
        (c.index, radius, c.radius) for c in chosen[1] for radius in (0.2, 6.0)
    ]
    assert attempts.robust_accuracy(found)[1][1] < 1 and not any(x.refutes for x in found)
    arguments = (folder / "certificates.jsonl", folder / "attacks.jsonl", "--out", folder / "report")
    assert call(monkeypatch, report.main, *arguments) == 0
    assert "6 attacks refute none" in capsys.readouterr().out
    text = (folder / "report" / "index.html").read_text()
    assert "whose class the attacks could not change" in text


def test_inconsistent_attempts_are_named(folder, tmp_path, monkeypatch, capsys):
    def checked(path):
        status = call(monkeypatch, verify.main, path)
        return status, capsys.readouterr().out

    status, out = checked(folder / "attacks.jsonl")
    assert status == 0 and out.endswith("6 attacks, 0 certificates refuted, 0 differences\n")
    header, found, _ = attempts.parse("attacks.jsonl", (folder / "attacks.jsonl").read_text())
    changed = tmp_path / "changed.jsonl"
    one = dataclasses.replace(found[0], prediction=(found[0].certified + 1) % 10, distance=0.1, radius=0.2)
    lines = {
        "refutes is False; it should be True": one,
        "refutes is True; it should be False": dataclasses.replace(found[0], refutes=True),
        "distance is 0.3; the attack was to stay within 0.2": dataclasses.replace(found[0], distance=0.3),
        f"radius 0.2 of image {one.index} is there twice": found[0],
        f"radius 0.7 of image {one.index}": dataclasses.replace(found[0], budget=0.7),
    }
    for message, line in lines.items():
        entries = [header, *map(dataclasses.asdict, [found[0], line] if line == found[0] else [line])]
        changed.write_text("\n".join(map(json.dumps, entries)) + "\n")
        status, out = checked(changed)
        assert status == 1 and message in out
    # One that follows, and refutes.
    entries = header, dataclasses.asdict(one) | {"refutes": True}
    changed.write_text("\n".join(map(json.dumps, entries)) + "\n")
    assert checked(changed) == (1, f"{changed}: 1 attack, 1 certificate refuted, 0 differences\n")


def test_refuted_certificate_raises_alarm(folder, tmp_path, monkeypatch, capsys):
    header, found, _ = attempts.parse("attacks.jsonl", (folder / "attacks.jsonl").read_text())
    found[0] = dataclasses.replace(found[0], distance=0.1, prediction=9, refutes=True)
    lines = [header, *map(dataclasses.asdict, found)]
    (tmp_path / "attacks.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    arguments = (folder / "certificates.jsonl", tmp_path / "attacks.jsonl", "--out", tmp_path / "report")
    assert call(monkeypatch, report.main, *arguments) == 1
    assert "REFUTED by 1 of 6 attacks" in capsys.readouterr().err
    text = (tmp_path / "report" / "index.html").read_text()
    assert 'class="alarm"' in text and "<td>1 evaluation from the learned start [REFUTED]</td>" in text


@pytest.mark.slow
def test_killed_attack_run_resumes(folder, tmp_path, monkeypatch):
    """After two images and one of the attacks on the third, in the middle of a line."""
    monkeypatch.chdir(folder)
    whole = (folder / "attacks.jsonl").read_text().splitlines(keepends=True)
    out = tmp_path / "again.jsonl"
    out.write_text("".join(whole[:6]) + whole[6][:20])
    for _ in range(2):
        assert call(monkeypatch, attack.main, "certificates.jsonl", *HOW, "--out", out) == 0
        assert out.read_text() == "".join(whole)


def test_bad_input_is_refused(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for arguments, message in (
        (("certificates.jsonl", "--out", "attacks.jsonl"), "attacks.jsonl was begun by another run"),
        (
            ("certificates.jsonl", "--radii", "0", "--out", "x.jsonl"),
            "radii is 0.0; it must be a finite",
        ),
        (("certificates.jsonl", "--radii", "1,1", "--out", "x.jsonl"), "radii is (1.0, 1.0)"),
        (("attacks.jsonl",), "is no header"),
        (("certificates.jsonl", "--target", "both"), "unknown target 'both'"),
    ):
        assert call(monkeypatch, attack.main, *arguments) == 2
        assert message in capsys.readouterr().err
    whole = (folder / "attacks.jsonl").read_text()
    for text, message in (
        (whole.replace('"distance": ', '"distance": -'), "line 2, is no attempt"),
        (whole.replace('"refutes": false', '"refutes": 0'), "line 2, is no attempt"),
    ):
        (tmp_path / "broken.jsonl").write_text(text)
        with pytest.raises(ValueError, match=message):
            runs.read([folder / "certificates.jsonl", tmp_path / "broken.jsonl"])
    for text, reason in (
        (whole.splitlines()[0] + "\n", "has no attack yet"),
        (whole.replace('"certificates": "', '"certificates": "0'), "not among the files"),
    ):
        (tmp_path / "other.jsonl").write_text(text)
        found, left_out = runs.read([folder / "certificates.jsonl", tmp_path / "other.jsonl"])
        assert len(found) == 1 and found[0].attempts == [] and reason in left_out[0]
    with pytest.raises(ValueError, match=r"no run to report: .*attacks\.jsonl is left out"):
        runs.read([folder / "attacks.jsonl"])


def test_changed_attacks_do_not_verify(folder, tmp_path):
    """A radius that is not that of the certificate, or a refutation that does not follow."""
    whole = (folder / "attacks.jsonl").read_text()
    for old, new in (('"radius": ', '"radius": 1'), ('"refutes": false', '"refutes": true')):
        (tmp_path / "changed.jsonl").write_text(whole.replace(old, new, 1))
        ((found,), _) = runs.read([folder / "certificates.jsonl", tmp_path / "changed.jsonl"])
        assert not found.is_sound and found.verdict().startswith("NOT VERIFIED: 1 value does not follow")
    ((found,), _) = runs.read([folder / "certificates.jsonl", folder / "attacks.jsonl"])
    assert found.is_sound and found.verdict().endswith("; 6 attacks refute none")


def test_certificates_without_data_are_refused(folder, tmp_path, monkeypatch, capsys):
    header, found = jsonl.read(folder / "certificates.jsonl")
    entries = {name: x for name, x in header.items() if name not in ("data", "sha256")}
    entries |= {"sha256": serialization.digest(entries)}
    with writing.Writer(tmp_path / "old.jsonl", entries, plan.Plan([c.index for c in found])) as writer:
        for certificate in found:
            writer.write(certificate)
    for command in (attack.main, recertify.main):
        assert call(monkeypatch, command, tmp_path / "old.jsonl") == 2
        assert "the certificates are about one that they do not name" in capsys.readouterr().err


def test_damaged_files_give_a_clear_error(folder, tmp_path):
    """A hundred files with a few bytes changed, put in or taken out."""
    whole = (folder / "attacks.jsonl").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place : place + int(rng.integers(0, 2))] = rng.bytes(int(rng.integers(0, 3)))
        (tmp_path / "damaged.jsonl").write_bytes(damaged)
        try:
            runs.read([folder / "certificates.jsonl", tmp_path / "damaged.jsonl"])
        except ValueError as error:
            assert "damaged.jsonl" in str(error)
            refused += 1
    assert refused > 50


def test_predictions_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ("--predict", *QUICK, "--max-images", "3", "--out", "predictions.jsonl")
    assert call(monkeypatch, certify.main, *arguments) == 0
    assert "% right, 0 abstentions" in capsys.readouterr().out
    header, *lines = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert header["kind"] == "predictions" and [line["index"] for line in lines] == [0, 8, 16]
    assert all(sum(line["counts"]) == 200 and line["prediction"] == line["label"] for line in lines)
    # A run that was killed in the middle of its last line goes on.
    whole = (tmp_path / "predictions.jsonl").read_bytes()
    (tmp_path / "predictions.jsonl").write_bytes(whole[:-30])
    for _ in range(2):
        assert call(monkeypatch, certify.main, *arguments) == 0
        assert "100.0 % right" in capsys.readouterr().out
        assert (tmp_path / "predictions.jsonl").read_bytes() == whole
    shared = (*arguments, "--share", "1/2", "--block", "auto")
    assert call(monkeypatch, certify.main, *shared) == 0
    assert "process 1 of 2 on" in capsys.readouterr().out
    assert len((tmp_path / "predictions.1-of-2.jsonl").read_text().splitlines()) == 2
    assert call(monkeypatch, certify.main, *arguments, "--seed", "1") == 2
    assert "was begun by another run" in capsys.readouterr().err
    assert call(monkeypatch, certify.main, "--predict", "--sampler", "serial", "--out", "other.jsonl") == 2
    assert "a prediction takes 'independent' votes" in capsys.readouterr().err
