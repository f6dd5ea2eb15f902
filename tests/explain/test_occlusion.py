from __future__ import annotations

import captum.attr
import pytest
import torch
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.errors import UserError
from diascope.explain import Occlusion
from diascope.explain.baselines import blurred

TARGET = torch.tensor([0, 1, 2, 1, 0])


def theirs(model, x, target, patch, stride, fill, softmax=True):
    forward = (lambda t: model(t).softmax(1)) if softmax else model
    channels = x.shape[1]
    return captum.attr.Occlusion(forward).attribute(
        x,
        (channels, patch, patch),
        strides=(channels, stride, stride),
        baselines=fill,
        target=target,
    )


@pytest.mark.parametrize("fill", [0.0, 0.3, "mean", "blur"])
@pytest.mark.parametrize(("patch", "stride"), [(4, 2), (5, 3), (7, 7), (3, 1)])
def test_maps_equal_captums(patch, stride, fill):
    model, x = small_net(), images(5)[..., :13]
    ours = Occlusion(patch=patch, stride=stride, fill=fill, precision="float32")(model, x, TARGET)
    baseline = fill
    if fill == "mean":
        baseline = x.mean((2, 3), keepdim=True).expand_as(x)
    elif fill == "blur":
        baseline = blurred(x, patch / 2)
    expected = theirs(model, x, TARGET, patch, stride, baseline)[:, :1].detach()
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert ours.shape == (5, 1, 16, 13)


def test_logits_grey_images_and_float64_equal_captums():
    model, x = small_net(channels=1).double(), images(5, channels=1).double()
    ours = Occlusion(patch=6, stride=4, of="logit")(model, x, TARGET)
    expected = theirs(model, x, TARGET, 6, 4, 0.0, softmax=False).detach()
    assert ours.dtype == torch.float64
    scale = float(expected.abs().max())
    torch.testing.assert_close(ours, expected.double(), atol=1e-6 * scale, rtol=0)


def test_a_single_logit_falls_in_probability():
    model, x = small_net(1), images(3)
    model[-1].weight.data.mul_(20)
    ours = Occlusion(patch=5, stride=3, precision="float32")(model, x, 1)
    sigmoid = nn.Sequential(model, nn.Sigmoid())
    expected = theirs(sigmoid, x, 0, 5, 3, 0.0, softmax=False)[:, :1].detach()
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_drops_of_a_linear_model_are_known():
    weight = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    model, x = Linear(weight).double(), images(2, side=6).double()
    part = ((x - 0.5) * weight[1]).sum(1)  # (2, 6, 6)
    ours = Occlusion(patch=3, stride=3, fill=0.5, of="logit")(model, x, 1)
    blocks = part.view(2, 2, 3, 2, 3).sum((2, 4))
    expected = blocks.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, None]
    torch.testing.assert_close(ours, expected)
    pixel = Occlusion(patch=1, fill=0.5, of="logit")(model, x, 1)
    torch.testing.assert_close(pixel, part[:, None])


def counted(model: nn.Module) -> list[int]:
    rows: list[int] = []

    class Counting(nn.ReLU):
        def forward(self, x):
            assert not x.requires_grad
            rows.append(len(x))
            return super().forward(x)

    model[2] = Counting()
    return rows


def test_each_image_and_each_patch_goes_forward_once_without_gradients():
    model, x = small_net(), images(5)
    Occlusion(precision="float32")(model, x, TARGET)
    rows = counted(model)
    method = Occlusion(patch=4, stride=2, precision="float32")
    with torch.no_grad():
        method(model, x, TARGET)  # the looks at the model
        rows.clear()
        method(model, x, TARGET)
    assert sum(rows) == 5 * (1 + 7 * 7)
    assert len(rows) < 5 * 7 * 7  # many at once


def test_patches_that_change_nothing_are_not_asked():
    model, x = small_net(), images(2)
    x[0, :, :, :8] = 0  # black on the left
    x[1] = 0
    method = Occlusion(patch=4, stride=4, precision="float32")
    expected = theirs(model, x, 1, 4, 4, 0.0)[:, :1].detach()
    method(model, x, 1)
    rows = counted(model)
    method(model, x, 1)
    rows.clear()
    ours = method(model, x, 1)
    assert sum(rows) == 2 + 8
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    assert ours[1].count_nonzero() == 0
    assert ours[0, :, :, :8].count_nonzero() == 0


def test_sizes_follow_the_image_unless_given():
    at = lambda side, **fields: Occlusion(**fields).sides(torch.zeros(1, 3, side, side))
    assert at(224) == (50, 25)
    assert at(448) == (100, 50)
    assert at(28) == (6, 3)
    assert at(2) == (1, 1)
    assert at(224, patch=30) == (30, 15)
    assert at(224, stride=10) == (50, 10)
    assert Occlusion().sides(torch.zeros(1, 3, 300, 224)) == (50, 25)


def test_wrong_sizes_and_fills_are_refused():
    model, x = small_net(), images(1)
    with pytest.raises(UserError, match="patch=17 is larger than the 16x16 images"):
        Occlusion(patch=17)(model, x, 0)
    with pytest.raises(UserError, match="stride=9 leaves gaps"):
        Occlusion(stride=9)(model, x, 0)
    for fields in ({"patch": 0}, {"stride": 0}, {"patch": 3, "stride": 4}, {"fill": "grey"}):
        with pytest.raises(ValueError, match="patch|stride|fill"):
            Occlusion(**fields)


def test_low_precision_ranks_as_float32():
    model, x = small_net(), images(3)
    fine, rough = (
        Occlusion(patch=4, stride=4, of="logit", precision=p)(model, x, 1)
        for p in ("float32", "bf16")
    )
    assert not torch.equal(fine, rough)
    assert torch.corrcoef(torch.stack([fine.flatten(), rough.flatten()]))[0, 1] > 0.9
