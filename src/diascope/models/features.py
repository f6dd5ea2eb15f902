"""The last feature map of a backbone, whatever layout the backbone gives it in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.models.modes import evaluating

Layout = Literal["NCHW", "NHWC", "NLC"]

# P2 takes InceptionResNetV2's map (8x8 at 299x299, 2080 channels) after its second-last block.
LEFT_OUT = {"inception_resnet_v2": ("block8", "conv2d_7b")}


class FeatureMap(nn.Module):
    """A backbone without its head: normalised images (B, C, H, W) to its map (B, C', h, w).

    Maps with the channels last are turned; tokens (B, N, C') without those that stand for no
    place are laid out on the grid of patches.
    """

    def __init__(self, body: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.body = body
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature map."""
        out: Tensor = self.body.forward_features(x)  # type: ignore[operator]
        if self.layout == "NCHW":
            return out
        if self.layout == "NHWC":
            return out.permute(0, 3, 1, 2)
        height, width = _grid(self.body, x)
        tokens = out[:, out.shape[1] - height * width :]
        return tokens.transpose(1, 2).reshape(len(out), -1, height, width)


def feature_map(backbone: nn.Module, name: str, sample: Tensor) -> FeatureMap:
    """Take a backbone's head away, and give what is left as a `FeatureMap`.

    `sample` (1, C, H, W) is run through it to see the layout and which layers the map needs; what
    it does not need is taken away, in place. Raises `UserError` for a backbone that
    gives no map.
    """
    for layer in LEFT_OUT.get(name, ()):
        setattr(backbone, layer, nn.Identity())
    out, ran = _watched(backbone, name, sample)
    features = FeatureMap(backbone, _layout(backbone, name, out, sample))
    idle = [
        (child, module)
        for child, module in backbone.named_children()
        if any(True for _ in module.parameters()) and ran.isdisjoint(module.modules())
    ]
    for child, module in idle:
        setattr(backbone, child, nn.Identity())
        try:
            same = torch.equal(_watched(backbone, name, sample)[0], out)
        except UserError:
            same = False
        if not same:  # its weights are read without the layer being run
            setattr(backbone, child, module)
    return features


@torch.no_grad()
def _watched(backbone: nn.Module, name: str, sample: Tensor) -> tuple[Tensor, set[nn.Module]]:
    """Return the features of `sample`, in eval mode, and the modules that ran for them."""
    if not hasattr(backbone, "forward_features"):
        raise UserError(f"model '{name}': has no forward_features, and so no map for attention")
    ran: set[nn.Module] = set()
    with evaluating(backbone), _seen(backbone, ran):
        try:
            out: Any = backbone.forward_features(sample)  # type: ignore[operator]
        except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            size = "x".join(str(n) for n in sample.shape[2:])
            raise UserError(
                f"model '{name}': gives no feature map for {size} images ({reason})"
            ) from None
    if not isinstance(out, Tensor):
        raise UserError(
            f"model '{name}': its features are a {type(out).__name__}, not one map; "
            "attention needs another backbone"
        )
    return out, ran


@contextmanager
def _seen(backbone: nn.Module, ran: set[nn.Module]) -> Iterator[None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        ran.add(module)

    handles = [module.register_forward_hook(note) for module in backbone.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layout(backbone: nn.Module, name: str, out: Tensor, sample: Tensor) -> Layout:
    if out.ndim == 4:
        channels = getattr(backbone, "num_features", None)
        last = out.shape[3] == channels != out.shape[1]
        last = last or str(getattr(backbone, "output_fmt", "")).endswith("NHWC")
        return "NHWC" if last else "NCHW"
    if out.ndim == 3:
        prefix, grid = getattr(backbone, "num_prefix_tokens", 0), _grid(backbone, sample)
        if out.shape[1] == prefix + grid[0] * grid[1] > prefix:
            return "NLC"
    shape = " x ".join(str(n) for n in out.shape[1:])
    raise UserError(
        f"model '{name}': its features ({shape}) are no map of the image; "
        "attention needs another backbone"
    )


def _grid(backbone: nn.Module, x: Tensor) -> tuple[int, int]:
    """Return the height and width of the patches' grid, (0, 0) where there is none."""
    embedding: Any = getattr(backbone, "patch_embed", getattr(backbone, "stem", None))
    if not hasattr(embedding, "dynamic_feat_size"):
        return 0, 0
    height, width = embedding.dynamic_feat_size(tuple(x.shape[2:]))
    return int(height), int(width)
