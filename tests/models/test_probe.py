"""The probe finds what a model takes and returns, on models whose truth is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from diascope.attacks import PGD, BoundaryAttack, Square
from diascope.audit import open_subjects
from diascope.data import Dataset, Pixels
from diascope.errors import UserError
from diascope.evaluation import predict
from diascope.explain import Occlusion
from diascope.models.black_box import BlackBox
from diascope.models.inputs import Adapter, InputSettings, Scaling, unwrap
from diascope.models.normalise import Normalise
from diascope.models.opening import Opened
from diascope.models.probe import Sample, probe
from diascope.settings import validate

SIDE, CLASSES = 16, ("left", "right")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def squares(count: int = 48, noise: float = 0.05) -> Sample:
    """Grey-brown images, a little brighter on the left (class 0) or on the right (class 1)."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 2
    x = 0.4 + noise * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    x[:, :, :, :8] += 0.1 * (1 - y).view(-1, 1, 1, 1)
    x[:, :, :, 8:] += 0.1 * y.view(-1, 1, 1, 1)
    return Sample(x.clamp(0, 1), y)


class Eyes(nn.Module):
    """Right about `squares` fed in one scaling; other scalings push it to one class."""

    def __init__(self, expects: Scaling, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, SIDE)
        self.expects = expects
        factor, _ = expects.affine()
        weight = torch.zeros(2, channels, SIDE, SIDE)
        weight[0, :, :, :8] = weight[1, :, :, 8:] = 1 / (128 * channels)
        weight = weight / factor
        self.conv.weight = nn.Parameter(30 * weight)
        with torch.no_grad():
            flat = expects(squares().at(SIDE, channels).mean((2, 3), keepdim=True))
            level = self.conv(flat.expand(-1, -1, SIDE, SIDE)).flatten(1).mean().item()
        self.level = level

    def forward(self, x):
        out = self.conv(x).flatten(1)
        # the whole must be near the level it knows, else it says "left"
        off = (out.mean(1) - self.level).abs() > 0.5
        return torch.where(off[:, None], torch.tensor([3.0, 0.0]), out - self.level)


def found(model: nn.Module, kind: str = "module", sample: Sample | None = None, **options):
    settings = validate(InputSettings, options, "input")
    sample = squares() if sample is None else sample
    return probe(
        Opened(model.eval(), kind), "it", classes=CLASSES, size=SIDE, settings=settings,
        sample=sample,
    )  # fmt: skip


def codes(result) -> list[str]:
    return [code for code, _ in result.problems]


@pytest.mark.parametrize(
    "expects",
    [
        Scaling(),
        Scaling(low=-1.0),
        Scaling(high=255.0),
        Scaling(mean=MEAN, std=STD),
    ],
    ids=str,
)
def test_the_scaling_of_the_input_is_found_on_labelled_images(expects):
    result = found(Eyes(expects))
    x, y = squares().images, squares().labels
    assert (result.model(x).argmax(1) == y).float().mean() > 0.9
    assert result.input == f"RGB in {expects}"
    assert (result.channels, result.size, result.declared) == (3, SIDE, False)
    assert codes(result) == []
    assert any("labelled images" in told for told in result.statements)
    assert (result.model is not None) == (
        not isinstance(result.model, Adapter)
    ) or not expects.plain


def test_without_labels_the_input_is_a_guess_and_said_to_be():
    result = found(Eyes(Scaling()), sample=Sample(squares().images))
    assert codes(result) == ["guessed-input"]
    assert "confidence is" in result.problems[0][1]

    class Chance(nn.Module):
        def forward(self, x):
            return x.new_tensor([[1.0, 0.0]]).repeat(len(x), 1) + 0 * x.sum()

    assert codes(found(Chance())) == ["guessed-input"]


