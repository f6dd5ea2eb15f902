"""Which of some thousand small convolutions are wrong in bfloat16, each in a process of its own.

Wrong is what is not finite or far from float32's, where the memory that it is given was full of NaN
before: one that reads what nothing has written then shows it. One that writes beyond its memory may
end its process, and is told from the others so. glibc looks at the edges of each block where it is
asked to, and ends the process then, too:

    LD_PRELOAD=libc_malloc_debug.so.0 GLIBC_TUNABLES=glibc.malloc.check=3 python -m benchmarks.bf16

The gradient of the weights is asked for twice: as torch computes it in bfloat16, and "in training",
which goes past some kernels (`diascope.training.convolutions`).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.training.convolutions import SoundConvolutions

CHANNELS = ((3, 64), (4, 4), (8, 8), (16, 32), (64, 64), (64, 128), (256, 512), (512, 512))
SIDES, BATCHES = (1, 2, 3, 4, 7, 8, 14), (1, 2, 7, 10)
KERNELS = ((1, 1), (1, 2), (3, 1), (3, 2), (7, 2))  # width, stride
FAR = 0.1  # of the length of float32's answer; bfloat16's own rounding is a tenth of that
POISON = tuple(4**power for power in range(3, 10))  # numbers in a block of memory
FORWARD, INPUT, WEIGHT, TRAINING = PARTS = (
    "forward",
    "input gradient",
    "weight gradient",
    "weight gradient in training",
)
MOST_SECONDS = 120.0  # of a process; some take one
ENDED = "{}: ended its process"
_OF_THE_SCRIPT = ("benchmarks.inputs", "diascope.attacks")  # what each process else imports anew


class Shape(NamedTuple):
    """A convolution: as many groups as channels where `depthwise`."""

    channels: tuple[int, int]
    side: int
    kernel: tuple[int, int]
    batch: int
    channels_last: bool
    depthwise: bool


def shapes() -> Iterator[Shape]:
    """Yield the convolutions that are tried."""
    for each in itertools.product(CHANNELS, SIDES, KERNELS, BATCHES, (False, True), (False, True)):
        shape = Shape(*each)
        if not shape.depthwise or shape.channels[0] == shape.channels[1]:
            yield shape


def each_apart(every: Iterable[Shape], seed: int) -> Iterator[tuple[Shape, list[str]]]:
    """Yield each shape with what is wrong with it, tried on the CPU in a process of its own.

    Where that process ends before it has told, each part is tried in one of its own.
    """
    for shape in every:
        found = apart(_tried, shape, PARTS, seed)
        if found is None:
            again = {part: apart(_tried, shape, (part,), seed) for part in PARTS}
            ended = [ENDED.format(part) for part, each in again.items() if each is None]
            found = [part for each in again.values() for part in each or ()]
            found += ended or [ENDED.format("all together")]
        yield shape, found


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns in a new process, or None if that ended on the way."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_OF_THE_SCRIPT])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, function, args))
    process.start()
    sender.close()
    found = None
    try:
        if receiver.poll(MOST_SECONDS):
            found = receiver.recv()
        else:
            process.kill()
    except (EOFError, OSError):  # it ended before it had told all
        pass
    process.join()
    return found if process.exitcode == 0 else None


def _tell(sender: Connection, function: Callable[..., Any], args: Sequence[Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the C library says as it ends the process
    sender.send(function(*args))


def _tried(shape: Shape, parts: Sequence[str], seed: int) -> list[str]:
    """Return what is wrong with a shape, or what torch says against it."""
    try:
        return strange(shape, torch.device("cpu"), seed, parts)
    except RuntimeError as error:
        return [f"refused: {error}"]


def strange(
    shape: Shape, device: torch.device, seed: int, parts: Sequence[str] = PARTS
) -> list[str]:
    """Return the parts of a convolution that are not finite or far from float32's."""
    found = []
    for part in parts:
        right, given = (
            answer(part, shape, kind, device, seed) for kind in (torch.float32, torch.bfloat16)
        )
        distance = (right - given.float()).norm()
        if not distance <= FAR * right.norm() + 1e-3:  # NaN is not
            found.append(part)
    return found


def answer(part: str, shape: Shape, kind: torch.dtype, device: torch.device, seed: int) -> Tensor:
    """Return the convolution of noise, or one of its gradients.

    In training weights are in float32, and `kind` is what autocast computes in.
    """
    source = torch.Generator().manual_seed(seed)
    (inside, outside), (width, stride) = shape.channels, shape.kernel
    groups = inside if shape.depthwise else 1
    x = torch.randn(shape.batch, inside, shape.side, shape.side, generator=source)
    weight = torch.randn(outside, inside // groups, width, width, generator=source)
    weight /= (weight[0].numel()) ** 0.5
    layout = torch.channels_last if shape.channels_last else torch.contiguous_format
    stored = torch.float32 if part == TRAINING else kind
    x = x.to(device, kind, memory_format=layout).requires_grad_(part == INPUT)
    weight = weight.to(device, stored, memory_format=layout).requires_grad_(part != INPUT)
    low = part == TRAINING and kind == torch.bfloat16
    sound = SoundConvolutions() if part == TRAINING else nullcontext()
    poison(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=low), sound:
        y = F.conv2d(x, weight, None, stride, width // 2, groups=groups)
    if part == FORWARD:
        return y.detach()
    poison(device)
    return torch.autograd.grad(y, x if part == INPUT else weight, torch.ones_like(y))[0]


def poison(device: torch.device) -> None:
    """Fill memory that is free with NaN, as far as the allocator gives it out again."""
    for kind in (torch.bfloat16, torch.float32):
        held = [torch.full((n,), torch.nan, dtype=kind, device=device) for n in POISON * 4]
        del held
