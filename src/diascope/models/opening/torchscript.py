"""TorchScript archives, as `torch.jit.save` writes them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from diascope.errors import UserError
from diascope.models.opening import KINDS, Address, Kind, Opened
from diascope.models.sealed import Sealed

# TorchScript is a program, not Python: its operations compute on tensors. These reach further.
_BARRED = re.compile(r"^(aten::(save|from_file)|prim::(rpc_\w+|PythonOp|CallMethod|CallFunction))$")
_SPACES = ("aten", "prim", "prims", "quantized", "torchvision", "mkldnn", "onednn", "_quantized")


def _open(address: Address) -> Opened:
    """Compile the archive's code, and refuse operations that reach beyond tensors.

    Code that would run while it is opened (`__setstate__`) is refused before, operations that
    write files or call other processes after; nothing of the archive has run until then.
    """
    file = address.path
    content = file.read_bytes()
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        for record in reader.get_all_records():
            if record.endswith(".py") and b"__setstate__" in reader.get_record(record):
                raise UserError(
                    f"{file}: holds TorchScript that runs while it is opened (__setstate__ in "
                    f"{record}), and is refused; export it with torch.export.save"
                )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
            warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
            jit: Any = torch.jit
            module = jit.load(io.BytesIO(content), map_location="cpu")
        kinds = set(_kinds(module.inlined_graph))
    except (RuntimeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: not a readable TorchScript archive ({reason})") from None
    barred = [k for k in kinds if _BARRED.match(k) or k.partition("::")[0] not in _SPACES]
    if barred:
        raise UserError(
            f"{file}: its TorchScript calls {min(barred)}, which does more than compute on "
            "tensors, and is refused"
        )
    return Opened(Sealed(module), "torchscript", channels=_channels(module))


def _kinds(block: Any) -> Iterator[str]:
    """Yield the kind of each operation of a graph, those in its branches and graphs within."""
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from _kinds(inner)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _kinds(node.g(name))


def _channels(module: torch.nn.Module) -> int | None:
    """Return the input channels of the first convolution, told from the first weight of 4 axes."""
    weight = next((p for p in module.parameters() if p.ndim == 4), None)
    return int(weight.shape[1]) if weight is not None and weight.shape[1] in (1, 3) else None


KINDS.register("torchscript")(Kind(lambda address: address.content == "torchscript", _open))
