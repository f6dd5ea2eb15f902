"""FullGrad: the score taken apart into input-gradient and bias-gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.errors import Doubt
from diascope.explain.base import Rectification, checked_targets, explainers
from diascope.explain.biases import BiasGradient, Take, bias_gradients, is_curved
from diascope.explain.chunks import rows_within
from diascope.explain.layers import Places, running
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
from diascope.models.heads import target_score
from diascope.models.modes import exactly

Psi = Literal["channel", "layer", "none"]

T = TypeVar("T", bound="_Taker")

TOLERANCE = 0.05  # of the mean score: what may be missing before it is said
PIECE = 2**20  # gradients that a CPU works on at once: more leave its cache
ROUNDING = 0.01  # of the parts' absolute values: what low precision may lose


@explainers.register("fullgrad")
@dataclass(frozen=True, kw_only=True)
class FullGrad:
    """Input-gradient times input, plus the bias-gradients of every layer (Srinivas, Fleuret 2019).

    A piecewise-linear net's logit is f(x) = x . df/dx + sum over biases b of b . df/db
    (proposition 1), where the offset of the input normalisation and batch-norm's implicit biases
    are biases too; layers that are not piecewise linear have implicit ones (`biases`). `decompose`
    gives these parts, and they are complete: they sum to the logit, but for what a model computes
    outside of its modules and does not keep linear, which a warning measures. The picture is made
    of them by psi and is not complete, but for "none".

    psi: "channel", the paper's: |.|, rescaled to [0, 1] channel by channel, and added up (the size
    of a bias that is the same at all places then cancels); "layer", that of the authors' code,
    rescaled over all channels of a layer at once, so that large biases count for more; "none":
    signed, and each layer's map is spread over the image in such a way that the picture sums to
    what the parts sum to; what has no place in the image is spread evenly. Maps are upsampled
    bilinearly, corners not aligned; as that is linear, those of one size are added up before it.
    Parts that are no map of at least 2x2 places stand in the picture by "none" only. precision: of
    the pass. memory: the bytes that activations may take. Cost: one forward and one backward pass.
    """

    rectification: ClassVar[Rectification] = "absolute"
    sums_itself: ClassVar[bool] = False

    psi: Psi = "channel"
    precision: Arithmetic = "auto"
    memory: int = 2**30

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the pictures (B, 1, H, W) of images (B, C, H, W) in [0, 1].

        Warns where the parts miss more than 5% of the mean absolute score. Raises ValueError for
        classes that the model does not have.
        """
        drawn, scores = self._passes(model, x, target, lambda part: _Picture(part, self.psi))
        if not drawn:
            return x.new_zeros(0, 1, *x.shape[2:])
        _warn_of_a_gap(drawn, scores)
        return torch.cat([each.picture() for each in drawn]).to(x.dtype)

    def passes(self, side: int) -> float:
        """Return the cost of an image, see `passes_of`; the biases' products count as one."""
        return 4

    def decompose(self, model: nn.Module, x: Tensor, target: Tensor | int) -> dict[str, Tensor]:
        """Return the parts whose sum is the target's logit, from the input to the head.

        "input": x times the gradient, (B, C, H, W); then for each layer with a bias its name and
        the sum over channels of bias times gradient: (B, h, w) at its own size, or (B,) where it
        is no map of the image. Tokens that stand for no place are apart, as "NAME (no place)".
        """
        chunks, _ = self._passes(model, x, target, _Parts)
        names = reversed(chunks[0].parts) if chunks else ()
        return {name: torch.cat([chunk.parts[name] for chunk in chunks]) for name in names}

    def total(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of all parts, (B,)."""
        parts = self.decompose(model, x, target).values()
        return sum((p.reshape(len(x), -1).sum(1) for p in parts), x.new_zeros(len(x)))

    @torch.no_grad()
    def due(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the target's logit by the model itself in float32, (B,). Costs one forward."""
        if not len(x):
            return x.new_zeros(0)
        with frozen(model, x[:1], precision="float32") as net:
            targets = checked_targets(net, x, target)
        with exactly(model) as inner:
            rows = rows_within(inner, x, self.memory, gradient=False)
            parts = zip(torch.split(x, rows), torch.split(targets, rows), strict=True)
            return torch.cat([target_score(inner(xs), ys) for xs, ys in parts])

    def _passes(
        self, model: nn.Module, x: Tensor, target: Tensor | int, taker: Callable[[Tensor], T]
    ) -> tuple[list[T], list[Tensor]]:
        """Make a taker for each chunk of images, and give it the bias-gradients, input last.

        Returns the takers and the scores of the chunks, (n,) each.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("explanations need gradients: call outside torch.inference_mode()")
        if not len(x):
            return [], []
        x, takers, scores = x.detach(), [], []
        with frozen(model, x[:1], precision=self.precision) as net:
            targets = checked_targets(net, x, target)
            curved = any(is_curved(module) for module in running(net).modules())
            rows = rows_within(net, x, self.memory // 2 if curved else self.memory)
            for part, ys in zip(torch.split(x, rows), torch.split(targets, rows), strict=True):
                takers.append(taker(part))
                scores.append(_pass(net, part, ys, takers[-1].take))
        return takers, scores


def _pass(net: FrozenModel, x: Tensor, targets: Tensor, take: Take) -> Tensor:
    """Take every bias-gradient of images (B, C, H, W), x times its own last; return the scores."""
    with torch.enable_grad(), bias_gradients(net, x, take):
        leaf = x.clone().requires_grad_(True)
        score = target_score(net(leaf), targets)
        (gradient,) = torch.autograd.grad(score.sum(), leaf, materialize_grads=True)
    take(BiasGradient("input", x * gradient, None, Places("NCHW", x.shape[2], x.shape[3])))
    return score.detach()


class _Taker(Protocol):
    def take(self, each: BiasGradient) -> None: ...


class _Parts:
    """The parts of the decomposition, the last layer's first."""

    def __init__(self, x: Tensor) -> None:
        self.count, self.dtype = len(x), x.dtype
        self.parts: dict[str, Tensor] = {}

    def take(self, each: BiasGradient) -> None:
        """Add the bias-gradient of one layer."""
        product = _product(each).to(self.dtype)
        if each.name == "input":
            self.parts["input"] = product
        elif each.places is None:
            self.parts[each.name] = _per_image(product, self.count)
        else:
            rest = each.places.placeless(product)
            if rest is not None:
                self.parts[f"{each.name} (no place)"] = _per_image(rest, self.count)
            self.parts[each.name] = each.places.as_map(product).sum(1)


class _Picture:
    """The picture of the parts, as they come; and their sum, `total` (B,).

    `size` is the sum of the parts' absolute values, each layer's taken as one.
    """

    def __init__(self, x: Tensor, psi: Psi) -> None:
        self.count, self.shape, self.psi = len(x), (x.shape[2], x.shape[3]), psi
        self.maps: dict[tuple[int, int], Tensor] = {}
        self.total, self.size, self.rest = (x.new_zeros(len(x)) for _ in range(3))

    def take(self, each: BiasGradient) -> None:
        """Add the bias-gradient of one layer."""
        if each.places is None:
            self._add_rest(_per_image(_product(each), self.count))
            return
        placeless = each.places.placeless(each.gradient)
        if placeless is not None:
            apart = BiasGradient(each.name, placeless, each.bias, None)
            self._add_rest(_per_image(_product(apart), self.count))
        rows, bias = _rows(each, each.places)
        sums, maps = zip(*(_drawn(part, bias, self.psi) for part in _pieces(rows)), strict=True)
        self._add(torch.cat(sums))
        grid = (each.places.height, each.places.width)
        drawn = torch.cat(maps).view(-1, *grid)
        self.maps[grid] = self.maps[grid] + drawn if grid in self.maps else drawn

    def _add(self, values: Tensor) -> None:
        self.total += values
        self.size += values.abs()

    def _add_rest(self, values: Tensor) -> None:
        self.rest += values
        self._add(values)

    def picture(self) -> Tensor:
        """Return the picture (B, 1, H, W)."""
        signed = self.psi == "none"
        up = _spread if signed else _upsampled
        picture = sum(up(maps, self.shape) for maps in self.maps.values())
        assert isinstance(picture, Tensor)
        if signed:
            picture = picture + (self.rest / (self.shape[0] * self.shape[1]))[:, None, None]
        return picture[:, None]


def _product(each: BiasGradient) -> Tensor:
    wide = torch.promote_types(each.gradient.dtype, torch.float32)
    gradient = each.gradient.to(wide)
    return gradient if each.bias is None else gradient * each.bias.to(wide)


def _per_image(product: Tensor, count: int) -> Tensor:
    """Return the sum over all but the images, (B,); windows of an image stand one by the other."""
    return product.reshape(count, -1).sum(1)


def _rows(each: BiasGradient, places: Places) -> tuple[Tensor, Tensor]:
    """Return gradients (B, h * w, K) and biases (K,): their product is the bias-gradient."""
    gradient = places.as_map(each.gradient).flatten(2).mT
    wide = torch.promote_types(gradient.dtype, torch.float32)
    if each.bias is not None and each.bias.numel() == gradient.shape[2]:
        return gradient, each.bias.flatten().to(wide)
    rows = places.as_map(_product(each)).flatten(2).mT
    return rows, rows.new_ones(rows.shape[2])


def _pieces(rows: Tensor) -> tuple[Tensor, ...]:
    """Cut (B, h * w, K) into as many images as a CPU's cache holds; on a GPU not at all."""
    together = max(1, PIECE // rows[0].numel()) if rows.device.type == "cpu" else len(rows)
    return torch.split(rows, together)


def _drawn(rows: Tensor, bias: Tensor, psi: Psi) -> tuple[Tensor, Tensor]:
    """Return the sum of all bias-gradients (B,), and what stands of them in the picture.

    That is, (B, h * w), their sum over channels: signed, or of their absolute values rescaled to
    [0, 1].
    """
    rows = rows.to(bias.dtype)
    if psi == "none":
        signed = rows @ bias
        return signed.sum(1), signed
    total = rows.sum(1) @ bias
    rows, bias = rows.abs(), bias.abs()
    low, high = rows.amin(1), rows.amax(1)  # (B, K)
    if psi == "layer":
        low, high = (low * bias).amin(1, keepdim=True), (high * bias).amax(1, keepdim=True)
        return total, ((rows @ bias) - len(bias) * low) * _inverse(high - low)
    scale = _inverse(high - low) * (bias > 0)
    return total, _times(rows, scale) - (scale * low).sum(1, keepdim=True)


def _times(rows: Tensor, scale: Tensor) -> Tensor:
    """Return rows (B, n, K) times scale (B, K), (B, n)."""
    if len(rows) == 1:
        return (rows[0] @ scale[0])[None]  # by another kernel, some three times faster on CPUs
    return (rows @ scale[:, :, None])[..., 0]


def _inverse(span: Tensor) -> Tensor:
    """Return 1 / span, and 0 for maps that are the same everywhere."""
    wide_enough = span > torch.finfo(span.dtype).tiny * 4
    return torch.where(wide_enough, span, 1).reciprocal() * wide_enough


def _upsampled(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[:, None], shape, mode="bilinear", align_corners=False)[:, 0]


def _spread(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Spread maps (B, h, w) over (B, H, W), each place over the pixels it is interpolated to."""
    ways = []
    for few, many in zip(maps.shape[1:], shape, strict=True):
        unit = torch.eye(few, dtype=maps.dtype, device=maps.device)[None]
        mode = "linear" if few <= many else "area"
        way = F.interpolate(unit, many, mode=mode)[0]  # (h, H)
        ways.append(way / way.sum(1, keepdim=True))
    return ways[0].T @ maps @ ways[1]


def _warn_of_a_gap(drawn: list[_Picture], scores: list[Tensor]) -> None:
    """Say how much of the scores the parts miss, unless that is little or may be rounding."""
    gap = torch.cat([p.total - s for p, s in zip(drawn, scores, strict=True)]).abs().mean()
    score, size = torch.cat(scores).abs().mean(), torch.cat([p.size for p in drawn]).mean()
    missed, bearable = torch.stack([gap / score, gap / size]).nan_to_num(0.0).tolist()
    if missed > TOLERANCE and bearable > ROUNDING:
        warnings.warn(
            f"FullGrad is not complete for this model: its parts miss {missed:.0%} of the score on "
            "average, for biases that none of its modules shows (products of activations, "
            "embeddings of the position)",
            Doubt,
            stacklevel=3,
        )
