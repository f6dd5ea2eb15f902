"""Covered images by crops of a model's maps: the same logits, for less."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.nets import images
from torch import Tensor, nn

import diascope.explain.covered.choice as choice
import diascope.explain.covered.nearby as cropping
import diascope.models.stem
from diascope.explain import Occlusion
from diascope.explain.chunks import at_most
from diascope.explain.covered import Covered, CoveredMaps, CoveredNearby, Windows, covered_of
from diascope.models import create_model
from diascope.models.frozen import frozen
from diascope.models.local import Stage, stages_behind
from diascope.models.stem import WORTH, stem_apart


class Residual(nn.Module):
    """A block that adds what it takes in, as those of ResNets do."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        return self.act(self.conv(maps) + maps)


class Does(nn.Module):
    """Whatever is asked of it."""

    def __init__(self, what) -> None:
        super().__init__()
        self.what = what

    def forward(self, maps: Tensor) -> Tensor:
        return self.what(maps)


class Skipping(nn.Module):
    """A net that uses the stem's maps once more at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 3, padding=1), Residual()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.stem(x)
        return self.head((self.block(maps) + maps.square()).mean((2, 3)))


def net_of(*behind: nn.Module, stem: nn.Conv2d | None = None) -> nn.Module:
    """A stem of 4 channels, what stands behind it, and a head of 3 classes."""
    stem = nn.Conv2d(3, 4, 3, padding=1) if stem is None else stem
    return nn.Sequential(stem, *behind, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def covered(net: nn.Module, x: Tensor, patch: int = 4, step: int = 3, precision="float32"):
    """How covered images are computed, and the windows."""
    windows = Windows.of(x.shape[2], patch, step), Windows.of(x.shape[3], patch, step)
    fill = torch.rand(len(x), 3, 1, 1, generator=torch.Generator().manual_seed(1))
    with frozen(net.eval(), x, precision=precision) as ready, torch.no_grad():
        return covered_of(ready, x, fill, windows, WORTH), Covered(ready, x, fill, windows)


def everywhere(found: Covered, count: int) -> tuple[Tensor, ...]:
    """Image, row and column of all places."""
    return torch.ones(count, *(len(each.spans) for each in found.windows)).nonzero().unbind(1)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_computed_nearby_is_what_the_modules_make(data):
    draw = data.draw
    kernel, padding = draw(st.sampled_from([(1, 0), (3, 1), (4, 2), (7, 3)]))
    stem = nn.Conv2d(3, 4, kernel, draw(st.sampled_from([1, 2, 4])), padding)
    kinds = {
        "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
        "wide": lambda: nn.Conv2d(4, 4, (5, 1), padding=(2, 0)),
        "dilated": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        "even": lambda: Does(lambda maps: F.avg_pool2d(F.pad(maps, (1, 2, 1, 2)), 4, 1)),
        "onwards": lambda: Does(lambda maps: F.avg_pool2d(F.pad(maps, (0, 2, 0, 2)), 3, 1)),
        "halved": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1),
        "patches": lambda: nn.Conv2d(4, 4, 2, stride=2),
        "pool": lambda: nn.MaxPool2d(3, 2, 1),
        "ceiling": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
        "mean": lambda: nn.AvgPool2d(3, 1, 1),
        "residual": Residual,
        "act": lambda: nn.ReLU(inplace=True),
        "sequence": lambda: nn.Sequential(Residual(), nn.GELU(), Residual()),
    }
    names = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=3))
    torch.manual_seed(draw(st.integers(0, 5)))
    net = net_of(*(kinds[name]() for name in names), stem=stem).eval()
    height, width = draw(st.integers(32, 51)), draw(st.integers(32, 51))
    x, patch = images(2, 51)[:, :, :height, :width], draw(st.integers(1, 9))
    step = draw(st.integers(max(1, patch // 2), patch))
    windows = Windows.of(height, patch, step), Windows.of(width, patch, step)
    fill = torch.rand(2, 3, 1, 1)
    with frozen(net, x, precision="float32") as ready, torch.no_grad():
        stem = stem_apart(ready, x)
        assume(stem is not None)  # where no gradient comes through
        with pytest.MonkeyPatch.context() as patched:  # what the crops are, whatever a trial says
            patched.setattr(cropping, "WORTH_CROPPING", 2.0)
            patched.setattr(cropping, "_alike", lambda *_: True)
            steps = cropping._steps(stem, x[-1:], fill[-1:], windows)
        found = CoveredNearby(stem, x, fill, windows, steps)
        every = torch.stack(everywhere(found, 2), 1)
        some = torch.randperm(len(every))[:60].sort().values  # the images in rising order
        places = every[some].unbind(1)
        maps = true = stem.maps(Covered(ready, x, fill, windows).images(*places))
        for stage in _stages(found):
            true = stage.maps(true.clone())
        torch.testing.assert_close(found.later(*places), true, atol=1e-5, rtol=1e-4)
        told = stem.rest(maps)
        torch.testing.assert_close(found.logits(*places), told, atol=1e-5, rtol=1e-4)
        if steps:  # the trial has no quarrel with it
            assert cropping._alike(CoveredMaps(stem, x, fill, windows), steps)


def test_none_of_the_usual_modules_is_missed():
    layers = (nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(4, 4, 3, 2, 1), Residual())
    for layer in (*layers, nn.Conv2d(4, 4, 2, stride=2), nn.Sequential(Residual(), Residual())):
        found, _ = covered(net_of(layer, nn.Tanh()), images(1, 48))
        assert isinstance(found, CoveredNearby)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("name", "side", "stages"),
    [("resnet18", 224, 5), ("resnet50", 224, 8), ("vgg11", 112, 3), ("convnext_atto", 224, 1)],
)
def test_backbones_are_computed_nearby(name, side, stages, precision):
    torch.manual_seed(0)
    options = {"zero_init_last": False} if name.startswith("resnet") else {}
    net, x = create_model(name, num_classes=3, **options).eval(), images(2, side)
    found, plain = covered(net, x, round(side * 50 / 224), side // 9, precision)
    assert isinstance(found, CoveredNearby)
    assert len(found.steps) >= stages
    places = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 3, 4, 7]), torch.tensor([7, 2, 5, 7])
    with torch.no_grad():
        later, maps = found.later(*places), found.maps(*places)
        unchanged = found.unchanged(places[0])
        for stage in _stages(found):
            maps = stage.maps(maps)
        true = maps.float() - unchanged.float()
        gap = float((later.float() - unchanged.float() - true).norm() / true.norm())
        assert gap < (1e-4 if precision == "float32" else 0.02)
        logits, told = net(plain.images(*places)), found.logits(*places)
    assert float((told - logits).norm()) < (1e-4 if precision == "float32" else 0.05) * float(
        logits.norm()
    )


def test_maps_are_the_same_without_crops_and_in_any_batch(monkeypatch):
    net, x = create_model("resnet18", num_classes=3).eval(), images(3, 112)
    method = Occlusion(patch=28, stride=28, precision="float32")
    monkeypatch.setattr(diascope.models.stem, "WORTH", 24)

    def maps(rows):
        with at_most(rows):
            return method(net, x, torch.tensor([0, 2, 1]))

    told = []
    before = choice.nearby
    monkeypatch.setattr(choice, "nearby", lambda *args: told.append(before(*args)) or told[-1])
    found = [maps(rows) for rows in (3, 64, 5)]
    assert len(told) == 3
    assert all(isinstance(each, CoveredNearby) for each in told)
    monkeypatch.setattr(choice, "nearby", lambda *_: None)
    true = maps(64)
    for each in found:
        torch.testing.assert_close(each, true, atol=1e-5 * float(true.abs().max()), rtol=1e-3)


def test_less_goes_through_the_modules(monkeypatch):
    torch.manual_seed(0)
    net, x = create_model("resnet18", num_classes=3, zero_init_last=False).eval(), images(1, 224)
    found, _ = covered(net, x, 50, 25)
    whole = {stage.names: stage.down.taken * stage.across.taken for stage in _stages(found)}
    passed, before = dict.fromkeys(whole, 0), Stage.maps

    def count(self, maps):
        passed[self.names] += maps.shape[2] * maps.shape[3]
        return before(self, maps)

    monkeypatch.setattr(Stage, "maps", count)
    found.logits(*(torch.tensor([0]),) * 3)
    shares = [passed[names] / whole[names] for names in whole]
    assert [round(share, 2) for share in shares] == [0.09, 0.18, 0.25, 0.46, 0.73]


def _stages(found: CoveredNearby) -> list[Stage]:
    return [step.stage for step in found.steps]


NOT_LOCAL = {
    "gate": lambda: Does(lambda maps: maps * maps.mean((2, 3), keepdim=True).sigmoid()),
    "mirrored": lambda: Does(lambda maps: maps.flip(3)),
    "moved": lambda: Does(lambda maps: maps.roll(3, 2)),
    "by rows": lambda: Does(lambda maps: maps - maps.mean(3, keepdim=True)),
    "turned": lambda: Does(lambda maps: maps.transpose(2, 3)),
    "places": lambda: Does(lambda maps: maps * torch.linspace(0, 2, maps.shape[3])),
    "one size": lambda: Does(lambda maps: maps + torch.linspace(0, 1, 40)),
    "blocks": lambda: Does(
        lambda maps: maps - F.interpolate(F.avg_pool2d(maps, 2), scale_factor=2)
    ),
    "shuffled": lambda: Does(lambda maps: F.pixel_shuffle(F.pixel_unshuffle(maps, 2).cumsum(1), 2)),
    "windows": lambda: Does(
        lambda maps: (
            maps
            + maps.view(*maps.shape[:3], -1, 8).mean(4, True).expand(-1, -1, -1, -1, 8).flatten(3)
        )
    ),
    "round": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "grown": lambda: nn.Upsample(scale_factor=2),
    "noise": lambda: Does(lambda maps: maps + torch.randn_like(maps)),
    "blind": lambda: Does(torch.zeros_like),
}


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_what_is_not_local_is_computed_whole(name):
    torch.manual_seed(0)
    x = images(2, 40)
    found, _ = covered(net_of(NOT_LOCAL[name](), nn.Conv2d(4, 4, 3, padding=1)), x)
    assert not isinstance(found, CoveredNearby)
    if name not in ("noise", "blind"):  # there not even the stem is taken apart
        assert isinstance(found, CoveredMaps)
    behind, _ = covered(net_of(nn.Conv2d(4, 4, 3, padding=1), NOT_LOCAL[name]()), x)
    if name == "round":  # nothing but the trial sees it, and that drops the whole row
        assert not isinstance(behind, CoveredNearby)
    elif name not in ("noise", "blind"):
        assert [step.stage.names for step in behind.steps] == [("1",)]


@pytest.mark.parametrize("bias", [0.0, 100.0])
def test_maps_that_are_used_again_are_kept_whole(bias):
    torch.manual_seed(0)
    net = Skipping()
    nn.init.constant_(net.head.bias, bias)
    found, _ = covered(net, images(1, 40))
    assert isinstance(found, CoveredMaps)
    assert not isinstance(found, CoveredNearby)


def test_a_module_that_runs_twice_ends_the_row():
    conv, x = nn.Conv2d(4, 4, 3, padding=1), images(1, 40)
    found, _ = covered(net_of(nn.Conv2d(4, 4, 3, padding=1), conv, nn.ReLU(), conv), x)
    assert [step.stage.names for step in found.steps] == [("1",)]


def test_what_happens_between_modules_ends_the_row():
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net_of(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            first = self.net[1](self.net[0](x))
            return self.net[3:](self.net[2](first.clamp_(max=20)))

    found, _ = covered(Between(), images(1, 40))
    assert [step.stage.names for step in found.steps] == [("net.1",)]


@pytest.mark.parametrize("exact", [False, True])
def test_crops_are_there_however_the_net_was_frozen(exact):
    torch.manual_seed(0)
    net, x = create_model("resnet18", num_classes=3).eval(), images(1, 224)
    windows, fill = (Windows.of(224, 50, 25),) * 2, torch.zeros(1, 3, 1, 1)
    with frozen(net, x, precision="bf16", exact_pooling=exact) as ready, torch.no_grad():
        assert isinstance(covered_of(ready, x, fill, windows, WORTH), CoveredNearby)


def test_the_maps_of_few_images_are_kept(monkeypatch):
    x, held = images(11, 40), []
    found, _ = covered(net_of(Residual()), x)
    before = found.later

    def later(*args):
        maps = before(*args)
        held.append(len(found._clean))
        return maps

    monkeypatch.setattr(found, "later", later)
    place = torch.arange(11)
    told = found.logits(place, place, place)
    assert max(held) <= 4
    assert sum(held) >= 11
    one = [found.logits(*(place[n : n + 1],) * 3) for n in (9, 10)]
    torch.testing.assert_close(told[9:], torch.cat(one))


@pytest.mark.parametrize("where", ["block", "within", "sequence"])
def test_hooks_hear_of_whole_maps(where):
    block, heard, x = nn.Sequential(Residual()), [], images(1, 40)
    net = net_of(nn.MaxPool2d(3, 1, 1), block)
    module = {"block": block[0], "within": block[0].conv, "sequence": block}[where]
    module.register_forward_hook(lambda _, inputs, __: heard.append(inputs[0].shape[2:]))
    found, _ = covered(net, x)
    assert [step.stage.names for step in found.steps] == [("1",)]
    heard.clear()
    found.logits(*(torch.tensor([0]),) * 3)
    assert heard == [(40, 40)]


def test_pointwise_modules_go_with_the_next():
    net = net_of(nn.Identity(), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Tanh())
    x = images(1, 40)
    with frozen(net.eval(), x, precision="float32") as ready:
        stem = stem_apart(ready, x)
        stages = list(stages_behind(stem, stem.maps(x)))
    assert [stage.names for stage in stages] == [("1", "2", "3")]
    assert (stages[0].down.before, stages[0].down.after, stages[0].down.stride) == (1, 1, 1)


def test_memory_that_runs_out_is_told(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(cropping, "_steps", full)
    with pytest.raises(MemoryError):
        covered(net_of(Residual()), images(1, 40))


def test_the_trial_costs_what_is_said_of_it():
    passes = []

    class Counting(nn.ReLU):
        def forward(self, maps: Tensor) -> Tensor:
            passes.append(len(maps))
            return super().forward(maps)

    net, x = net_of(Counting(), nn.Conv2d(4, 4, 3, padding=1), Residual()), images(1, 40)
    windows = (Windows.of(40, 4, 3),) * 2
    with frozen(net.eval(), x, precision="float32") as ready, torch.no_grad():
        stem = stem_apart(ready, x)
        passes.clear()
        steps = cropping._steps(stem, x, torch.zeros(1, 3, 1, 1), windows)
        assert steps[0].stage.names == ("1", "2")
        assert sum(passes) == cropping.TRIAL
