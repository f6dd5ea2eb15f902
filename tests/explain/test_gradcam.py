from __future__ import annotations

import captum.attr
import pytest
import torch
from tests.nets import images, small_net
from torch import nn

from diascope.errors import UserError
from diascope.explain import GradCAM
from diascope.models import create_model

TARGET = torch.tensor([0, 1, 2, 1, 0])


def theirs(model, layer, x, target):
    method = captum.attr.LayerGradCam(model, layer)
    cam = method.attribute(x, target, relu_attributions=False).detach()
    return captum.attr.LayerAttribution.interpolate(cam, tuple(x.shape[2:]), "bilinear")


def resnet(seed: int = 0, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model("resnet18", 3, **options)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)  # timm begins some with 0
                nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


@pytest.mark.parametrize("layer", [None, "3", "0", "2"])
def test_maps_equal_captums(layer):
    model, x = small_net(), images(5)
    ours = GradCAM(layer=layer, precision="float32")(model, x, TARGET)
    expected = theirs(model, model[int(layer or 5)], x, TARGET)  # 0 and 3 have a norm folded in
    assert ours.shape == (5, 1, 16, 16)
    assert (ours < 0).any()  # raw: negative evidence is kept
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_maps_of_a_resnet_equal_captums():
    model, x = resnet(), images(2, side=96)[..., :80]
    ours = GradCAM(precision="float32")(model, x, torch.tensor([2, 0]))
    expected = theirs(model, model.backbone.layer4, x, torch.tensor([2, 0]))
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("layer", ["conv1", "layer4.1.conv1", "layer4.1.conv2"])
def test_a_convolution_is_explained_by_its_own_map_though_a_norm_is_folded_into_it(layer):
    model, x = resnet(), images(2, side=64)  # those of layer 4 have maps of 2x2, written out
    expected = theirs(model, model.backbone.get_submodule(layer), x, 1)
    scale = float(expected.abs().max())
    ours = GradCAM(layer=layer, precision="float32")(model, x, 1)
    torch.testing.assert_close(ours, expected, atol=1e-4 * scale, rtol=0)
    rough = GradCAM(layer=layer, precision="bf16")(model, x, 1)
    assert torch.corrcoef(torch.stack([rough.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_a_single_logit_is_captums_with_its_sign():
    model, x = small_net(1), images(3)
    ours = GradCAM(precision="float32")(model, x, 1)
    expected = theirs(model, model[5], x, 0) / 2
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(GradCAM(precision="float32")(model, x, 0), -ours)


def test_tokens_are_weighed_on_their_grid():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("vit_tiny_patch16_224", 3, img_size=64, depth=3).eval()
    x = images(2, side=64)
    ours = GradCAM(precision="float32")(model, x, 1)
    kept = []
    block = model.backbone.blocks[1]
    handle = block.register_forward_hook(lambda m, i, out: kept.append(out))
    score = model(x)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    weights = gradient[:, 1:].mean(1, keepdim=True)  # without the class token
    cam = (weights * kept[0][:, 1:]).sum(2).view(2, 1, 4, 4)
    expected = nn.functional.interpolate(cam, (64, 64), mode="bilinear").detach()
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert ours.abs().max() > 0


def test_nothing_before_the_layer_records_a_gradient_and_each_image_goes_forward_once():
    model, x = small_net(), images(5)
    GradCAM(precision="float32")(model, x, TARGET)  # the look at the model
    seen: list[tuple[int, bool]] = []

    class Spied(nn.ReLU):
        def forward(self, x):
            out = super().forward(x)
            seen.append((len(x), out.requires_grad))
            return out

    model[2] = Spied()
    GradCAM(precision="float32", layer="3")(model, x, TARGET)
    seen.clear()
    GradCAM(precision="float32", layer="3")(model, x, TARGET)
    assert sum(count for count, _ in seen) == 5
    assert not any(recorded for _, recorded in seen)
    model[2], model[5] = nn.ReLU(), Spied()
    seen.clear()
    GradCAM(precision="float32", layer="3")(model, x, TARGET)
    assert all(recorded for _, recorded in seen)  # the spy sees what is recorded


def test_the_score_is_a_choice():
    model, x = small_net(), images(5)
    logit, log_softmax, probability, loss = (
        GradCAM(of=of, precision="float32")(model, x, TARGET)
        for of in ("logit", "log_softmax", "probability", "loss")
    )
    p = model(x).softmax(1).gather(1, TARGET[:, None]).detach().view(5, 1, 1, 1)
    torch.testing.assert_close(probability, log_softmax * p, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(loss, -log_softmax)
    assert (logit - log_softmax).abs().max() > 0.1 * logit.abs().max()


def test_work_in_place_after_the_layer_leaves_its_map_alone():
    model, x = small_net(), images(3)
    expected = GradCAM(layer="4", precision="float32")(model, x, 1)
    model[5] = nn.ReLU(inplace=True)
    torch.testing.assert_close(GradCAM(layer="4", precision="float32")(model, x, 1), expected)


def test_attentive_nets_are_explained_where_both_their_branches_begin():
    model, x = resnet(attention="soft"), images(2, side=96)
    ours = GradCAM(precision="float32")(model, x, 1)
    expected = theirs(model, model.backbone.features, x, 1)
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_an_unknown_layer_is_the_users_error():
    with pytest.raises(UserError, match="layer '55'"):
        GradCAM(layer="55")(small_net(), images(1), 0)
