"""Which scaling of the pixels a model expects: told by its accuracy under a few of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.models.inputs import Head, Scaling
from diascope.models.probing.asking import Asker

LEAST = 8  # labelled images without which nothing is concluded
_Z = 2.5  # standard errors of a paired difference that make one clear
_IMAGENET = {
    3: Scaling(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    1: Scaling(mean=(0.449,), std=(0.226,)),
}


@dataclass(frozen=True)
class Known:
    """What is known before images are asked about.

    declared: the scaling that the user, the file or the model's library names; None for none.
    inside: the modules that normalise inside. own: scalings that its configuration names.
    settled: whether its kind says what it takes (pixels in [0, 1], as timm's here).
    """

    declared: Scaling | None
    inside: Sequence[str]
    own: Sequence[Scaling]
    settled: bool


def choose_scaling(
    asker: Asker, x: Tensor, y: Tensor | None, known: Known, classes: int, head: Head
) -> Scaling:
    """Return the scaling to feed the model, and say what was found of it.

    x: images (N, C, H, W) in [0, 1]; y: their classes (N,), None where they are not known. What
    is declared is kept, and doubted aloud where another scaling is clearly more accurate; what
    nobody declared is taken from the images, if they tell.
    """
    chosen = known.declared or Scaling()
    if known.inside:
        asker.statements.append(f"normalises inside ({', '.join(known.inside)})")
    _say_twice(asker, chosen, known)
    open_question = known.declared is None and not known.inside and not known.settled
    if y is None or len(y) < LEAST or classes < 2:
        if open_question:
            _say_guess(asker, x, known, head, real=y is not None or len(x) > LEAST)
        return chosen
    undone = _undone(x.shape[1])
    tried = [*_candidates(x.shape[1], known), *([undone] if not chosen.normalises else [])]
    scores = {s: _right(asker, x, y, s, head) for s in dict.fromkeys([chosen, *tried])}
    best = _best(scores, chosen)
    said = f"on {len(y)} labelled images it is right on {_count(scores[chosen])} when fed {chosen}"
    if best == chosen:
        usual = {s: score for s, score in scores.items() if s != undone}
        _say_kept(asker, said, usual, chosen, classes, open_question)
        return chosen
    said += f", and on {_count(scores[best])} when fed {best}"
    if best == undone or (chosen.normalises and not best.normalises):
        asker.problems.append(("twice", f"{said}: it seems to normalise twice"))
        return chosen
    if known.declared is not None or known.settled:
        told = f"{said}: what is declared seems not to be what it was trained on"
        asker.problems.append(("other-input", told))
        return chosen
    asker.statements.append(
        f"{said}: so it is fed the latter, unless input.range or input.mean say otherwise"
    )
    as_good = [s for s in tried if s not in (best, undone) and _as_right(scores[s], scores[best])]
    if as_good:
        told = f"fed {as_good[0]} it is as often right as fed {best}"
        asker.problems.append(("guessed-input", f"{told}: which of them it expects is a guess"))
    return best


def _as_right(one: tuple[Tensor, float], other: tuple[Tensor, float]) -> bool:
    return int(one[0].sum()) >= int(other[0].sum()) - 1


def _candidates(channels: int, known: Known) -> list[Scaling]:
    """Return the scalings that models are usually trained with."""
    found = [Scaling(), Scaling(low=-1.0), Scaling(high=255.0)]
    if not known.inside and not known.settled:
        found.append(_IMAGENET[channels])
        found += [s for s in known.own if len(s.mean) in (1, channels)]
    return found


def _undone(channels: int) -> Scaling:
    """Return x std + mean, which undoes one normalisation of two."""
    mean, std = _IMAGENET[channels].mean, _IMAGENET[channels].std
    back = tuple(-m / s for m, s in zip(mean, std, strict=True))
    return Scaling(mean=back, std=tuple(1 / s for s in std))


def _right(
    asker: Asker, x: Tensor, y: Tensor, scaling: Scaling, head: Head
) -> tuple[Tensor, float]:
    """Return which images are classified rightly (N,), and the mean loss; inf where it fails."""
    out = asker.logits(x, scaling, head)
    if out is None:
        return torch.zeros(len(y), dtype=torch.bool), math.inf
    loss = F.cross_entropy(out, y).item()
    right = (out.argmax(1) == y) & out.isfinite().all(1)
    return right, loss if math.isfinite(loss) else math.inf


def _best(scores: dict[Scaling, tuple[Tensor, float]], chosen: Scaling) -> Scaling:
    """Return the most accurate scaling, if it clearly beats the chosen one on the same images."""
    best = max(scores, key=lambda s: (scores[s][0].sum().item(), -scores[s][1]))
    gained = int((scores[best][0] & ~scores[chosen][0]).sum())
    lost = int((~scores[best][0] & scores[chosen][0]).sum())
    clear = gained - lost >= 4 and gained - lost >= _Z * math.sqrt(gained + lost)
    return best if clear else chosen


def _say_kept(
    asker: Asker,
    said: str,
    scores: dict[Scaling, tuple[Tensor, float]],
    chosen: Scaling,
    classes: int,
    open_question: bool,
) -> None:
    """Say that the scaling was kept: a guess where it is at chance, or another seems better.

    One seems better that is right on more images at a lower loss, if not clearly.
    """
    right, loss = scores[chosen]
    chance, accuracy, count = 1 / classes, right.double().mean().item(), int(right.sum())
    better = [s for s, (r, lost) in scores.items() if int(r.sum()) > count and lost < loss]
    if open_question and accuracy < chance + 2 * math.sqrt(chance * (1 - chance) / len(right)):
        told = f"{said}, which is chance, and no other scaling does better"
        asker.problems.append(("guessed-input", f"{told}: what it expects is a guess"))
    elif open_question and better:
        likeliest = max(better, key=lambda s: (int(scores[s][0].sum()), -scores[s][1]))
        told = f"{said}, and on {_count(scores[likeliest])} when fed {likeliest}, at a lower loss"
        told += ", which is too little to choose by: what it expects is a guess"
        asker.problems.append(("guessed-input", told))
    else:
        asker.statements.append(f"{said}; none of the other usual scalings does clearly better")


def _say_twice(asker: Asker, chosen: Scaling, known: Known) -> None:
    names = ", ".join(known.inside)
    if chosen.normalises and known.inside:
        told = f"normalises inside ({names}), and a mean and std are declared too"
        asker.problems.append(("twice", f"{told}: it normalises twice"))
    elif len(known.inside) > 1:
        asker.problems.append(("twice", f"normalises twice inside ({names})"))


def _say_guess(asker: Asker, x: Tensor, known: Known, head: Head, real: bool) -> None:
    """Say that the input is a guess, and of real images how confident each scaling makes it."""
    told = "nothing declares the input it expects, and no labelled images tell"
    shares = []
    for scaling in dict.fromkeys(_candidates(x.shape[1], known)) if real else ():
        out = asker.logits(x, scaling, head)
        if out is not None and out.isfinite().all():
            shares.append(f"{out.softmax(1).amax(1).mean():.2f} when fed {scaling}")
    told += f" (its mean confidence is {'; '.join(shares)})" if shares else ""
    told += (
        ": that it takes pixels in [0, 1] is a guess; give input.range, or input.mean and input.std"
    )
    asker.problems.append(("guessed-input", told))


def _count(score: tuple[Tensor, float]) -> str:
    return f"{int(score[0].sum())}"
