"""Where a decision-based attack begins: misclassified images, sought within a fixed budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.attacks.base import broken_and_finite
from diascope.models.frozen import FrozenModel
from diascope.models.modes import exactly
from diascope.randomness import Noise

Recipe = Callable[[Tensor, Noise], Tensor]

_STREAM = 5_000_000  # of the starting points' random numbers, away from the walk's
_NEARER = 0.9  # a further start is tried at this part of the radius of the best one
_ROUGH, _FINE = 4, 6  # bisections of each start's line, and of the best one's
_DRAWS = 8  # how many of the other images each image tries
_SHARE = 4  # a nearer start is looked for in this part of the budget: one fourth


class Oracle:
    """The predicted label of a model, the only thing asked of it, and how often it was asked.

    used: queries of each image so far, (B,) int64. finite: whether all logits were, (B,) bool.
    """

    def __init__(self, net: FrozenModel, y: Tensor, targeted: bool) -> None:
        self.net, self.y, self.targeted = net, y, targeted
        self.used = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        self.finite = torch.ones(len(y), dtype=torch.bool, device=y.device)

    def original(self, x: Tensor) -> Tensor:
        """Return whether the images x (B, C, H, W) are what is sought to the model itself, (B,)."""
        images = torch.arange(len(x), device=x.device)
        self.count(images)
        with exactly(self.net) as model:
            return self.answer(model(x), images)

    def broken(self, points: Tensor, rows: Tensor) -> Tensor:
        """Return whether points (n, C, H, W) of the images `rows` (n,) are what is sought, (n,)."""
        self.count(rows)
        return self.answer(self.net(points), rows)

    def count(self, rows: Tensor) -> None:
        """Count a query of each of the images `rows` (n,)."""
        self.used[rows] += 1

    def answer(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return whether logits (n, K) of the images `rows` (n,) are those of what is sought."""
        broken, finite = broken_and_finite(logits, self.y[rows], targeted=self.targeted)
        self.finite[rows] &= finite
        return broken


class Starts:
    """The nearest boundary point of each image so far, on the line from x to some far image.

    far (B, C, H, W); inside and outside (B,): parts of the way at which the image is still
    classified as it should be, and not; radius (B,): the way to the latter, inf where none is.
    """

    def __init__(self, oracle: Oracle, x: Tensor) -> None:
        self.oracle, self.x, self.far = oracle, x, x.clone()
        self.inside, self.outside = x.new_zeros(len(x)), x.new_zeros(len(x))
        self.radius = x.new_full((len(x),), torch.inf)

    @property
    def found(self) -> Tensor:
        """Whether each image has a starting point, (B,) bool."""
        return self.radius.isfinite()

    def points(self) -> Tensor:
        """Return the starting points (B, C, H, W), x where there is none."""
        return _towards(self.x, self.far, self.outside)

    def attempt(self, far: Tensor, rows: Tensor, limit: int) -> None:
        """Try the images `far` (n, C, H, W) for `rows` (n,); keep those that are nearer."""
        x, length = self.x[rows], torch.linalg.vector_norm((far - self.x[rows]).flatten(1), dim=1)
        part = (_NEARER * self.radius[rows] / length.clamp_min(1e-30)).clamp_max(1)
        better = self.oracle.broken(_towards(x, far, part), rows).nonzero()[:, 0]
        rows = rows[better]
        self.far[rows], self.inside[rows], self.outside[rows] = far[better], 0, part[better]
        self.refine(rows, _ROUGH, limit)
        self.radius[rows] = self.outside[rows] * length[better]

    def refine(self, rows: Tensor, times: int, limit: int) -> None:
        """Halve `times` the stretch of the line on which the boundary lies."""
        for _ in range(times):
            rows = rows[self.oracle.used[rows] < limit]
            if not len(rows):
                return
            middle = (self.inside[rows] + self.outside[rows]) / 2
            broken = self.oracle.broken(_towards(self.x[rows], self.far[rows], middle), rows)
            self.outside[rows] = torch.where(broken, middle, self.outside[rows])
            self.inside[rows] = torch.where(broken, self.inside[rows], middle)


