"""Named settings (presets): model sizes, training recipes, and the certification settings of Gao et al. (2024).

`train.py --preset NAME --data-dir DIR --sigma S` trains by a recipe.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from deqsmooth import config
from deqsmooth.config import architecture, checks

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_MDEQ_SMALL = architecture.MdeqModel()

MODELS: dict[str, architecture.Model] = {
    "mdeq-small": _MDEQ_SMALL,
    "mdeq-large": architecture.MdeqModel(
        channels=(32, 64, 128, 256), head_channels=(14, 28, 56, 112), final_channels=1680, dropout=0.22
    ),
    "mdeq-small-imagenet": architecture.MdeqModel(
        image_shape=(224, 224, 3),
        num_classes=1000,
        channels=(32, 64, 128, 256),
        head_channels=(28, 56, 112, 224),
        final_channels=2048,
        num_strided=2,
        dropout=0.02,
        **_IMAGENET,
    ),
    # The networks of Cohen et al. (2019).
    "resnet110": architecture.ResnetModel(),
    "resnet50": architecture.ResnetModel(
        image_shape=(224, 224, 3),
        num_classes=1000,
        blocks=(3, 4, 6, 3),
        channels=(64, 128, 256, 512),
        bottleneck=True,
        stem=7,
        **_IMAGENET,
    ),
}

# The settings that the two CIFAR-10 models of Gao et al. (2024) share. Gradient clipping is not theirs.
_PAPER = config.Training(
    dataset="cifar10",
    epochs=120,
    batch_size=96,
    learning_rate=1e-3,
    final_learning_rate=1e-6,
    warmup=0.0,
    weight_decay=0.0,
    pretraining_epochs=16_000 * 96 / 50_000,
    pretraining_budget=8,
    solver="broyden",
    budget=8,
    gradient="broyden",
    gradient_budget=7,
    jacobian_weight=0.5,
    jacobian_frequency=0.05,
    jacobian_budget=(-2, 1),
    jacobian_epochs=90.0,
    pretraining_jacobian_weight=0.0,
    evaluation_interval=5,
    model=_MDEQ_SMALL,
)

_CONTRACTION = config.Training(
    model=architecture.ContractionModel(patch=2, channels=(32, 64), width=64),
    epochs=120,
    pretraining_epochs=120.0,
    pretraining_budget=4,
    jacobian_weight=0.0,
)
_MONOTONE = architecture.MonotoneModel(patch=2, channels=(32, 64), width=64, splitting="peaceman-rachford")
_SUBHOMOGENEOUS = architecture.SubhomogeneousModel(patch=2, channels=(32, 64), width=64)
_CONSISTENCY: dict[str, Any] = {"loss": "consistency", "loss_weight": 5.0, "draws": 2, "pretraining_epochs": 0.0}
_CONSISTENCY |= {"solver": "plain", "budget": 4, "gradient_budget": 4}
_CIFAR10_MODEL = architecture.ContractionModel(
    image_shape=(32, 32, 3),
    channels=(64, 128),
    width=128,
    blocks=4,
    patch=4,
    mean=_MDEQ_SMALL.mean,
    std=_MDEQ_SMALL.std,
)
_CIFAR10_TRAINING = config.Training(
    dataset="cifar10",
    model=_CIFAR10_MODEL,
    epochs=40,
    batch_size=128,
    learning_rate=2e-3,
    weight_decay=0.05,
    ema=0.999,
    pretraining_epochs=40.0,
    pretraining_budget=2,
    jacobian_weight=0.0,
    evaluation_interval=2,
    updates_per_call=4,
)

TRAINING: dict[str, config.Training] = {
    # The shipped digits models; about four minutes on two CPU cores.
    "digits": config.Training(),
    # The shipped contraction on digits at sigma 0.5, whose votes can be settled by proof. The cell needs no
    # penalty, and four evaluations come within 1/256 of its equilibrium. A start and a fine-tuning follow: the
    # presets `contraction` and `contraction-fine-tuned` of `--phase start`.
    "contraction": _CONTRACTION,
    # The shipped one at sigma 0.25. On held-out training images consistency raises the mean certified radius there
    # from 0.524 to 0.546. At sigma 0.5 it raises it, too, but lowers accuracy at radius 0 from 92.0 to 88.2 %.
    "contraction-consistency": dataclasses.replace(_CONTRACTION, **_CONSISTENCY),
    # A monotone operator DEQ on digits, and a subhomogeneous one.
    "monotone": dataclasses.replace(_CONTRACTION, model=_MONOTONE, pretraining_budget=8),
    "subhomogeneous": dataclasses.replace(_CONTRACTION, model=_SUBHOMOGENEOUS, pretraining_budget=8),
    # A contraction on digits whose logits have a Lipschitz constant in the image, for certificates without noise.
    "lipschitz": dataclasses.replace(
        _CONTRACTION,
        model=architecture.ContractionModel(patch=2, channels=(32, 64), factor=0.5, lipschitz=2.0),
        sigma=0.1,
        epochs=60,
        pretraining_epochs=60.0,
        pretraining_budget=6,
    ),
    # The shipped contraction on CIFAR-10, in two trainings before its start and fine-tuning: first with
    # cross-entropy, then from there (`--initial`) with consistency. With `--held-out 50` they took 79 and 18
    # minutes on two CPU cores, the first with other work. On 400 held-out training images (sigma 0.5, 300 draws)
    # the second raises the mean radius from 0.51 to 0.58, and lowers the smoothed accuracy from 66.2 to 63.7 %.
    "contraction-cifar10": _CIFAR10_TRAINING,
    "contraction-cifar10-consistency": dataclasses.replace(
        _CIFAR10_TRAINING,
        epochs=6,
        learning_rate=1e-3,
        ema=0.998,
        evaluation_interval=1,
        **{**_CONSISTENCY, "budget": 2, "gradient_budget": 2},
    ),
    # A contraction on CIFAR-10 for one GPU: channels in multiples of 64, 5.6 million parameters. An image is 1.4
    # GFLOP of injection and 0.14 an evaluation of the cell. Not run on an accelerator.
    "contraction-cifar10-gpu": dataclasses.replace(
        _CIFAR10_TRAINING,
        model=dataclasses.replace(_CIFAR10_MODEL, channels=(128, 192), width=256, blocks=3, patch=2),
        epochs=240,
        batch_size=512,
        warmup=0.03,
        pretraining_epochs=240.0,
        pretraining_budget=3,
        evaluation_interval=20,
        augment="crop-and-flip",
        updates_per_call=50,
        dtype="bfloat16",
        injection_dtype="bfloat16",
    ),
    # The shipped CIFAR-10 models: MDEQ-SMALL on one GPU, 8,790 updates. They took 3 min 36 s on an H200 that
    # trained both at once, not counting compilation. Accuracy on noisy test images (500 images, 3 draws): 57.3 %
    # at sigma 0.5 and 65.5 % at sigma 0.25.
    "mdeq-small-gpu": config.Training(
        dataset="cifar10",
        model=dataclasses.replace(_MDEQ_SMALL, dropout=0.0),
        epochs=45,
        batch_size=256,
        learning_rate=3e-3,
        weight_decay=0.01,
        pretraining_epochs=1.0,
        pretraining_budget=2,
        pretraining_jacobian_weight=0.0,
        budget=5,
        gradient="one-step",
        gradient_budget=1,
        jacobian_weight=0.5,
        jacobian_frequency=0.05,
        evaluation_interval=9,
    ),
    # The same model on two CPU cores: shallow pre-training, then short solves with one-step gradients. 10,938
    # updates of 0.4 s, two hours on a machine with other work. Accuracy on noisy test images at sigma 0.5: 51.9 %.
    "mdeq-small-cpu": config.Training(
        dataset="cifar10",
        model=dataclasses.replace(_MDEQ_SMALL, dropout=0.0),
        epochs=14,
        batch_size=64,
        learning_rate=2e-3,
        weight_decay=0.01,
        pretraining_epochs=1.0,
        pretraining_budget=2,
        budget=5,
        gradient="one-step",
        gradient_budget=1,
        jacobian_weight=0.5,
        jacobian_frequency=0.05,
        evaluation_interval=2,
    ),
    # MDEQ-SMALL of Gao et al. (2024): 62,500 updates, 16,000 of them pre-training. Not run here. About 23 hours on
    # two CPU cores, estimated from single updates (1.5 s in pre-training, 1.3 s after it, 1.9 s with the penalty).
    # The paper's certified accuracy at sigma 0.5 is 62 % at radius 0 and 38 % at radius 0.5.
    "mdeq-small": _PAPER,
    # MDEQ-LARGE of Gao et al. (2024): 114,584 updates. Not run here. About 17 days on two CPU cores, estimated
    # from single updates of 8 images; not timed on an accelerator. The paper's certified accuracy at sigma 0.5 is
    # 67 % at radius 0 and 45 % at radius 0.5.
    "mdeq-large": dataclasses.replace(
        _PAPER, epochs=220, jacobian_weight=0.4, jacobian_frequency=0.02, model=MODELS["mdeq-large"]
    ),
    # MDEQ-SMALL on ImageNet of Gao et al. (2024), with the paper's batch size per GPU: 1,000,912 updates, the
    # first 510,000 of them pre-training. Neither timed nor run here.
    "mdeq-small-imagenet": config.Training(
        dataset="imagenet",
        epochs=100,
        batch_size=128,
        optimiser="sgd",
        learning_rate=0.04,
        warmup=0.0,
        weight_decay=2e-5,
        pretraining_epochs=510_000 * 128 / 1_281_167,
        pretraining_budget=5,
        solver="broyden",
        budget=14,
        gradient="broyden",
        gradient_budget=14,
        jacobian_weight=2.5,
        jacobian_frequency=0.08,
        jacobian_budget=(-2, 1),
        jacobian_increment=0.1,
        jacobian_interval=50_000,
        pretraining_jacobian_weight=0.03,
        evaluation_interval=1,
        model=MODELS["mdeq-small-imagenet"],
    ),
    # The explicit baseline of Cohen et al. (2019), with a cosine schedule instead of their three learning rates:
    # 17,579 updates. Neither timed nor run here.
    "resnet110": config.Training(
        dataset="cifar10",
        epochs=90,
        batch_size=256,
        optimiser="sgd",
        learning_rate=0.1,
        warmup=0.0,
        weight_decay=1e-4,
        pretraining_epochs=0.0,
        jacobian_weight=0.0,
        model=MODELS["resnet110"],
    ),
}

_CIFAR10_START = config.StartTraining(
    dataset="cifar10",
    epochs=1,
    reference_budget=8,
    evaluation_interval=1,
    updates_per_call=4,
    settle_weight=1.0,
    network=architecture.StartModel(width=None),
)

START_TRAINING: dict[str, config.StartTraining] = {
    # The shipped digits models; about a minute on two CPU cores.
    "digits": config.StartTraining(),
    # A start for a contraction; then model and start together, so that most votes are settled after one
    # evaluation. The shipped contractions are trained by both, one after the other.
    "contraction": config.StartTraining(epochs=40, settle_weight=1.0, network=architecture.StartModel(width=None)),
    # A start for a subhomogeneous cell, for which what is left to prove is no loss.
    "subhomogeneous": config.StartTraining(epochs=40, network=architecture.StartModel(width=None)),
    "contraction-fine-tuned": config.StartTraining(
        epochs=40,
        learning_rate=1e-3,
        settle_weight=0.3,
        fine_tune=1.0,
        network=architecture.StartModel(width=None),
    ),
    # The same for the contraction on CIFAR-10, where eight evaluations come close enough to the equilibrium.
    "contraction-cifar10": _CIFAR10_START,
    "contraction-cifar10-fine-tuned": dataclasses.replace(
        _CIFAR10_START, epochs=2, learning_rate=5e-4, ema=0.998, settle_weight=0.3, fine_tune=1.0
    ),
    # MDEQ-SMALL on CIFAR-10 on one GPU: 2 min 23 s on an H200 that trained two starts at once.
    "mdeq-small": config.StartTraining(dataset="cifar10", epochs=10, batch_size=256, evaluation_interval=2),
}


def _paper(sampler: str, solver: str, budget: int) -> config.Smoothing:
    """Settings of Gao et al. (2024), section 5.1, except the bound, which is the default and valid one."""
    base = config.Smoothing(
        sampler=sampler,
        solver=solver,
        budget=budget,
        num_selection=100,
        num_estimation=10_000,
        alpha=0.001,
        lanes=400,
    )
    if sampler == "independent":
        return base
    return dataclasses.replace(base, warmup_budget=10, reference_budget=30, num_audit=400)


# The k in the paper's names is a number of solver steps. The paper's code makes k + 2 cell evaluations for k steps
# of Anderson and k + 1 for k steps of Broyden; this package makes k for the same iterate. Cell evaluations per
# image, selection and estimation together: 10,100 k. The serial presets add 8,000 of warm-up (10 on each of 400
# lanes, twice) and 12,000 of the audit (400 times 30).
SMOOTHING: dict[str, config.Smoothing] = {
    **{f"mdeq-{k}a": _paper("independent", "anderson", k) for k in (1, 5, 30)},
    **{f"mdeq-{k}b": _paper("independent", "broyden", k) for k in (1, 5, 14)},
    **{f"srs-mdeq-{k}n": _paper("serial", "plain", k) for k in (1, 3)},
    **{f"srs-mdeq-{k}a": _paper("serial", "anderson", k) for k in (1, 3)},
    **{f"srs-mdeq-{k}b": _paper("serial", "broyden", k) for k in (1, 3)},
}


Settings = TypeVar("Settings")


def find(kind: str, name: str, presets: dict[str, Settings]) -> Settings:
    """The settings with a name.

    Raises:
      ValueError: the name is unknown; names the nearest.
    """
    checks.known(kind, name, presets)
    return presets[name]
