"""What long runs meet: several processes, too little memory, seeds from the operating system."""

import dataclasses
import subprocess
import sys

import jax
import pytest
from test_cli import ROOT, cache, run, start  # noqa: F401

from deqsmooth import certificates, cli, commands, distributed, flags, merging

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


def test_processes_that_share_the_images_make_the_same_certificates(tmp_path, cache):  # noqa: F811
    arguments = ("certify.py", *QUICK, "--max-images", "9")
    assert run(*arguments, "--out", "whole.jsonl", cwd=tmp_path, cache=cache)[0] == 0
    processes = [
        start(*arguments, "--out", "run.jsonl", "--share", f"{i}/2", cwd=tmp_path, cache=cache) for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "process 0 of 2 on " in outputs[0] and "5 images of digits" in outputs[0]
    assert "process 1 of 2 on " in outputs[1] and "4 images of digits" in outputs[1]
    parts = sorted(tmp_path.glob("run.*-of-2.jsonl"))
    assert len(parts) == 2 and merging.merge(parts, tmp_path / "merged.jsonl") == 9
    (header, expected), (merged_header, merged) = (
        certificates.read(tmp_path / name) for name in ("whole.jsonl", "merged.jsonl")
    )
    assert merged_header == header
    assert [dataclasses.replace(c, seconds=0.0) for c in merged] == [
        dataclasses.replace(c, seconds=0.0) for c in expected
    ]


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["certify.py", *arguments])
    return cli.certify()


@pytest.mark.parametrize("share", ["2/2", "1", "-1/2", "a/b", "0/0"])
def test_a_share_that_is_none_is_refused(monkeypatch, capsys, share):
    assert call(monkeypatch, *QUICK, "--share", share) == 2
    assert "share is" in capsys.readouterr().err


def test_a_process_without_an_image_has_nothing_to_do(tmp_path, monkeypatch, capsys):
    arguments = (*QUICK, "--max-images", "2", "--share", "2/3", "--out", str(tmp_path / "run.jsonl"))
    assert call(monkeypatch, *arguments) == 0
    assert "0 images of digits" in capsys.readouterr().out
    assert certificates.read(tmp_path / "run.2-of-3.jsonl")[1] == []
    assert distributed.share(None) == (0, 1)


def test_too_little_memory_is_said_with_what_to_lower(monkeypatch, capsys):
    def exhaust(arguments, console):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")

    monkeypatch.setattr(commands.certify, "run", exhaust)
    assert call(monkeypatch) == 2
    errors = capsys.readouterr().err
    assert "Out of memory allocating 99 bytes" in errors and "--block" in errors and "more" not in errors

    def fail(arguments, console):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(commands.certify, "run", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        call(monkeypatch)


def test_a_random_seed_is_a_number_that_is_recorded(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["certify.py", "--seed", "random"])
    seeds = {flags.parse(flags.Certify).smoothing.seed for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**32 for seed in seeds)


def test_a_second_run_on_a_file_is_refused_while_the_first_goes_on(tmp_path, monkeypatch, capsys):
    code = (
        "import sys, time; from deqsmooth import certificates\n"
        "with certificates.Writer(sys.argv[1], {'kind': 'header', 'schema': 2, 'sha256': ''}):\n"
        "    print('open', flush=True); time.sleep(60)"
    )
    path = tmp_path / "run.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "open\n"
    before = path.read_bytes()
    assert call(monkeypatch, *QUICK, "--max-images", "1", "--out", str(path)) == 2
    assert "is being written by another process" in capsys.readouterr().err
    process.kill()
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == before
    assert call(monkeypatch, *QUICK, "--max-images", "1", "--out", str(path)) == 2
    assert "was begun by another run" in capsys.readouterr().err
