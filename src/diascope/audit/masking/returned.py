"""11. Is every image that the attack broke on its way given back broken?"""

from __future__ import annotations

from dataclasses import fields

import torch

from diascope.attacks import at_eps
from diascope.attacks.trial import trial
from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question, images
from diascope.audit.masking.stand import Stand, quiet
from diascope.audit.masking.watched import Notes, Watched
from diascope.audit.parts import MaskingOutcome

ASKED = Question(
    11,
    "returned",
    "Is a broken image that the attack met on its way returned, and not lost?",
    "The attack had the image broken and walked on: the figure counts it as robust, though the "
    "proof of the contrary was in hand.",
    "Let the attack stop at the first misclassified point, or keep the best one of its way.",
    "medium",
)


@MASKING.register("returned")
def returned(stand: Stand) -> MaskingOutcome:
    """Run the main attack and note every point of the ball that it asks about.

    On at most 16 images; where it breaks none of them at the reference epsilon, at the largest.
    An image is met broken if one of the first three such points breaks it by
    the verdict of the model itself; it is lost if what the attack returned does not.
    """
    if stand.why_not or stand.eps == 0:
        return ASKED.undecided(stand.why_not or "the reference epsilon is 0")
    if stand.random:
        return ASKED.undecided("the model is random: what broke once need not break again")
    rows, attack = stand.few, stand.main
    eps = stand.eps if bool(stand.reference.broken[: len(rows)].any()) else stand.epsilons[-1]
    if "precision" in {f.name for f in fields(attack)}:  # type: ignore[arg-type]
        attack = stand.change(attack, precision="float32")
    x, y = stand.x[rows], stand.y[rows]
    notes = Notes(x, y, stand.threat(eps), eps * (1 + 1e-5) + 1e-6)
    model = Watched(stand.target, notes)
    with (
        quiet(),
        trial(
            model, x, attack, batch_size=stand.batch_size, generator=stand.generator("attack")
        ) as attempts,
    ):
        call = at_eps(attempts.attack, eps)
        parts = (torch.split(t, stand.batch_size) for t in (x, y, stand.ids[rows]))
        points = torch.cat(
            [
                call(attempts.net, xs, ys, generator=attempts.seeded(), ids=ids)
                for xs, ys, ids in zip(*parts, strict=True)
            ]
        )
    kept = stand.broken(points, rows)
    met = torch.zeros_like(kept)
    for place, found in enumerate(notes.points):
        if found:
            here = rows[place].repeat(len(found))
            met[place] = bool(stand.broken(torch.stack(found), here).any())
    lost = int((met & ~kept).sum())
    evidence = (
        f"at eps {eps:.3g} the attack met a point that breaks the image for {int(met.sum())} "
        f"of {images(len(rows))}, and returned one for {int(kept.sum())}; {lost} were lost"
    )
    if not bool(met.any()):
        return ASKED.undecided(f"the attack met no broken image among {len(rows)}", lost=0)
    return ASKED.decided(lost == 0, evidence, met=int(met.sum()), lost=lost)
