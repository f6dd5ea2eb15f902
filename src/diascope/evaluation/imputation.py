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
from dataclasses import dataclass, field

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
    defined = start.isfinite().flatten(1).all(1) & known.flatten(1).any(1)  # (B,)
    start = torch.where(defined[:, None, None, None], start, 0.0)
    numbers = _NUMBERS if x.device.type == "cpu" else 64 * _NUMBERS
    rows = max(1, numbers // max(1, math.prod(x.shape[1:])))
    parts = [
        _solved(start[i : i + rows], removed[i : i + rows], tolerance)
        for i in range(0, len(x), rows)
    ]
    filled = torch.cat(parts) if parts else start
    return torch.where(defined[:, None, None, None], filled, torch.nan)


@dataclass(eq=False)
class _Grid:
    """One grid of the cycle: `unknown` (B, H, W), 1 where a value is sought; C planes an image.

    Values lie end to end in one vector, each row and each plane followed by zeros, so that a
    shift of the whole vector is a shift of every row: the neighbours' sums are then additions of
    contiguous memory. A vector has `halo` zeros before and after its core.
    """

    unknown: Tensor
    planes: int
    scratch: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        count, height, width = self.unknown.shape
        self.height, self.width = height, width
        self.rows, self.row = (height + 2) // 2 * 2, (width + 2) // 2 * 2  # even, one is zero
        self.halo = self.row + 1
        self.size = count * self.planes * self.rows * self.row
        self.scratch = self.vector(), self.vector()
        self.solution, self.start, self.spare = self.vector(), self.vector(), self.vector()
        self.right = self.vector()
        ones, unknown = self.vector(), self.vector()
        self.inside(ones).fill_(1)
        self.inside(unknown).copy_(self.unknown[:, None])
        u, neighbours = self.core(unknown), self.spread(ones)
        diagonal = (neighbours - 4 * self.core(ones)) / 12
        diagonal = torch.where(diagonal > 0, diagonal, 1.0)
        smoothing = torch.where(neighbours > 0, neighbours, 1.0)
        self.mask = u
        self.inverse = u / diagonal
        self.minus_12th, self.of_diagonal = u / -12, u * (diagonal + 1 / 3)
        self.sweep = u / (12 * diagonal)
        self.up, self.down = u / smoothing, u / (12 * smoothing)

    def vector(self) -> Tensor:
        """Return zeros, halo included."""
        return self.unknown.new_zeros(self.size + 2 * self.halo, dtype=torch.float32)

    def core(self, vector: Tensor) -> Tensor:
        """Return the vector without its halo."""
        return vector[self.halo : self.halo + self.size]

    def planed(self, core: Tensor) -> Tensor:
        """Return a core as planes (B, C, rows, row), zeros included."""
        return core.view(-1, self.planes, self.rows, self.row)

    def inside(self, vector: Tensor) -> Tensor:
        """Return the values themselves, (B, C, H, W)."""
        return self.planed(self.core(vector))[:, :, : self.height, : self.width]

    def spread(self, vector: Tensor) -> Tensor:
        """Return the core of the 3x3 sums with weights 1 2 1 by 1 2 1, valid until the next."""
        (a, b), row, halo, end = self.scratch, self.row, self.halo, self.halo + self.size
        torch.add(vector[1:], vector[:-1], out=a[1:])
        torch.add(a[1:-1], a[2:], out=b[1:-1])
        torch.add(b[row:-1], b[: -1 - row], out=a[row:-1])
        return torch.add(a[halo:end], a[halo + row : end + row], out=b[halo:end])

    def neighbours(self, vector: Tensor) -> Tensor:
        """Return 12 times the weighted sum of each value's neighbours, valid until the next."""
        return self.spread(vector).sub_(self.core(vector), alpha=4)

    def clear(self, core: Tensor) -> Tensor:
        """Put zeros back around planes whose last row or column has no pair."""
        planes = self.planed(core)
        if self.height % 2:
            planes[:, :, self.height :] = 0
        if self.width % 2:
            planes[..., self.width :] = 0
        return core

    def squares(self, core: Tensor) -> Tensor:
        """Return a core, zeros included, as pairs of rows and columns (B, C, h, 2, w, 2)."""
        return core.view(-1, self.planes, self.rows // 2, 2, self.row // 2, 2)


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
    grid = grids[0]
    first, found = grid.core(grid.start), grid.core(grid.solution)
    torch.mul(grid.core(grid.right), grid.inverse, out=first)
    if len(grids) == 1:
        found.copy_(first)
        for _ in range(_COARSEST_SWEEPS):
            torch.addcmul(first, grid.sweep, grid.neighbours(grid.solution), out=found)
        return
    spare = grid.core(grid.spare)
    torch.mul(grid.neighbours(grid.start), grid.down, out=spare)  # the residual, weighted
    coarse = grids[1]
    h, w = coarse.height, coarse.width
    four = grid.squares(grid.clear(grid.spread(grid.spare)))[:, :, :h, :, :w]
    pairs = four[:, :, :, 0] + four[:, :, :, 1]
    torch.add(pairs[..., 0], pairs[..., 1], out=coarse.inside(coarse.right))
    _cycle(grids[1:])
    correction = coarse.inside(coarse.solution)[:, :, :, None, :, None]
    grid.squares(spare)[:, :, :h, :, :w] = correction
    grid.clear(spare)
    torch.addcmul(first, grid.up, grid.spread(grid.spare), out=found)
    torch.addcmul(first, grid.sweep, grid.neighbours(grid.solution), out=found)


def _solved(start: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Return the solution from `start`, whose kept pixels are the known values."""
    count, planes = start.shape[:2]
    grids = _grids(removed, planes)
    fine = grids[0]
    values, way = fine.vector(), fine.vector()
    fine.inside(values).copy_(start)
    fine.core(fine.right).copy_(_outflow(fine, values)).neg_()  # the residual
    x, residual, z, p = (
        fine.core(each).view(count * planes, -1)
        for each in (values, fine.right, fine.solution, way)
    )
    pixels = removed.flatten(1).sum(1).clamp_min(1).repeat_interleave(planes)
    before = torch.ones_like(x[:, 0])
    for _ in range(_STEPS):
        unsolved = torch.linalg.vector_norm(residual, dim=1) > tolerance * pixels.sqrt()
        if not unsolved.any():
            break
        _cycle(grids)
        now = _products(residual, z)
        p.mul_((now / before)[:, None]).add_(z)
        change = _outflow(fine, way).view_as(p)
        length = torch.where(unsolved, now / _products(p, change), 0.0)[:, None]
        before = torch.where(unsolved, now, 1.0)
        x.addcmul_(length, p)
        residual.addcmul_(-length, change)
    return fine.inside(values).clone()


def _outflow(grid: _Grid, vector: Tensor) -> Tensor:
    """Return each unknown value less its neighbours' weighted sum, the core of A x."""
    spread = grid.spread(vector).mul_(grid.minus_12th)
    return spread.addcmul_(grid.of_diagonal, grid.core(vector))


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each row, (n, m) and (n, m) -> (n,)."""
    return torch.bmm(a[:, None], b[:, :, None])[:, 0, 0]
