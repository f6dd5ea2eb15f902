from __future__ import annotations

import captum.attr
import pytest
import torch
from tests.nets import Linear, images, small_net

from diascope.explain import Gradient, rectify, render
from diascope.models import heads


@pytest.mark.parametrize("times_input", [False, True])
def test_gradient_equals_captum(times_input):
    model, x, target = small_net(), images(5), torch.tensor([0, 1, 2, 1, 0])
    method = captum.attr.InputXGradient if times_input else captum.attr.Saliency
    with pytest.warns(UserWarning, match="required_grads"):
        options = {} if times_input else {"abs": False}
        theirs = method(model).attribute(x, target=target, **options)
    ours = Gradient(times_input=times_input)(model, x, target)
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)


def test_gradient_of_a_linear_model_is_its_weight():
    weight = torch.randn(3, 3, 4, 4)
    model, x, target = Linear(weight), images(3, side=4), torch.tensor([2, 0, 1])
    torch.testing.assert_close(Gradient()(model, x, target), weight[target])
    single = Linear(weight[:1])
    torch.testing.assert_close(Gradient()(single, x, 1), weight[:1].expand(3, -1, -1, -1) / 2)
    torch.testing.assert_close(Gradient()(single, x, 0), -weight[:1].expand(3, -1, -1, -1) / 2)


def test_what_is_differentiated_is_a_choice():
    model, x, target = small_net(), images(2), torch.tensor([0, 1])
    maps = {of: Gradient(of=of)(model, x, target) for of in ("logit", "log_softmax", "probability")}
    p = heads.probabilities(model(x)).gather(1, target[:, None]).view(2, 1, 1, 1)
    torch.testing.assert_close(maps["probability"], maps["log_softmax"] * p, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(Gradient(of="loss")(model, x, target), -maps["log_softmax"])
    assert not torch.allclose(maps["logit"], maps["log_softmax"])


def test_rectify_sums_over_channels():
    raw = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]]]])  # (1, 2, 1, 2)
    assert rectify(raw).tolist() == [[[4.0, 3.0]]]
    assert rectify(raw, "positive").tolist() == [[[0.0, 0.0]]]
    assert rectify(-raw, "positive").tolist() == [[[2.0, 1.0]]]
    with pytest.raises(ValueError, match="attribution"):
        rectify(raw[0])


def test_render_caps_at_the_percentile_of_each_image():
    ramp = torch.arange(1000.0).view(1, 1, 20, 50)
    heat = render(torch.cat([ramp, ramp * -7]))
    assert heat.shape == (2, 20, 50)
    assert heat.min() == 0
    assert heat.max() == 1
    torch.testing.assert_close(heat[0], heat[1])  # scale and sign do not matter
    assert (heat[0] == 1).sum() == 10  # the top hundredth is capped
    torch.testing.assert_close(heat[0, 10, 0], torch.tensor(500 / 989.01))
    torch.testing.assert_close(render(ramp, percentile=100)[0, 10, 0], torch.tensor(500 / 999))


def test_render_of_empty_sparse_and_broken_maps():
    raw = torch.zeros(3, 1, 20, 20)
    raw[1, 0, 3, 4] = 0.5  # under 1% of the pixels hold evidence
    raw[2, 0, 0, 0], raw[2, 0, 1, 1] = torch.nan, torch.inf
    heat = render(raw)
    assert heat[0].max() == 0
    assert heat[1, 3, 4] == 1
    assert heat[1].sum() == 1
    assert heat[2].isfinite().all()
    with pytest.raises(ValueError, match="percentile"):
        render(raw, percentile=0)
