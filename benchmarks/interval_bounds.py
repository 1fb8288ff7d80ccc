"""Certificates in L-infinity of a contraction that is trained with interval bounds, on CIFAR-10.

The loss is the cross-entropy of the least margins over the box of an image (Gowal et al. 2018), mixed with that of
the image itself. The box and the share of the first grow during the training.

    python benchmarks/interval_bounds.py --data-dir DIR --out results/interval_bounds
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import deqsmooth as ds
from deqsmooth import devices, types
from deqsmooth.config import presets
from deqsmooth.smoothing import interval_bounds
from deqsmooth.training import splits


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train with interval bounds, and certify.

    Attributes:
      data_dir: TFDS data directory of CIFAR-10.
      epsilon: largest changes of a pixel, in 1/255, a model for each; its training ends with 1.1 times as much.
      epochs: of the training.
      batch_size: images of an update, divided among the devices.
      learning_rate: largest one; cosine decay to 0.
      budget: evaluations of the cell on boxes in training.
      channels: of the branches.
      factor: Lipschitz constant of the cell.
      lipschitz: of every logit in L2, which fixes their scale.
      patch: side of the blocks of pixels that are one pixel of the finest branch.
      natural: share of the loss that the image itself keeps at the end.
      held_out: every so many training images are held out, and certified.
      num_updates: updates to make instead, for a trial.
      stride: every `stride`-th test image is certified.
      out: folder of the results.
    """

    data_dir: str
    epsilon: tuple[float, ...] = (2.0, 8.0)
    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 2e-3
    budget: int = 4
    channels: tuple[int, ...] = (64, 128)
    factor: float = 0.5
    lipschitz: float = 50.0
    patch: int = 4
    natural: float = 0.3
    held_out: int = 50
    num_updates: int | None = None
    stride: int = 20
    out: pathlib.Path = pathlib.Path("runs/interval_bounds")


