"""The frozen model under attack: the same function of the image, computed faster.

While a model is attacked, ranked or explained its weights stand still, so that batch-norm can be
folded into the convolution before it, the weights laid out as the kernels like them, and the
gradient be computed in bfloat16 where the hardware gains from it. Gradients may be rough; whether
an image is misclassified is always asked of `original` (see `diascope.models.modes.exactly`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from diascope.hardware import gains_from_bf16, memory_kept
from diascope.models.dense import DenseConv2d
from diascope.models.depthwise import in_float32, is_in_float32, is_slow_in_bf16
from diascope.models.folding import Plan, fold, folding_plan, replace_module, shallow_copy
from diascope.models.modes import arithmetic, unwrapped
from diascope.models.pooled import ExactConv2d
from diascope.models.strided import StridedConv2d, gains_from_phases, gains_from_places

Arithmetic = Literal["auto", "float32", "bf16"]

_PLANS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()


class FrozenModel(nn.Module):
    """A model made ready for many gradients to its input; see `frozen`.

    original: the model it stands for, untouched. precision: "float32" or "bf16". outputs: K as it
    was when the model was first frozen, 0 if that is not known. stem: the name in `body` of the
    convolution that takes in the image, if that is known. Called with images (B, C, H, W) in [0, 1]
    it returns the logits (B, K), at least in float32.
    """

    precision: Arithmetic
    exact_pooling: bool

    def __init__(
        self,
        original: nn.Module,
        body: Callable[[Tensor], Tensor],
        precision: Arithmetic,
        outputs: int = 0,
        exact_pooling: bool = False,
        stem: str | None = None,
    ) -> None:
        super().__init__()
        # past nn.Module's own bookkeeping: its modules and parameters are not this one's
        self.__dict__.update(
            _frozen_from=original, _body=body, precision=precision, _outputs=outputs
        )
        self.__dict__.update(exact_pooling=exact_pooling, _stem=stem, _scalings={})
        self.eval()

    @property
    def outputs(self) -> int:
        """How many logits there were when the model was first frozen; 0: not known."""
        return self.__dict__["_outputs"]  # type: ignore[no-any-return]

    @property
    def original(self) -> nn.Module:
        """The model itself."""
        return self.__dict__["_frozen_from"]  # type: ignore[no-any-return]

    @property
    def body(self) -> Callable[[Tensor], Tensor]:
        """What is run in its place."""
        return self.__dict__["_body"]  # type: ignore[no-any-return]

    @property
    def stem(self) -> str | None:
        """The name in `body` of the convolution that takes in the image, or None."""
        return self.__dict__["_stem"]  # type: ignore[no-any-return]

    @property
    def scalings(self) -> dict[torch.Size, tuple[Tensor, Tensor] | None]:
        """What is known of what comes before the stem, see `diascope.models.stem`."""
        return self.__dict__["_scalings"]  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits = self.run(x)
        return logits if logits.dtype == torch.float64 else logits.float()

    def run(self, x: Tensor) -> Tensor:
        """Return what the body makes of x, in its own arithmetic and type."""
        low, device = self.__dict__["precision"] == "bf16", x.device.type
        if not (low or torch.is_autocast_enabled(device)):
            return self.body(x)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            return self.body(x)


@contextmanager
def frozen(
    model: nn.Module,
    sample: Tensor,
    *,
    precision: Arithmetic = "auto",
    compile: bool = False,
    exact_pooling: bool = False,
) -> Iterator[FrozenModel]:
    """Give the fast forward of `model` in eval mode, for as long as its weights stand still.

    sample: one or more of the images (B, C, H, W) to come, for a look at how the model runs.
    precision: "bf16" or "float32" for the gradients; "auto" takes bf16 where the hardware gains
    from it (a float64 model stays in float64). compile: run through `torch.compile`, with CUDA
    graphs on a GPU; it takes minutes to warm up. exact_pooling: with bf16, compute the stem in
    float32 up to the max-pooling behind it, if it has one: what wins there decides which pixel the
    gradient goes to (`diascope.models.pooled`); for maps that people look at, not for attacks.

    On NVIDIA GPUs TF32 and cuDNN's search for the fastest kernel are on inside, and given back
    after: there "float32" multiplies with 10 bits of mantissa and adds in float32, so that a
    change of a pixel by less than 1/2048 of its value may not reach the first layer. That is good
    enough for a gradient and for a query that is confirmed later. No verdict is taken so:
    `exactly` asks the model itself in full float32.

    On a CPU freed memory is kept for the next tensors, as long as a model is frozen anywhere
    (`diascope.hardware.memory_kept`).

    The model itself is not touched: what is run is a copy of its structure that shares every
    tensor it does not change. A model that cannot be copied is run as it is, in eval mode, its
    flags restored. Changing the weights inside the context is not seen by the copy. A model
    already frozen is given back as it is, unless another precision is asked for.
    """
    if isinstance(model, FrozenModel) and precision in ("auto", model.precision):
        yield model
        return
    inner = unwrapped(model)
    chosen = _precision(inner, sample, precision)
    exact = exact_pooling and chosen == "bf16"
    with (
        memory_kept() if sample.device.type == "cpu" else nullcontext(),
        _fast_kernels(sample.device),
        _prepared(inner, sample, chosen, exact) as body,
    ):
        runner: Callable[[Tensor], Tensor] = body
        if compile:
            mode = "reduce-overhead" if sample.device.type == "cuda" else "default"
            runner = torch.compile(body, mode=mode)
        plan = _PLANS.get(inner)
        plan = Plan() if plan is None else plan
        stem = None if body is inner else plan.stem
        yield FrozenModel(inner, runner, chosen, plan.outputs, exact, stem)


def check_arithmetic(precision: str) -> None:
    """Refuse, with ValueError, what is none of `Arithmetic`."""
    known = get_args(Arithmetic)
    if precision not in known:
        raise ValueError(f"precision='{precision}': one of {', '.join(known)}")


def _precision(model: nn.Module, sample: Tensor, asked: Arithmetic) -> Arithmetic:
    check_arithmetic(asked)
    double = any(p.dtype == torch.float64 for p in model.parameters())
    if asked != "auto":
        return asked
    return "bf16" if not double and gains_from_bf16(sample.device) else "float32"


@contextmanager
def _prepared(
    model: nn.Module, sample: Tensor, precision: Arithmetic, exact_pooling: bool
) -> Iterator[nn.Module]:
    """Give a copy of the model made ready, or the model itself in eval mode if it has none."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        body = shallow_copy(model)
    except Exception:  # the user's own module may refuse in any way
        body = model
    try:
        body.eval()
        if body is not model:
            _make_ready(model, body, sample, precision, exact_pooling)
        yield body
    finally:
        for module, training in flags:
            module.training = training


