"""What a model takes and returns, found by asking it: sizes, scalings of the input, outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.models.black_box import BlackBox
from diascope.models.inputs import Adapter, InputSettings, Scaling
from diascope.models.modes import evaluating
from diascope.models.opening import Opened
from diascope.models.probing.answers import (
    Outputs,
    check_outputs,
    gives_gradient,
    head_of,
    labels_apart,
    say_saturation,
)
from diascope.models.probing.asking import Asker, Failed, Problem, Sample
from diascope.models.probing.scalings import LEAST, Known, choose_scaling
from diascope.models.probing.structure import Hints, hints_of, normalisers

__all__ = ["MOST", "SIZES", "Found", "Problem", "Sample", "probe"]

SIZES = (224, 256, 299, 512, 384, 128, 64, 32, 28)
MOST, FEW = 128, 48  # images asked about, of a small model and of a large one
_SMALL = 30e6 * 224**2  # parameters times pixels, up to which a model is small


@dataclass(frozen=True)
class Found:
    """What the probe found.

    model: the classifier of images in [0, 1]. declared: whether the input was declared, or is
    known of its kind, and not found by trying. statements: a sentence each. problems: what makes
    the numbers doubtful, each by its kind.
    """

    model: nn.Module
    gradients: bool
    outputs: Outputs
    channels: int
    size: int
    input: str
    declared: bool
    classes: tuple[str, ...] = ()
    statements: list[str] = field(default_factory=list)
    problems: list[tuple[Problem, str]] = field(default_factory=list)


def probe(
    opened: Opened,
    where: str,
    *,
    classes: Sequence[str] = (),
    size: int | None = None,
    settings: InputSettings | None = None,
    sample: Sample | None = None,
) -> Found:
    """Ask an opened model about a few images, and return it as a classifier of [0, 1] images.

    classes: of its outputs, in their order; its own names where it has some. size: as declared.
    sample: real images with labels, from which the scaling of the input is found where none is
    declared; a function is given [0, 1] where nothing else is. Costs about 8 forward passes of 128
    images, of 48 for a large model or a black box. Raises
    `UserError`, one line that begins with `where`, for a model that fails, whose outputs do not
    fit the classes, or are never finite.
    """
    settings, hints = settings or InputSettings(), hints_of(opened.model)
    names = tuple(classes) or hints.classes
    asker = Asker(opened.model, where, settings.layout or opened.layout or "nchw")
    asker.statements += [*opened.statements, *hints.statements]
    if hints.classes and not classes:
        asker.statements.append(f"its configuration names its {len(names)} classes")
    if isinstance(asker.model, BlackBox):
        asker.model.classes, asker.model.outputs = list(names), settings.outputs
    declared = settings.scaling or hints.scaling
    if declared is None and opened.high is not None:
        declared = Scaling(high=opened.high)
    start = declared or Scaling()
    with evaluating(opened.model):
        channels, pixels = _shape(asker, opened, hints, settings, size, start)
        x, y = _images(asker, sample, channels, pixels)
        asker.alone(x[:1], start)
        raw = asker.outputs(x, start)
        if raw.ndim != 2 or not raw.is_floating_point():
            labels_apart(asker, raw, names, settings.outputs)
            raw = asker.outputs(x, start)
        check_outputs(asker, raw, names)
        wild = opened.kind != "callable"
        head, outputs = head_of(asker, x, raw, start, settings.outputs, wild)
        inside = normalisers(opened.model, asker.turned(start(x[:2])))
        settled = opened.kind in ("run", "timm", "callable")
        known = Known(declared, inside, hints.candidates, settled)
        y = None if opened.kind == "callable" else y  # what a function is given is agreed
        scaling = choose_scaling(asker, x, y, known, max(2, raw.shape[1]), head)
        gradients = gives_gradient(asker, x[:2], scaling)
        say_saturation(asker, x, scaling, head)
    if asker.wrapped:
        asker.statements.append(f"returns a {asker.wrapped}, of which the scores are taken")
    if asker.writes:
        asker.statements.append("changes the images that it is given: it is given copies")
    colour = "RGB" if channels == 3 else "grey"
    as_it_is = scaling.plain and head == "logits" and asker.layout == "nchw"
    as_it_is = as_it_is and not (asker.wrapped or asker.writes or asker.pairs)
    traits = {"copies": asker.writes, "pairs": asker.pairs}
    adapted = Adapter(asker.model, scaling, asker.layout, head, **traits)
    return Found(
        asker.model if as_it_is else adapted.eval(),
        gradients,
        outputs,
        channels,
        pixels,
        f"{colour} in {scaling}" + ("; normalises inside" if inside else ""),
        declared is not None or known.settled,
        names,
        asker.statements,
        asker.problems,
    )


def _shape(
    asker: Asker,
    opened: Opened,
    hints: Hints,
    settings: InputSettings,
    size: int | None,
    scaling: Scaling,
) -> tuple[int, int]:
    """Return channels and size: declared, told by the model, or the first that work."""
    channels = settings.channels or opened.channels or hints.channels
    size = size or settings.size or opened.size or hints.size
    reasons = []
    for c in (channels,) if channels else (3, 1):
        for s in (size,) if size else SIZES:
            shape = (2, c, s, s)
            try:
                asker.forward(torch.full(shape, 0.5), scaling)
            except Failed as error:
                reasons.append(f"fails on images of shape {shape}: {error}")
                continue
            if not channels:
                asker.statements.append(f"found by trying that it takes {c} channels")
            if not size:
                _say_size(asker, c, s, scaling)
            return c, s
    more = "" if size else f"; tried {', '.join(map(str, SIZES))} pixels a side: give --size"
    raise UserError(f"{asker.where}: {reasons[0]}{more}")


def _say_size(asker: Asker, channels: int, size: int, scaling: Scaling) -> None:
    """Say that a size was found by trying, or that it is a guess, where another works too."""
    other = size + 32
    try:
        asker.forward(torch.full((2, channels, other, other), 0.5), scaling)
    except Failed:
        asker.statements.append(f"found by trying that it takes {size} pixels a side")
        return
    told = (
        f"takes images of any size, and nothing says at which it was trained: {size} pixels is a "
        "guess; give --size"
    )
    asker.problems.append(("guessed-size", told))


def _images(
    asker: Asker, sample: Sample | None, channels: int, size: int
) -> tuple[Tensor, Tensor | None]:
    """Return images to ask about, and their labels: real ones, else smooth noise."""
    if sample is None or not len(sample.images):
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(LEAST, channels, 7, 7, generator=generator)
        return F.interpolate(coarse, (size, size), mode="bilinear").clamp(0, 1), None
    parameters = sum(p.numel() for p in asker.model.parameters())
    large = isinstance(asker.model, BlackBox) or parameters * size**2 > _SMALL
    count = FEW if large else MOST
    labels = None if sample.labels is None else sample.labels[:count]
    return Sample(sample.images[:count]).at(size, channels), labels
