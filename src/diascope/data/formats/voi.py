"""From the stored values of a DICOM image to what is meant to be seen, 8 bits a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from diascope.data.formats.base import FormatError, Levels
from diascope.data.formats.elements import first, integer, named, number, word
from diascope.data.formats.grey import spread

if TYPE_CHECKING:
    from pydicom.dataset import Dataset as Elements

Floats = NDArray[np.float64]
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Table:
    """A lookup table: `entries` for the inputs from `start` on; the ends hold beyond them."""

    start: int
    entries: NDArray[np.uint16]
    bits: int

    @classmethod
    def read(cls, item: Elements, signed: bool, order: str = "<") -> Table:
        """Return the table in an item of a modality or VOI LUT sequence."""
        count, start, bits = _descriptor(item, "LUTDescriptor", signed)
        return cls(start, _entries(item, "LUTData", count, order), bits)

    @property
    def white(self) -> int:
        """The highest value that the entries can have, or use, where that is under a quarter."""
        top, full = int(self.entries.max(initial=1)), (1 << self.bits) - 1
        return full if 4 * top > full and top <= full else (1 << max(top.bit_length(), 1)) - 1

    def __call__(self, values: Floats) -> Floats:
        """Return the entries for some inputs."""
        places = np.rint(values - self.start).clip(0, len(self.entries) - 1).astype(np.int64)
        return self.entries[places].astype(np.float64)


@dataclass(frozen=True)
class Window:
    """A window of interest: values about `centre`, `width` wide, go from black to white."""

    centre: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: Floats) -> Floats:
        """Return shares of white, 0 to 1 (DICOM part 3, C.11.2.1.2 and C.11.2.1.3)."""
        if self.function == "SIGMOID":
            slope = (-4 * (values - self.centre) / self.width).clip(-700, 700)
            return np.asarray(1 / (1 + np.exp(slope)))
        if self.function == "LINEAR_EXACT":
            return ((values - self.centre) / self.width + 0.5).clip(0, 1)
        low, high = (self.centre - 0.5 + s * (self.width - 1) / 2 for s in (-1, 1))
        inside = (values - self.centre + 0.5) / max(self.width - 1, 1e-9) + 0.5
        return np.where(values <= low, 0.0, np.where(values > high, 1.0, inside.clip(0, 1)))


@dataclass(frozen=True)
class GreySteps:
    """What makes stored grey values visible, in this order: rescale, window, inversion.

    `modality` takes the place of slope and intercept, `table` that of `window`; without either
    the darkest value of the image becomes black and the lightest white, as viewers do.
    `padding`, (lowest, highest) stored value that fills what lies outside the picture, is black
    and does not count for that range.
    """

    KEYWORDS: ClassVar[tuple[str, ...]] = (
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "RescaleSlope",
        "RescaleIntercept",
        "ModalityLUTSequence",
        "VOILUTSequence",
        "VOILUTFunction",
        "WindowCenter",
        "WindowWidth",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )

    slope: float = 1.0
    intercept: float = 0.0
    modality: Table | None = None
    window: Window | None = None
    table: Table | None = None
    padding: tuple[int, int] | None = None
    inverted: bool = False

    @classmethod
    def read(cls, elements: Elements, photometric: str, order: str = "<") -> GreySteps:
        """Return the steps that a header asks for; raises `FormatError` where it is damaged.

        A window without a width of 1 or more is none. order: "<" or ">", of bytes in words.
        """
        signed = integer(elements, "PixelRepresentation", 0) == 1
        rescale = _place(elements, "PixelValueTransformationSequence", "RescaleSlope")
        interest = _place(elements, "FrameVOILUTSequence", "WindowWidth")
        modality = first(elements, "ModalityLUTSequence")
        table = first(elements, "VOILUTSequence")
        slope = number(rescale, "RescaleSlope", 1.0)
        intercept = number(rescale, "RescaleIntercept", 0.0)
        # the inputs of the second table are what the first step gives
        below = modality is None and (signed or slope < 0 or intercept < 0)
        return cls(
            slope=slope or 1.0,
            intercept=intercept,
            modality=None if modality is None else Table.read(modality, signed, order),
            window=_window(interest),
            table=None if table is None else Table.read(table, below, order),
            padding=_padding(elements, signed),
            inverted=photometric == "MONOCHROME1",
        )

    def image(self, values: Levels, lowest: int, highest: int) -> NDArray[np.uint8]:
        """Return stored values (H, W), all from `lowest` to `highest`, as they are to be seen.

        Every possible value is worked out once, and the picture looked up.
        """
        every = np.arange(lowest, highest + 1)
        seen = self._seen(every.astype(np.float64), self._range(values))
        seen = 255 - seen if self.inverted else seen
        if self.padding is not None:
            seen[(every >= self.padding[0]) & (every <= self.padding[1])] = 0
        return np.asarray(seen[values.astype(np.int32) - lowest])

    def _seen(self, every: Floats, used: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the brightness of every stored value; `used` are the ends of those that occur."""
        rescaled = self._rescaled(every)
        if self.table is not None:
            return spread(self.table(rescaled), 0, self.table.white)
        if self.window is not None:
            return np.rint(self.window(rescaled) * 255).astype(np.uint8)
        occur = rescaled[(every >= used[0]) & (every <= used[1])]
        return spread(rescaled, float(occur.min()), float(occur.max()))

    def _rescaled(self, every: Floats) -> Floats:
        return self.modality(every) if self.modality else every * self.slope + self.intercept

    def _range(self, values: Levels) -> tuple[int, int]:
        """Return the lowest and the highest stored value of the picture without its padding."""
        inside = values
        if self.padding is not None:
            inside = values[(values < self.padding[0]) | (values > self.padding[1])]
            inside = inside if inside.size else values
        return int(inside.min()), int(inside.max())