def _make_ready(
    model: nn.Module,
    body: nn.Module,
    sample: Tensor,
    precision: Arithmetic,
    exact_pooling: bool,
) -> None:
    plan = _PLANS.get(model)
    if plan is None or not plan.fits(body):
        plan = folding_plan(body, sample[:1]) if len(sample) else Plan()
        if len(sample):  # without an image nothing is seen
            _PLANS[model] = plan
    with torch.no_grad():
        fold(body, plan, split_stem=precision == "bf16", exact_pooling=exact_pooling)
        for name, module in list(body.named_modules()) if precision == "bf16" else ():
            if name and is_slow_in_bf16(module, sample.device):
                replace_module(body, name, in_float32(module))
        for module in body.modules():
            weights_of = isinstance(module, nn.Conv2d | nn.Linear | DenseConv2d)
            weights_of = weights_of and not isinstance(module, ExactConv2d)
            weights_of = weights_of and not is_in_float32(module)
            for name, parameter in list(module._parameters.items()):
                if parameter is None:
                    continue
                value = parameter.detach()
                if weights_of and precision == "bf16" and value.dtype == torch.float32:
                    value = value.bfloat16()
                if value.ndim == 4:
                    value = value.contiguous(memory_format=torch.channels_last)
                module._parameters[name] = nn.Parameter(value, requires_grad=False)
        for name, module in list(body.named_modules()):
            gains = (gain(module, sample.device) for gain in (gains_from_phases, gains_from_places))
            if name and any(gains):
                replace_module(body, name, StridedConv2d.of(module))


@contextmanager
def _fast_kernels(device: torch.device) -> Iterator[None]:
    cuda, before = device.type == "cuda", torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = before or cuda
        with arithmetic("tf32", on=cuda):
            yield
    finally:
        torch.backends.cudnn.benchmark = before