class Dim(nn.Module):
    """Right about `squares` in [-1, 1]; of those in [0, 1] it mistakes some in each batch."""

    def __init__(self, mistaken: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, SIDE)
        self.mistaken = mistaken

    def forward(self, x):
        left, right = x[..., :8].mean((1, 2, 3)), x[..., 8:].mean((1, 2, 3))
        out = 20 * torch.stack([left - right, right - left], 1)
        if len(x) < 2 or x.max() > 2 or x.min() < -1:
            return out * 0
        if x.min() >= 0:
            out = out * torch.where(torch.arange(len(x)) < self.mistaken, -1, 1)[:, None]
        return out + 0 * self.conv(x).flatten(1)


@pytest.mark.parametrize(("mistaken", "expected"), [(0, []), (1, ["guessed-input"])])
def test_a_scaling_that_seems_better_but_not_clearly_makes_the_kept_one_a_guess(mistaken, expected):
    result = found(Dim(mistaken))
    assert codes(result) == expected
    assert result.input == "RGB in [0, 1]"
    if expected:
        assert "45 when fed [0, 1], and on 48 when fed [-1, 1]" in result.problems[0][1]


def test_a_declared_input_is_kept_and_doubted_where_another_is_better():
    assert codes(found(Eyes(Scaling(high=255.0)), range="0-255")) == []
    wrong = found(Eyes(Scaling()), range="0-255")
    assert codes(wrong) == ["other-input"]
    assert wrong.input == "RGB in [0, 255]"
    assert wrong.declared
    assert "48 when fed [0, 1]" in wrong.problems[0][1]


def test_a_model_that_normalises_twice_is_noticed():
    inside = nn.Sequential(Normalise(MEAN, STD), Eyes(Scaling(mean=MEAN, std=STD)))
    once = found(inside)
    assert codes(once) == []
    assert "normalises inside" in once.input
    declared = found(inside, mean=MEAN, std=STD)
    assert set(codes(declared)) == {"twice"}
    twice = nn.Sequential(
        Normalise(MEAN, STD), Normalise(MEAN, STD), Eyes(Scaling(mean=MEAN, std=STD))
    )
    assert "twice" in codes(found(twice))

    class Hidden(nn.Module):  # normalises twice, in code that no module shows
        def __init__(self):
            super().__init__()
            self.eyes = Eyes(Scaling(mean=MEAN, std=STD))

        def forward(self, x):
            once = Scaling(mean=MEAN, std=STD)
            return self.eyes(once(once(x)))

    assert codes(found(Hidden())) == ["twice"]
    batch_norm = nn.Sequential(nn.BatchNorm2d(3), Eyes(Scaling()))
    assert "normalises inside (0)" in found(batch_norm).statements


class Ending(nn.Module):
    def __init__(self, inner: nn.Module, end) -> None:
        super().__init__()
        self.inner, self.end = inner, end

    def forward(self, x):
        return self.end(self.inner(x))


def test_probabilities_become_logits_of_the_same_meaning():
    eyes, x = Eyes(Scaling()), squares().images
    soft = found(Ending(eyes, lambda out: out.softmax(1)))
    assert (soft.outputs, codes(soft)) == ("probabilities", ["probabilities"])
    torch.testing.assert_close(soft.model(x).softmax(1), eyes(x).softmax(1))
    each = found(Ending(eyes, torch.sigmoid))
    assert each.outputs == "probabilities"
    torch.testing.assert_close(each.model(x), eyes(x), rtol=1e-3, atol=1e-3)
    single = found(Ending(eyes, lambda out: (out[:, 1:] - out[:, :1]).sigmoid()))
    torch.testing.assert_close(
        single.model(x)[:, 0], eyes(x)[:, 1] - eyes(x)[:, 0], rtol=1e-3, atol=1e-3
    )
    sharp = found(Ending(eyes, lambda out: (100 * out).softmax(1)))
    assert codes(sharp) == ["probabilities", "saturated"]
    x_adv = PGD(norm="linf", eps=0.1, steps=5)(soft.model, x[:8], squares().labels[:8])
    assert (soft.model(x_adv).argmax(1) != squares().labels[:8]).all()


