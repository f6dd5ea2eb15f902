"""ONNX files, asked through onnxruntime as black boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diascope.errors import UserError
from diascope.models.black_box import BlackBox
from diascope.models.opening import KINDS, Address, Kind, Layout, Opened

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


@dataclass
class Session:
    """What asks an ONNX model: float32 images of the file's layout and range -> its answer.

    count: the batch it takes, None for any; the last batch is filled up with its own images.
    """

    run: Any
    name: str
    output: str
    kind: Any
    count: int | None

    def __call__(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Return scores (B, K) or labels (B,) of a batch."""
        if self.kind is np.uint8:
            images = images.round().clip(0, 255)
        whole = images.astype(self.kind)
        if self.count is None:
            return self._asked(whole)
        parts = []
        for start in range(0, len(whole), self.count):
            piece = whole[start : start + self.count]
            filled = np.concatenate([piece, piece[-1:].repeat(self.count - len(piece), 0)])
            parts.append(self._asked(filled)[: len(piece)])
        return np.concatenate(parts)

    def _asked(self, images: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self.run([self.output], {self.name: images})[0])


def _open(address: Address) -> Opened:
    """Open a session on the CPU (on the GPU with onnxruntime-gpu).

    Raises `UserError` where onnxruntime is missing, the file is damaged, its weights lie outside
    of its folder, or it takes anything but one batch of images.
    """
    file = address.path
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UserError(
            f"{file}: an ONNX file needs {error.name}: pip install 'diascope[onnx]'"
        ) from None
    try:
        _check_data(file, onnx.load_model(str(file), load_external_data=False))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        gpu = "CUDAExecutionProvider"
        providers = [p for p in (gpu,) if p in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(
            str(file), options, providers=[*providers, "CPUExecutionProvider"]
        )
    except UserError:
        raise
    except Exception as error:  # protobuf's, onnx's and onnxruntime's own
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: not a readable ONNX file ({reason})") from None
    return _described(file, session)


def _described(file: Path, session: Any) -> Opened:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    told = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
        raise UserError(f"{file}: takes {told}, not one batch of images (B, C, H, W)")
    shape = [n if isinstance(n, int) and n > 0 else None for n in inputs[0].shape]
    layout: Layout = "nchw"
    if shape[1] not in (1, 3, None) or (shape[1] is None and shape[3] in (1, 3)):
        layout = "nhwc"
        shape = [shape[0], shape[3], shape[1], shape[2]]
    if shape[1] not in (1, 3, None) or shape[2] != shape[3]:
        raise UserError(
            f"{file}: takes {told}, not square images of 1 or 3 channels, (B, C, H, W) or "
            "(B, H, W, C)"
        )
    kind = _TYPES[inputs[0].type]
    session_of = Session(session.run, inputs[0].name, _scores(file, outputs), kind, shape[0])
    turned = ("its images are (B, H, W, C), and are turned so",) if layout == "nhwc" else ()
    return Opened(
        BlackBox(session_of, file.name),
        "onnx",
        channels=shape[1],
        size=shape[3],
        layout=layout,
        high=255.0 if kind is np.uint8 else None,
        statements=turned,
    )


def _scores(file: Path, outputs: list[Any]) -> str:
    """Return the name of the output with scores, else of that with labels."""
    floats = [o for o in outputs if "float" in o.type or "double" in o.type]
    labels = [o for o in outputs if "int" in o.type or "string" in o.type]
    for output in (*floats, *labels):
        if output.type.startswith("tensor(") and len(output.shape) in (1, 2):
            return str(output.name)
    told = ", ".join(f"{o.name} {o.type} {o.shape}" for o in outputs)
    raise UserError(f"{file}: returns {told}, not scores (B, K) or labels (B,)")


def _check_data(file: Path, model: Any) -> None:
    """Raise `UserError` unless weights kept apart are plain files inside the model's own folder."""
    folder = file.resolve().parent
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            place = folder / entry.value
            inside = place.resolve().is_relative_to(folder) and not Path(entry.value).is_absolute()
            if not inside or place.is_symlink():
                raise UserError(
                    f"{file}: keeps weights in '{entry.value}', outside of its own folder, which "
                    "is refused; save it with its data beside it"
                )
            if not place.is_file():
                raise UserError(f"{file}: its weights '{entry.value}' are not beside it")


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor of an ONNX message, in whatever part of it."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        parts = [value] if hasattr(value, "ListFields") else list(value)
        for part in parts:
            if descriptor.message_type.name == "TensorProto":
                yield part
            else:
                yield from _tensors(part)


KINDS.register("onnx")(Kind(lambda address: address.content == "onnx", _open))
