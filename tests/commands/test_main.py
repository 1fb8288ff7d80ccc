"""The end of every command: its exit status and sentence after errors, signals and closed or narrow streams."""

import dataclasses
import errno
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
from typing import ClassVar

import pytest
from support import QUICK, ROOT, start_script, wait_for_lines

from deqsmooth.certificates import verification
from deqsmooth.commands import main

PROGRAM = """
import dataclasses, os, signal, sys, time
from typing import ClassVar
from deqsmooth.commands import main

@dataclasses.dataclass(frozen=True)
class Flags:
    "A command."
    GROUPS: ClassVar = {}

def run(arguments, console):
    BODY
    return 0

sys.exit(main.run(Flags, run, prog="command", uses_jax=False, resumes="the same command"))
"""
TERMINATED = "terminated; the same command resumes the run\n"
INTERRUPTED = "interrupted; the same command resumes the run\n"


def start(body, interrupts=signal.default_int_handler, shell="", **options):
    """A process that runs a command with this body."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = shlex.join([sys.executable, "-c", PROGRAM.replace("BODY", body)])
    # A shell starts background jobs with SIGINT ignored, and a process inherits this.
    previous = signal.signal(signal.SIGINT, interrupts)
    try:
        return subprocess.Popen(["sh", "-c", f"exec {command} {shell}"], text=True, cwd=ROOT, **options)
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclasses.dataclass(frozen=True)
class Flags:
    """A command."""

    GROUPS: ClassVar = {}


def call(monkeypatch, error, **options):
    """The exit status of a command that raises an error."""

    def command(arguments, console):
        raise error

    monkeypatch.setattr(sys, "argv", ["command"])
    return main.run(Flags, command, prog="command", **{"uses_jax": False, "resumes": "the same command"} | options)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("sigma is 0; it must be positive"), 2, "error: sigma is 0; it must be positive\n"),
        (MemoryError(), 2, "error: this machine has too little memory\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: cannot write: No space left on device\n"),
        (OSError("bad descriptor"), 2, "error: bad descriptor\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.npz"), 2, "error: x.npz: No such file\n"),
        (KeyboardInterrupt(), 130, INTERRUPTED),
        (SystemExit(143), 143, TERMINATED),
    ],
)
def test_errors_have_status_and_sentence(monkeypatch, capsys, error, status, message):
    assert call(monkeypatch, error) == status
    assert capsys.readouterr() == ("", message)


def test_fault_of_program_keeps_traceback(monkeypatch):
    for error in (RuntimeError("bug"), SystemExit(5), KeyError("bug")):
        with pytest.raises(type(error)):
            call(monkeypatch, error)


def test_sentence_names_what_resumes(monkeypatch, capsys):
    assert call(monkeypatch, KeyboardInterrupt(), resumes=None) == 130
    assert call(monkeypatch, SystemExit(143), resumes="the same command with --resume") == 143
    expected = "interrupted\nterminated; the same command with --resume resumes the run\n"
    assert capsys.readouterr().err == expected


def test_handlers_of_signals_are_restored(monkeypatch):
    def handlers():
        return [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    call(monkeypatch, KeyboardInterrupt())
    assert handlers() == before


def test_command_runs_in_other_thread(monkeypatch):
    found = []
    thread = threading.Thread(target=lambda: found.append(call(monkeypatch, ValueError("bad"))))
    thread.start()
    thread.join()
    assert found == [2]


@pytest.mark.parametrize(
    ("kind", "status", "message"), [(signal.SIGTERM, 143, TERMINATED), (signal.SIGINT, 130, INTERRUPTED)]
)
def test_signal_ends_with_one_sentence(kind, status, message):
    process = start("print('ready', flush=True); time.sleep(60)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(kind)
    assert process.communicate(timeout=60) == ("", message)
    assert process.returncode == status


@pytest.mark.slow
@pytest.mark.parametrize(("num_lines", "more"), [(0, ()), (4, ()), (4, ("--distributed",))])
def test_terminated_certification_keeps_whole_lines(tmp_path, cache, num_lines, more):
    """While it compiles, while it samples, and as one of connected processes, which JAX would let go on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    arguments = ("certify.py", *QUICK, "--stride", "1", "--images-per-batch", "1", "--out", "run.jsonl", *more)
    process = start_script(*arguments, cwd=tmp_path, cache=cache, environment=environment)
    wait_for_lines(tmp_path / "run.jsonl", num_lines or 1, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and errors.endswith(TERMINATED)
    assert ("certified accuracy" in output) == bool(num_lines)
    checked = verification.verify(tmp_path / "run.jsonl")
    assert (tmp_path / "run.jsonl").read_text().endswith("}\n")
    # The header and the plan come first.
    assert not checked.differences and len(checked.found) >= max(num_lines - 2, 0)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(kind):
    body = "\n".join(
        ["try:", "        print('ready', flush=True); time.sleep(60)"]
        + ["    finally:", "        print('saving', flush=True); time.sleep(60)"]
    )
    process = start(body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(kind)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(kind)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -kind


def test_ignored_interrupt_stays_ignored():
    process = start("os.kill(os.getpid(), signal.SIGINT); print('went on')", interrupts=signal.SIG_IGN)
    assert process.communicate(timeout=60) == ("went on\n", "") and process.returncode == 0


@pytest.mark.parametrize(
    "body",
    [
        "[print('line', i) for i in range(100000)]",
        "[console.print('line', i) for i in range(10000)]",
        "print('line', flush=True); sys.stdin.read(); print('more')",
        "print('line', flush=True); sys.stdin.read(); raise ValueError('bad')",
    ],
    ids=["print", "console", "exit", "error"],
)
def test_closed_pipe_gives_status_141(body):
    """As `| head -1` does: the reader ends after a line."""
    # The errors go to the same pipe in the last case.
    stderr = subprocess.STDOUT if "bad" in body else subprocess.PIPE
    process = start(body, stdin=subprocess.PIPE, stderr=stderr)
    assert process.stdout.readline().startswith("line")
    process.stdout.close()
    process.stdin.close()
    errors = "" if process.stderr is None else process.stderr.read()
    assert (process.wait(timeout=60), errors) == (141, "")
    if process.stderr is not None:
        process.stderr.close()


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_full_disk_of_output_is_named(buffered):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = start("print('line')", stdout=full, env={**os.environ, "PYTHONUNBUFFERED": buffered})
        _, errors = process.communicate(timeout=60)
    assert errors == "error: cannot write: No space left on device\n"
    assert process.returncode == 2


def test_closed_output_is_no_error():
    process = start("print('line')", shell=">&-")
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_is_printed_in_any_locale(encoding):
    text = "r\\u00e9sum\\u00e9 \\u2019 \\udce9"
    body = f"print('{text}'); console.print('{text}'); raise ValueError('{text}')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = start(body, env={**environment, "PYTHONIOENCODING": encoding}, encoding="latin-1")
    output, errors = process.communicate(timeout=60)
    accent = "\\xe9" if encoding == "ascii" else "é".encode(encoding).decode("latin-1")
    # The last one is a byte of a file's name that no encoding gives, and is printed as it is.
    assert output.count(f"r{accent}sum{accent} ") == 2 and output.count(" \xe9\n") == 2
    assert errors.startswith(f"error: r{accent}sum{accent} ") and errors.count("\n") == 1
    assert process.returncode == 2
