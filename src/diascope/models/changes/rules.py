"""How a change goes through an operation.

For an operation f and maps z that change by d, what it gives changes by f(z + d) - f(z): for a
linear one that is f(d) without its bias, whatever z is; for any other z is needed. A rectifier
gives max(d, n) - max(n, 0) with n = -z, which is as exact as d even where z is rounded as coarsely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Function = Callable[..., Any]
Rule = Literal["asked", "linear", "weighed", "sum", "rectifier", "curved"]

_NAMES: dict[Rule, str] = {
    # what a tensor tells of itself, its values aside
    "asked": "__get__ __len__ dim get_device is_contiguous is_floating_point ndimension nelement "
    "numel size stride",
    "linear": "adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d bfloat16 chunk clone "
    "contiguous detach expand flatten flip float interpolate mean movedim narrow neg permute "
    "pixel_shuffle pixel_unshuffle repeat reshape roll select split squeeze sum to transpose "
    "type_as unbind unflatten unfold unsqueeze view view_as __getitem__ __neg__",
    # linear but for a bias, the third argument
    "weighed": "conv1d conv2d conv3d linear",
    "sum": "add add_ __add__ __iadd__ __radd__ sub sub_ __sub__ __isub__ __rsub__ rsub cat concat "
    "stack",
    "rectifier": "relu relu_",
    # of each image by itself
    "curved": "adaptive_max_pool2d amax celu clamp clamp_ clamp_max clamp_min elu elu_ exp gelu "
    "group_norm hardsigmoid hardswish hardtanh hardtanh_ layer_norm leaky_relu leaky_relu_ "
    "local_response_norm log log_softmax logsumexp max_pool1d max_pool2d maximum minimum mish "
    "normalize pow relu6 rms_norm rsqrt scaled_dot_product_attention selu sigmoid sigmoid_ silu "
    "silu_ softmax softplus sqrt square tanh tanh_",
}
_RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
_JOINED = ("cat", "concat", "stack")
_PRODUCTS = ("mul", "mul_", "__mul__", "__imul__", "__rmul__", "multiply", "matmul", "bmm")
_QUOTIENTS = ("div", "div_", "__truediv__", "__itruediv__", "divide")
# these write over their first argument where the last is True
_ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "elu", "celu", "selu"),
    *("leaky_relu", "silu", "mish", "hardswish", "hardsigmoid"),
)


class NoRuleError(Exception):
    """A net does what changes cannot be followed through."""


def rule_of(name: str, args: Sequence[Any], kwargs: dict[str, Any], changing: list[Any]) -> Rule:
    """Return by which rule changes go through a function of torch; raises `NoRuleError`.

    changing: those of the arguments that do.
    """
    if name in _PRODUCTS:
        return "linear" if len(changing) == 1 else "curved"
    if name in _QUOTIENTS:
        return "linear" if len(changing) == 1 and changing[0] is args[0] else "curved"
    if name == "batch_norm" and not (args[5] if len(args) > 5 else kwargs.get("training")):
        return "weighed"
    if name == "dropout" and not (args[2] if len(args) > 2 else kwargs.get("training", True)):
        return "linear"
    if name == "pad" and not (args[3] if len(args) > 3 else kwargs.get("value")):
        return "linear"
    if name not in _RULES:
        raise NoRuleError(name)
    return _RULES[name]


def in_place(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a function writes over its first argument."""
    if name in _ACTIVATIONS:
        return args[-1] is True or bool(kwargs.get("inplace"))
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def unbiased(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments with which a weighed function gives the change: those without a bias."""
    if name == "batch_norm":
        change, mean, var, weight = (*args, *(None,) * 4)[:4]
        weight = kwargs.get("weight", weight)
        eps = args[7] if len(args) > 7 else kwargs.get("eps", 1e-5)
        return (change, torch.zeros_like(mean), var, weight, None, False, 0.0, eps), {}
    if len(args) > 2:
        return (*args[:2], None, *args[3:]), kwargs
    return args, {**kwargs, "bias": None}


def summands(
    name: str, args: Any, kwargs: dict[str, Any], is_change: Callable[[Any], bool]
) -> tuple[Any, dict[str, Any]]:
    """Return the arguments with which a sum gives the change: what does not change is zero."""

    def put(value: Any) -> Any:
        if is_change(value):
            return value
        return torch.zeros_like(value) if isinstance(value, Tensor) else 0

    if name in _JOINED:
        return ([put(each) for each in args[0]], *args[1:]), kwargs
    kwargs = {key: put(each) if key == "other" else each for key, each in kwargs.items()}
    return tuple(map(put, args)), kwargs


def rectified(change: Tensor, known: tuple[Tensor, Tensor], over: Tensor | None) -> Tensor:
    """Return what a rectifier makes of the change of maps; known: of n = -z. over: there."""
    minus, above = known
    return torch.maximum(change, minus, out=over).sub_(above)


def of_rectifier(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `rectified` is to know of maps z: n = -z and max(n, 0), in bfloat16."""
    minus = maps.neg().bfloat16()
    return minus, minus.clamp_min(0)


def difference(
    func: Function,
    args: Any,
    kwargs: dict[str, Any],
    changes: list[Tensor],
    known: tuple[Tensor, ...],
    over: Tensor | None,
) -> Tensor:
    """Return f(z + d) - f(z) of a function, computed in float32; over: there.

    changes: the arguments d. known: their z, and f(z).
    """
    moved = {id(d): z + d for d, z in zip(changes, known[:-1], strict=True)}
    args = [moved.get(id(each), each) for each in args]
    kwargs = {name: moved.get(id(each), each) for name, each in kwargs.items()}
    with torch.autocast(known[0].device.type, enabled=False):
        made = func(*args, **kwargs).sub_(known[-1]).to(changes[0].dtype)
    return made if over is None else over.copy_(made)


def pooled(
    func: Function, args: Any, kwargs: dict[str, Any], known: tuple[Tensor], rectified: bool
) -> Tensor:
    """Return by how much max-pooled maps are others than those known, in bfloat16.

    rectified: the maps were to be so before; after it, there are fewer of them.
    """
    made: Tensor = func(*args, **kwargs)
    return made.relu_().sub_(known[0]).bfloat16() if rectified else made.sub_(known[0]).bfloat16()
