"""Calls of compiled updates: with a batch from the host for each, or many updates of images on the devices."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from deqsmooth import config, data, devices
from deqsmooth.data import transforms
from deqsmooth.training import resident, updates

Update = Callable[..., tuple[updates.State, updates.Values]]
"""`updates.update` with everything but the state, the batch, the shared pytree, the total and the task."""
Calls = Callable[
    [updates.State, int, int, updates.Task, updates.Shared], tuple[updates.State, updates.Values, float]
]
"""(state, number of updates before the call and after it, task, shared) -> (state, metrics, seconds waited)."""


def longest(settings: config.Descent, num_images: int) -> int:
    """The largest number of updates of a call: at most an epoch, so that no call has images of three epochs."""
    return min(settings.updates_per_call or 1, num_images // settings.batch_size)


def between(
    tasks: Iterator[tuple[updates.Task, updates.Shared]], begin: int, interval: int, longest: int
) -> Iterator[tuple[int, int, updates.Task, updates.Shared]]:
    """Yields (number of the first update, number after the last, task, shared) of every call."""
    for (task, shared), alike in itertools.groupby(tasks):
        stop = begin + sum(1 for _ in alike)
        while begin < stop:
            # Ends at the same updates wherever the training resumes.
            end = min(stop, begin + longest - begin % longest, begin + interval - begin % interval)
            yield begin, end, task, shared
            begin = end


def from_host(
    one: Update,
    settings: config.Descent,
    train: data.Dataset,
    mesh: Mesh,
    begin: int,
    total: int,
) -> Calls:
    """Returns calls of one update, whose images the host reads, augments and sends."""
    step = jax.jit(one, static_argnames="task", donate_argnums=0, out_shardings=devices.replicated(mesh))
    shard, num_shards = devices.share(None)
    stream = data.batches(
        train, settings.batch_size, seed=settings.seed, first=begin, shard=shard, num_shards=num_shards
    )

    def call(
        state: updates.State, first: int, end: int, task: updates.Task, shared: updates.Shared
    ) -> tuple[updates.State, updates.Values, float]:
        begun = time.perf_counter()
        images, labels = devices.to_global(next(stream), mesh)
        waited = time.perf_counter() - begun
        return *step(state, images, labels, shared, total, task=task), waited

    return call


def on_device(
    one: Update,
    settings: config.Descent,
    train: data.Dataset,
    mesh: Mesh,
    begin: int,
    total: int,
) -> Calls:
    """Returns calls of many updates, whose images are on the devices."""
    images = resident.load(train, mesh)
    batch = functools.partial(
        resident.batch,
        seed=settings.seed,
        batch_size=settings.batch_size,
        augmented=train.augment is transforms.crop_and_flip,
    )

    @functools.partial(jax.jit, static_argnames="task", donate_argnums=0, out_shardings=devices.replicated(mesh))
    def many(
        state: updates.State,
        images: resident.Images,
        place: resident.Place,
        num: jax.Array,
        shared: updates.Shared,
        total: jax.Array,
        *,
        task: updates.Task,
    ) -> tuple[updates.State, updates.Values]:
        orders = resident.orders(settings.seed, place.epoch, len(train))

        def next_update(state: updates.State, done: jax.Array) -> tuple[updates.State, updates.Values]:
            given = batch(images, orders, place.offset + done * settings.batch_size, state.update)
            return one(state, *given, shared, total, task=task)

        def step(
            done: jax.Array, carry: tuple[updates.State, updates.Values]
        ) -> tuple[updates.State, updates.Values]:
            state, metrics = next_update(carry[0], done)
            return state, jax.tree.map(jnp.add, carry[1], metrics)

        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(next_update, state, num)[1])
        state, sums = lax.fori_loop(0, num, step, (state, nothing))
        return state, jax.tree.map(lambda x: x / num, sums)

    def call(
        state: updates.State, first: int, end: int, task: updates.Task, shared: updates.Shared
    ) -> tuple[updates.State, updates.Values, float]:
        place = resident.place(first, settings.batch_size, len(train))
        return *many(state, images, place, end - first, shared, total, task=task), 0.0

    return call
