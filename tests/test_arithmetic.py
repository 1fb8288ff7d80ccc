"""The arithmetic of programs: the same bits whatever a process has set, and headers that promise them."""

import contextlib
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import INDEPENDENT, QUICK, ROOT, SERIAL, essence, run_script

import deqsmooth as ds
from deqsmooth import arithmetic

SETTINGS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_debug_nans": True,
    "jax_disable_jit": True,
    "jax_default_matmul_precision": "bfloat16",
}
ENVIRONMENT = {
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
}


def draw(weights, scale):
    """A program in which every setting matters: random numbers, mixed types and ranks, and a product."""
    noise = jax.random.normal(jax.random.key(3), (5, 7))
    mixed = (noise + jnp.arange(7)) * scale + jnp.log(-jnp.ones(7))[0:0].sum()
    return mixed @ weights, jnp.asarray(np.arange(3) / 7).sum()


@arithmetic.standard()
def bits():
    weights = np.linspace(-1, 1, 14, dtype=np.float32).reshape(7, 2)
    compiled = jax.jit(draw).lower(weights, np.float32(0.5)).compile()
    return [x.tobytes() for x in jax.device_get(compiled(weights, np.float32(0.5)))]


@pytest.mark.parametrize("name", SETTINGS)
def test_programs_have_equal_bits(name):
    expected = bits()
    before = jax.config.values[name]
    jax.config.update(name, SETTINGS[name])
    try:
        assert bits() == expected
        # The process keeps its setting.
        assert jax.config.values[name] == SETTINGS[name]
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("name", list(SETTINGS)[:5])
def test_programs_outside_depend_on_settings(name):
    """Otherwise the test of equal bits would show nothing."""
    weights, expected = np.ones((7, 2), np.float32), draw(np.ones((7, 2), np.float32), np.float32(0.5))
    before = jax.config.values[name]
    jax.config.update(name, SETTINGS[name])
    try:
        with contextlib.suppress(TypeError, ValueError):
            found = draw(weights, np.float32(0.5))
            assert any(
                a.dtype != b.dtype or not np.array_equal(a, b) for a, b in zip(found, expected, strict=True)
            )
    finally:
        jax.config.update(name, before)


def test_reset_names_ignored_settings():
    code = (
        "import jax, json; from deqsmooth import arithmetic; messages = arithmetic.reset()\n"
        "values = [jax.config.values[name.split()[0].lower()] for name in messages]\n"
        "print(json.dumps([messages, values, arithmetic.reset()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "", **ENVIRONMENT}, cwd=ROOT, capture_output=True, check=True
    )
    messages, values, again = json.loads(done.stdout)
    assert messages[0] == "JAX_ENABLE_X64 is True; it is ignored, so that results do not depend on it"
    assert sorted(message.split()[0] for message in messages) == sorted(ENVIRONMENT)
    assert values == [False, "standard", "allow", "threefry2x32", True] and again == []


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["serial", "independent"])
def test_certificates_ignore_settings_of_environment(tmp_path, cache, sampler):
    flags = QUICK if sampler == "serial" else ("--sampler", sampler, "--budget", "3", "--num-estimation", "200")
    files = [tmp_path / "plain.jsonl", tmp_path / "set.jsonl"]
    for file, environment in zip(files, ({}, ENVIRONMENT), strict=True):
        arguments = ("certify.py", *flags, "--max-images", "3", "--out", str(file))
        status, _, errors = run_script(*arguments, cwd=tmp_path, cache=cache, environment=environment)
        assert status == 0 and errors.count("is ignored") == len(environment)
    assert essence(files[0]) == essence(files[1])


@pytest.mark.parametrize(
    "settings", [INDEPENDENT, pytest.param(SERIAL, marks=pytest.mark.slow)], ids=["independent", "serial"]
)
def test_library_ignores_settings_of_process(small, settings):
    images = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 1))
    expected = [(c.counts, c.mismatches) for c in ds.certify(small, images, settings)]
    before = {name: jax.config.values[name] for name in list(SETTINGS)[:5]}
    try:
        for name in before:
            jax.config.update(name, SETTINGS[name])
        assert [(c.counts, c.mismatches) for c in ds.certify(small, images, settings)] == expected
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


HEADER = {
    "device": "cpu", "processor": "AMD EPYC", "vector": "avx512f", "xla_flags": None, "jax_settings": None,
    "commit": "0123456789ab", "versions": {"jax": "0.8"},
}  # fmt: skip


def test_equal_headers_promise_equal_bits():
    assert arithmetic.is_same(HEADER, {**HEADER, "seed": 3})


@pytest.mark.parametrize("name", HEADER)
def test_any_difference_promises_nothing(name):
    assert not arithmetic.is_same(HEADER, {**HEADER, name: "another"})
    # Headers of earlier versions have fewer entries.
    assert not arithmetic.is_same(HEADER, {other: x for other, x in HEADER.items() if other != name})


def test_processor_matters_only_on_cpu():
    header = {**HEADER, "device": "NVIDIA H200"}
    assert arithmetic.is_same(header, {**header, "processor": "Intel Xeon", "vector": "avx2"})
    assert not arithmetic.is_same(header, {**header, "device": "NVIDIA A100"})


def test_description_is_flat_and_stable():
    found = arithmetic.description()
    assert found == arithmetic.description() and json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu" and set(found) == set(HEADER) - {"versions"}
    # The tests themselves compile so.
    assert found["jax_settings"] == "jax_disable_most_optimizations=True"
    assert arithmetic.is_same({**found, "versions": {}}, {**found, "versions": {}})
