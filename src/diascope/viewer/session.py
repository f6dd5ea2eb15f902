"""What is held in memory, and nowhere else: prepared images, and what attacks made of them."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from diascope.viewer.limits import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from diascope.data.windows import Window


class Held(Protocol):
    """Anything that knows its size."""

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        ...


H = TypeVar("H", bound=Held)


@dataclass(frozen=True)
class Frame:
    """What is left of an image that was prepared: its size in pixels, and what was cut out."""

    height: int
    width: int
    window: Window


@dataclass(frozen=True)
class Picture:
    """An image as the models see it, (C, H, W) uint8; where it is known, its class's index.

    outline: the edge of its mask as an SVG path in these pixels, empty without a mask. frame: of
    the image before, by which a mask that comes later is cut.
    """

    levels: Tensor
    label: int | None = None
    outline: str = ""
    frame: Frame | None = None

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return int(self.levels.nbytes)


@dataclass
class Attacked:
    """What one attack made of one image: of each model the points (E, C, H, W) at `epsilons`."""

    picture: Picture
    norm: str
    epsilons: tuple[float, ...]
    points: dict[str, Tensor] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)  # what each model made of the image
    nbytes: int = 0  # what it will take, known before the work begins


class Shelf(Generic[H]):
    """Things by random ids that cannot be guessed; the least recently used leave first.

    size: the bytes that all may take together. Safe to use from several threads.
    """

    def __init__(self, size: int) -> None:
        self.size, self._lock = size, threading.Lock()
        self._things: OrderedDict[str, H] = OrderedDict()
        self._taken = 0

    def put(self, thing: H) -> str:
        """Keep a thing and return its id; raises `Refused` where it alone is too large."""
        if thing.nbytes > self.size:
            raise Refused(413, "This takes more memory than the viewer may use.")
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._things[name] = thing
            self._taken += thing.nbytes
            while self._taken > self.size:
                self._taken -= self._things.popitem(last=False)[1].nbytes
        return name

    def get(self, name: object) -> H:
        """Return a thing; raises `Refused` where it has left, or never was."""
        with self._lock:
            if not isinstance(name, str) or name not in self._things:
                raise Refused(404, "This image is no longer in memory: open it again.")
            self._things.move_to_end(name)
            return self._things[name]

    def forget(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._things.clear()
            self._taken = 0

    def __len__(self) -> int:
        return len(self._things)
