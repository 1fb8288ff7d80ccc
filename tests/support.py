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
import scipy.signal

from deqsmooth import config, data, solvers
from deqsmooth.certificates import bound, headers, jsonl, record
from deqsmooth.config import architecture, serialization
from deqsmooth.models import base_classifier
from deqsmooth.smoothing import certification, noise

ROOT = pathlib.Path(__file__).parent.parent
QUICK = ("--num-estimation", "200", "--num-audit", "50", "--num-selection", "20", "--lanes", "20", "--block", "20")

SMALL = architecture.ConvModel(channels=8, expansion=1, num_groups=4)
INDEPENDENT = config.Smoothing(
    sampler="independent", budget=2, num_selection=20, num_estimation=300, looks=(60, 300), stop_gain=0.1,
    alpha=0.01, lanes=16, block=40,
)  # fmt: skip
SERIAL = config.Smoothing(
    budget=8, num_selection=20, num_estimation=200, num_audit=60, alpha=0.01, lanes=16, block=40
)
VOTES = config.Smoothing(sampler="independent", num_selection=20, num_estimation=100, alpha=0.01, lanes=10)


def certificate(index: int, **change) -> record.Certificate:
    kinds = {"int": 1, "float": 0.1 + 0.2, "str": "x", "bool": True, "tuple[int,": (1, 2), "tuple[float,": (0.1,)}
    values = {field.name: kinds[field.type.split(" ")[0]] for field in dataclasses.fields(record.Certificate)}
    none = {"prediction": None, "warning": None, "p_upper": None, "alpha_upper": 0.0, "noise_error": 0.0}
    return record.Certificate(**{**values, **none, "index": index, **change})


def write_run(path, checkpoint, settings, stride):
    """A file of certificates of digits, every so many."""
    selection = config.Selection(dataset="digits", stride=stride)
    dataset = data.load("digits")
    indices = selection.indices(len(dataset))
    list(certification.certify_dataset(checkpoint, dataset, indices, settings, out=path, selection=selection))
    return path


def rewritten(run, path, change):
    """A file whose certificates, as values, were changed, with a chain that fits them."""
    header, *lines = (json.loads(line) for line in run.read_text().splitlines())
    records = [line for line in lines if "kind" not in line]
    change(header, records)
    plans, ends = ([line for line in lines if line.get("kind") == kind] for kind in ("plan", "end"))
    return relinked(path, [header, *plans, *records, *ends])


def header_of(settings=VOTES, num_images=360, **change):
    """A header without a model, for certificates by `voted`."""
    entries = {
        "kind": "header",
        "schema": record.SCHEMA,
        "device": "abacus",
        "selection": {"dataset": "digits", "split": "test", "stride": 8},
        "num_images": num_images,
        "smoothing": serialization.to_json(settings),
        "noise": headers.noise(settings, (8, 8, 1)),
        "reference": {"checkpoint": "0" * 64, "solver": settings.solver},
    }
    return signed({**entries, **change})


def signed(header):
    """A header with the digest that fits it."""
    entries = {name: x for name, x in header.items() if name != "sha256"}
    return {**entries, "sha256": serialization.digest(entries)}


def voted(index, votes=(90, 10, 0), settings=VOTES, seconds=0.5):
    """The certificate of an image with label 0, from votes of the estimation made up."""
    proven = bound.of_votes(settings, (settings.num_selection, 0, 0), votes)
    work = record.Work(1200, 0, np.linspace(0, 0.1, 5), np.zeros(0), seconds)
    return record.certificate(index, 0, proven, settings, solves=True, lanes=settings.lanes, work=work)


def relinked(path, lines):
    """A file of lines, as values, with a chain that fits them."""
    header, *others = lines
    chain, content = header["sha256"], [json.dumps(header)]
    for line in others:
        line.pop("chain", None)
        chain = jsonl.link(chain, line)
        content.append(json.dumps({**line, "chain": chain}))
    path.write_text("\n".join(content) + "\n")
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


def correlated(x, kernel, stride, padding):
    """The convolution of the field, a correlation, by scipy in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    kernel = kernel.astype(np.float64)
    whole = [
        [
            sum(
                scipy.signal.correlate2d(image[..., i], kernel[..., i, o], mode="valid")
                for i in range(x.shape[-1])
            )
            for o in range(kernel.shape[-1])
        ]
        for image in x
    ]
    return np.array(whole)[:, :, ::stride, ::stride].transpose(0, 2, 3, 1)
