"""Classifiers from anywhere, one file a kind: an address -> a module, and what its file tells.

An address is a path, `NAME:FILE` (a timm name and its weights) or `package.module:thing`. What a
file holds is told from its content, never from its suffix, and no file is opened by running code
that lies in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn

from diascope.errors import UserError
from diascope.models.opening.content import Content, content_of
from diascope.models.stored import PICKLE
from diascope.registry import Registry

KINDS = Registry("kind of model", __name__)

Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Address:
    """What a user writes for a model."""

    text: str

    @property
    def path(self) -> Path:
        """The address as a path."""
        return Path(self.text).expanduser()

    @property
    def before(self) -> str:
        """What stands before the first colon."""
        return self.text.partition(":")[0]

    @property
    def after(self) -> str:
        """What stands behind it."""
        return self.text.partition(":")[2]

    @cached_property
    def content(self) -> Content:
        """What the file at the path holds."""
        return content_of(self.path)


@dataclass(frozen=True)
class Opened:
    """A classifier as it was opened.

    kind: as in `diascope.audit.parts.Interface`. card: what the file tells of classes, size and
    preprocessing. channels, size, layout, high: what the file fixes of the input: images of so
    many channels, `size` pixels a side, from 0 to `high`. Nothing of it is known where None.
    """

    model: nn.Module
    kind: str
    card: dict[str, Any] = field(default_factory=dict)
    channels: int | None = None
    size: int | None = None
    layout: Layout | None = None
    high: float | None = None
    statements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of model: which addresses it claims, and how it opens one."""

    claims: Callable[[Address], bool]
    open: Callable[[Address], Opened]


def open_classifier(address: str) -> Opened:
    """Open a classifier, whatever its kind; raises `UserError` where it cannot be opened."""
    where = Address(address)
    for name in KINDS:
        kind: Kind = KINDS[name]
        if kind.claims(where):
            opened = kind.open(where)
            opened.model.eval()
            return opened
    raise UserError(f"{where.path}: {_REFUSALS[where.content]}")


_REFUSALS: dict[Content, str] = {
    "pickle": PICKLE,
    "weights": "holds weights alone; write NAME:FILE with their timm name, or "
    "package.module:factory of a function that builds the model and loads them",
    "damaged": "is damaged or cut off; copy or export it again",
    "compiled": "holds compiled machine code (AOTInductor), which is refused; save the "
    "ExportedProgram itself with torch.export.save",
    "unknown": "is no model that can be opened: neither safetensors, TorchScript, "
    "ExportedProgram nor ONNX",
}
