"""Which modules of a frozen model can be rewritten for speed, and the rewriting."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from diascope.models.dense import DenseConv2d, gains_from_dense
from diascope.models.pooled import ExactConv2d, RoundedMaxPool2d
from diascope.models.split import SplitConv2d

STEM_CHANNELS = 4  # a convolution over as many channels or fewer takes in the image itself
_FOLDED = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)


@dataclass(frozen=True)
class Plan:
    """What one look at a running model found: names of modules.

    pairs: (convolution, batch-norm) where the one's output is all of the other's input.
    stem: the convolution that takes in the image, or None. tiny: the convolutions of maps so
    small that they are better written out, with the maps' height and width. outputs: how many
    logits there were. pool: the max-pooling that takes in the stem's map with no convolution
    between, or None.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    stem: str | None = None
    tiny: tuple[tuple[str, tuple[int, int]], ...] = ()
    outputs: int = 0
    pool: str | None = None

    def fits(self, model: nn.Module) -> bool:
        """Tell whether `model` still has these modules."""
        modules = dict(model.named_modules())
        return (
            all(
                isinstance(modules.get(conv), nn.Conv2d) and type(modules.get(norm)) in _FOLDED
                for conv, norm in self.pairs
            )
            and all(
                isinstance(modules.get(conv), nn.Conv2d)
                for conv in (*dict(self.tiny), *([] if self.stem is None else [self.stem]))
            )
            and (self.pool is None or type(modules.get(self.pool)) is nn.MaxPool2d)
        )


