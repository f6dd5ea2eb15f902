"""What every explainer promises, asked of every member of the registry by its defaults."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.nets import images, small_net
from torch import Tensor, nn

from diascope.explain import Explainer, explainers, rectify
from diascope.explain.base import need_of
from diascope.models.attention import AttentiveBackbone, AttentiveHead
from diascope.models.frozen import frozen
from diascope.registry import to_settings

NAMES = explainers.names()
TARGET = torch.tensor([0, 1, 2, 1, 0])
IDS = torch.arange(5) + 77


def net_for(name: str, classes: int = 3, channels: int = 3) -> nn.Module:
    """A small net of the kind that the member says it needs."""
    net = small_net(classes, channels)
    if need_of(explainers[name]) != "soft attention":
        return net
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AttentiveBackbone(net[:6], AttentiveHead(8, classes, "soft", None)).eval()


def explained(
    name: str, model: nn.Module, x: Tensor, target: Tensor | int, ids: Tensor = IDS, **fields
) -> Tensor:
    """The member's maps, of noise that is always the same."""
    explainer = explainers.build({"name": name, **fields})
    return explainer(model, x, target, generator=torch.Generator().manual_seed(1), ids=ids)


@pytest.mark.parametrize("name", NAMES)
def test_members_are_frozen_dataclasses_that_come_back_from_settings(name):
    explainer = explainers.build(name)
    assert isinstance(explainer, Explainer)
    assert explainer.rectification in ("absolute", "positive")
    assert need_of(explainer) in ("any", "convolution", "soft attention")
    assert explainers.build(to_settings(explainer)) == explainer
    assert hash(explainers.build(to_settings(explainer))) == hash(explainer)
    other = explainers.build({"name": name, "memory": 2**20, "precision": "float32"})
    assert explainers.build(to_settings(other)) == other != explainer
    assert all(field.kw_only for field in dataclasses.fields(explainer))
    with pytest.raises(dataclasses.FrozenInstanceError):
        explainer.memory = 1


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_finite_of_the_images_size_and_never_the_same_for_all(name):
    x = images(5)
    maps = explained(name, net_for(name), x, TARGET)
    assert maps.shape in (x.shape, (5, 1, *x.shape[2:]))
    assert maps.dtype == x.dtype
    assert maps.isfinite().all()
    assert not maps.requires_grad
    heat = rectify(maps, explainers[name].rectification)
    assert heat.shape == (5, 16, 16)
    assert (heat >= 0).all()
    assert (rectify(maps).amax((1, 2)) > rectify(maps).amin((1, 2))).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_images_map_depends_neither_on_its_batch_nor_on_the_chunk(name):
    model, x = net_for(name).double(), images(5).double()
    whole = explained(name, model, x, TARGET, memory=2**40)
    one_by_one = [
        explained(name, model, x[i : i + 1], TARGET[i : i + 1], IDS[i : i + 1]) for i in range(5)
    ]
    scale = float(whole.abs().max())
    for other in (torch.cat(one_by_one), explained(name, model, x, TARGET, memory=1)):
        torch.testing.assert_close(other, whole, atol=1e-9 * scale, rtol=0)
    turned = explained(name, model, x.flip(0), TARGET.flip(0), IDS.flip(0), memory=200_000)
    torch.testing.assert_close(turned.flip(0), whole, atol=1e-9 * scale, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_and_the_images_are_given_back_as_they_were(name):
    model, x = net_for(name).train(), images(5).requires_grad_(True)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eval()
    first, *others = model.parameters()
    first.requires_grad_(False)
    for parameter in others:
        parameter.grad = torch.full_like(parameter, 7)
    flags = [m.training for m in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before, drawn, attributes = x.detach().clone(), torch.get_rng_state(), dict(vars(model))
    explained(name, model, x, TARGET)
    assert [m.training for m in model.modules()] == flags
    assert not first.requires_grad
    assert all(p.requires_grad and (p.grad == 7).all() for p in others)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in model.modules()
    )
    assert vars(model).keys() == attributes.keys()
    assert torch.equal(x.detach(), before)
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", NAMES)
def test_a_single_logit_speaks_for_one_class_and_against_the_other(name):
    model, x = net_for(name, classes=1), images(5)
    signed = {"psi": "none"} if name == "fullgrad" else {}  # its pictures have no sign by default
    against, speaking = (explained(name, model, x, target, **signed) for target in (0, 1))
    assert speaking.abs().max() > 0
    same = torch.allclose(against, speaking, atol=1e-6 * float(speaking.abs().max()))
    if not same or need_of(explainers[name]) != "soft attention":  # where it attends has no sign
        scale = float(speaking.abs().max())
        torch.testing.assert_close(against, -speaking, atol=1e-4 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_of_several_labels_the_target_is_the_column(name):
    several, x = net_for(name, classes=3), images(3)
    for column in range(3):
        target = torch.full((3,), column)
        by_tensor = explained(name, several, x, target, IDS[:3])
        assert torch.equal(by_tensor, explained(name, several, x, column, IDS[:3]))
        assert torch.equal(by_tensor, explained(name, several, x, target.int(), IDS[:3]))
    mixed = explained(name, several, x, torch.arange(3), IDS[:3])
    torch.testing.assert_close(mixed[2], by_tensor[2], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_and_images_that_are_not_square(name):
    model = net_for(name, channels=1)
    for x in (images(2, channels=1), images(2, channels=1)[..., :12]):
        maps = explained(name, model, x, 1, IDS[:2])
        assert maps.shape == x.shape
        assert maps.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", [3, -1, torch.tensor([0, 3]), torch.tensor([-1, 0])])
def test_a_class_that_the_model_does_not_have_is_refused(name, target):
    with pytest.raises(ValueError, match="targets .* of 3 outputs has the classes 0 to 2"):
        explained(name, net_for(name), images(2), target, IDS[:2])


@pytest.mark.parametrize("name", NAMES)
def test_targets_and_images_of_another_kind_are_refused(name):
    model, x = net_for(name), images(2)
    with pytest.raises(ValueError, match=r"targets of shape \(3,\) for 2 images"):
        explained(name, model, x, torch.tensor([0, 1, 2]), IDS[:2])
    with pytest.raises(ValueError, match="must be classes"):
        explained(name, model, x, torch.tensor([0.0, 1.0]), IDS[:2])
    with pytest.raises(ValueError, match="images must be float"):
        explained(name, model, x[0], 0, IDS[:3])


@pytest.mark.parametrize("name", NAMES)
def test_a_float64_model_is_explained_in_float64(name):
    model, x = net_for(name), images(5)
    single = explained(name, model, x, TARGET, precision="float32")
    double = explained(name, model.double(), x.double(), TARGET)
    assert double.dtype == torch.float64
    scale = float(double.abs().max())
    torch.testing.assert_close(single.double(), double, atol=1e-3 * scale, rtol=0)
    assert not torch.equal(double, double.float().double())


@pytest.mark.parametrize("name", NAMES)
def test_no_images_give_no_maps(name):
    model = net_for(name)
    maps = explained(name, model, images(0), torch.zeros(0, dtype=torch.long), IDS[:0])
    assert maps.shape in ((0, 3, 16, 16), (0, 1, 16, 16))
    assert explained(name, model, images(2), 0, IDS[:2]).isfinite().all()  # and nothing is spoilt


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_and_ids_give_the_same_map(name):
    model, x = net_for(name), images(5)
    maps = explained(name, model, x, TARGET)
    assert torch.equal(maps, explained(name, model, x, TARGET))
    explainer = explainers.build(name)
    generator = torch.Generator().manual_seed(1)
    draws = [explainer(model, x, TARGET, generator=generator, ids=IDS) for _ in range(2)]
    assert torch.equal(draws[0], maps)
    others = explained(name, model, x, TARGET, IDS + 5)
    assert torch.equal(draws[1], maps) == torch.equal(others, maps)  # random in both or neither


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_model_and_a_grad_mode_that_is_off_change_nothing(name):
    model, x = net_for(name), images(5)
    maps = explained(name, model, x, TARGET)
    with torch.no_grad(), frozen(model, x[:1]) as net:
        again = explained(name, net, x, TARGET)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(again, maps, atol=1e-6 * float(maps.abs().max()), rtol=0)
