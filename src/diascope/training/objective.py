"""From the settings of an objective to the objective, with the shorthand for its epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import NonNegativeFloat, PositiveInt

from diascope.attacks import scale_eps
from diascope.errors import UserError
from diascope.objectives import Objective, objectives
from diascope.registry import to_settings
from diascope.settings import Settings, validate

SHORTHAND = ("eps", "eps_reference", "eps_rule")


class EpsGiven(Settings):
    """An epsilon given for images of `eps_reference` pixels a side (null: for the size at hand).

    `eps_rule` is how it follows the size: see `diascope.attacks.scale_eps`.
    """

    eps: NonNegativeFloat
    eps_reference: PositiveInt | None = None
    eps_rule: Literal["pixels", "root", "none"] = "pixels"

    def at(self, size: int) -> float:
        """Return the epsilon for images of `size` x `size`, in pixel units."""
        if self.eps_reference is None:
            return self.eps
        return scale_eps(self.eps, size, self.eps_reference, self.eps_rule)


def build_objective(
    settings: Mapping[str, Any] | str,
    given: Mapping[str, Any] | None,
    size: int,
    where: str = "objective",
) -> Objective:
    """Return the objective that `settings` describe, for images of `size` x `size`."""
    spelled, _ = resolved_objective(settings, given, size, where)
    return cast(Objective, objectives.build(spelled, where))


def resolved_objective(
    settings: Mapping[str, Any] | str,
    given: Mapping[str, Any] | None,
    size: int,
    where: str = "objective",
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the settings with every field spelled out, and the shorthand they came from.

    The shorthand `eps`, `eps_reference`, `eps_rule` beside `attack` gives `attack.eps`, scaled to
    `size`. Settings resolved before come back as they are, with `given` their shorthand, which a
    shorthand beside them changes. Raises `UserError` for `eps` and `attack.eps` together, and
    where `given` no longer agrees with `attack.eps`, since the size was changed.
    """
    spelled: dict[str, Any] = {"name": settings} if isinstance(settings, str) else dict(settings)
    short = {key: spelled.pop(key) for key in SHORTHAND if key in spelled}
    if not short:
        spelled = to_settings(objectives.build(spelled, where))
        if given is None or spelled.get("attack") is None:
            return spelled, None
        _agrees(spelled, given, size, where)
        return spelled, dict(given)
    shorthand = validate(EpsGiven, {**(given or {}), **short}, where)
    attack = _attack_of(spelled, where)
    if "eps" in attack and given is None:
        raise UserError(f"{where}: 'eps' and 'attack.eps' are both given; keep one of them")
    spelled["attack"] = {**attack, "eps": shorthand.at(size)}
    return to_settings(objectives.build(spelled, where)), shorthand.model_dump()


def _attack_of(spelled: dict[str, Any], where: str) -> dict[str, Any]:
    attack = spelled.get("attack")
    if isinstance(attack, str):
        return {"name": attack}
    if isinstance(attack, Mapping):
        return dict(attack)
    name = spelled.get("name", "")
    raise UserError(f"{where}: 'eps' needs an attack; objective '{name}' is given none")


def _agrees(spelled: dict[str, Any], given: Mapping[str, Any], size: int, where: str) -> None:
    expected = validate(EpsGiven, given, f"{where}_eps_given").at(size)
    eps = spelled["attack"].get("eps")
    if eps != expected:
        raise UserError(
            f"{where}: attack.eps = {eps} is not what objective_eps_given says for size {size}, "
            f"{expected}; remove objective_eps_given, or give objective.eps anew"
        )
