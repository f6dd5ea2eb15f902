"""Images with a part covered, and what the first modules behind the stem make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.explain.covered.images import Windows
from diascope.explain.covered.maps import CoveredMaps, Under, like
from diascope.hardware import out_of_memory
from diascope.models.local import Reach, Stage, remainder, stages_behind
from diascope.models.stem import Stem

TRIAL = 16  # passes at most
WORTH_CROPPING = 0.75  # of a module's maps: a larger crop saves little
_IMAGES = 4  # whose maps are kept at a time


@dataclass(frozen=True)
class Crop:
    """Along one axis, the crop of the maps that a module takes in, around each place.

    made, taken: how many pixels of what the module makes hear of a place, and how many of what it
    takes in are enough for them, the same for every place. first, start: the first of each. inside:
    where the first lies in what is made of the crop.
    """

    made: int
    taken: int
    first: tuple[int, ...]
    start: tuple[int, ...]
    inside: tuple[int, ...]

    @classmethod
    def of(cls, heard: Under | Crop, reach: Reach) -> Crop:
        """Return the crops around what was `heard` of the places by what came before.

        They begin at multiples of the stride; one that would go beyond the edge ends there.
        """
        stride, side = reach.stride, reach.side
        spans = [(first // stride, -((first + heard.made) // -stride)) for first in heard.first]
        most = max(stop - start for start, stop in spans)
        made = min(side, most + reach.before + reach.after)
        cut_off = reach.taken % stride != 0  # the last pixel has fewer under it
        cells = min(side, made + reach.before + reach.after + cut_off)
        first = [min(max(start - reach.after, 0), side - made) for start, _ in spans]
        start = [min(max(at - reach.before, 0), side - cells) for at in first]
        inside = tuple(a - b for a, b in zip(first, start, strict=True))
        taken = reach.taken - stride * (side - cells)
        return cls(made, taken, tuple(first), tuple(stride * at for at in start), inside)


@dataclass(frozen=True)
class Step:
    """A stage of the model, and the crops it is given, down and across."""

    stage: Stage
    down: Crop
    across: Crop

    @property
    def share(self) -> float:
        """The crops' share of what the stage takes in."""
        down, across = self.stage.down.taken, self.stage.across.taken
        return self.down.taken * self.across.taken / (down * across)