def shallow_copy(model: nn.Module) -> nn.Module:
    """Return a copy of the modules that shares their parameters and buffers."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


@torch.no_grad()
def folding_plan(model: nn.Module, sample: Tensor) -> Plan:
    """Run `model`, in eval mode, on `sample` (1, C, H, W) and return what can be folded.

    A batch-norm is paired with the convolution whose output it takes in, if both run once and no
    other module reads that output. What a model does with it outside of its modules cannot be
    seen: so the folded model must give the same logits, or nothing is rewritten. That is tried
    with batch-norms of other statistics, for at their first values they are near the identity, and
    the plan is kept while the weights change.
    """
    trial = shallow_copy(model)
    _stir(trial)
    watch = _Watch(trial)
    with torch.autocast(sample.device.type, enabled=False):
        before = watch.run(sample)
        plan = replace(watch.plan(), outputs=before.shape[-1])
        if not plan.pairs and not plan.tiny:
            return plan
        fold(trial, plan)
        after = trial(sample)
    scale = before.abs().amax().clamp_min(1e-6)
    same = bool(((after - before).abs() <= 1e-3 * scale).all())
    return plan if same else replace(plan, pairs=(), tiny=())


def _stir(model: nn.Module) -> None:
    """Give every batch-norm statistics and weights of its own, in new tensors."""
    generator = torch.Generator().manual_seed(0)
    ranges = {"running_mean": (-0.3, 0.3), "running_var": (0.5, 1.5), "weight": (0.5, 1.5)}
    ranges["bias"] = ranges["running_mean"]
    for module in model.modules():
        for name, (low, high) in ranges.items() if _foldable(module) else ():
            old = getattr(module, name)
            if old is not None:
                drawn = low + (high - low) * torch.rand(old.shape, generator=generator)
                if name in module._buffers:
                    module._buffers[name] = drawn.to(old)
                else:
                    module._parameters[name] = nn.Parameter(drawn.to(old), requires_grad=False)


def fold(
    model: nn.Module, plan: Plan, *, split_stem: bool = False, exact_pooling: bool = False
) -> None:
    """Fold the batch-norms of `plan` into `model`, in place but for its tensors.

    split_stem: let the first convolution take in the image as two bfloat16 terms, x = high + low,
    so that perturbations below the spacing of bfloat16 pixels still act. exact_pooling: compute
    it in float32 instead, up to the max-pooling behind it, if there is one.
    """
    modules = dict(model.named_modules())
    for conv_name, norm_name in plan.pairs:
        conv, norm = modules[conv_name], modules[norm_name]
        _absorb(conv, norm)
        replace_module(model, norm_name, _rest(norm))
    for name, size in plan.tiny:
        replace_module(model, name, DenseConv2d(modules[name], size))
    if exact_pooling and plan.stem is not None and plan.pool is not None:
        replace_module(model, plan.stem, ExactConv2d.of(modules[plan.stem]))
        replace_module(model, plan.pool, RoundedMaxPool2d.of(modules[plan.pool]))
    elif split_stem and plan.stem is not None:
        replace_module(model, plan.stem, SplitConv2d.of(modules[plan.stem]))


def _absorb(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give `conv` the weights of conv, then norm: w' = s w, b' = s (b - mean) + beta."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach()
    bias = -mean if conv.bias is None else conv.bias.detach() - mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias.detach()
    shift = bias if conv.bias is None else bias - conv.bias.detach() * scale
    conv.folded_shift = shift  # norm(y) = scale * y + shift
    weight = conv.weight.detach() * scale.view(-1, 1, 1, 1)
    conv._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
    conv._parameters["bias"] = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def _rest(norm: nn.Module) -> nn.Module:
    """Return what a batch-norm does beside its normalisation."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(norm.drop, norm.act)
    return nn.Identity()


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of that called `name`."""
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent)._modules[child] = module


class _Watch:
    """Which module read and wrote which tensor in one run."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.runs: dict[str, int] = defaultdict(int)
        self.readers: dict[int, list[str]] = defaultdict(list)
        self.wrote: dict[str, Tensor] = {}
        self.read: dict[str, Tensor] = {}

    def run(self, sample: Tensor) -> Tensor:
        """Run the model on `sample` under watch, and return its logits."""
        handles = [m.register_forward_hook(self._saw(n)) for n, m in self.model.named_modules()]
        try:
            return self.model(sample)  # type: ignore[no-any-return]
        finally:
            for handle in handles:
                handle.remove()

    def _saw(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.runs[name] += 1
            if inputs and isinstance(inputs[0], Tensor):
                self.read[name] = inputs[0]  # kept, so that no id is used twice
                self.readers[id(inputs[0])].append(name)
            if isinstance(output, Tensor):
                self.wrote[name] = output

        return hook

    def plan(self) -> Plan:
        """Return what the run showed."""
        modules = dict(self.model.named_modules())
        convs = [n for n in self.runs if _is_plain(modules[n]) and n in self.wrote]
        by_output = {id(self.wrote[n]): n for n in convs if self.runs[n] == 1}
        pairs = []
        for name, tensor in self.read.items():
            conv = by_output.get(id(tensor))
            if conv is None or self.runs[name] != 1 or not _foldable(modules[name]):
                continue
            if all(name == r or name.startswith(f"{r}.") for r in self.readers[id(tensor)]):
                pairs.append((conv, name))
        stems = [n for n in convs if _is_stem(modules[n], self.read[n], self.runs[n])]
        stem = stems[0] if stems else None
        tiny = tuple(self._tiny([n for n in convs if n != stem]))
        return Plan(tuple(pairs), stem, tiny, pool=self._pool(stem))

    def _pool(self, stem: str | None) -> str | None:
        """Return the max-pooling that ran after the stem before any other convolution."""
        order, modules = list(self.runs), dict(self.model.named_modules())
        if stem is None or isinstance(modules[stem].padding, str):
            return None
        behind = order[order.index(stem) + 1 :]
        kinds = nn.Conv2d | nn.MaxPool2d
        first = next((n for n in behind if isinstance(modules[n], kinds)), None)
        if first is None or type(modules[first]) is not nn.MaxPool2d or self.runs[first] != 1:
            return None
        return first

    def _tiny(self, convs: list[str]) -> Iterator[tuple[str, tuple[int, int]]]:
        modules = dict(self.model.named_modules())
        for name in convs:
            maps = self.read[name]
            if maps.ndim == 4:
                size = (maps.shape[2], maps.shape[3])
                if gains_from_dense(modules[name], size, maps.device):
                    yield name, size


def _foldable(module: nn.Module) -> bool:
    return type(module) in _FOLDED and getattr(module, "running_var", None) is not None


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a module is a convolution whose weights are what it multiplies with."""
    return isinstance(module, nn.Conv2d) and module._parameters.get("weight") is not None


def _is_stem(module: nn.Module, image: Tensor, runs: int) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.in_channels <= STEM_CHANNELS
        and module.groups == 1
        and module.padding_mode == "zeros"
        and image.dtype == torch.float32
        and runs == 1
    )
