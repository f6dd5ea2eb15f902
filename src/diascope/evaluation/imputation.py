"""Removed pixels filled in by their neighbours: the linear imputation of ROAD, solved on grids.

Every removed pixel is to be the weighted mean of its neighbours, removed ones among them (Rong et
al. 2022, arXiv 2202.00449, section 5.1): one linear system an image, the same for all channels.
Its matrix is that of a diffusion, so that conjugate gradients, preconditioned by one multigrid
cycle, come near its solution in a few steps, whatever the shape and the size of the holes (Tatebe
1993, The multigrid preconditioned conjugate gradient method). All is arithmetic on whole tensors:
no matrix is built, and images and channels are solved side by side, each to its own end.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-5
_STEPS = 60  # far more than any mask took
_COARSEST, _COARSEST_SWEEPS = 4, 8
_NUMBERS = 1 << 19  # pixels and channels solved at once on a CPU, so that they stay in its caches


def impute(
    x: Tensor, removed: Tensor, *, start: Tensor | None = None, tolerance: float = TOLERANCE
) -> Tensor:
    """Return images (B, C, H, W) whose removed pixels (B, H, W) bool are diffused from the kept.

    A removed pixel becomes the mean of its neighbours inside the image, direct ones weighted 1/6
    and diagonal ones 1/12 (which are scaled to sum to 1 at the image's edge). `start`, such as
    the solution for fewer removed pixels, is where the search begins; by default `x`. The
    solution of each channel holds to `tolerance`: the root mean square, over the removed pixels,
    of the difference to the neighbours' mean; at the default the pixels themselves are within
    0.004, a grey level, of the exact solution. Float32; NaN throughout an image from which every
    pixel is removed, or whose values are not finite. About 6 steps, each of some 50 passes.
    """
    if x.ndim != 4 or removed.shape != (len(x), *x.shape[2:]) or removed.dtype != torch.bool:
        raise ValueError(
            f"x {tuple(x.shape)}, removed {tuple(removed.shape)} {removed.dtype}: expected "
            "(B, C, H, W) and (B, H, W) bool"
        )
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, and must be positive")
    start = (x if start is None else start).detach().float()
    known = ~removed[:, None]
    start = torch.where(known, x.detach().float(), start)
    defined = start.flatten(1).sum(1).isfinite() & known.flatten(1).any(1)  # (B,)
    start = torch.where(defined[:, None, None, None], start, 0.0)
    numbers = _NUMBERS if x.device.type == "cpu" else 64 * _NUMBERS
    rows = max(1, numbers // max(1, math.prod(x.shape[1:])))
    parts = [
        _solved(start[i : i + rows], removed[i : i + rows], tolerance)
        for i in range(0, len(x), rows)
    ]
    filled = torch.cat(parts) if parts else start
    return torch.where(defined[:, None, None, None], filled, torch.nan)


class _Line:
    """Values of a grid end to end: each row and each plane is followed by zeros.

    A shift of the whole is then a shift of every row, so that neighbours are summed by additions
    of contiguous memory. `whole` has `halo` zeros before and after its `core` (B, C, P), in which
    are the P places of each plane, zeros included; `inside` are the values, (B, C, H, W).
    """

    def __init__(self, grid: _Grid) -> None:
        self.whole = grid.unknown.new_zeros(grid.size + 2 * grid.halo)
        core = self.whole[grid.halo : grid.halo + grid.size]
        self.core = core.view(grid.count, grid.planes, -1)
        planes = core.view(grid.count, grid.planes, grid.rows, grid.row)
        self.inside = planes[:, :, : grid.height, : grid.width]
        self.below, self.right = planes[:, :, grid.height :], planes[..., grid.width :]
        self.pairs = core.view(grid.count, grid.planes, grid.rows // 2, 2, grid.row // 2, 2)
        self.before, self.after = self.whole[:-1], self.whole[1:]


class _Grid:
    """One grid of the cycle: `unknown` (B, H, W), 1 where a value is sought; C planes an image.

    The masks have the places of a plane, (B, 1, P).
    """

    def __init__(self, unknown: Tensor, planes: int) -> None:
        self.unknown, self.planes = unknown, planes
        self.count, self.height, self.width = unknown.shape
        self.rows, self.row = (
            (self.height + 2) // 2 * 2,
            (self.width + 2) // 2 * 2,
        )  # even, one is 0
        self.halo, self.size = self.row + 1, self.count * planes * self.rows * self.row
        self.right, self.start, self.solution, self.spare = (_Line(self) for _ in range(4))
        self._sums, self._spread = _Line(self), _Line(self)
        a, b, row, end = self._sums.whole, self._spread.whole, self.row, self.halo + self.size
        self._views = (
            (self._sums.after, a[1:-1], a[2:], b[1:-1]),
            (b[row:-1], b[: -1 - row], a[row:-1]),
            (a[self.halo : end], a[self.halo + row : end + row], b[self.halo : end]),
        )
        self.odd = bool(self.height % 2 or self.width % 2)
        self._masks()

    def _masks(self) -> None:
        u = F.pad(self.unknown, (0, self.row - self.width, 0, self.rows - self.height))
        u = u.view(self.count, 1, -1)
        down, across = (
            _spread_ones(inside, size, u)
            for inside, size in ((self.height, self.rows), (self.width, self.row))
        )
        spread = (down[:, None] * across).view(-1)
        diagonal = torch.where(spread > 4, (spread - 4) / 12, 1.0)
        smoothing = torch.where(spread > 0, spread, 1.0)
        self.inverse, self.sweep = u / diagonal, u / (12 * diagonal)
        self.minus_12th, self.of_diagonal = u / -12, u * (diagonal + 1 / 3)
        self.up, self.down = u / smoothing, u / (12 * smoothing)

    def spread(self, line: _Line) -> Tensor:
        """Return the core of the 3x3 sums with weights 1 2 1 by 1 2 1, valid until the next."""
        (twos, left, here, threes), (above, same, twice), (top, bottom, found) = self._views
        torch.add(line.after, line.before, out=twos)
        torch.add(left, here, out=threes)
        torch.add(above, same, out=twice)
        torch.add(top, bottom, out=found)
        return self._spread.core

    def neighbours(self, line: _Line) -> Tensor:
        """Return 12 times the weighted sum of each value's neighbours, valid until the next."""
        return self.spread(line).sub_(line.core, alpha=4)

    def outflow(self, line: _Line) -> Tensor:
        """Return each unknown value less its neighbours' weighted sum, A x; until the next."""
        return self.spread(line).mul_(self.minus_12th).addcmul_(self.of_diagonal, line.core)

    def restrict(self, coarse: _Grid) -> None:
        """Bring the weighted residual, in `spare`, to the coarse grid's `right`: P^T."""
        self.spread(self.spare)
        self._clear(self._spread)
        pairs = self._spread.pairs[:, :, : coarse.height, :, : coarse.width]
        rows = pairs[:, :, :, 0] + pairs[:, :, :, 1]
        torch.add(rows[..., 0], rows[..., 1], out=coarse.right.inside)

    def prolong(self, coarse: _Grid) -> Tensor:
        """Return the coarse grid's `solution` in between, before its weights `up`: P."""
        pairs = self.spare.pairs
        for column in (0, 1):
            pairs[:, :, : coarse.height, 0, : coarse.width, column] = coarse.solution.inside
        pairs[:, :, :, 1] = pairs[:, :, :, 0]
        self._clear(self.spare)
        return self.spread(self.spare)

    def _clear(self, line: _Line) -> None:
        """Put zeros back around planes whose last row or column has no pair."""
        if self.odd:
            line.below.zero_()
            line.right.zero_()


def _spread_ones(inside: int, size: int, like: Tensor) -> Tensor:
    """Return the sums with weights 1 2 1 of a line of ones within zeros, (size,); 0 outside."""
    line = torch.zeros(size, dtype=like.dtype, device=like.device)
    line[:inside] = 4
    line[0] -= 1
    line[inside - 1] -= 1
    return line


def _grids(removed: Tensor, planes: int) -> list[_Grid]:
    """Return grids from fine to coarse: a cell is unknown where its 2 x 2 are, inside the image."""
    unknown = removed.float()
    grids = [_Grid(unknown, planes)]
    while min(unknown.shape[1:]) > _COARSEST:
        height, width = unknown.shape[1:]
        whole = F.pad(unknown, (0, width % 2, 0, height % 2), value=1.0)
        unknown = -F.max_pool2d(-whole[:, None], 2)[:, 0]
        grids.append(_Grid(unknown, planes))
    return grids


def _cycle(grids: list[_Grid]) -> None:
    """Solve the first grid's system for its `right` roughly, into its `solution` (a V-cycle).

    One sweep of Jacobi before and one after, as multigrid wants it to stay symmetric. With these
    weights a sweep takes away two thirds of all that a coarser grid cannot see.
    """
    grid, first, found = grids[0], grids[0].start.core, grids[0].solution.core
    torch.mul(grid.right.core, grid.inverse, out=first)
    if len(grids) == 1:
        found.copy_(first)
        for _ in range(_COARSEST_SWEEPS):
            torch.addcmul(first, grid.sweep, grid.neighbours(grid.solution), out=found)
        return
    torch.mul(grid.neighbours(grid.start), grid.down, out=grid.spare.core)  # the residual
    grid.restrict(grids[1])
    _cycle(grids[1:])
    torch.addcmul(first, grid.up, grid.prolong(grids[1]), out=found)
    torch.addcmul(first, grid.sweep, grid.neighbours(grid.solution), out=found)


def _solved(start: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Return the solution from `start`, whose kept pixels are the known values."""
    grids = _grids(removed, start.shape[1])
    grid = grids[0]
    values, way = _Line(grid), _Line(grid)
    values.inside.copy_(start)
    x, p, residual, z = values.core, way.core, grid.right.core, grid.solution.core
    torch.neg(grid.outflow(values), out=residual)
    limit = tolerance * removed.flatten(1).sum(1).clamp_min(1).sqrt()[:, None]  # (B, 1)
    before = torch.ones_like(x[..., 0])  # (B, C)
    for _ in range(_STEPS):
        unsolved = torch.linalg.vector_norm(residual, dim=2) > limit
        if not unsolved.any():
            break
        _cycle(grids)
        now = torch.linalg.vecdot(residual, z)
        p.mul_((now / before)[..., None]).add_(z)
        change = grid.outflow(way)
        length = torch.where(unsolved, now / torch.linalg.vecdot(p, change), 0.0)[..., None]
        before = torch.where(unsolved, now, 1.0)
        x.addcmul_(length, p)
        residual.addcmul_(-length, change)
    return values.inside.clone()
