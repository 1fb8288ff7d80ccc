"""Where a solve begins: functions from the injection to the first state.

A start that depends on nothing but the noisy input makes the solve a function of that input, which
standard certification covers. A state taken from another sample does not, and calls for the audit.
"""

from __future__ import annotations

from deqsmooth import equilibrium, types


def zero(model: types.Model) -> equilibrium.Start:
    """The zero state."""
    return model.initial_state


def state(z: types.State) -> equilibrium.Start:
    """A state that was found before, lane by lane."""
    return lambda u: z
