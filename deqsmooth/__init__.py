"""Sound and fast certified L2 robustness of deep equilibrium models, by randomized smoothing in JAX.

    import deqsmooth as ds

    images, labels = ds.load_dataset("digits").take(range(2))
    model = ds.load_checkpoint("digits", 0.5)
    settings = ds.Smoothing(sigma=0.5, num_estimation=1000)
    for certificate in ds.certify(model, images, settings, labels=labels, out="two.jsonl"):
        print(certificate.prediction, certificate.radius)
    print(ds.verify("two.jsonl", model, ds.arrays(images, labels)).differences)

Importing the package starts nothing and imports nothing: certificates are verified where there is no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deqsmooth.certificates.jsonl import read as read
    from deqsmooth.certificates.plan import Plan as Plan
    from deqsmooth.certificates.record import Certificate as Certificate
    from deqsmooth.certificates.writing import Writer as Writer
    from deqsmooth.config import Attack as Attack
    from deqsmooth.config import Paired as Paired
    from deqsmooth.config import Planning as Planning
    from deqsmooth.config import Selection as Selection
    from deqsmooth.config import Smoothing as Smoothing
    from deqsmooth.config import StartTraining as StartTraining
    from deqsmooth.config import Training as Training
    from deqsmooth.config.architecture import ContractionModel as ContractionModel
    from deqsmooth.config.architecture import ConvModel as ConvModel
    from deqsmooth.config.architecture import MdeqModel as MdeqModel
    from deqsmooth.config.architecture import MonotoneModel as MonotoneModel
    from deqsmooth.config.architecture import ResnetModel as ResnetModel
    from deqsmooth.config.architecture import SubhomogeneousModel as SubhomogeneousModel
    from deqsmooth.data import Dataset as Dataset
    from deqsmooth.data import load as load_dataset  # noqa: F401
    from deqsmooth.data import of_arrays as arrays  # noqa: F401
    from deqsmooth.models import build as build
    from deqsmooth.models.checkpoints import load as load
    from deqsmooth.models.checkpoints import load_shipped as load_checkpoint  # noqa: F401
    from deqsmooth.models.checkpoints import save as save
    from deqsmooth.models.classifiers import Classifier as Classifier
    from deqsmooth.models.classifiers import classifier as classifier
    from deqsmooth.models.shipped import folder as shipped  # noqa: F401
    from deqsmooth.reports.report import report as report
    from deqsmooth.reports.summary import summary as summary
    from deqsmooth.smoothing.attacks import attack as attack
    from deqsmooth.smoothing.certification import certify as certify
    from deqsmooth.smoothing.certification import certify_dataset as certify_dataset
    from deqsmooth.smoothing.interval_bounds import certify_box as certify_box
    from deqsmooth.smoothing.planning import plan as plan
    from deqsmooth.smoothing.prediction import predict as predict
    from deqsmooth.smoothing.recertification import recertify as recertify
    from deqsmooth.smoothing.recertification import settings_after as paired  # noqa: F401
    from deqsmooth.smoothing.replay import verify as verify
    from deqsmooth.smoothing.without_noise import certify_without_noise as certify_without_noise
    from deqsmooth.training.fitting import train as train
    from deqsmooth.training.fitting import train_start as train_start
    from deqsmooth.types import Contraction as Contraction
    from deqsmooth.types import Explicit as Explicit
    from deqsmooth.types import Model as Model
    from deqsmooth.types import Solution as Solution
    from deqsmooth.types import Subhomogeneous as Subhomogeneous

_HOMES = {
    "Attack": "config.Attack",
    "Certificate": "certificates.record.Certificate",
    "Classifier": "models.classifiers.Classifier",
    "Contraction": "types.Contraction",
    "ContractionModel": "config.architecture.ContractionModel",
    "ConvModel": "config.architecture.ConvModel",
    "Dataset": "data.Dataset",
    "Explicit": "types.Explicit",
    "MdeqModel": "config.architecture.MdeqModel",
    "Model": "types.Model",
    "MonotoneModel": "config.architecture.MonotoneModel",
    "Paired": "config.Paired",
    "Plan": "certificates.plan.Plan",
    "Planning": "config.Planning",
    "ResnetModel": "config.architecture.ResnetModel",
    "Selection": "config.Selection",
    "Smoothing": "config.Smoothing",
    "Solution": "types.Solution",
    "StartTraining": "config.StartTraining",
    "Subhomogeneous": "types.Subhomogeneous",
    "SubhomogeneousModel": "config.architecture.SubhomogeneousModel",
    "Training": "config.Training",
    "Writer": "certificates.writing.Writer",
    "arrays": "data.of_arrays",
    "attack": "smoothing.attacks.attack",
    "build": "models.build",
    "certify": "smoothing.certification.certify",
    "certify_box": "smoothing.interval_bounds.certify_box",
    "certify_dataset": "smoothing.certification.certify_dataset",
    "certify_without_noise": "smoothing.without_noise.certify_without_noise",
    "classifier": "models.classifiers.classifier",
    "load": "models.checkpoints.load",
    "load_checkpoint": "models.checkpoints.load_shipped",
    "load_dataset": "data.load",
    "paired": "smoothing.recertification.settings_after",
    "plan": "smoothing.planning.plan",
    "predict": "smoothing.prediction.predict",
    "read": "certificates.jsonl.read",
    "recertify": "smoothing.recertification.recertify",
    "recommended": "smoothing.certification.recommended",
    "report": "reports.report.report",
    "save": "models.checkpoints.save",
    "shipped": "models.shipped.folder",
    "summary": "reports.summary.summary",
    "train": "training.fitting.train",
    "train_start": "training.fitting.train_start",
    "verify": "smoothing.replay.verify",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """A public name from its module, which is imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'deqsmooth' has no attribute {name!r}")
    home, attribute = _HOMES[name].rsplit(".", 1)
    return getattr(importlib.import_module(f"deqsmooth.{home}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
