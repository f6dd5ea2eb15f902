"""Explainers that gather gradients: along a way from a baseline, and over noise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import captum.attr
import pytest
import scipy.stats
import torch
from scipy.ndimage import gaussian_filter
from tests.nets import Linear, images, small_net
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diascope.errors import UserError
from diascope.explain import (
    FullGrad,
    Gradient,
    IntegratedGradients,
    SmoothGrad,
    completeness,
    explain_all,
    explainers,
    several,
)
from diascope.explain.base import as_targets
from diascope.explain.baselines import baseline_of
from diascope.explain.gradient import input_gradient
from diascope.explain.integrated_gradients import quadrature
from diascope.explain.smoothgrad import _normal
from diascope.models.frozen import frozen
from diascope.randomness import Noise
from diascope.registry import to_settings

TARGET = torch.tensor([0, 1, 2, 1, 0])
BASELINES = ("uniform", "gaussian", "black", "white", "blurred", "mean")


class Squares(nn.Module):
    """Logits (B, 2): the sum of squares, and its half."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.square().flatten(1).sum(1)
        return torch.stack([total, total / 2], 1)


class Constant(nn.Module):
    """Logits (B, 2) that do not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), 2)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(x: Tensor, kind: str = "uniform", draw: int = 0, **options) -> Tensor:
    """The baseline that the explainer takes of `seeded()`."""
    noise = Noise.of(x, seeded(), None)
    return baseline_of(
        x, kind, noise, draw, **{"sigma": 1.0, "blur": 20.0, "clip": False, **options}
    )


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(
    ("rule", "theirs", "factor"),
    [
        ("gausslegendre", "gausslegendre", 1),
        ("midpoint", "riemann_middle", 1),
        ("trapezoid", "riemann_trapezoid", 20 / 19),  # captum's weights of n points sum to 1 - 1/n
    ],
)
def test_integrated_gradients_equal_captums(baseline, rule, theirs, factor):
    model, x = small_net(), images(5)
    ours = IntegratedGradients(baseline=baseline, rule=rule, steps=20)(
        model, x, TARGET, generator=seeded()
    )
    oracle = captum.attr.IntegratedGradients(model).attribute(
        x, drawn(x, baseline), TARGET, n_steps=20, method=theirs
    )
    gap = (ours - factor * oracle).abs().amax((1, 2, 3))
    assert (gap <= 1e-4 * oracle.abs().amax((1, 2, 3))).all()


@pytest.mark.parametrize("rule", ["gausslegendre", "midpoint", "trapezoid"])
def test_rules_are_exact_where_they_should_be(rule):
    points, weights = quadrature(rule, 7)
    assert points.dtype == weights.dtype == torch.float64
    assert (points.diff() > 0).all()
    for power in (0, 1):
        integral = float((weights * points**power).sum())
        assert integral == pytest.approx(1 / (power + 1), abs=1e-12)
    if rule == "gausslegendre":
        assert float((weights * points**13).sum()) == pytest.approx(1 / 14, abs=1e-12)


@pytest.mark.parametrize("rule", ["gausslegendre", "midpoint"])
def test_the_map_of_squares_from_black_is_the_squares(rule):
    x = images(3)
    explainer = IntegratedGradients(baseline="black", steps=1, rule=rule)
    torch.testing.assert_close(explainer(Squares(), x, 0), x.square())
    torch.testing.assert_close(explainer(Squares(), x, torch.ones(3).long()), x.square() / 2)


def test_draws_are_averaged_and_differ():
    weight = torch.randn(3, 3, 4, 4)
    model, x = Linear(weight), images(5, side=4)
    baselines = torch.stack([drawn(x, draw=d) for d in range(3)])
    assert (baselines[0] != baselines[1]).any()
    ours = IntegratedGradients(draws=3, steps=2)(model, x, TARGET, generator=seeded())
    torch.testing.assert_close(ours, weight[TARGET] * (x - baselines.mean(0)))
    once = IntegratedGradients(draws=3, steps=2, baseline="white")(model, x, TARGET)
    torch.testing.assert_close(once, weight[TARGET] * (x - 1))


def test_noise_baselines_have_the_distribution_they_are_named_after():
    x = images(20, side=32) * 0.5 + 0.25
    uniform = drawn(x)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(uniform.std()) == pytest.approx(12**-0.5, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([uniform.flatten(), x.flatten()]))[0, 1]) < 0.02
    for sigma in (0.1, 1.0):
        away = drawn(x, "gaussian", sigma=sigma) - x
        assert float(away.mean()) == pytest.approx(0, abs=0.02 * sigma)
        assert float(away.std()) == pytest.approx(sigma, rel=0.02)
    clipped = drawn(x, "gaussian", clip=True)
    torch.testing.assert_close(clipped, drawn(x, "gaussian").clamp(0, 1))


def test_baselines_without_noise():
    x = images(2, side=24)[..., :17]
    assert (drawn(x, "black") == 0).all()
    assert (drawn(x, "white") == 1).all()
    torch.testing.assert_close(drawn(x, "mean")[1, 2, 3, 4], x[1, 2].mean())
    flat = torch.full_like(x, 0.7)
    torch.testing.assert_close(drawn(flat, "blurred", blur=5.0), flat)
    one = x[1, 2].double().numpy()
    options = {"sigma": 2.5, "mode": "constant", "truncate": 20}
    oracle = gaussian_filter(one, **options) / gaussian_filter(one * 0 + 1, **options)
    ours = drawn(x, "blurred", blur=2.5)[1, 2].double()
    torch.testing.assert_close(ours, torch.from_numpy(oracle), atol=1e-5, rtol=0)


def test_a_baseline_may_be_given():
    weight = torch.randn(3, 3, 4, 4)
    model, x = Linear(weight), images(5, side=4)
    each = images(5, side=4, seed=9)
    for given, expected in (
        (each, each),
        (each[0], each[:1]),
        (lambda x: 1 - x, 1 - x),
        (lambda x: x[0] * 0 + 0.2, torch.tensor(0.2)),
    ):
        explainer = IntegratedGradients(baseline=given, steps=1)
        torch.testing.assert_close(explainer(model, x, TARGET), weight[TARGET] * (x - expected))
        assert explainer == replace(explainer)  # equal to itself
        assert explainer != IntegratedGradients(baseline="black", steps=1)
        assert isinstance(hash(explainer), int)
    with pytest.raises(ValueError, match="one image for all is needed, or one for each"):
        IntegratedGradients(baseline=each[:2])(model, x, TARGET)
    with pytest.raises(ValueError, match=r"\(C, H, W\) or \(B, C, H, W\) is needed"):
        IntegratedGradients(baseline=torch.zeros(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "integrated_gradients", "baseline": "blak"}, "black"),
        ({"name": "integrated_gradients", "steps": 0}, "steps=0: must be above 0"),
        ({"name": "integrated_gradients", "draws": 0}, "draws=0: must be above 0"),
        ({"name": "integrated_gradients", "rule": "trapezoid", "steps": 1}, "at least 2 steps"),
        ({"name": "integrated_gradients", "sigma": float("nan")}, "sigma=nan"),
        ({"name": "smoothgrad", "samples": 0}, "samples=0: at least 1"),
        ({"name": "smoothgrad", "noise": -0.1}, "noise=-0.1: must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        explainers.build(settings)


def test_settings_are_read_back():
    explainer = IntegratedGradients(baseline="gaussian", draws=3, sigma=0.5, clip=True)
    assert explainers.build(to_settings(explainer)) == explainer
    with pytest.raises(ValueError, match="one of uniform, gaussian, black"):
        IntegratedGradients(baseline="blak")


def test_smoothgrad_of_a_linear_model_is_its_weight_and_without_noise_the_gradient():
    weight = torch.randn(3, 3, 4, 4)
    maps = SmoothGrad(samples=3)(Linear(weight), images(5, side=4), TARGET)
    torch.testing.assert_close(maps, weight[TARGET])
    model, x = small_net(), images(5)
    silent = SmoothGrad(samples=3, noise=0)(model, x, TARGET)
    torch.testing.assert_close(silent, Gradient()(model, x, TARGET), atol=1e-6, rtol=1e-4)


def test_smoothgrads_noise_is_a_share_of_the_images_own_range_and_is_not_clipped():
    x = images(4, side=32)
    x[1] = 0.4 + 0.2 * x[1]  # a fifth of the range
    x[2] = 0.4  # none
    maps = {
        variant: SmoothGrad(samples=50, noise=0.2, variant=variant)(
            Squares(), x, 0, generator=seeded()
        )
        for variant in ("mean", "squared", "variance")
    }
    spread = (maps["variance"] * 50 / 49).mean((1, 2, 3)).sqrt() / 2  # the gradient is 2 (x + n)
    expected = 0.2 * torch.tensor([1, 0.2, 0, 1])
    torch.testing.assert_close(spread, expected, atol=1e-4, rtol=0.02)
    away = (maps["mean"] - 2 * x).mean((1, 2, 3))
    assert away.abs().max() < 0.01  # clipping would move the mean
    torch.testing.assert_close(maps["mean"][2], 2 * x[2])
    torch.testing.assert_close(
        maps["squared"], maps["mean"].square() + maps["variance"], atol=1e-5, rtol=1e-4
    )
    assert maps["variance"].min() >= 0


def test_the_noise_is_standard_normal_and_each_images_own():
    ids = torch.tensor([1, 2, 2**40 + 1, 1])
    drawn = _normal(Noise(5, ids), (3, 101, 101))
    assert drawn.shape == (4, 3, 101, 101)
    assert torch.equal(drawn[0], drawn[3])
    flat = drawn[:3].flatten(1).double()
    assert (flat.corrcoef() - torch.eye(3)).abs().max() < 0.02
    assert scipy.stats.kstest(flat[:, ::7].flatten().numpy(), "norm").pvalue > 0.01
    halves = flat[:, : 2 * (flat.shape[1] // 2)].view(3, 2, -1)  # the two values of each pair
    assert torch.corrcoef(halves.transpose(0, 1).flatten(1))[0, 1].abs() < 0.02


def test_a_linear_models_map_is_complete():
    model = Linear(torch.randn(3, 3, 4, 4), torch.tensor([5.0, 6.0, 7.0]))
    x = images(5, side=4)
    for explainer in (IntegratedGradients(steps=1), IntegratedGradients(steps=2, draws=3)):
        found = completeness(explainer, model, x, TARGET, generator=seeded())
        torch.testing.assert_close(found.total, found.due, atol=1e-5, rtol=1e-5)
        assert (found.gap < 1e-4).all()
    white = completeness(IntegratedGradients(baseline="white"), model, x, TARGET)
    index = torch.arange(5)
    scores = model(x)[index, TARGET] - model(torch.ones_like(x))[index, TARGET]
    torch.testing.assert_close(white.due, scores.detach())


@pytest.mark.parametrize("of", ["logit", "log_softmax", "probability", "loss"])
def test_more_steps_close_the_gap(of):
    model, x = small_net().double(), images(5).double()
    found = [
        completeness(
            IntegratedGradients(steps=steps, of=of, draws=2), model, x, TARGET, generator=seeded()
        )
        for steps in (2, 200)
    ]
    few, many = ((each.total - each.due).abs().mean() for each in found)
    assert many < 0.1 * few
    assert many < 0.01 * found[1].due.abs().mean()
    assert torch.equal(found[0].due, found[1].due)


def test_the_gap_sees_a_map_that_does_not_add_up():
    class Half(IntegratedGradients):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) / 2

    found = completeness(Half(baseline="black"), Squares(), images(3), 0)
    torch.testing.assert_close(found.gap, torch.full((3,), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.due, images(3).square().sum((1, 2, 3)))


def test_maps_at_hand_are_not_made_again(monkeypatch):
    model, x = small_net(), images(3)
    methods = {"ig": IntegratedGradients(baseline="gaussian", steps=3, draws=2), "full": FullGrad()}
    made = explain_all({"": model}, methods, x, TARGET[:3], generator=seeded())[""]
    for name, method in methods.items():
        whole, spared = (
            completeness(method, model, x, TARGET[:3], generator=seeded(), raw=raw)
            for raw in (None, made[name])
        )
        torch.testing.assert_close(spared.total, whole.total)
        assert torch.equal(spared.due, whole.due)
    monkeypatch.setattr(IntegratedGradients, "total", None)
    completeness(methods["ig"], model, x, TARGET[:3], generator=seeded(), raw=made["ig"])


def test_what_is_due_is_asked_of_the_model_itself():
    model, x = small_net(), images(5)
    dues = [
        IntegratedGradients(precision=precision).due(model, x, TARGET, generator=seeded())
        for precision in ("float32", "bf16")
    ]
    assert torch.equal(*dues)


def test_nothing_due_and_no_promise():
    model, x = Constant(), images(2)
    found = completeness(IntegratedGradients(steps=2), model, x, 1)
    assert found.gap.isnan().all()
    assert (found.total == 0).all()
    for explainer in (Gradient(), SmoothGrad(samples=2)):
        assert (explainer(model, x, 1) == 0).all()
    with pytest.raises(UserError, match=r"Gradient promises no sum.*integrated_gradients"):
        completeness(Gradient(), model, x, 1)
    assert completeness(IntegratedGradients(), small_net(), images(0), 1).gap.shape == (0,)


def test_gradients_are_needed():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        Gradient()(Squares(), images(2), 0)


def test_several_models_and_methods(monkeypatch):
    models = {"one": small_net(seed=1), "two": small_net(seed=2)}
    methods = {
        "last": SmoothGrad(samples=2),
        "mixed": Gradient(precision="float32"),
        "ig": IntegratedGradients(steps=2),
        "low": Gradient(precision="bf16"),
    }
    x, made = images(5), []

    def counted(model, sample, **options):
        made.append(options["precision"])
        return frozen(model, sample, **options)

    monkeypatch.setattr(several, "frozen", counted)
    maps = explain_all(models, methods, x, TARGET, generator=seeded(), ids=torch.arange(5))
    assert made == ["auto", "float32", "bf16"] * 2
    assert list(maps) == ["one", "two"]
    assert all(list(of_model) == list(methods) for of_model in maps.values())
    torch.testing.assert_close(
        maps["two"]["mixed"], methods["mixed"](models["two"], x, TARGET), atol=1e-7, rtol=1e-5
    )
    low = methods["low"](models["one"], x, TARGET)
    assert torch.equal(maps["one"]["low"], low)
    assert not torch.equal(maps["one"]["low"], Gradient()(models["one"], x, TARGET))
    same = explain_all({"a": models["one"], "b": models["one"]}, methods, x, TARGET)
    for method in methods:  # the noise is the same for every model
        assert torch.equal(same["a"][method], same["b"][method])
    assert explain_all(models, methods, x[:0], 0)["one"]["ig"].shape == (0, 3, 16, 16)


class OneDevice(TorchDispatchMode):
    """Refuses what brings numbers or tensors from the host to the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        places = {t.device.type for t in tensors}
        if len(places) > 1 or ("lift_fresh" in str(func) and "meta" in places):
            raise AssertionError(f"{func} brings something from the host")
        return out


