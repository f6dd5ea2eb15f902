"""The epsilon of training as a function of the step."""

from __future__ import annotations

import random
from dataclasses import replace

from diascope.attacks.base import at_eps
from diascope.errors import UserError
from diascope.objectives import Objective
from diascope.randomness import derive
from diascope.training.options import EpsilonConfig


def at_step(
    objective: Objective, config: EpsilonConfig, epoch: int, step: int, steps: int, seed: int
) -> Objective:
    """Return the objective with the epsilon of `step` of `steps` in `epoch` (both from 0).

    fixed: the attack's own. linear: from `start` times the attack's own at the first step of all
    to the whole of it after `epochs`. uniform: drawn from [low, high] for the batch (P3), by
    (seed, epoch, step).
    """
    if config.name == "fixed" or objective.attack is None:
        return objective
    if config.name == "uniform":
        low, high = config.low or 0.0, config.high or 0.0
        eps = random.Random(derive(seed, "eps", epoch, step)).uniform(low, high)
    else:
        own, start = objective.attack.eps, config.start or 0.0
        assert isinstance(own, float | int)
        share = min(1.0, (epoch * steps + step) / ((config.epochs or 1) * steps))
        eps = own * (start + (1 - start) * share)
    return replace(objective, attack=at_eps(objective.attack, eps))  # type: ignore[type-var]


def check_epsilon(config: EpsilonConfig, objective: Objective) -> None:
    """Raise `UserError` where the objective has no epsilon that could follow the settings."""
    if config.name == "fixed":
        return
    if objective.attack is None or not isinstance(objective.attack.eps, float | int):
        raise UserError(
            f"training.epsilon.name = '{config.name}': the objective has no attack with one "
            "epsilon; use fixed"
        )
