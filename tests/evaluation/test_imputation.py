from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import spsolve

from diascope.evaluation import imputation
from diascope.evaluation.imputation import impute


def rough(count=2, channels=3, height=40, width=33, seed=0):
    """Images with large and small detail, like photographs."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 6, 6, generator=g)
    fine = torch.rand(count, channels, height, width, generator=g)
    return 0.8 * F.interpolate(coarse, (height, width), mode="bilinear") + 0.2 * fine


def equations(image, removed):
    """The matrix and the right sides (n, C) of an image (C, H, W), equation by equation."""
    height, width = removed.shape
    number = {p: k for k, p in enumerate(map(tuple, removed.nonzero().tolist()))}
    matrix = sparse.lil_matrix((len(number), len(number)))
    right = np.zeros((len(number), len(image)))
    for (i, j), k in number.items():
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                a, b = i + di, j + dj
                if (di, dj) == (0, 0) or not (0 <= a < height and 0 <= b < width):
                    continue
                weight = 1 / 12 if di and dj else 1 / 6
                matrix[k, k] += weight
                if (a, b) in number:
                    matrix[k, number[a, b]] -= weight
                else:
                    right[k] += weight * image[:, a, b].double().numpy()
    return matrix.tocsc(), right


def solved_directly(image, removed):
    """The same image (C, H, W) by a sparse matrix."""
    filled = image.double().clone()
    found = spsolve(*equations(image, removed)).reshape(-1, len(image))
    filled[:, removed] = torch.from_numpy(found.T)
    return filled.float()


def longest_walk(removed):
    """The steps, on average, from the removed pixel that is furthest from the kept ones to these.

    An error in every equation, which is of a pixel and the mean of its neighbours, grows so many
    times in the solution at most: it is the largest row sum of the matrix' inverse.
    """
    matrix, _ = equations(torch.zeros(1, *removed.shape), removed)
    return float(np.max(spsolve(matrix, matrix.diagonal()), initial=1.0))


def disc(height, width, radius, at=(0.5, 0.5)):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (y - at[0] * height) ** 2 + (x - at[1] * width) ** 2 < radius**2


HOLES = {
    "disc": disc(40, 33, 14),
    "all but a disc": ~disc(40, 33, 6, (0.2, 0.8)),
    "corner": disc(40, 33, 20, (0, 0)),
    "half": torch.arange(33).expand(40, 33) > 15,
    "all but one": ~((torch.arange(40)[:, None] == 31) & (torch.arange(33) == 4)),
    "stripes": (torch.arange(33) % 3 > 0).expand(40, 33),
    "none": torch.zeros(40, 33, dtype=torch.bool),
}


@pytest.mark.parametrize("name", HOLES)
def test_equals_the_sparse_system(name):
    x, removed = rough(1), HOLES[name][None]
    found = impute(x, removed, tolerance=1e-7)
    torch.testing.assert_close(found[0], solved_directly(x[0], removed[0]), atol=2e-5, rtol=0)
    rough_one = impute(x, removed)
    torch.testing.assert_close(rough_one, found, atol=0.004, rtol=0)
    assert torch.equal(found.movedim(1, -1)[~removed], x.movedim(1, -1)[~removed])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 23), st.integers(2, 23), st.floats(0.05, 0.98))
@example(0, 2, 23, 0.96875)  # one pixel is kept at the end of a strip
def test_equals_the_sparse_system_for_any_size_and_scattered_holes(seed, height, width, share):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 2, height, width, generator=g)
    removed = torch.rand(2, height, width, generator=g) < share
    removed[:, 0, 0] = False
    found = impute(x, removed, tolerance=1e-7)
    for one, image, hole in zip(found, x, removed, strict=True):
        within = 4e-7 * longest_walk(hole)  # the tolerance, and the rounding of float32
        torch.testing.assert_close(one, solved_directly(image, hole), atol=within, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_grad_cams():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    x = rough(1, height=48, width=48)
    removed = disc(48, 48, 15, (0.4, 0.9))
    theirs = road.NoisyLinearImputer(noise=0.0)(x[0], (~removed).float())
    ours = impute(x, removed[None], tolerance=1e-7)[0]
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_a_plane_is_restored_exactly_inside():
    """A linear ramp is the mean of its neighbours, wherever it has all of them."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramp = (0.01 * y + 0.02 * x)[None, None]
    removed = disc(32, 32, 12)[None]
    found = impute(ramp, removed, start=torch.rand(1, 1, 32, 32), tolerance=1e-7)
    torch.testing.assert_close(found, ramp, atol=1e-5, rtol=0)


def test_filled_pixels_stay_between_the_kept_ones():
    x = rough(3)
    removed = torch.stack([HOLES["disc"], HOLES["all but a disc"], HOLES["corner"]])
    found = impute(x, removed, tolerance=1e-7)
    for image, filled, hole in zip(x, found, removed, strict=True):
        assert (filled.amin((1, 2)) >= image[:, ~hole].amin(1) - 1e-5).all()
        assert (filled.amax((1, 2)) <= image[:, ~hole].amax(1) + 1e-5).all()


def test_an_image_is_filled_by_itself(monkeypatch):
    x = rough(5)
    removed = torch.stack(
        [HOLES[name] for name in ("disc", "corner", "all but one", "none", "half")]
    )
    whole = impute(x, removed)
    alone = torch.cat([impute(x[i : i + 1], removed[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, alone, atol=1e-6, rtol=0)
    monkeypatch.setattr(imputation, "_NUMBERS", 2 * x[0].numel())
    torch.testing.assert_close(impute(x, removed), alone, atol=1e-6, rtol=0)


def test_few_steps_whatever_the_holes(monkeypatch):
    """The effort does not grow with the hole, as it would without the coarser grids."""
    steps, cycle = [], imputation._cycle
    monkeypatch.setattr(
        imputation, "_cycle", lambda grids: (steps.append(len(grids)), cycle(grids))
    )
    for side in (48, 96, 192):
        steps.clear()
        impute(rough(1, 1, side, side), disc(side, side, 0.45 * side)[None])
        assert steps.count(max(steps)) <= 8


def test_the_solution_does_not_depend_on_the_start_or_the_removed_values():
    x, removed = rough(2), HOLES["disc"].expand(2, -1, -1)
    found = impute(x, removed, tolerance=1e-7)
    other = torch.where(removed[:, None], torch.rand_like(x), x)
    torch.testing.assert_close(impute(other, removed, tolerance=1e-7), found, atol=2e-5, rtol=0)
    start = torch.rand_like(x)
    torch.testing.assert_close(
        impute(x, removed, start=start, tolerance=1e-7), found, atol=2e-5, rtol=0
    )


def test_nothing_kept_is_undefined_and_wrong_input_is_refused():
    x, removed = rough(2), HOLES["disc"].repeat(2, 1, 1)
    removed[1] = True
    found = impute(x, removed)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
    holed = x.clone()
    holed[1, 0, 0, 0] = torch.nan
    found = impute(holed, HOLES["disc"].expand(2, -1, -1))
    assert torch.equal(found[:1], impute(x[:1], removed[:1]))
    assert found[1].isnan().all()
    assert impute(x[:0], removed[:0]).shape == x[:0].shape
    with pytest.raises(ValueError, match="bool"):
        impute(x, removed.float())
    with pytest.raises(ValueError, match="tolerance"):
        impute(x, removed, tolerance=0.0)
