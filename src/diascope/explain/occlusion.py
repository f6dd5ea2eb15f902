"""Occlusion: how far the score falls when a patch of the image is covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.explain.base import Rectification, checked_targets, explainers
from diascope.explain.baselines import blurred
from diascope.explain.chunks import rows_within
from diascope.explain.covered import Covered, Windows, covered_of
from diascope.explain.gradient import Score
from diascope.models.frozen import Arithmetic, frozen
from diascope.models.heads import target_score

_PATCH = 50 / 224  # of the image's shorter side (P1, B.3)


@explainers.register("occlusion")
@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """Each pixel the mean drop in the score over the patches that cover it (P1, B.3).

    After Zeiler and Fergus 2014, section 4. Square patches slide from the top left corner; the
    last of a row or column is cut off at the edge. A map is positive where the image speaks for
    the target.

    patch: the side in pixels; None for 50 at 224, in proportion to the shorter side. stride: in
    pixels, at most the patch; None for half the patch. fill: what covers: a value in [0, 1] (0,
    which P1 does not state: ours), "mean", the image's own mean colour, or "blur", the image under
    a Gaussian of half a patch. of: the score: "probability" (P1's), "logit", "log_softmax" or
    "loss". precision: of the forwards. memory: the bytes that activations may take.

    Costs a forward for the image and one for each patch, 64 by default; a patch that would leave
    the image as it is, as on a black border covered with 0, changes nothing and is not asked. Of
    many patches on a CPU the first layers are computed near the patch alone, where the model allows
    it (`diascope.explain.covered`).
    Raises `UserError` for a patch larger than the image and a stride larger than the patch.
    """

    rectification: ClassVar[Rectification] = "absolute"

    patch: int | None = None
    stride: int | None = None
    fill: float | Literal["mean", "blur"] = 0.0
    of: Score = "probability"
    precision: Arithmetic = "auto"
    memory: int = 2**30

    def __post_init__(self) -> None:
        for name in ("patch", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1 pixel")
        if self.patch is not None and self.stride is not None and self.stride > self.patch:
            raise ValueError(f"stride={self.stride} leaves gaps between patches of {self.patch}")
        if isinstance(self.fill, str) and self.fill not in ("mean", "blur"):
            raise ValueError(f"fill={self.fill!r}: a number, 'mean' or 'blur'")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the maps (B, 1, H, W) of images (B, C, H, W) in [0, 1].

        Raises ValueError for classes that the model does not have.
        """
        if not len(x):
            return x.new_zeros(0, 1, *x.shape[2:])
        x = x.detach()
        with frozen(model, x[:1], precision=self.precision) as net, torch.no_grad():
            targets = checked_targets(net, x, target)
            patch, stride = self.sides(x)
            windows = Windows.of(x.shape[2], patch, stride), Windows.of(x.shape[3], patch, stride)
            down, across = (each.matrix(x) for each in windows)
            fill = self._fill(x, patch)
            differs = (x != fill).any(1).to(x.dtype)  # (B, H, W)
            places = (down @ differs @ across.T > 0).nonzero()
            covered = covered_of(net, x, fill, windows, len(x) + len(places))
            rows = rows_within(net, x, self.memory, gradient=False)
            drops = self._drops(covered, targets, places, rows)
        total = down.T @ drops.to(x.dtype) @ across
        return (total / torch.outer(down.sum(0), across.sum(0)))[:, None]

    def sides(self, x: Tensor) -> tuple[int, int]:
        """Return the patch and the stride, in pixels, on images (B, C, H, W)."""
        side = min(x.shape[2:])
        patch = max(1, round(_PATCH * side)) if self.patch is None else self.patch
        stride = max(1, round(patch / 2)) if self.stride is None else self.stride
        if patch > side:
            size = f"{x.shape[2]}x{x.shape[3]}"
            raise UserError(f"occlusion: patch={patch} is larger than the {size} images")
        if stride > patch:
            raise UserError(f"occlusion: stride={stride} leaves gaps between patches of {patch}")
        return patch, stride

    def passes(self, side: int) -> float:
        """Return the cost of an image, see `passes_of`: itself and each patch."""
        patch, stride = self.sides(torch.empty(0, 1, side, side))
        return 1 + (-(-(side - patch) // stride) + 1) ** 2

    def _drops(self, covered: Covered, targets: Tensor, places: Tensor, rows: int) -> Tensor:
        """Return by how much each patch lowers the score, (B, n, m).

        places: the image, row and column of those that are asked about, (P, 3).
        """
        everyone = torch.split(torch.arange(len(targets), device=targets.device), rows)
        clean = torch.cat([target_score(covered.whole(i), targets[i], self.of) for i in everyone])
        drops = clean.new_zeros(len(clean), *(len(each.spans) for each in covered.windows))
        for part in torch.split(places, rows) if len(places) else ():
            image, row, column = part.unbind(1)
            score = target_score(covered.logits(image, row, column), targets[image], self.of)
            drops[image, row, column] = clean[image] - score
        return drops

    def _fill(self, x: Tensor, patch: int) -> Tensor:
        """Return what covers, broadcasts to (B, C, H, W)."""
        if self.fill == "blur":
            return blurred(x, patch / 2)
        if self.fill == "mean":
            return x.mean((2, 3), keepdim=True)
        return x.new_tensor(float(self.fill)).expand(len(x), 1, 1, 1)