@dataclass(frozen=True)
class Palette:
    """The colours (N, 3) of the values from `start` on; the ends hold beyond them."""

    KEYWORDS: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    )

    start: int
    colours: NDArray[np.uint8]

    @classmethod
    def read(cls, elements: Elements, order: str = "<") -> Palette:
        """Return the palette of a header; raises `FormatError` for one that is not read."""
        if "SegmentedRedPaletteColorLookupTableData" in elements:
            raise FormatError("has a palette in segments, which is not read: save it as RGB")
        signed = integer(elements, "PixelRepresentation", 0) == 1
        columns, start, deep = [], 0, False
        for colour in ("Red", "Green", "Blue"):
            name = f"{colour}PaletteColorLookupTable"
            count, start, bits = _descriptor(elements, f"{name}Descriptor", signed)
            columns.append(_entries(elements, f"{name}Data", count, order))
            deep = deep or (bits == 16 and columns[-1].max() > 255)
        if len({len(column) for column in columns}) > 1:
            raise FormatError("the three tables of its palette differ in length")
        entries = np.stack(columns, axis=1)
        return cls(start, (entries >> 8 if deep else entries).clip(0, 255).astype(np.uint8))

    def image(self, values: Levels) -> NDArray[np.uint8]:
        """Return the colours (H, W, 3) of stored values (H, W)."""
        places = (values.astype(np.int64) - self.start).clip(0, len(self.colours) - 1)
        return np.asarray(self.colours[places])


def _window(elements: Elements) -> Window | None:
    """Return the first window; None where there is none, or one without a width."""
    if first(elements, "WindowCenter") is None or first(elements, "WindowWidth") is None:
        return None
    width = number(elements, "WindowWidth")
    function = word(elements, "VOILUTFunction") or "LINEAR"
    if function not in FUNCTIONS:
        raise FormatError(f"{named('VOILUTFunction')} is none of {', '.join(FUNCTIONS)}")
    if width <= 0 or (function == "LINEAR" and width < 1):
        return None
    return Window(number(elements, "WindowCenter"), width, function)


def _padding(elements: Elements, signed: bool) -> tuple[int, int] | None:
    ends = [
        value
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        for value in _words(elements, keyword, signed)[:1]
    ]
    return (min(ends), max(ends)) if ends else None


def _place(elements: Elements, sequence: str, keyword: str) -> Elements:
    """Return where `keyword` stands: at the top, or in the groups of an enhanced image."""
    if first(elements, keyword) is not None:
        return elements
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        group = first(elements, groups)
        item = None if group is None else first(group, sequence)
        if item is not None:
            found: Elements = item
            return found
    return elements


def _descriptor(item: Elements, keyword: str, signed: bool) -> tuple[int, int, int]:
    """Return the number of entries, the first input and the bits of an entry of a table."""
    count, start, bits = (*_words(item, keyword, signed), 0, 0, 0)[:3]
    if bits not in range(8, 17):
        raise FormatError(f"{named(keyword)} is missing, or is not three numbers of a table")
    return (count & 0xFFFF) or 1 << 16, start, bits


def _words(elements: Elements, keyword: str, signed: bool) -> list[int]:
    """Return an element of words of 16 bits; whether they are signed is often not in the file."""
    value = elements.get(keyword)
    if value is None or value == "":
        return []
    if isinstance(value, bytes):  # of kind "US or SS", as files without kinds have it
        words = np.frombuffer(value[: len(value) // 2 * 2], "<u2").tolist()
    else:
        words = np.atleast_1d(np.asarray(value, np.int64)).tolist()
    words = [word & 0xFFFF for word in words]
    return [word - (1 << 16) if signed and word >> 15 else word for word in words]


def _entries(item: Elements, keyword: str, count: int, order: str) -> NDArray[np.uint16]:
    """Return the `count` entries of a table, of 8 or 16 bits each."""
    data = item.get(keyword)
    if isinstance(data, bytes):
        kind = f"{order}u2" if len(data) >= 2 * count else "u1"
        found = np.frombuffer(data[: len(data) // 2 * 2], kind).astype(np.uint16)
    else:
        values = [] if data is None else data
        found = (np.atleast_1d(np.asarray(values, np.int64)) & 0xFFFF).astype(np.uint16)
    if len(found) < count:
        raise FormatError(f"{named(keyword)} is shorter than it says")
    return found[:count]
