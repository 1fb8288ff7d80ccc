"""Shared by several test files: records made up, files written and changed, votes drawn by hand."""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import config, data, solvers
from deqsmooth.certificates import jsonl, record, writing
from deqsmooth.models import base_classifier
from deqsmooth.smoothing import certification, noise, provenance

ROOT = pathlib.Path(__file__).parent.parent
QUICK = ("--num-estimation", "200", "--num-audit", "50", "--num-selection", "20", "--lanes", "20", "--block", "20")


def certificate(index: int, **change) -> record.Certificate:
    kinds = {"int": 1, "float": 0.1 + 0.2, "str": "x", "bool": True, "tuple[int,": (1, 2), "tuple[float,": (0.1,)}
    values = {field.name: kinds[field.type.split(" ")[0]] for field in dataclasses.fields(record.Certificate)}
    return record.Certificate(**{**values, "index": index, "prediction": None, "warning": None, **change})


def write_run(path, checkpoint, settings, stride):
    """A file of certificates of digits, every so many."""
    selection = config.Selection(dataset="digits", stride=stride)
    dataset = data.load("digits")
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
    indices = list(selection.indices(len(dataset)))
    with writing.Writer(path, header) as writer:
        for certificate in certification.certify_dataset(checkpoint, dataset, indices, settings):
            writer.write(certificate)
    return path


def rewritten(run, path, change):
    """A file whose lines, as values, were changed, with a chain that fits them."""
    header, *records = (json.loads(line) for line in run.read_text().splitlines())
    change(header, records)
    chain = header["sha256"]
    lines = [json.dumps(header)]
    for line in records:
        line.pop("chain")
        chain = jsonl.link(chain, line)
        lines.append(json.dumps({**line, "chain": chain}))
    path.write_text("\n".join(lines) + "\n")
    return path


def labels_of(small, image, index, phase, samples, budget=4, sigma=0.5):
    """Votes of the reference on given samples, solved without scan, lanes or blocks."""
    key = noise.phase_key(0, index, phase)
    draws = noise.gaussian(jnp.stack([key] * len(samples)), jnp.asarray(samples, jnp.int32), image.shape)
    solver = solvers.build("anderson", budget)
    classify = jax.jit(
        functools.partial(
            base_classifier.classify, small.model, small.variables, solver, start=small.model.initial_state
        )
    )
    return np.argmax(classify(image + sigma * draws).logits, -1)


def start_script(script, *arguments, cwd, cache, num_devices=2, environment=None):
    # A shell starts background jobs with SIGINT ignored, and a process inherits this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_NUM_CPU_DEVICES": str(num_devices),
        "PYTHONPATH": str(ROOT),
        **(environment or {}),
    }
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_script(*arguments, **options):
    process = start_script(*arguments, **options)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def essence(path):
    header, found = jsonl.read(path)
    return header, [{name: x for name, x in vars(c).items() if name != "seconds"} for c in found]


def wait_for_lines(path, num, process):
    deadline = time.monotonic() + 240
    while not path.exists() or path.read_text().count("\n") < num:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
