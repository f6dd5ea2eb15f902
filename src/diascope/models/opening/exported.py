"""ExportedProgram archives (`.pt2`), as `torch.export.save` writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diascope.errors import UserError
from diascope.models.opening import KINDS, Address, Kind, Opened
from diascope.models.opening.fixed import FixedBatch
from diascope.models.opening.vetting import Unsafe, vetted
from diascope.models.sealed import Sealed

_MODEL, _SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSORS = ("data/weights/", "data/constants/")
_PLAIN = ("archive_format", "archive_version", "byteorder")


def _open(address: Address) -> Opened:
    """Load an archive that was written anew from its numbers and its graph.

    `torch.export.load` unpickles sample inputs and custom objects, evaluates symbolic sizes and
    guards as Python, and calls any function that the graph names. So the archive is not given to
    it: see `vetted`.
    """
    file = address.path
    try:
        program = torch.export.load(_written_anew(file))
        module: Any = program.module(check_guards=False)
    except Unsafe as error:
        raise UserError(f"{file}: {error}") from None
    except Exception as error:  # of many kinds, for a damaged graph
        reason = " ".join(f"{error}".split())[:160] or type(error).__name__
        raise UserError(f"{file}: not a readable ExportedProgram ({reason})") from None
    shape = _input_shape(file, program)
    sealed: nn.Module = Sealed(module)
    if shape[0] is not None:
        sealed = FixedBatch(sealed, shape[0])
    return Opened(sealed, "exported", channels=shape[1], size=shape[3])


def _written_anew(file: Path) -> io.BytesIO:
    """Return an archive of the same graph and tensors, and nothing else of the file."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(file.read_bytes()))
    names = [name for name in reader.get_all_records() if not name.startswith(".data/")]
    if _MODEL not in names:
        raise Unsafe("is an ExportedProgram of an older format; save it again with torch 2.9 on")
    out = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(out)

    def write(name: str, content: bytes) -> None:
        writer.write_record(name, content, len(content))

    for name in names:
        if name in _PLAIN:
            write(name, reader.get_record(name))
        elif name == _MODEL:
            write(name, json.dumps(vetted(json.loads(reader.get_record(name)))).encode())
        elif name in _CONFIGS:
            write(name, reader.get_record(name))
            for key, entry in json.loads(reader.get_record(name))["config"].items():
                if entry.get("use_pickle") or "obj" in entry["path_name"]:
                    raise Unsafe(f"holds a pickled object ('{key}'), and is refused")
        elif name.startswith(_TENSORS) and name.rpartition("/")[2].startswith(
            ("weight_", "tensor_")
        ):
            write(name, reader.get_record(name))
        elif not name.startswith(("data/sample_inputs/", "extra/", "version")):
            raise Unsafe(f"holds '{name}', which no exported model needs, and is refused")
    sample = io.BytesIO()
    torch.save(((), {}), sample)
    write(_SAMPLE, sample.getvalue())
    writer.write_end_of_file()
    out.seek(0)
    return out


def _input_shape(file: Path, program: Any) -> list[int | None]:
    """Return (B, C, H, W) of the one image batch it takes; None for what is free."""
    wanted = program.graph_signature.user_inputs
    places = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    shapes = [getattr(places[name].meta.get("val"), "shape", ()) for name in wanted]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        told = ", ".join(str(tuple(shape)) for shape in shapes)
        raise UserError(f"{file}: takes {told or 'nothing'}, not one batch of images (B, C, H, W)")
    return [n if isinstance(n, int) else None for n in shapes[0]]


KINDS.register("exported")(Kind(lambda address: address.content == "exported", _open))