def test_logits_within_0_and_1_are_not_taken_for_probabilities():
    class Means(nn.Module):
        def forward(self, x):
            return torch.stack([x[..., :8].mean((1, 2, 3)), x[..., 8:].mean((1, 2, 3))], 1)

    result = found(Means())
    assert (result.outputs, codes(result)) == ("logits", [])
    assert result.gradients


def test_what_is_wrapped_around_scores_is_taken_off():
    eyes, x = Eyes(Scaling()), squares().images
    for wrap in (
        lambda out: {"logits": out, "loss": None},
        lambda out: SimpleNamespace(logits=out),
        lambda out: (out, out + 1),
        lambda out: {"scores": out},
    ):
        result = found(Ending(eyes, wrap))
        torch.testing.assert_close(result.model(x), eyes(x))
        assert any("of which the scores are taken" in told for told in result.statements)
    with pytest.raises(UserError, match="it: returns a mapping of a, b: no 'logits'"):
        found(Ending(eyes, lambda out: {"a": out, "b": out}))
    with pytest.raises(UserError, match="it: returns a str"):
        found(Ending(eyes, str))
    with pytest.raises(UserError, match="returns a NoneType"):
        unwrap(None)


def test_channels_and_size_are_read_off_or_tried():
    free = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    grey = probe(Opened(free.eval(), "module"), "it", classes=CLASSES)
    assert (grey.channels, grey.input[:4]) == (1, "grey")
    assert grey.size == 224  # the convolution takes any
    assert "guessed-size" in codes(grey)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(28 * 28, 2)

        def forward(self, x):
            return self.fc(x.flatten(1))

    tried = probe(Opened(Flat().eval(), "module"), "it", classes=CLASSES)
    assert (tried.channels, tried.size) == (1, 28)
    assert "guessed-size" not in codes(tried)
    with pytest.raises(UserError, match=r"it: fails on images of shape \(2, 3, 16, 16\): "):
        found(Flat(), channels=3)
    last = found(Turned(Eyes(Scaling())), layout="nhwc")
    assert (last.model(squares().images).argmax(1) == squares().labels).all()


class Turned(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.permute(0, 3, 1, 2))


def test_models_that_cannot_be_measured_end_in_one_line():
    eyes = Eyes(Scaling())
    with pytest.raises(UserError, match="returns NaN for every one of 48 images"):
        found(Ending(eyes, lambda out: out * torch.nan))
    some = found(Ending(eyes, lambda out: out / (out[:, :1] > 0)))
    assert "nan" in codes(some)
    with pytest.raises(UserError, match="3 outputs, and 2 classes"):
        found(Ending(eyes, lambda out: torch.cat([out, out[:, :1]], 1)))
    with pytest.raises(UserError, match="outputs=probabilities, but they run from"):
        found(eyes, outputs="probabilities")
    with pytest.raises(UserError, match="outputs=labels, but it returns scores"):
        found(eyes, outputs="labels")
    no_gradient = found(Ending(eyes, lambda out: out.detach()))
    assert not no_gradient.gradients


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rnage": "0-1"}, "unknown key 'rnage': did you mean 'range'"),
        ({"range": "0-2"}, "'range'"),
        ({"low": 0}, "low and high are given together"),
        ({"low": 2, "high": 1}, "low must be below high"),
        ({"std": "0"}, "every std must be above zero"),
        ({"channels": 3, "mean": "0.5,0.5"}, "one number, or one a channel"),
        ({"low": 0, "high": 2, "range": "0-1"}, "not both"),
    ],
)
def test_input_settings_say_what_is_wrong(given, told):
    with pytest.raises(UserError, match=told):
        open_subjects(["nothing:here"], input=given)


