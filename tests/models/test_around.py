"""Pooled maps of a stem around squares of the images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.nets import images
from torch import Tensor, nn

from diascope.models.changes import Changes, Points, changes_of
from diascope.models.changes.around import squares
from diascope.models.frozen import frozen

HIGH, WIDE = 61, 68


class Stemmed(nn.Module):
    """A stem, something before the pooling, the pooling, and a head."""

    def __init__(self, conv, pool, before=F.relu, scale=1.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 6, *conv)
            self.head = nn.Conv2d(6, 4, 1)
        self.pool, self.before, self.scale = pool, before, scale

    def pooled(self, x: Tensor) -> Tensor:
        return self.pool(self.before(self.conv((x - 0.4) * self.scale)))

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(self.head(self.pooled(x))).mean((2, 3))


STEMS = {
    "resnet": ((7, 2, 3), nn.MaxPool2d(3, 2, 1)),
    "alexnet": ((11, 4, 2), nn.MaxPool2d(3, 2)),
    "plain": ((3, 1, 1), nn.MaxPool2d(2)),
    "no padding": ((5, 2, 0), nn.MaxPool2d(3, 3)),
    "oblong": (((3, 5), (1, 2), (1, 0)), nn.MaxPool2d((2, 3), (2, 1), (0, 1))),
    "torch's": ((3, 1, 1), lambda z: torch.max_pool2d(z, [2, 2])),
    "not rectified": ((7, 2, 3), nn.MaxPool2d(3, 2, 1), lambda z: z),
    "scaled": ((3, 2, 1), nn.MaxPool2d(3, 2, 1), F.relu, 5.0),
}


def followed(model: nn.Module, x: Tensor) -> tuple[Changes, Points]:
    with frozen(model, x, precision="float32") as net:
        changes = changes_of(net, x, 10_000, gain=False)
    assert changes is not None
    return changes, changes.known(x)


def with_squares(x: Tensor, corner: Tensor, side: int) -> Tensor:
    moved = x.clone(memory_format=torch.channels_last)
    for image, (top, left) in zip(moved, corner.tolist(), strict=True):
        image[:, top : top + side, left : left + side] += torch.rand(3, 1, 1) - 0.5
    return moved


def corners(count: int, side: int) -> Tensor:
    """Return corners (count, 2) by lot, the first four those of the image."""
    high, wide = HIGH - side, WIDE - side
    edges = torch.tensor([[0, 0], [0, wide], [high, 0], [high, wide]])
    lot = torch.rand(count - 4, 2) * torch.tensor([high + 1, wide + 1])
    return torch.cat([edges, lot.long()])


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_patch_is_what_the_stem_makes_and_all_that_changes(name, side):
    torch.manual_seed(side)
    model, x = Stemmed(*STEMS[name]).eval(), images(40, WIDE)[:, :, :HIGH]
    changes, _ = followed(model, x[:1])
    assert changes.around is not None
    corner = corners(len(x), side)
    moved = with_squares(x, corner, side)
    patch = changes.around.pooled(moved, squares(corner, side, x.shape))
    assert patch is not None
    with torch.no_grad():
        before, after = (model.pooled(each).permute(0, 2, 3, 1) for each in (x, moved))
    torch.testing.assert_close(patch.values, after[patch.where], atol=1e-5, rtol=1e-5)
    before[patch.where] = after[patch.where]
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


def test_a_walk_by_squares_ends_where_the_whole_images_do():
    torch.manual_seed(0)
    model, x = Stemmed(*STEMS["resnet"]).eval(), images(12, WIDE)[:, :, :HIGH]
    changes, near = followed(model, x)
    at, patched = x.clone(memory_format=torch.channels_last), 0
    for step in range(30):
        side = int(torch.randint(1, 60, ()))
        corner = corners(len(x), side)
        asked, where = with_squares(at, corner, side), squares(corner, side, x.shape)
        patched += changes.around.pooled(asked, where) is not None
        found = changes(asked, near, where)
        near.moved(rows := torch.arange(step % 2, len(x), 2))
        at[rows] = asked[rows]
        torch.testing.assert_close(found, model(asked), atol=1e-3, rtol=2e-2)
        if step == 20:
            near.put(rows, changes.known(at[rows]))
        if step == 22:
            near.returned(rows)
            at[rows] = near.x[rows]
        if step == 25:
            keep = torch.tensor([0, 3, 4, 7, 11])
            near, at, x = near.take(keep), at[keep], x[keep]
    assert 5 < patched < 30  # both ways were gone


def corner_of(z: Tensor) -> Tensor:
    """Return where maps lie in the upper right, 1 or 0."""
    return torch.outer(torch.arange(z.shape[2]) < 20, torch.arange(z.shape[3]) > 45).long()


@pytest.mark.parametrize(
    ("pool", "before"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), F.relu),
        (nn.MaxPool2d(2, 2, 0, dilation=2), F.relu),
        (nn.MaxPool2d(3, 2), lambda z: F.pad(z, (1, 1, 1, 1))),
        (nn.MaxPool2d(2), lambda z: z * (corner_of(z) == 0)),
    ],
)
def test_a_pooling_of_another_kind_is_computed_whole(pool, before):
    model, x = Stemmed((3, 1, 1), pool, before).eval(), images(4, WIDE)[:, :, :HIGH]
    changes, near = followed(model, x)
    assert changes.around is None
    corner = corners(len(x), 3)
    moved = with_squares(x, corner, 3)
    found = changes(moved, near, squares(corner, 3, x.shape)) - near.logits
    true = (model(moved) - model(x)).detach()
    assert true.norm(dim=1).max() > 1e-4
    assert ((found - true).norm(dim=1) < 0.03 * true.norm(dim=1) + 1e-6).all()
