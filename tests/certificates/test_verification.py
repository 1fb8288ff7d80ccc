"""Verification: what was tampered with is found, and neither JAX nor the model is needed for it."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from support import INDEPENDENT, ROOT, rewritten, write_run

from deqsmooth import data
from deqsmooth.certificates import jsonl, plan, verification, writing
from deqsmooth.config import serialization
from deqsmooth.smoothing import replay


def found_in(path):
    return [str(difference) for difference in verification.verify(path).differences]


def test_written_run_verifies(run, tmp_path):
    checked = verification.verify(run)
    assert len(checked.found) == 9 and checked.differences == []
    assert (checked.header, checked.found) == jsonl.read(run)
    assert found_in(rewritten(run, tmp_path / "same.jsonl", lambda header, records: None)) == []


def test_old_file_with_looks_verifies(small, tmp_path):
    settings = dataclasses.replace(INDEPENDENT, spending="equal")
    path = write_run(tmp_path / "run.jsonl", small, settings, stride=300)

    def to_before(header, records):
        del header["smoothing"]["spending"], header["sha256"]
        header["sha256"] = serialization.digest(header)
        for line in records:
            del line["alpha_count"]

    found = verification.verify(rewritten(path, tmp_path / "before.jsonl", to_before))
    assert found.differences == [] and found.settings.spending == "equal"
    assert all(c.alpha_count is None for c in found.found)


TAMPERED = {
    "radius": lambda r: r["radius"] + 1e-6,
    "p_lower": lambda r: r["p_lower"] + 1e-6,
    "count": lambda r: r["count"] + 1,
    "alpha": lambda r: 0.05,
    "alpha_audit": lambda r: r["alpha_audit"] + 0.001,
    "alpha_count": lambda r: r["alpha_count"] / 2,
    "sigma": lambda r: 1.0,
    "seed": lambda r: 5,
    "prediction": lambda r: 3 if r["prediction"] is None else None,
    "selected": lambda r: (r["selected"] + 1) % 10,
    "label": lambda r: "7",
    "correct": lambda r: not r["correct"],
    "num_estimation": lambda r: r["num_estimation"] + 1,
    "bound": lambda r: "reference-code",
    "warning": lambda r: "fine",
    "mismatches": lambda r: -1,
    "num_audit": lambda r: r["num_audit"] + 1,
    "looks": lambda r: [10, 20],
    "index": lambda r: r["index"] + 1,
    "counts": lambda r: [*r["counts"][:-1], r["counts"][-1] + 1],
    "counts_selection": lambda r: r["counts_selection"][::-1] + [1],
    "dtype": lambda r: "bfloat16",
    "residuals": lambda r: 1.0,
}


@pytest.mark.parametrize("name", TAMPERED)
def test_changed_value_is_found_despite_chain(run, tmp_path, name):
    def change(header, records):
        records[2][name] = TAMPERED[name](records[2])

    try:
        found = found_in(rewritten(run, tmp_path / "changed.jsonl", change))
        # The end line says that the image which is now another has a certificate.
        found = [message for message in found if name != "index" or ", line 12: the run cannot" not in message]
        assert found and all(", line 5: " in message for message in found)
    except ValueError as error:
        # A value of another type is no certificate at all.
        assert name in ("label", "residuals") and f", line 5, is no line of a certificate file: {name} is" in str(
            error
        )


def test_alpha_count_may_miss_with_looks(run, tmp_path):
    def change(header, records):
        del records[2]["alpha_count"]

    found = found_in(rewritten(run, tmp_path / "missing.jsonl", change))
    has_looks = json.loads(run.read_text().splitlines()[0])["smoothing"]["looks"] is not None
    assert [": alpha_count is None" in message for message in found] == [True] * has_looks


def test_moved_votes_change_the_radius(run, tmp_path):
    def change(header, records):
        line = max(records, key=lambda line: line["p_lower"])
        assert line["p_lower"] > 0
        # One vote fewer may also be one that the audit cannot have missed.
        line["counts"][line["selected"]] -= 9
        line["counts"][(line["selected"] + 1) % 10] += 9
        line["count"] -= 9

    (message,) = (x for x in found_in(rewritten(run, tmp_path / "moved.jsonl", change)) if "p_lower" in x)
    assert "it should be" in message


@pytest.mark.parametrize("name", ["duplicated", "moved", "taken out", "changed"])
def test_line_out_of_place_breaks_chain(run, tmp_path, name):
    lines = run.read_text().splitlines(keepends=True)
    {
        "duplicated": lambda: lines.insert(4, lines[3]),
        "moved": lambda: lines.insert(2, lines.pop(5)),
        "taken out": lambda: lines.pop(3),
        "changed": lambda: lines.__setitem__(3, lines[3].replace('"seconds": ', '"seconds": 1')),
    }[name]()
    path = tmp_path / "edited.jsonl"
    path.write_text("".join(lines))
    assert any("the chain is broken" in message for message in found_in(path))
    if name == "duplicated":
        assert any("has a certificate already" in message for message in found_in(path))


@pytest.mark.parametrize("cut", [1, 30, 300])
def test_file_that_was_cut_off_is_incomplete(run, tmp_path, cut):
    content = run.read_text()[:-cut]
    path = tmp_path / "cut.jsonl"
    path.write_text(content)
    checked = verification.verify(path)
    assert checked.differences == [] and checked.found == verification.verify(run).found[: len(checked.found)]
    lines = content.count("\n")
    held = f"{lines - 2} of 9 images; " if lines < 11 else "all 9 images are there, but the end line is missing; "
    assert checked.incomplete.startswith(held)
    assert f"; line {lines + 1} was cut off; a kill or a full disk does that" in checked.incomplete


@pytest.mark.parametrize("name", ["alpha", "num_estimation", "sigma"])
def test_a_changed_header_is_found(run, tmp_path, name):
    def change(header, records):
        header["smoothing"][name] = {"alpha": 0.02, "num_estimation": 299, "sigma": 0.51}[name]
        if header["smoothing"]["looks"] and name == "num_estimation":
            header["smoothing"]["looks"] = [60, 299]

    found = found_in(rewritten(run, tmp_path / "header.jsonl", change))
    assert ", line 1: the header was changed, and every line is judged by" in found[0] and len(found) > 1


def test_resumed_run_continues_its_chain(run, tmp_path):
    header, found = jsonl.read(run)
    path, planned = tmp_path / "halves.jsonl", plan.Plan(range(0, 360, 40))
    for part in (found[:4], found[4:]):
        with writing.Writer(path, header, planned) as writer:
            for certificate in part:
                writer.write(certificate)
    assert path.read_bytes() == run.read_bytes()


def test_first_schema_is_read_and_checked(run, tmp_path):
    header, found = jsonl.read(run)
    header = {**header, "schema": 1}
    records = [dataclasses.asdict(c) for c in found]
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(x) + "\n" for x in (header, *records)))
    assert jsonl.read(path) == (header, found)
    # Only the digest is wrong, since the schema is part of it.
    assert len(found_in(path)) == 1


def test_it_runs_without_jax(run, tmp_path):
    """The command, in a process that cannot import JAX or what needs it."""
    code = (
        "import sys\n"
        "for name in ('jax', 'flax', 'orbax', 'optax', 'sklearn', 'grain'): sys.modules[name] = None\n"
        "from deqsmooth.commands import verify\n"
        "sys.exit(verify.main())"
    )

    def check(*paths):
        process = subprocess.run(
            [sys.executable, "-c", code, *map(str, paths)], cwd=ROOT, capture_output=True, text=True
        )
        return process.returncode, process.stdout, process.stderr

    status, output, errors = check(run)
    assert (status, errors) == (0, "") and "9 certificates" in output and "0 differences" in output

    def change(header, records):
        records[0]["radius"] = 9.0

    bad = rewritten(run, tmp_path / "bad.jsonl", change)
    status, output, errors = check(run, bad)
    assert (status, errors) == (1, "") and f"{bad}, line 3: radius is 9.0; it should be " in output
    status, output, errors = check(tmp_path / "none.jsonl", run)
    assert status == 2 and "error: cannot read" in errors and "9 certificates" in output


def test_no_damage_ends_in_a_traceback(run, tmp_path):
    """Random bytes changed, dropped and doubled: a finding or a clear error, never another exception."""
    rng = np.random.default_rng(0)
    content = run.read_bytes()
    path = tmp_path / "damaged.jsonl"
    unharmed = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
            action = rng.integers(3)
            if action == 0:
                damaged[place] = rng.integers(32, 127)
            elif action == 1:
                del damaged[place : place + rng.integers(1, 40)]
            else:
                damaged[place:place] = damaged[place : place + rng.integers(1, 40)]
        path.write_bytes(damaged)
        try:
            unharmed += not verification.verify(path).differences
        except ValueError as error:
            assert str(path) in str(error)
    # A byte replaced by itself.
    assert unharmed <= 5


def test_replay_finds_made_up_votes(run, small, tmp_path):
    dataset, rng = data.load("digits"), np.random.default_rng(0)

    def replayed(checked, checkpoint, num=3):
        return replay.replay(checked.header, checked.found, checked.settings, checkpoint, dataset, num, rng)

    checked = verification.verify(run)
    assert replayed(checked, small, 20) == []

    made_up = list(checked.found)
    counts = list(made_up[4].counts)
    counts[made_up[4].selected] -= 9
    counts[(made_up[4].selected + 1) % 10] += 9
    made_up[4] = dataclasses.replace(made_up[4], counts=tuple(counts))
    ((index, message),) = replay.replay(checked.header, made_up, checked.settings, small, dataset, 20, rng)
    assert index == made_up[4].index
    assert message.startswith(f"image {made_up[4].index}: counts is {made_up[4].counts}; drawn again it is")
    # Elsewhere a thousandth may differ, no more.
    elsewhere = {**checked.header, "device": "abacus"}
    assert len(replay.replay(elsewhere, made_up, checked.settings, small, dataset, 20, rng)) == 1
    # Every label is compared, whatever is drawn again, and does not depend on rounding.
    mislabelled = [dataclasses.replace(one, label=one.label + 1) for one in checked.found]
    found = replay.replay(elsewhere, mislabelled, checked.settings, small, dataset, 1, rng)
    assert [message for _, message in found] == [
        f"image {one.index}: label is {one.label + 1}; the data set has {one.label}" for one in checked.found
    ]
    with pytest.raises(ValueError, match="num is 0; it must be an integer, at least 1"):
        replay.verify(run, small, dataset, num=0)
    with pytest.raises(ValueError, match=r"the model is 1+; the certificates are about \w{64}: give the one"):
        replayed(checked, small._replace(sha256="1" * 64))
    other = small._replace(sha256="1" * 64, training=dataclasses.replace(small.training, epochs=3))
    message = r"\(training.epochs is [0-9.]+ in the file and 3 of the one given\): give the one"
    with pytest.raises(ValueError, match=message):
        replayed(checked, other)
