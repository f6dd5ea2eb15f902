"""A module that is run as it is: hooks cannot see into it, and nothing in it can be rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


class Sealed(nn.Module):
    """A TorchScript or exported module, in eval mode, as a module without parts.

    Its parameters and buffers are seen, it moves between devices and gives gradients; a copy of
    it is itself, so that a frozen model runs it unchanged.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.__dict__["inner"] = inner  # past nn.Module's own bookkeeping
        self.training = False

    def forward(self, x: Tensor) -> Any:
        """Return what the module returns."""
        return self.__dict__["inner"](x)

    def train(self, mode: bool = True) -> Sealed:
        """Stay in eval mode."""
        return self

    def named_parameters(self, *args: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and parameters of the module inside."""
        yield from self.__dict__["inner"].named_parameters(*args, **options)

    def named_buffers(self, *args: Any, **options: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and buffers of the module inside."""
        yield from self.__dict__["inner"].named_buffers(*args, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Sealed:
        self.__dict__["inner"]._apply(fn)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Sealed:
        return self
