"""The fourteen checks that tell an honest robustness figure from a masked gradient.

One file a check: a function from a `Stand` (one model, some images, and the attacks run on them)
to a `MaskingOutcome`. They look at runs that are independent of one another: no point and no
verdict is carried from one epsilon or attack to another, as `robustness_curve` does by design.
Sources: Athalye et al. 2018 (section 3.1), Carlini et al. 2019 ("On evaluating adversarial
robustness"), Pintor et al. 2022 (indicators of attack failure), Croce et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diascope.audit.parts import MaskingOutcome
from diascope.registry import Registry

if TYPE_CHECKING:
    from diascope.audit.masking.stand import Stand

MaskingCheck = Callable[["Stand"], MaskingOutcome]

MASKING = Registry("check on masking", __name__)


def run_masking(stand: Stand) -> list[MaskingOutcome]:
    """Return the outcome of every check, in the order of their numbers."""
    return sorted((MASKING[name](stand) for name in MASKING), key=lambda found: found.number)