@pytest.mark.parametrize("kind", BASELINES)
def test_the_loops_neither_look_at_the_device_nor_bring_anything_over(kind, monkeypatch):
    """On torch's meta device there are no values: to look at one fails, as it waits on a GPU."""
    for explainer in ("integrated_gradients", "smoothgrad"):
        monkeypatch.setattr(f"diascope.explain.{explainer}.rows_within", lambda *_: 3)
    net = small_net().requires_grad_(False).to("meta")
    x = torch.empty(4, 3, 16, 16, device="meta")
    y = torch.empty(4, dtype=torch.long, device="meta")
    noise = Noise(7, torch.arange(4, device="meta"))
    way = [v.to(x)[:, None, None, None] for v in quadrature("midpoint", 5)]
    with OneDevice():
        made = baseline_of(x, kind, noise, 1, sigma=1.0, blur=3.0, clip=True)
        IntegratedGradients(steps=5)._mean_gradient(net, x, made, y, *way)
        for variant in ("mean", "variance"):
            SmoothGrad(samples=3, variant=variant)._gathered(net, x, y, noise)
        assert input_gradient(net, x, as_targets(1, x)).device.type == "meta"
        with pytest.raises(AssertionError, match="from the host"):
            x[torch.tensor([0, 1])]


MEMORY = """
import resource, torch
torch.set_num_threads(1)
from diascope.explain import IntegratedGradients
from diascope.models import create_model
model = create_model("resnet18", num_classes=3, pretrained=False)
x = torch.rand({count}, 3, 224, 224)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
explainer = IntegratedGradients(steps={steps}, memory={memory}, precision="float32")
explainer(model, x[:1, :, :64, :64], 0)
before = peak()
explainer(model, x, 0)
print(before, peak(), x.nbytes)
"""


def test_memory_stays_within_the_budget():
    """A ResNet-18 at 224, run apart, for a process knows only its own highest peak.

    24 images of one step stand for 64 of 50: more pairs make more chunks, none of them larger. All
    at once they would take 24 * 12 MB, which is more than is allowed here.
    """
    budget = 2**26
    code = MEMORY.format(count=24, steps=1, memory=budget)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280
    )
    before, peak, images_bytes = map(int, done.stdout.split())
    assert peak - before < budget + 6 * images_bytes
    assert peak < 4 * 2**30
