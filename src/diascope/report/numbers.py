"""Numbers as readers see them: `0.713 [0.68, 0.74]`, a true minus sign, a dash for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from diascope.audit.parts import Bounds

DASH = "—"
MINUS = "−"


def defined(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def has_limits(bounds: Bounds | None) -> bool:
    """Tell whether value and both limits are finite."""
    return bounds is not None and all(defined(v) for v in bounds)


def excludes_zero(bounds: Bounds | None) -> bool:
    """Tell whether zero lies outside the interval; an undefined interval excludes nothing."""
    return bounds is not None and has_limits(bounds) and (bounds[1] > 0 or bounds[2] < 0)


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """Return a number with fixed digits, a dash where it is not finite."""
    if not defined(value):
        return DASH
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return (text.lstrip("+-") if not float(text) else text).replace("-", MINUS)


def value_of(bounds: Bounds | None, signed: bool = False) -> str:
    """Return the value alone, three digits."""
    return number(bounds[0] if bounds else None, 3, signed)


def interval(bounds: Bounds | None, signed: bool = False) -> str:
    """Return the limits alone, `[0.68, 0.74]`; empty where either is undefined.

    Two digits; three where a limit within 0.005 of zero would be shown as zero (four within
    0.0005), and for both where two would leave the value, of three digits, outside.
    """
    if bounds is None or not has_limits(bounds):
        return ""
    value, low, high = (round(bounds[0], 3), round(bounds[1], 2), round(bounds[2], 2))
    digits = 2 if low <= value <= high else 3
    told = (number(v, _digits(v, digits), signed) for v in bounds[1:])
    return f"[{', '.join(told)}]"


def _digits(limit: float, digits: int) -> int:
    if limit == 0 or abs(limit) >= 0.005:
        return digits
    return 3 if abs(limit) >= 0.0005 else 4


def ranged(bounds: Bounds | None, signed: bool = False) -> str:
    """Return value and interval, `0.713 [0.68, 0.74]`."""
    return f"{value_of(bounds, signed)} {interval(bounds, signed)}".strip()


def eps_text(eps: float, norm: str) -> str:
    """Return an epsilon; one of few half grey levels in the L-inf norm is written so."""
    if not defined(eps):
        return DASH
    steps = eps * 255
    if norm == "linf" and 0 < steps <= 16 and abs(2 * steps - round(2 * steps)) < 1e-6:
        return f"{round(steps, 1):g}/255"
    return f"{eps:.3g}"


def norm_text(norm: str) -> str:
    """Return the norm as it is written."""
    return {"linf": "L∞", "l2": "L2"}.get(norm, norm)


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return `a, b and c`."""
    return (
        f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
    )


def duration(seconds: float) -> str:
    """Return seconds as `4 min 10 s`."""
    if not defined(seconds):
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "under 1 s"
