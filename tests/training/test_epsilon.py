from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import ValidationError
from tests.training.toy import toy_net, toy_pixels

from diascope.attacks import FGSM
from diascope.errors import UserError
from diascope.objectives import Adversarial, Standard
from diascope.training import TrainingConfig, fit
from diascope.training.epsilon import at_step
from diascope.training.options import EpsilonConfig

OBJECTIVE = Adversarial(attack=FGSM(eps=0.2))


def eps(settings: dict[str, Any], epoch: int, step: int, seed: int = 0) -> float:
    found = at_step(OBJECTIVE, EpsilonConfig.model_validate(settings), epoch, step, 10, seed)
    assert found.attack is not None
    assert isinstance(found.attack.eps, float)
    return found.attack.eps


def test_uniform_is_drawn_anew_for_each_batch_within_its_bounds() -> None:
    settings = {"name": "uniform", "low": 0.01, "high": 0.05}
    draws = [eps(settings, epoch, step) for epoch in range(20) for step in range(10)]
    assert min(draws) >= 0.01
    assert max(draws) <= 0.05
    assert len(set(draws)) == 200
    assert abs(sum(draws) / 200 - 0.03) < 4 * 0.04 / 12**0.5 / 200**0.5
    assert draws == [eps(settings, epoch, step) for epoch in range(20) for step in range(10)]
    assert eps(settings, 0, 0, seed=1) != draws[0]


def test_linear_rises_to_the_attacks_own() -> None:
    settings = {"name": "linear", "epochs": 2, "start": 0.5}
    assert [eps(settings, e, s) for e, s in ((0, 0), (1, 0), (2, 0), (7, 3))] == pytest.approx(
        [0.1, 0.15, 0.2, 0.2]
    )


def test_fixed_leaves_the_objective_as_it_is() -> None:
    assert at_step(OBJECTIVE, EpsilonConfig(), 3, 1, 10, 0) is OBJECTIVE


def test_mistakes_are_told() -> None:
    with pytest.raises(ValidationError, match="needs low and high"):
        EpsilonConfig(name="uniform")
    with pytest.raises(ValidationError, match="above"):
        EpsilonConfig(name="uniform", low=0.2, high=0.1)
    config = TrainingConfig.model_validate({"epsilon": {"name": "linear"}})
    with pytest.raises(UserError, match=r"training\.epsilon\.name = 'linear'"):
        fit(toy_net(), Standard(), toy_pixels(), toy_pixels(9, seed=1), config)


@dataclass(frozen=True, kw_only=True)
class Witness(FGSM):
    """Files every epsilon it is called with."""

    seen: tuple[list[float], ...] = ([],)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.seen[0].append(float(self.eps))
        return super().__call__(*args, **options)


def test_training_uses_the_drawn_epsilon_and_validation_the_attacks_own() -> None:
    seen: list[float] = []
    objective = replace(OBJECTIVE, attack=Witness(eps=0.2, seen=(seen,)))
    config = TrainingConfig.model_validate(
        {
            "epochs": 1,
            "batch_size": 12,
            "epsilon": {"name": "uniform", "low": 0.01, "high": 0.05},
            "device": "cpu",
        }
    )
    fit(toy_net(), objective, toy_pixels(), toy_pixels(15, seed=1), config)
    drawn = {e for e in seen if e != 0.2}
    assert len(drawn) == 4
    assert all(0.01 <= e <= 0.05 for e in drawn)
    assert 0.2 in seen
