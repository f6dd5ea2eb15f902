"""8. Does the gradient foretell the loss, and is it the same a hair's breadth away?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diascope.attacks.losses import margin
from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question
from diascope.audit.masking.slopes import cosine, difference, in_double, slope, unit
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome
from diascope.randomness import Noise

STEP = {torch.float64: 1e-7, torch.float32: 1e-3}  # root mean square of a pixel's change
ASIDE = {torch.float64: 1e-4, torch.float32: 2e-3}  # how far from the image, likewise
ERROR, SHARE = 0.1, 0.25  # an image disagrees beyond the one; the check fails beyond the other
GREY = 0.5 / 255  # the noise: half a grey level, which nobody sees
COSINE = 0.2

ASKED = Question(
    8,
    "agreement",
    "Do gradients agree with finite differences, and with themselves under small noise?",
    "The gradient is not the slope of the model, or it is that of ripples finer than a grey level: "
    "following it leads nowhere, though the model may be easy to break.",
    "Attack with gradients averaged over noise, or without gradients; look for custom backward "
    "passes, rounding, and layers of high frequency.",
)


@MASKING.register("agreement")
def agreement(stand: Stand) -> MaskingOutcome:
    """Compare gradients of the margin with central differences, and with those beside the image.

    On at most 16 images: along the gradient and along a random direction, in float64 where the
    model can be copied so, at a point a hair's breadth from the image, since on plain black a
    max-pooling has many equal inputs, where an honest net has a kink and no slope; then the median
    cosine of the angle to the gradient at a point half a grey level away.
    """
    if stand.too_few:
        return ASKED.undecided(stand.too_few)
    rows = stand.few
    x, y = stand.x[rows], stand.y[rows]
    double = in_double(stand.target, x)
    near = _aside(x if double is None else x.double(), stand, rows)
    parts = zip(*(torch.split(t, stand.batch_size) for t in (near, y, rows)), strict=True)
    error = torch.cat([_error(double or stand.target, x, y, stand, r) for x, y, r in parts])
    off = float((error > ERROR).double().mean())
    here = slope(stand.target, x, y, margin, stand.batch_size).gradient.nan_to_num(0, 0, 0)
    source = Noise.of(x, stand.generator("agreement"), stand.ids[rows])
    beside = (x + GREY * source.normal(x.shape[1:], 7)).clamp(0, 1)
    there = slope(stand.target, beside, y, margin, stand.batch_size).gradient.nan_to_num(0, 0, 0)
    same = float(cosine(here, there).median())
    kind = "float64" if double is not None else "float32"
    evidence = (
        f"of {len(rows)} images the difference of the margin ({kind}) departs by over {ERROR:.0%} "
        f"from what the gradient foretells for {off:.0%} (median {float(error.median()):.1%}); the "
        f"cosine between the gradients of an image and of one half a grey level away is {same:.2f}"
    )
    return ASKED.decided(
        off <= SHARE and same >= COSINE,
        evidence,
        disagree=off,
        median_error=float(error.median()),
        cosine=same,
    )


def _aside(x: Tensor, stand: Stand, rows: Tensor) -> Tensor:
    """Return images beside x, moved by noise into the range of pixels."""
    source = Noise.of(x, stand.generator("aside"), stand.ids[rows])
    noise = source.normal(x.shape[1:], 5).to(x.dtype).abs() * ASIDE[x.dtype]
    return torch.where(x < 0.5, x + noise, x - noise)


def _error(model: nn.Module, x: Tensor, y: Tensor, stand: Stand, rows: Tensor) -> Tensor:
    """Return the larger relative error of two directional derivatives of each image, (B,).

    Along a random direction the derivative may be near zero by chance; there the error is
    relative to what is typical of a random direction, the length of the gradient over sqrt(D).
    """
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(stand.seed)
        gradient = slope(model, x, y, margin, len(x)).gradient
    gradient = gradient.nan_to_num(nan=0, posinf=0, neginf=0)
    size = x[0].numel() ** 0.5
    length = STEP[x.dtype] * size
    source = Noise.of(x, stand.generator("directions"), stand.ids[rows])
    blind = unit(source.normal(x.shape[1:], 3).to(x.dtype))
    worst = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    typical = gradient.flatten(1).norm(dim=1).double() * length / size
    for direction in (unit(gradient), blind):
        foretold = (gradient * direction).flatten(1).sum(1).double() * length
        found = difference(model, x, y, margin, length * direction, stand.seed).double()
        scale = torch.stack([foretold.abs(), found.abs(), typical]).amax(0)
        off = (found - foretold).abs() / scale.clamp_min(1e-300)
        worst = torch.maximum(worst, off.nan_to_num(nan=1.0))
    return worst
