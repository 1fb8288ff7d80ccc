"""Verification and merging from the command line: each bad file gives one sentence and its exit status."""

import gzip
import json
import os
import random
import sys
import tarfile

import numpy as np
import pytest
from support import header_of, relinked, signed, voted

import deqsmooth as ds
from deqsmooth.certificates import plan, predictions, writing
from deqsmooth.commands import merge, verify

HEADER = header_of()
PLAN = plan.Plan(range(0, 40, 8))


def write(path, planned=PLAN, num=None, header=HEADER):
    with writing.Writer(path, header, planned) as writer:
        for index in writer.left()[:num]:
            writer.write(voted(index))
    return path


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Function that calls a command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def command(function, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        try:
            status = function()
        except SystemExit as exit:
            status = exit.code
        return (status, *capsys.readouterr())

    return command


def values_of(path):
    """The lines of a file: of a whole run a header, a plan, five certificates and an end."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def of(place, **change):
    """Changes values of a line, with a chain and digest that fit."""

    def apply(lines):
        lines[place] |= change
        return lines

    return apply


def removed(*places):
    return lambda lines: [line for place, line in enumerate(lines) if place not in places]


# Change of the values, with a new chain; exit status; message.
CHANGED = [
    (of(3, radius=9.9), 1, "line 4: radius is 9.9; it should be 0.4"),
    (of(3, evaluations=-5), 1, "line 4: evaluations is -5; it must be at least 0"),
    (of(3, fallbacks=-1), 1, "line 4: fallbacks is -1"),
    (of(3, seconds=-0.5), 1, "line 4: seconds is -0.5"),
    (of(3, invalid=-1), 1, "line 4: invalid is -1; it should be 0"),
    (of(3, lanes=0), 1, "line 4: lanes is 0; it should be 10"),
    (of(3, residuals=[0.1, -0.1, 0.2]), 1, "line 4: residuals is [0.1, -0.1, 0.2]"),
    (of(3, residuals=[0.1]), 1, "line 4: residuals is [0.1]"),
    (of(3, label=2), 1, "line 4: label is 2; it must be from 0 to 1"),
    (of(3, index=9), 1, "line 4: index is 9, which the header does not select"),
    (of(3, index=-8), 1, "line 4: index is -8, which the header does not select"),
    (of(3, index=40), 1, "line 4: index is 40, which no plan before it has"),
    (of(3, index=400), 1, "line 4: index is 400, beyond the 360 images of the data set"),
    (of(3, index=0), 1, "line 4: image 0 has a certificate already, in line 3"),
    (of(3, counts=[101, -1, 0]), 1, "line 4: counts is (101, -1, 0)"),
    (of(1, images="0:408:8"), 1, "line 2: the plan is wrong: index is 360, beyond the 360 images"),
    (of(1, images="0:41:10"), 1, "line 2: the plan is wrong: index is 10, which the header does not select"),
    (of(-1, certificates=6), 1, "line 8: certificates is 6; the lines before have 5"),
    (of(-1, unreadable=1), 1, "line 8: unreadable is 1; the lines before have 0"),
    (removed(4), 1, "line 7: the run cannot have ended here: 1 image is missing (16)"),
    (removed(1), 1, "line 2: index is 0, which no plan before it has"),
    (removed(5, 6, 7), 3, "incomplete: 3 of 5 images; 2 are missing (24, 32): the run has not ended"),
    (removed(7), 3, "incomplete: all 5 images are there, but the end line is missing\n"),
    (removed(*range(1, 8)), 3, "incomplete: it holds no image and no plan"),
    (of(3, seconds=None), 2, "line 4, is no line of a certificate file: seconds is None; it must be float"),
    (of(3, extra=1), 2, "line 4, is no line of a certificate file: its entries are not those of a certificate"),
    (of(1, images="0:40:0"), 2, "line 2, is no line of a certificate file: images is '0:40:0'"),
    (of(-1, kind="fin"), 2, "line 8, is no line of a certificate file: kind is 'fin'"),
    (of(0, schema=6), 2, "line 1, is no line of a certificate file"),
    (of(0, smoothing={"sigma": 0}), 2, "line 1: the header holds no settings of a certification: sigma is 0"),
    (of(0, num_images=-3), 2, "line 1: the header holds no settings of a certification: num_images is -3"),
]


@pytest.mark.parametrize(("change", "status", "message"), CHANGED)
def test_changed_values_are_named(call, tmp_path, change, status, message):
    values = change(values_of(write(tmp_path / "good.jsonl")))
    path = relinked(tmp_path / "bad.jsonl", [signed(values[0]), *values[1:]])
    found, output, errors = call(verify.main, path)
    assert found == status
    assert f"bad.jsonl, {message}" in output + errors or f"bad.jsonl: {message}" in output
    assert errors.count("\n") == (status == 2)
    found, output, errors = call(merge.main, path, "--out", "merged.jsonl")
    # A run that was killed before its end line lacks no image.
    is_merged = "all 5 images" in message
    assert (found, errors.count("\n")) == ((0, 0) if is_merged else (2, 1))
    assert (tmp_path / "merged.jsonl").exists() == is_merged


# Change of the text.
DAMAGED = [
    (lambda text: "", 2, "is empty"),
    (lambda text: text[:100], 2, "line 1, was cut off"),
    (lambda text: "\n" + text, 2, "line 1, is no JSON object"),
    (lambda text: "[" * 100_000 + "\n", 2, "line 1, is no JSON object: too many brackets"),
    (lambda text: "[1]\n", 2, "line 1, is no JSON object: it is of type list"),
    (lambda text: "{}\n", 2, "line 1, is no line of a certificate file: its first line is no header"),
    (lambda text: '{"loss": 0.5}\n', 2, "its first line is no header of schema 1 to 5"),
    (lambda text: text.replace("\n", "\r", 1), 2, "line 1, "),
    (lambda text: text + text, 2, "line 9, is a second header: two files were joined; deqsmooth-merge joins"),
    (lambda text: text[:-40] + text, 2, "line 8, is no JSON object"),
    (
        lambda text: text.replace('"index": 8', '"radius": 9.9, "index": 8'),
        2,
        "line 4, has the key 'radius' twice",
    ),
    (lambda text: text.replace('"seconds": 0.5', '"seconds": NaN'), 2, "line 3, has the value NaN"),
    (lambda text: text.replace('"seconds": 0.5', '"seconds": -Infinity'), 2, "line 3, has the value -Infinity"),
    (lambda text: text.replace('"seconds": 0.5', '"seconds": 1e999'), 2, "line 3, has the number 1e999"),
    (lambda text: text.replace('"seed": 0', '"seed": ' + "9" * 5000), 2, "line 1, has the number 99999"),
    (
        lambda text: text.replace('"index": 8', '"index": 8.0'),
        2,
        "line 4, is no line of a certificate file: index is",
    ),
    (lambda text: text.replace('"chain": "', '"chain": 1, "x": "', 1), 2, "line 2, is no line of a certificate"),
    (lambda text: text[:-1], 3, "line 8 was cut off; a kill or a full disk does that"),
    (lambda text: text[:-40], 3, "line 8 was cut off"),
    (
        lambda text: text[:-400],
        3,
        "incomplete: 4 of 5 images; 1 is missing (32): the run has not ended; line 7 was",
    ),
    (lambda text: text + '{"index": 40', 3, "line 9 was cut off"),
    (lambda text: text.replace('"seconds": 0.5', '"seconds": 0.6', 1), 1, "line 3: the chain is broken"),
    (
        lambda text: text.replace('"seed": 0', '"seed": 1', 1),
        1,
        "line 1: the header was changed, and every line is judged by",
    ),
    (lambda text: text.replace('"seed": 0', '"seed": 1', 1)[:-40], 1, "was cut off"),
]


@pytest.mark.parametrize(("change", "status", "message"), DAMAGED)
def test_damaged_text_is_named(call, tmp_path, change, status, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(change(write(tmp_path / "good.jsonl").read_text()))
    found, output, errors = call(verify.main, path)
    assert found == status and message in output + errors and str(path) in output + errors
    assert errors.count("\n") == (status == 2)
    assert "Unterminated" not in output + errors


def test_files_that_cannot_be_read(call, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-3])
    (tmp_path / "bad.tar.gz").write_text("no archive")
    with tarfile.open(tmp_path / "none.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "bytes.jsonl", "bytes.txt")
    places = ("/dev/zero", "/dev/null", tmp_path, *sorted(tmp_path.iterdir()), tmp_path / "missing.jsonl")
    for path in places:
        for arguments in ((verify.main, path), (merge.main, path, "--out", "merged.jsonl")):
            status, output, errors = call(*arguments)
            assert (status, output, errors.count("\n")) == (2, "", 1)
            assert errors.startswith("error: ") and str(path) in errors
    assert call(verify.main)[0] == call(merge.main, "--out", "merged.jsonl")[0] == 2
    assert not (tmp_path / "merged.jsonl").exists()


def test_worst_of_several_files_counts(call, tmp_path):
    """Bad input before differences, these before missing images."""
    good, cut = write(tmp_path / "good.jsonl"), write(tmp_path / "cut.jsonl", num=2)
    wrong = relinked(tmp_path / "wrong.jsonl", of(3, seconds=-1)(values_of(good)))
    none = tmp_path / "none.jsonl"
    for files, status in (
        ([good], 0),
        ([good, cut], 3),
        ([cut, wrong, good], 1),
        ([wrong, cut], 1),
        ([none, wrong, cut], 2),
        ([good, none], 2),
    ):
        found, output, _ = call(verify.main, *files)
        assert found == status
        assert all((f"{file}: " in output) == (file is not none) for file in files)


def test_file_given_twice(call, tmp_path):
    good = write(tmp_path / "good.jsonl")
    (tmp_path / "link.jsonl").symlink_to(good)
    for other in (good, "good.jsonl", tmp_path / "link.jsonl"):
        status, output, _ = call(verify.main, good, other)
        assert status == 0 and output.count("5 certificates") == 1
        status, _, errors = call(merge.main, good, other, "--out", "merged.jsonl")
        assert status == 2 and f"error: {other} is given twice" in errors and errors.count("\n") == 1


def test_files_of_an_archive_follow(call, tmp_path):
    """A bad file of an archive does not hide those after it."""
    good, cut = write(tmp_path / "good.jsonl"), write(tmp_path / "cut.jsonl", num=2)
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for name in ("bad", "cut", "good"):
            archive.add(tmp_path / f"{name}.jsonl", f"{name}.jsonl")
    status, output, errors = call(verify.main, tmp_path / "all.tar.gz")
    assert status == 2 and "all.tar.gz/bad.jsonl, line 1" in errors and errors.count("\n") == 1
    assert "cut.jsonl: incomplete: 2 of 5 images" in output and "good.jsonl: 5 certificates" in output
    (tmp_path / "good.jsonl.gz").write_bytes(gzip.compress(good.read_bytes()))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(cut.read_bytes()))
    assert call(verify.main, tmp_path / "good.jsonl.gz")[0] == 0
    assert call(verify.main, tmp_path / "cut.jsonl.gz")[0] == 3


def test_predictions_are_verified(call, tmp_path):
    path, header = tmp_path / "predictions.jsonl", predictions.header(HEADER)
    with writing.Lines(path, header, predictions.read) as file:
        file.write(predictions.Prediction(0, 0, 0, (90, 10, 0)))
        file.write(predictions.Prediction(8, 0, None, (50, 50, 0)))
    status, output, errors = call(verify.main, path)
    assert (status, errors) == (0, "") and "2 predictions, 1 abstention, 0 differences\n" in output
    whole = path.read_text()
    for text, expected, message in (
        (whole.replace('"prediction": 0', '"prediction": 1'), 1, "line 2: prediction is 1; it should be 0"),
        (whole[:-5], 3, "incomplete: line 3 was cut off"),
        (whole.replace('"counts": [90', '"counts": [0.5'), 2, "line 2, is no prediction: counts is"),
        (whole + whole, 2, "line 4, is a second header"),
        (whole.replace("predictions", "guesses"), 2, "its first line is no header of schema 1 to 5"),
    ):
        path.write_text(text)
        status, output, errors = call(verify.main, path)
        assert status == expected and message in output + errors


BRIGHTNESS = """
import jax.numpy as jnp

def classifier(images):
    score = images.mean((1, 2, 3)) - 0.3
    return jnp.stack([score, -score], -1)
"""


def test_verdict_counts_replayed_differences(call, tmp_path, monkeypatch):
    """The images that were drawn again are named, and so is the rule."""
    (tmp_path / "brightness.py").write_text(BRIGHTNESS)
    monkeypatch.syspath_prepend(tmp_path)
    import brightness

    settings = ds.Smoothing(
        sampler="independent", num_selection=10, num_estimation=100, alpha=0.05, lanes=10, block=20
    )
    images, labels = np.linspace(0.1, 0.9, 3)[:, None, None, None] * np.ones((3, 4, 4, 1)), [1, 0, 0]
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    list(ds.certify(brightness.classifier, images, settings, labels=labels, out=tmp_path / "own.jsonl"))
    arguments = ("--model", "brightness:classifier", "--data-dir", "images.npz", "--replay")
    status, output, _ = call(verify.main, "own.jsonl", *arguments, 5)
    assert status == 0 and "own.jsonl: votes of 3 images (0, 1, 2) drawn again, 0 differences; the votes" in output
    assert "had to be equal" in output and "\nown.jsonl: 3 certificates, " in output
    lines = values_of(tmp_path / "own.jsonl")
    for place in (2, 4):
        lines[place]["evaluations"] += 1
    relinked(tmp_path / "own.jsonl", lines)
    assert call(verify.main, "own.jsonl")[0] == 0
    status, output, _ = call(verify.main, "own.jsonl", *arguments, 3)
    assert status == 1 and "drawn again, 2 differences" in output
    assert "own.jsonl, line 3: image 0: evaluations is " in output
    assert output.splitlines()[-1].startswith("own.jsonl: NOT VERIFIED: 2 differences; 3 certificates, ")
    status, output, _ = call(verify.main, "own.jsonl", *arguments, 1)
    assert "votes of 1 image (" in output
    # Elsewhere a thousandth of the votes may differ, and the cost may, too.
    relinked(tmp_path / "own.jsonl", [signed(lines[0] | {"device": "abacus"}), *lines[1:]])
    status, output, _ = call(verify.main, "own.jsonl", *arguments, 3)
    assert status == 0 and "up to 1 in 1,000 votes of an image could differ" in output


def test_negative_replay_is_refused(call, tmp_path):
    status, output, errors = call(verify.main, write(tmp_path / "good.jsonl"), "--replay", "-1")
    assert status == 2 and "replay is -1; it must be at least 0" in output + errors


ODD = (None, -1, 0, 2**62, 1e308, 0.5, "", "x", [], {}, True, [1], [None], [-1, 2**62, 3], "0:9:3", {"a": 1})


def test_no_value_ends_in_a_traceback(call, tmp_path):
    """Values of any line replaced by odd ones or taken out, with a chain and a digest that fit."""
    rng, good = random.Random(0), write(tmp_path / "good.jsonl")
    found = []
    for number in range(150):
        values = values_of(good)
        place = changed = rng.randrange(len(values))
        line = values[place]
        name = rng.choice([x for x in line if x not in ("sha256", "chain")])
        if isinstance(line[name], dict) and rng.random() < 0.8:
            line, name = line[name], rng.choice(list(line[name]))
        if rng.random() < 0.1:
            del line[name]
        else:
            line[name] = rng.choice(ODD)
        path = relinked(tmp_path / "odd.jsonl", [signed(values[0]), *values[1:]])
        status, output, errors = call(verify.main, path)
        assert (status == 2) == (errors != "") and errors.count("\n") <= 1
        assert status == 0 or "odd.jsonl, line " in output + errors or "incomplete" in output, (changed, name)
        merged = call(merge.main, path, "--out", f"merged-{number}.jsonl")
        assert merged[0] == (0 if status == 0 else 2) or status == 3
        found.append(status)
    assert found.count(2) > 15 and found.count(1) > 15