def find_starts(
    oracle: Oracle,
    x: Tensor,
    noise: Noise,
    wanted: Tensor,
    limit: int,
    *,
    start: Tensor | None = None,
    others: Tensor | None = None,
) -> Starts:
    """Look for a near boundary point of the images `wanted` (B,) bool, by at most `limit` queries.

    Each of a fixed list of images (`start`, noise, blends, coarse noise, plain colours, the
    negative, `others` (M, C, H, W)) is tried once: at the far end by an image that has no start
    yet, nearer than its best start by one that has. What is found is brought to the boundary by
    bisection. About 12 queries an image (50 where nothing is found), plus 4 for each start that
    was nearer, plus 6. A caller's own `start` (B, C, H, W) is kept where it serves.
    """
    starts = Starts(oracle, x)
    if start is not None:
        rows = (wanted & (oracle.used < limit)).nonzero()[:, 0]
        if len(rows):
            starts.attempt(start[rows].to(x.dtype).clamp(0, 1), rows, limit)
        wanted = wanted & ~starts.found
    for recipe, only_if_none in _recipes(others):
        asked = torch.where(starts.found, limit // _SHARE, limit)
        rows = (wanted & (oracle.used < asked)).nonzero()[:, 0]
        if only_if_none:
            rows = rows[~starts.found[rows]]
        if len(rows):
            starts.attempt(recipe(x[rows], noise.take(rows)), rows, limit)
    starts.refine(starts.found.nonzero()[:, 0], _FINE, limit)
    return starts


def _recipes(others: Tensor | None) -> Iterator[tuple[Recipe, bool]]:
    """Give the far images to try, and whether only by images that have no start yet."""
    for draw in range(2):
        yield _grain(None, draw), False
    for part in (0.75, 0.5, 0.25):
        yield _blend(part), True
    for draw, cells in enumerate((16, 8, 4, 2)):
        yield _grain(cells, 10 + draw), False
    for draw in range(2):
        yield _grain(1, 20 + draw), False
    yield (lambda x, noise: 1 - x), False
    yield (lambda x, noise: torch.zeros_like(x)), False
    yield (lambda x, noise: torch.ones_like(x)), False
    if others is not None and len(others):
        for draw in range(_DRAWS):
            yield _other(others, draw), False
    for draw, side in enumerate((None, 16, 8, 4, 2, 1) * 4):
        yield _grain(side, 30 + draw, contrast=True), True


def _grain(cells: int | None, draw: int, *, contrast: bool = False) -> Recipe:
    """Uniform noise of `cells` x `cells` grains, blurred between them; None: of every pixel.

    contrast: each grain is 0 or 1.
    """

    def recipe(x: Tensor, noise: Noise) -> Tensor:
        size = x.shape[2:]
        grid = size if cells is None else [min(cells, side) for side in size]
        grains = noise.uniform((x.shape[1], *grid), _STREAM + draw).to(x.dtype)
        grains = grains.round() if contrast else grains
        if cells is None:
            return grains
        return F.interpolate(grains, size=tuple(size), mode="bilinear").clamp(0, 1)

    return recipe


def _blend(part: float) -> Recipe:
    grain = _grain(None, 0)
    return lambda x, noise: torch.lerp(x, grain(x, noise), part)


def _other(others: Tensor, draw: int) -> Recipe:
    def recipe(x: Tensor, noise: Noise) -> Tensor:
        u = noise.uniform((), _STREAM + 100 + draw)
        chosen = (u * len(others)).long().clamp_max(len(others) - 1)
        return others[chosen.to(others.device)].to(x)

    return recipe


def _towards(x: Tensor, far: Tensor, part: Tensor) -> Tensor:
    """Return the points at `part` (B,) of the way from x to `far`."""
    return torch.lerp(x, far, part.view(-1, 1, 1, 1).to(x.dtype)).clamp(0, 1)