def loss_fn(
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    epsilon: jax.Array,
    share: jax.Array,
    *,
    model: types.Model,
    budget: int,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Mean loss, and how often image and box are right."""
    variables, boxes = {"params": params}, model.contraction.boxes
    bound, (own, _) = model.bind(variables), model.inject(variables, images, None)
    u = boxes.inject(variables, interval_bounds.box_of(images, epsilon))
    z = model.initial_state(own)
    box = types.Box(z, z)
    for _ in range(budget):
        z, box = model.cell(bound, z, own), boxes.cell(bound, box, u)
    logits = model.readout(variables, z, True)[0]
    worst = -interval_bounds.least_margins(boxes, variables, box, labels)
    entropies = [optax.softmax_cross_entropy_with_integer_labels(x, labels).mean() for x in (logits, worst)]
    right = [jnp.mean(jnp.argmax(x, -1) == labels) for x in (logits, worst)]
    return (1 - share) * entropies[0] + share * entropies[1], tuple(right)


def trained(
    arguments: Benchmark, epsilon: float, images: np.ndarray, labels: np.ndarray, size: ds.ContractionModel
) -> tuple[types.Variables, list[dict[str, float]]]:
    """Returns variables, and a line for every hundred updates."""
    model, num = ds.build(size), len(images)
    per_epoch = num // arguments.batch_size
    updates = arguments.num_updates or arguments.epochs * per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0.0, arguments.learning_rate, updates // 20 + 1, updates)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    all_devices = jax.local_devices()

    @jax.jit
    def gradient(params: Any, pixels: jax.Array, labels: jax.Array, progress: float) -> tuple[Any, jax.Array]:
        # Both grow over the second to sixth tenth of the training.
        grown = jnp.clip((progress - 0.1) / 0.5, 0, 1)
        loss = functools.partial(loss_fn, model=model, budget=arguments.budget)
        (value, right), found = jax.value_and_grad(loss, has_aux=True)(
            params, pixels, labels, 1.1 * epsilon * grown, (1 - arguments.natural) * grown
        )
        return found, jnp.stack([value, *right])

    @jax.jit
    def update(params: Any, state: Any, gradients: list[Any]) -> tuple[Any, Any]:
        mean = jax.tree.map(lambda *x: sum(x) / len(x), *gradients)
        changes, state = optimiser.update(mean, state, params)
        return optax.apply_updates(params, changes), state

    params = model.init(jax.random.key(0))["params"]
    state = optimiser.init(params)
    rng, lines, metrics, begin = np.random.default_rng(0), [], [], time.perf_counter()
    order = rng.permutation(num)
    for number in range(updates):
        at = number % per_epoch
        if at == 0:
            order = rng.permutation(num)
        chosen = order[at * arguments.batch_size : (at + 1) * arguments.batch_size]
        pixels = images[chosen]
        flipped = rng.random(len(pixels)) < 0.5
        pixels = np.where(flipped[:, None, None, None], pixels[:, :, ::-1], pixels)
        # Every device has a part of the batch.
        parts = []
        for i, device in enumerate(all_devices):
            own = slice(i, None, len(all_devices))
            arrays = jax.device_put((params, pixels[own], labels[chosen][own]), device)
            parts.append(gradient(*arrays, number / updates))
        gradients, found = zip(*jax.device_put(parts, all_devices[0]), strict=True)
        params, state = update(params, state, list(gradients))
        metrics.append(np.mean(np.asarray(found), 0))
        if at == per_epoch - 1 or number == updates - 1 or number % 100 == 99:
            loss, natural, box = np.mean(np.asarray(metrics), 0)
            seconds = round(time.perf_counter() - begin)
            lines.append(
                {"update": number + 1, "loss": loss, "right": natural, "box right": box, "seconds": seconds}
            )
            lines[-1] = {name: round(float(x), 4) for name, x in lines[-1].items()}
            metrics = []
            print(json.dumps(lines[-1]), flush=True)
    return {"params": jax.device_get(params)}, lines


def certified(epsilon: float, classifier: ds.Classifier, images: Any, labels: np.ndarray) -> dict[str, float]:
    """Returns percentages of images that are right, and of those that are right and certified."""
    found = ds.certify_box(classifier, images, epsilon)
    right = found.labels == labels
    shares = {"right": right, "certified": right & found.is_certified}
    return {name: round(100 * float(share.mean()), 2) for name, share in shares.items()}


def main() -> None:
    """Trains, certifies held-out and test images, and writes lines."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    size = ds.ContractionModel(
        image_shape=(32, 32, 3),
        channels=arguments.channels,
        patch=arguments.patch,
        factor=arguments.factor,
        mean=presets.MODELS["mdeq-small"].mean,
        lipschitz=arguments.lipschitz,
    )
    dataset = ds.load_dataset("cifar10", "train", arguments.data_dir)
    training, held, _ = splits.split(dataset, None, ds.Training(held_out=arguments.held_out))
    images, labels = training.take(range(len(training)))
    test = ds.load_dataset("cifar10", "test", arguments.data_dir)
    certified_on = {
        "": test.take(range(0, len(test), arguments.stride)),
        ", held out": held.take(range(len(held))),
    }
    lines: dict[str, list[dict[str, Any]]] = {"training": [], "summary": []}
    for epsilon in arguments.epsilon:
        name = f"{epsilon:g}/255"
        variables, epochs = trained(arguments, epsilon / 255, images, labels, size)
        lines["training"] += [{"trained within": name, **line} for line in epochs]
        for split, of in certified_on.items():
            found = certified(epsilon / 255, ds.classifier(size, variables), *of)
            minutes = round(epochs[-1]["seconds"] / 60, 1)
            lines["summary"].append(
                {
                    "trained and certified within": f"{name}{split}",
                    "minutes": minutes,
                    "images": len(of[1]),
                    **found,
                }
            )
            print(json.dumps(lines["summary"][-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, written in lines.items():
        (arguments.out / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in written))


if __name__ == "__main__":
    main()
