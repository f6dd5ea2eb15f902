"""13. Does the attack keep to its ball, and to itself, and does it break what must break?"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from diascope.attacks import Attack
from diascope.attacks.trial import trial
from diascope.audit.masking import MASKING
from diascope.audit.masking.control import Control
from diascope.audit.masking.question import FEWEST, Question
from diascope.audit.masking.stand import Stand, quiet
from diascope.audit.parts import MaskingOutcome
from diascope.models.heads import is_correct

SLACK = 1e-4  # relative, of eps: what float32 may add to the length of a perturbation
SAME = 1e-3  # of the spread of the logits: what the batch may change of an image's
APART = 0.25  # of the length of a perturbation: what the batch may move its end
EASY = 2.0  # times the eps that breaks the hardest image of the control
BROKEN = 0.9

ASKED = Question(
    13,
    "contract",
    "Do eps and bounds hold, is eps 0 clean, do results not depend on the batch, and does the "
    "attack break an undefended control?",
    "The attack or its set-up does not do what its name says, so that the figure is that of "
    "another threat, or of chance.",
    "Mend the attack: project onto the ball of the original image, clip to [0, 1], sum the loss "
    "over the batch, let noise belong to the image, put the model into eval mode.",
)


@dataclass(frozen=True)
class Part:
    """One of the promises: kept or not, None where it could not be looked at."""

    kept: bool | None
    told: str
    number: tuple[str, float]


@MASKING.register("contract")
def contract(stand: Stand) -> MaskingOutcome:
    """Look at each promise; the check fails where one is broken."""
    if stand.why_not or stand.eps == 0:
        return ASKED.undecided(stand.why_not or "the reference epsilon is 0")
    parts = [bounds(stand), grey(stand), zero(stand), batches(stand), points(stand), control(stand)]
    broken = [part for part in parts if part.kept is False]
    evidence = "; ".join(part.told for part in (broken or parts))
    numbers = dict(part.number for part in parts)
    return ASKED.decided(not broken, evidence, known=numbers)


def bounds(stand: Stand) -> Part:
    """Look whether the points of the attack lie in ball and bounds."""
    found, x = stand.reference.points, stand.x[stand.rows]
    size = float(stand.threat(stand.eps).size((found - x).double()).nan_to_num(torch.inf).max())
    low, high = torch.aminmax(found.nan_to_num(torch.inf))
    inside = size <= stand.eps * (1 + SLACK) + 1e-6 and low >= 0 and high <= 1
    told = f"perturbations reach {size:.4g} of eps {stand.eps:.4g}"
    return Part(
        bool(inside), f"{told}, pixels {float(low):.3g} to {float(high):.3g}", ("size", size)
    )


def grey(stand: Stand) -> Part:
    """Look whether the points still lie in the ball at 8 bits; say how many still break."""
    found, x, threat = stand.reference.points, stand.x[stand.rows], stand.threat(stand.eps)
    try:
        rounded = threat.round(found.clamp(0, 1), x)
    except ValueError:
        return Part(None, "the images are not at 8 bits", ("broken_at_8_bits", float("nan")))
    hit = stand.reference.broken
    still = int(stand.broken(rounded[hit], stand.rows[hit]).sum()) if bool(hit.any()) else 0
    size = float(threat.size((rounded - x).double()).max())
    kept = bool(found.isfinite().all()) and size <= stand.eps * (1 + SLACK) + 1e-6
    told = f"rounded towards the image to 8 bits, {still} of {int(hit.sum())} broken images stay so"
    return Part(kept, f"{told}, {size:.4g} away at most", ("broken_at_8_bits", still))


def zero(stand: Stand) -> Part:
    """Look whether the attack changes nothing at eps 0."""
    rows = stand.few[:FEWEST]
    try:
        run = stand.run(stand.main, 0.0, rows)
    except ValueError:
        return Part(None, "the attack takes no eps of 0", ("broken_at_0", float("nan")))
    moved = float((run.points - stand.x[rows]).abs().max())
    count = int(run.broken.sum())
    told = f"at eps 0 {count} of {len(rows)} correct images are broken, moved by {moved:.2g}"
    return Part(count == 0 and moved < 1e-6, told, ("broken_at_0", count))


def batches(stand: Stand) -> Part:
    """Look whether the model's logits of an image depend on the others of its batch."""
    rows = stand.few
    alone = torch.cat([stand.ask(stand.x[row : row + 1]) for row in rows.tolist()])
    together = stand.logits[rows]
    apart = float((together - alone).abs().nan_to_num(0, 0, 0).max()) / stand.spread
    told = f"alone and in a batch the logits of an image differ by {apart:.2g} of their spread"
    if stand.random:
        return Part(
            None, "the logits are random, so that batches cannot be compared", ("batch", apart)
        )
    return Part(apart <= SAME, told, ("batch", apart))


def points(stand: Stand) -> Part:
    """Look whether the attack moves an image elsewhere when the batch is another.

    A few steps only, for the rounding of kernels differs with the batch and grows with each.
    """
    if stand.random:
        return Part(None, "the model is random: ends cannot be compared", ("apart", float("nan")))
    rows, names = stand.few, {f.name for f in fields(stand.main)}  # type: ignore[arg-type]
    attack: Attack = stand.main
    few = {"steps": 2, "queries": 20, "precision": "float32"}
    attack = stand.change(attack, **{k: v for k, v in few.items() if k in names})
    large = min(len(rows), stand.batch_size)
    small = min(3, max(1, large - 1))
    whole = _moved(stand, attack, rows, large)
    turned = torch.arange(len(rows) - 1, -1, -1, device=rows.device)
    parted = _moved(stand, attack, rows[turned], small)[turned]
    length = torch.maximum(whole.flatten(1).norm(dim=1), parted.flatten(1).norm(dim=1))
    apart = (whole - parted).flatten(1).norm(dim=1) / length.clamp_min(1e-12)
    middle = float(apart.median())
    told = f"in batches of {large} and of {small} the attack ends {middle:.2g} of its way apart"
    return Part(middle <= APART, told, ("apart", middle))


def _moved(stand: Stand, attack: Attack, rows: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Return the perturbations (n, C, H, W)."""
    return stand.run(attack, stand.eps, rows, batch_size=batch_size).points - stand.x[rows]


def control(stand: Stand) -> Part:
    """Look whether the attack breaks a linear model that is known to break.

    At twice the eps that breaks its hardest image, by what is known of linear models.
    """
    if len(set(stand.y.tolist())) < 2:
        return Part(None, "the images are of one class: no control", ("control", float("nan")))
    model = Control.fit(stand.x, stand.y).to(stand.x.device)
    with torch.no_grad():
        rows = is_correct(model(stand.x), stand.y).nonzero()[:, 0]
    if len(rows) < 2:
        return Part(None, "the control classifies nothing correctly", ("control", float("nan")))
    x, y, ids = stand.x[rows], stand.y[rows], stand.ids[rows]
    eps = EASY * float(model.least(x, y, stand.norm).max())
    seeded = stand.generator("attack")
    with (
        quiet(),
        trial(model, x, stand.main, batch_size=stand.batch_size, generator=seeded) as attempts,
    ):
        share = float(attempts.attempt(x, y, ids, eps).broken.double().mean())
    told = f"of an undefended linear control it breaks {share:.0%} at eps {eps:.3g}"
    return Part(share >= BROKEN, told, ("control", share))
