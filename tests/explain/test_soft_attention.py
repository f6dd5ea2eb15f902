from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.nets import images, small_net

from diascope.errors import UserError
from diascope.explain import SoftAttentionMap
from diascope.models import attention_map, create_model


def attentive(attention: str = "soft"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("resnet18", 3, attention=attention).eval()
        if attention == "soft":
            model.backbone.head.attention.conv.weight.data.mul_(30)  # attends somewhere
    return model


def test_it_is_the_models_attention_at_the_images_size():
    model, x = attentive(), images(3, side=96)[..., :64]
    ours = SoftAttentionMap(precision="float32")(model, x, 1)
    small = attention_map(model, x)
    expected = F.interpolate(small, (96, 64), mode="bilinear")
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.max()), rtol=0)
    assert (ours >= 0).all()
    assert ours.amax() > 1.5 * ours.amin()
    rough = SoftAttentionMap(precision="bf16")(model, x, 1)
    assert torch.corrcoef(torch.stack([rough.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_it_does_not_depend_on_the_class():
    model, x = attentive(), images(2, side=64)
    maps = [SoftAttentionMap()(model, x, target) for target in (0, 2)]
    assert torch.equal(*maps)


@pytest.mark.parametrize(
    "model", [small_net, lambda: attentive("control"), lambda: attentive("plain")]
)
def test_models_without_it_are_refused(model):
    with pytest.raises(UserError, match="no attention map.*attention='soft'"):
        SoftAttentionMap()(model(), images(1, side=64), 0)