def test_input_settings_are_read_as_they_are_typed():
    read = validate(InputSettings, {"mean": "0.5, 0.4,0.3", "std": 0.2, "range": "-1-1"}, "input")
    assert read.scaling == Scaling(-1.0, 1.0, (0.5, 0.4, 0.3), (0.2,))
    x = torch.rand(2, 3, 4, 4)
    expected = (2 * x - 1 - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / 0.2
    torch.testing.assert_close(read.scaling(x), expected)
    torch.testing.assert_close(Adapter(nn.Identity(), read.scaling)(x), expected)
    assert validate(InputSettings, {"channels": 3}, "input").scaling is None


def scores(batch):
    """Scores (B, 2) as a service returns them; each call is given float32 numpy images."""
    assert isinstance(batch, np.ndarray)
    assert batch.dtype == np.float32
    assert 0 <= batch.min() <= batch.max() <= 1
    left, right = batch[..., :8].mean((1, 2, 3)), batch[..., 8:].mean((1, 2, 3))
    p = 1 / (1 + np.exp(30 * (left - right)))
    return np.stack([1 - p, p], 1)


def labels(batch):
    return scores(batch).argmax(1)


def names(batch):
    return [CLASSES[k] for k in labels(batch)]


@pytest.mark.parametrize(
    ("ask", "returns"), [(scores, "probabilities"), (labels, "labels"), (names, "labels")]
)
def test_a_black_box_is_asked_attacked_and_explained(ask, returns):
    box = BlackBox(ask, "it")
    result = found(box, kind="callable")
    x, y = squares(8).images, squares(8).labels
    assert result.outputs == returns
    assert not result.gradients
    model = result.model
    before = box.queries
    assert (model(x).argmax(1) == y).all()
    assert box.queries == before + 8
    assert not list(model.parameters())
    assert not model(x.requires_grad_()).requires_grad
    x = x.detach()
    data = Dataset.of("d", {"path": [str(i) for i in range(8)],
                            "label": [CLASSES[int(k)] for k in y]}, CLASSES, None)  # fmt: skip
    levels = (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    table = predict(model, Pixels(data, levels, None, np.zeros(8, bool)))
    assert table.correct.all()
    if returns == "labels":
        attack = BoundaryAttack(norm="l2", eps=4.0, queries=200)
        x_adv = attack(model, x, y, generator=torch.Generator().manual_seed(0))
        assert (model(x_adv).argmax(1) != y).any()
        assert set(model(x).unique().tolist()) == {0.0, 10.0}
    else:
        x_adv = Square(norm="linf", eps=0.2, queries=100)(model, x, y)
        assert (model(x_adv).argmax(1) != y).sum() >= 4
        torch.testing.assert_close(
            model(x).softmax(1).numpy(), scores(x.numpy()), rtol=1e-4, atol=1e-6
        )
    heat = Occlusion(patch=8, stride=8)(model, x, y)
    assert heat.shape == (8, 1, SIDE, SIDE)
    assert box.queries > before + 8


def test_answers_of_black_boxes_that_are_none():
    def asked(ask, classes=CLASSES, **options):
        return probe(
            Opened(BlackBox(ask, "it", []), "callable"), "it", classes=classes, size=SIDE,
            settings=validate(InputSettings, options, "input"), sample=squares(),
        )  # fmt: skip

    with pytest.raises(UserError, match="it: returns an answer of type str for 2 images"):
        asked(lambda batch: "mel")
    with pytest.raises(UserError, match=r"it: returns an answer of shape \(1, 2\) for 2 images"):
        asked(lambda batch: scores(batch)[:1])
    with pytest.raises(UserError, match="returns the label 7"):
        asked(lambda batch: np.full(len(batch), 7))
    with pytest.raises(UserError, match="none of left, right"):
        asked(lambda batch: ["up"] * len(batch))
    with pytest.raises(UserError, match="give --classes"):
        asked(labels, classes=())
    with pytest.raises(UserError, match="it: fails on images of shape .*: the service is down"):
        asked(_down)
    single = asked(lambda batch: scores(batch)[:, 1])  # one probability an image
    assert (single.model(squares().images)[:, 0] > 0).long().equal(squares().labels)
    hard = asked(lambda batch: scores(batch)[:, 1].round(), outputs="probabilities")
    assert hard.outputs == "probabilities"


def _down(batch):
    raise ConnectionError("the service is down")
