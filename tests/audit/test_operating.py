"""The operating point of models whose answers are known: what is found, and what is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import operating as benchmark
from tests.audit.test_checks import results
from torch import nn

from diascope.audit.bench import Bench
from diascope.audit.checks import CHECKS
from diascope.audit.effort import Effort
from diascope.audit.parts import Confusion, Interface
from diascope.audit.plan import lacking
from diascope.audit.positive import DISEASE, positive_classes
from diascope.audit.settings import AuditSettings
from diascope.audit.stages import STAGES
from diascope.audit.stages.confusion import counts
from diascope.audit.subject import Subject
from diascope.audit.validation import validation_pixels
from diascope.data import Dataset, load_pixels
from diascope.errors import UserError
from diascope.evaluation import predict

SIDE = 8


CARD = {
    "classes": ["benign", "malignant", "other"],
    "size": SIDE,
    "preprocess": {"crop": "none", "channels": 1},
    "data": {"name": "greys"},
}


class Greys:
    """A reader that draws a path such as "17@0.42" as an even grey of that brightness."""

    def image(self, path):
        level = round(float(path.split("@")[1]) * 255)
        return np.full((SIDE, SIDE, 1), level, np.uint8)

    def mask(self, path):
        return np.zeros((SIDE, SIDE), bool)

    def stamp(self, path):
        return path


def greys(levels, labels, splits=None):
    count = len(levels)
    columns = {
        "path": [f"{i}@{level:.4f}" for i, level in enumerate(levels)],
        "label": list(labels),
        "group": [f"g{i}" for i in range(count)],
        "split": list(splits) if splits is not None else [""] * count,
    }
    return Dataset.of("greys", columns, CARD["classes"], Greys())


class Brightness(nn.Module):
    """Malignant is what is bright: logits (0, k (mean - 0.5), -9)."""

    def __init__(self, steepness=20.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(steepness))

    def forward(self, x):
        z = self.weight * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([torch.zeros_like(z), z, torch.full_like(z, -9.0)], 1)


SETTINGS = AuditSettings(norm="linf", epsilons=(0.02, 0.05, 0.1), replicates=100)


def bench_of(dataset, tmp_path, *, model=None, validation=None, interface=None, **effort):
    model = model or Brightness()
    pixels = load_pixels(dataset, SIDE, cache=tmp_path / "cache")
    bench = Bench(
        subject=Subject("m", model, None, CARD, interface),
        model=model,
        pixels=pixels,
        settings=SETTINGS,
        effort=Effort(operating_steps=5, queries=60, **effort),
        device=torch.device("cpu"),
        validation=validation and load_pixels(validation, SIDE, cache=tmp_path / "cache"),
        table=predict(model, pixels),
    )
    bench.tell = lambda passes: made.append(passes)
    made.clear()
    return bench


made: list[float] = []


def spread(low, high, count):
    return np.linspace(low, high, count).round(2).tolist()


@pytest.fixture
def bench(tmp_path):
    """20 benign from 0.2 to 0.58, 20 malignant from 0.4 to 0.78; the same once more to choose."""
    levels, labels = spread(0.2, 0.58, 20) + spread(0.4, 0.78, 20), ["benign"] * 20
    labels += ["malignant"] * 20
    return bench_of(greys(levels, labels), tmp_path, validation=greys(levels, labels))


def test_the_threshold_is_chosen_on_validation_and_the_attack_is_aimed_at_it(bench):
    measured = STAGES["operating"].measure(bench)
    found = measured.result
    assert found.positive == ["malignant"]
    assert "by name" in found.rule
    assert "0.9" in found.rule
    assert found.chosen_on == "40 validation images, 20 positive"
    # 18 of 20 are at least 0.44 bright, and P there is 1 / (1 + e^(20 * 0.06) + e^...)
    level = round(0.44 * 255) / 255
    assert found.threshold == pytest.approx(1 / (1 + np.exp(20 * (0.5 - level))), abs=2e-3)
    clean, *attacked = found.points
    assert [p.eps for p in found.points] == [0, 0.02, 0.05, 0.1]
    assert (clean.images, clean.positives, clean.missed) == (40, 20, 2)
    assert clean.sensitivity[0] == pytest.approx(0.9)
    assert clean == replace(found.validation, ppv=clean.ppv, npv=clean.npv)
    bright = np.array([round(v * 255) / 255 for v in spread(0.4, 0.78, 20)])
    dark = np.array([round(v * 255) / 255 for v in spread(0.2, 0.58, 20)])
    for point in attacked:  # an even change of eps is the best there is
        assert point.missed == (bright - point.eps < level - 1e-6).sum()
        assert point.false_alarms == (dark + point.eps >= level - 1e-6).sum()
    assert (measured.columns["threshold:correct"] == 0).sum() == clean.missed + clean.false_alarms
    column = measured.columns["threshold:minimal_epsilon"]
    assert (column == 0).sum() == clean.missed + clean.false_alarms
    assert sum(made) <= STAGES["operating"].passes(bench)


def test_the_images_are_not_asked_about_again_after_the_predictions(bench):
    asked = []
    bench.model.register_forward_hook(lambda model, args, out: asked.append(len(args[0])))
    bench.effort = bench.effort.model_copy(update={"operating_images": 0})
    STAGES["predictions"].measure(bench)
    assert sum(asked) == 40
    found = STAGES["operating"].measure(bench).result
    assert sum(asked) == 80  # and 40 to choose the threshold on
    assert found.points[0].images == 40


def test_under_attack_the_same_images_are_told_of_without_it(bench):
    assert STAGES["operating"].measure(bench).result.drawn is None  # all are attacked
    bench.effort = bench.effort.model_copy(update={"operating_images": 16})
    measured = STAGES["operating"].measure(bench)
    found, minimal = measured.result, measured.columns["threshold:minimal_epsilon"]
    rows = np.flatnonzero(~np.isnan(minimal))
    assert found.unattacked is found.drawn
    assert found.drawn.images == len(rows) == found.points[1].images == 16
    assert found.drawn.missed + found.drawn.false_alarms == (minimal[rows] == 0).sum()
    assert found.drawn.positives == (bench.pixels.dataset.labels[rows] == 1).sum()
    assert found.points[0].images == 40


def test_as_many_positive_as_negative_are_attacked_however_rare_they_are(tmp_path):
    levels = spread(0.2, 0.58, 40) + spread(0.4, 0.78, 6)
    few = bench_of(greys(levels, ["benign"] * 40 + ["malignant"] * 6), tmp_path)
    few.effort = few.effort.model_copy(update={"operating_images": 10})
    few.table["minimal_epsilon"] = np.nan
    measured = STAGES["operating"].measure(few).result
    assert (measured.drawn.positives, measured.drawn.negatives) == (5, 5)
    assert measured.prevalence == pytest.approx(6 / 46)  # for PPV and NPV, under attack too
    point = measured.points[2]
    found, alarms = point.sensitivity[0] * 6 / 46, (1 - point.specificity[0]) * 40 / 46
    assert point.ppv[0] == pytest.approx(found / (found + alarms), nan_ok=True)
    clean, attacked = STAGES["confusion"].measure(few).result
    assert np.array(clean.counts).sum(1).tolist() == [40, 6, 0]
    assert np.array(attacked.counts).sum(1).tolist() == [5, 5, 0]


def test_the_column_of_scores_says_every_decision_again(bench):
    measured = STAGES["operating"].measure(bench)
    cut = np.log(measured.result.threshold / (1 - measured.result.threshold))
    called = measured.columns["positive_log_odds"] >= cut - 1e-6
    truth = bench.pixels.dataset.labels == 1
    assert (called & ~truth).sum() == measured.result.points[0].false_alarms


def test_the_rule_and_the_prevalence_may_be_set(bench):
    asked = {"threshold": "youden", "prevalence": 0.02}
    bench.settings = bench.settings.model_copy(update=asked)
    found = STAGES["operating"].measure(bench).result
    assert "Youden" in found.rule
    assert found.prevalence == 0.02
    clean = found.points[0]
    sensitivity, specificity = clean.sensitivity[0], clean.specificity[0]
    true, false = 0.02 * sensitivity, 0.98 * (1 - specificity)
    assert clean.ppv[0] == pytest.approx(true / (true + false))
    bench.settings = bench.settings.model_copy(update={"threshold": "half"})
    half = STAGES["operating"].measure(bench).result
    assert half.threshold == 0.5
    assert half.validation is None
    youden = [p.sensitivity[0] + p.specificity[0] for p in (clean, half.points[0])]
    assert youden[0] >= youden[1]


def test_without_validation_it_is_a_half_and_said_so(bench):
    bench.validation = None
    found = STAGES["operating"].measure(bench).result
    assert found.threshold == 0.5
    assert found.rule.startswith("0.5")
    assert "not known" in found.chosen_on
    assert found.validation is None
    bench.validation = bench.pixels.take(bench.pixels.dataset.labels == 0)  # none positive
    found = STAGES["operating"].measure(bench).result
    assert found.threshold == 0.5
    assert "20 validation images, 0 positive" in found.chosen_on


def test_a_black_box_is_attacked_by_its_scores(bench, tmp_path):
    class Closed(Brightness):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    facts = Interface("callable", False, "probabilities", 1, SIDE, "", True)
    data, model = bench.pixels.dataset, Closed()
    shut = bench_of(data, tmp_path, model=model, interface=facts, operating_epsilons="reference")
    found = STAGES["operating"].measure(shut).result
    assert [p.eps for p in found.points] == [0, 0.05]
    assert found.points[1].missed > found.points[0].missed
    labels = replace(shut.subject, interface=replace(facts, outputs="labels"))
    shut.subject = labels
    assert lacking(shut, STAGES["operating"]) == "the model gives labels alone"


def test_where_no_class_is_known_to_be_positive_it_is_left_out(bench):
    named = replace(bench.pixels.dataset, classes=("cat", "dog", "cow"))
    bench.pixels = replace(bench.pixels, dataset=named)
    assert "--positive" in lacking(bench, STAGES["operating"])
    bench.settings = SETTINGS.model_copy(update={"positive": ("dog",)})
    assert lacking(bench, STAGES["operating"]) == ""


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("nv", "mel", "bkl"), ("mel",)),
        (("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"), ("akiec", "bcc", "mel")),
        (("melanoma", "nevus"), ("melanoma",)),
        (("COVID-19", "Normal"), ("COVID-19",)),
        (("No Lung Opacity", "Lung Opacity"), ("Lung Opacity",)),
        (("covid-negative", "covid-positive"), ("covid-positive",)),
        (("sick", "healthy"), ("sick",)),
        (("left", "right"), ("right",)),
        (("mel", "bcc"), ("bcc",)),
        (("cat", "dog", "cow"), ()),
    ],
)
def test_positive_classes_are_guessed_by_name(classes, positive):
    assert positive_classes(classes)[0] == positive
    assert positive_classes(classes)[1]


def test_positive_classes_as_set():
    assert positive_classes(("a", "b", "c"), ("c", "a")) == (("a", "c"), "as set")
    with pytest.raises(UserError, match="did you mean 'melanoma'"):
        positive_classes(("melanoma", "nevus"), ("melanom",))
    with pytest.raises(UserError, match="all classes"):
        positive_classes(("a", "b"), ("a", "b"))


def test_confusion_tells_what_attacks_turn_images_into(bench):
    bench.table["minimal_epsilon"] = np.nan
    clean, attacked = STAGES["confusion"].measure(bench).result
    level = bench.pixels.x().mean((1, 2, 3)).numpy()
    labels = bench.pixels.dataset.labels
    assert clean == Confusion(0.0, counts(labels, (level > 0.5).astype(int), 3))
    assert attacked.eps == bench.reference == 0.05
    turned = np.where(labels == 1, level - 0.05 > 0.5, level + 0.05 > 0.5).astype(int)
    assert attacked.counts == counts(labels, turned, 3)
    assert sum(made) <= STAGES["confusion"].passes(bench)


def test_confusion_asks_of_no_image_that_the_curve_knows_to_stand(bench):
    bench.table["minimal_epsilon"] = np.where(bench.table.correct, np.inf, 0.0)
    clean, attacked = STAGES["confusion"].measure(bench).result
    assert attacked.counts == clean.counts
    assert not made


def test_counts_are_a_table_of_all_images():
    labels, called = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0])
    assert counts(labels, called, 3) == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]


def test_validation_images_are_those_the_model_held_out(tmp_path):
    data = greys(spread(0.1, 0.9, 9), ["benign", "malignant", "other"] * 3)
    split = pd.DataFrame(
        {
            "path": data.table.path,
            "group": ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"],
            "split": ["train"] * 3 + ["val"] * 3 + ["test"] * 3,
        }
    )

    def held(*tables, name="greys", of=data):
        card = {**CARD, "data": {"name": name}}
        subjects = [Subject(f"m{i}", Brightness(), t, card) for i, t in enumerate(tables)]
        found = validation_pixels(of, subjects, SETTINGS, cache=tmp_path / "cache")
        return None if found is None else sorted(found.dataset.table.group)

    assert held(split) == ["g3", "g4", "g5"]
    moved = split.assign(path=[f"elsewhere/{p}" for p in split.path])
    assert held(moved) == ["g3", "g4", "g5"]
    leaky = split.assign(group=["g0", "g1", "g4", "g3", "g4", "g5", "g5", "g7", "g8"])
    assert held(leaky) == ["g3"]  # the others' patients are trained on, or tested
    assert held(split, leaky) == ["g3"]
    assert held(split.assign(split="train")) is None
    assert held(split, name="another") is None
    official = greys(spread(0.1, 0.9, 9), ["benign"] * 9, ["", "val", "val"] + ["test"] * 6)
    assert held(None, of=official) == ["g1", "g2"]
    assert held(split, name="another", of=official) == ["g1", "g2"]
    unpaired = greys(spread(0.1, 0.9, 9), ["benign"] * 9, ["val"] * 9)
    assert held(None, of=unpaired) is None  # all of it is audited then


def test_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for text in snippets:
            exec(compile(text, "operating.md", "exec"), names)
    assert names["found"].sensitivity.defined
    assert names["result"].minimal_epsilon.shape == (4,)
    for word in ("akiec", "opacity", "referable"):
        assert f"`{word}`" in page
        assert word in DISEASE


def found_by(bench):
    measured = STAGES["operating"].measure(bench).result
    return [f.title for f in CHECKS["operating"](results(operating=measured))]


def test_the_checks_find_a_darker_device_and_a_faint_boundary(bench, tmp_path):
    assert found_by(bench) == []
    levels, labels = spread(0.1, 0.48, 20) + spread(0.3, 0.68, 20), ["benign"] * 20
    labels += ["malignant"] * 20
    darker = bench_of(greys(levels, labels), tmp_path)  # each image 0.1 darker than to choose on
    darker.validation = bench.validation
    assert found_by(darker) == ["m misses more malignant than it may"]
    brighter = greys([min(level + 0.4, 1) for level in levels], labels)
    bright = bench_of(brighter, tmp_path)
    bright.validation = bench.validation
    assert found_by(bright) == [
        "The threshold of m raises more false alarms than where it was chosen"
    ]
    near = greys([0.49] * 20 + [0.505] * 19 + [0.48], labels)
    faint = bench_of(near, tmp_path, validation=near)
    faint.settings = SETTINGS.model_copy(update={"epsilons": (0.0, 0.012)})
    assert found_by(faint) == ["m calls most malignant negative at linf eps 0.012"]


def test_the_checks_find_a_head_that_never_says_one_class(bench):
    class Blind(Brightness):
        def forward(self, x):
            logits = super().forward(x)
            return logits - torch.tensor([0.0, 6.0, 0.0])

    def found(model):
        bench.model, bench.table = model, predict(model, bench.pixels)
        bench.table["minimal_epsilon"] = np.nan
        recall = {
            name: (float(part.mean()),) * 3
            for name, part in bench.table.correct.groupby(bench.table.label)
        }
        recall = {name: recall.get(name, (np.nan,) * 3) for name in CARD["classes"]}
        confusion = STAGES["confusion"].measure(bench).result
        return [f.title for f in CHECKS["errors"](results(recall=recall, confusion=confusion))]

    assert found(Blind()) == ["m calls most of malignant benign"]
    assert found(Brightness()) == []


def test_the_benchmark_tells_one_model_in_a_table(tmp_path, monkeypatch):
    levels = spread(0.1, 0.9, 30)
    labels = ["benign", "malignant", "other"] * 10
    data = greys(levels, labels, ["train"] * 10 + ["val"] * 10 + ["test"] * 10)
    monkeypatch.setenv("DIASCOPE_CACHE", str(tmp_path))
    subject = Subject("m", Brightness(), None, {k: v for k, v in CARD.items() if k != "data"})
    settings = SETTINGS.model_copy(update={"effort": {"operating_steps": 2}})
    found = benchmark.measured(subject, data, settings)
    assert found.points[0].images == 10
    assert found.validation.images == 10
    text = benchmark.table(found)
    assert len(text.splitlines()) == 2 + 2 + 1 + len(found.points)
    assert f"| {found.points[0].missed} of 3 |" in text