class CoveredNearby(CoveredMaps):
    """The same as `CoveredMaps`; of the maps that the modules behind the stem make, too, only
    what hears of the cover is computed again, each from crops of what it takes in.
    """

    def __init__(
        self,
        stem: Stem,
        x: Tensor,
        fill: Tensor,
        windows: tuple[Windows, Windows],
        steps: Sequence[Step],
    ) -> None:
        self.steps = tuple(steps)
        self.remainder = remainder(stem, [step.stage for step in steps])
        self._clean: dict[int, list[Tensor]] = {}  # of images: the stem's maps, and each stage's
        super().__init__(stem, x, fill, windows)

    def logits(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the logits (n, K) of `images`."""
        groups = torch.unique(image, return_inverse=True)[1] // _IMAGES
        each = [groups == group for group in groups.unique()]
        later = (self.later(image[some], row[some], column[some]) for some in each)
        return torch.cat([self.remainder(maps) for maps in later])

    def later(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the maps (n, d, h', w') that the last of the stages makes of `images`."""
        places = list(zip(image.tolist(), row.tolist(), column.tolist(), strict=True))
        self._clean = {i: maps for i, maps in self._clean.items() if i >= places[0][0]}
        seen = self._unseen(len(places))
        for part, (i, r, c) in zip(seen, places, strict=True):
            self._turn(i)
            self._see(part, r, c)
        parts: Iterable[Tensor] = self.stem.convolved(seen)
        at: tuple[Under, Under] | tuple[Crop, Crop] = self.under
        for n, step in enumerate(self.steps):
            made = step.stage.maps(self._around(n, parts, at, (step.down, step.across), places))
            at = down, across = step.down, step.across
            parts = [
                maps[:, top : top + down.made, left : left + across.made]
                for maps, (_, r, c) in zip(made, places, strict=True)
                for top, left in [(down.inside[r], across.inside[c])]
            ]
        return self._around(len(self.steps), parts, at, None, places)

    def unchanged(self, image: Tensor) -> Tensor:
        """Return what `later` would be, was nothing covered; of images it was just asked about."""
        return torch.cat([self._clean[i][-1] for i in image.tolist()])

    def _around(
        self,
        stage: int,
        parts: Iterable[Tensor],
        at: tuple[Under | Crop, Under | Crop],
        crops: tuple[Crop, Crop] | None,
        places: Sequence[tuple[int, int, int]],
    ) -> Tensor:
        """Return crops, or the whole, of a stage's maps with what has changed of each place.

        parts: what has changed. at: where that lies. places: image, row and column of each.
        """
        maps = self._clean[places[0][0]][stage]
        sides = maps.shape[2:] if crops is None else [crop.taken for crop in crops]
        out = like(maps[:, :, : sides[0], : sides[1]], len(places))
        for whole, part, (i, r, c) in zip(out, parts, places, strict=True):
            top, left = (0, 0) if crops is None else (crops[0].start[r], crops[1].start[c])
            maps = self._clean[i][stage]
            whole.copy_(maps[0, :, top : top + sides[0], left : left + sides[1]])
            top, left = at[0].first[r] - top, at[1].first[c] - left
            whole[:, top : top + at[0].made, left : left + at[1].made] = part
        return out

    def _turn(self, image: int) -> None:
        """Have at hand what each stage makes of the image, too."""
        super()._turn(image)
        if image not in self._clean:
            self._clean[image] = [self._maps]
            for step in self.steps:
                self._clean[image].append(step.stage.maps(self._clean[image][-1].clone()))


def nearby(
    stem: Stem, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows]
) -> CoveredNearby | None:
    """Return what covers images, or None: where nothing is local enough behind the stem, and where
    a trial on an image of noise fails or shows that the model goes by more than it was given.
    """
    try:
        steps = _steps(stem, x[-1:], fill[-1:], windows)
    except Exception as error:  # such as of a module that takes maps of one size alone
        if out_of_memory(error):
            raise
        return None
    return CoveredNearby(stem, x, fill, windows, steps) if steps else None


@torch.no_grad()
def _steps(stem: Stem, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows]) -> list[Step]:
    """Return the stages that are worth it, none where they are not the model.

    Tried on an image of noise and on another, x (1, C, H, W), with its `fill`.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    fill = torch.cat([torch.zeros_like(fill), fill])
    whole = CoveredMaps(stem, torch.cat([noise, x]), fill, windows)
    at: tuple[Under, Under] | tuple[Crop, Crop] = whole.under
    steps = list[Step]()
    for stage in stages_behind(stem, stem.maps(noise)):
        at = Crop.of(at[0], stage.down), Crop.of(at[1], stage.across)
        step = Step(stage, *at)
        if step.share > WORTH_CROPPING:
            break
        steps.append(step)
    return steps if steps and _alike(whole, steps) else []


def _alike(whole: CoveredMaps, steps: Sequence[Step]) -> bool:
    """Tell whether these steps are the model, by three places of two images: two corners, and one
    near the middle, none on the diagonal.
    """
    found = CoveredNearby(whole.stem, whole.x, whole.fill, whole.windows, steps)
    rows, columns = (len(each.spans) - 1 for each in whole.windows)
    image, row = torch.tensor([0, 0, 1]), torch.tensor([0, rows, rows // 2])
    column = torch.tensor([columns, 0, columns // 3])
    later, maps = found.later(image, row, column), whole.maps(image, row, column)
    clean, told = found.unchanged(image), whole.stem.rest(maps.clone())
    for step in steps:
        maps = step.stage.maps(maps)
    if later.shape != maps.shape:
        return False
    share, floor = (0.05, 1e-3) if whole.stem.net.precision == "bf16" else (1e-3, 1e-6)
    amiss, true = later.float() - maps.float(), maps.float() - clean.float()
    amiss, true, clean = (each.float().flatten(1).norm(dim=1) for each in (amiss, true, clean))
    near = (amiss <= share * true + floor * clean).all()  # some covers change next to nothing
    return bool(near) and torch.equal(found.remainder(maps), told)
