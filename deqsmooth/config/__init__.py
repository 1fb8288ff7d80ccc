"""Every setting of the project, as frozen dataclasses that check themselves.

A setting that is out of range raises `ValueError` with the value and the rule, before any work.
"""

from deqsmooth.config.attack import Attack
from deqsmooth.config.paired import Paired
from deqsmooth.config.planning import Planning
from deqsmooth.config.resolved import Independent, Resolved, Serial
from deqsmooth.config.selection import DATASETS, Selection
from deqsmooth.config.smoothing import SAMPLERS, Smoothing
from deqsmooth.config.solve import DTYPES, INDEPENDENT_STARTS, SERIAL_STARTS, SOLVERS
from deqsmooth.config.training import GRADIENTS, LOSSES, OPTIMISERS, Descent, StartTraining, Training

__all__ = [
    "DATASETS",
    "DTYPES",
    "GRADIENTS",
    "INDEPENDENT_STARTS",
    "LOSSES",
    "OPTIMISERS",
    "SAMPLERS",
    "SERIAL_STARTS",
    "SOLVERS",
    "Attack",
    "Descent",
    "Independent",
    "Paired",
    "Planning",
    "Resolved",
    "Selection",
    "Serial",
    "Smoothing",
    "StartTraining",
    "Training",
]
