"""A small model that uses every feature of `types.Model`.

Its state is a tuple of two resolutions. It has batch statistics in injection and readout, a dropout mask for a
whole solve, and weights that are normalised once per solve.
"""

import jax
import jax.numpy as jnp

from deqsmooth import types

KEEP, MOMENTUM = 0.8, 0.9


def _standardise(x, statistics, train, axis_name):
    mean = jnp.mean(x, tuple(range(x.ndim - 1))) if train else statistics
    if train and axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    return x - mean, MOMENTUM * statistics + (1 - MOMENTUM) * mean if train else statistics


def build(axis_name: str | None = None) -> types.Model:
    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "params": {
                "stem": jax.random.normal(keys[0], (1, 4)),
                "direction": jax.random.normal(keys[1], (4, 4)),
                "scale": jnp.full(4, 0.4),
                "head": 0.3 * jax.random.normal(keys[2], (4, 10)),
            },
            "batch_stats": {"stem": jnp.zeros(4), "head": jnp.zeros(4)},
        }

    def bind(variables):
        direction = variables["params"]["direction"]
        return direction * variables["params"]["scale"] / jnp.linalg.norm(direction, axis=0)

    def inject(variables, images, keys=None):
        x = images @ variables["params"]["stem"]
        x, statistics = _standardise(x, variables["batch_stats"]["stem"], keys is not None, axis_name)
        if keys is None:
            mask = jnp.ones((len(images), 1, 1, 4))
        else:
            mask = jax.vmap(lambda key: jax.random.bernoulli(key, KEEP, (1, 1, 4)) / KEEP)(keys)
        batch_stats = {**variables["batch_stats"], "stem": statistics}
        return {"drive": x, "mask": mask}, {**variables, "batch_stats": batch_stats}

    def initial_state(u):
        return jnp.zeros_like(u["drive"]), jnp.zeros_like(u["drive"][:, ::2, ::2])

    def cell(params, z, u):
        fine, coarse = z
        up = jnp.repeat(jnp.repeat(coarse, 2, 1), 2, 2)
        fine = jnp.tanh((fine + up) @ params) * u["mask"] + u["drive"]
        return fine, jnp.tanh(fine[:, ::2, ::2] @ params)

    def readout(variables, z, train=False):
        pooled = jnp.mean(z[0], (1, 2)) + jnp.mean(z[1], (1, 2))
        pooled, statistics = _standardise(pooled, variables["batch_stats"]["head"], train, axis_name)
        batch_stats = {**variables["batch_stats"], "head": statistics}
        return pooled @ variables["params"]["head"], {**variables, "batch_stats": batch_stats}

    return types.Model((8, 8, 1), 10, init, bind, inject, initial_state, cell, readout)
