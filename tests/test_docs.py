"""The pages of the documentation run: every Python snippet, from the first to the last."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from diascope.attacks import attacks
from diascope.data import Preprocess, load_pixels, open_dataset
from diascope.evaluation import MEASURES
from diascope.explain import explainers
from diascope.models import create_model, save_model
from diascope.objectives import objectives
from diascope.training import read_config

DOCS = Path(__file__).parents[1] / "docs"
TRAINING = (DOCS / "training.md").read_text()
STUDIES = (DOCS / "studies.md").read_text()


def snippets(page: str) -> list[tuple[int, str]]:
    """Return line number and text of each Python snippet of a page."""
    text = (DOCS / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: m.start(1)].count("\n"), m[1]) for m in found]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A folder as `make demo` leaves it, with a small model whose images stand near an edge."""
    monkeypatch.chdir(tmp_path)
    data = open_dataset("phantom", images=8, size=64, seed=1)
    x = load_pixels(data, size=64).x()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(
            "resnet18", len(data.classes), layers=[1, 1, 1, 1], channels=[8, 8, 8, 8]
        ).eval()
    with torch.no_grad():
        model.backbone.fc.weight.mul_(10)
        model.backbone.fc.bias.sub_(model(x).mean(0))
    card = {"classes": data.classes, "size": 64, "preprocess": Preprocess().model_dump()}
    save_model(model, tmp_path / "demo" / "standard" / "model.safetensors", **card)
    return tmp_path


def test_attacks(demo):
    found = snippets("attacks.md")
    assert len(found) >= 9
    names: dict[str, object] = {}
    for line, text in found:
        exec(compile("\n" * line + text, DOCS / "attacks.md", "exec"), names)
    assert names["curve"].accuracy.shape == (4,)
    assert (demo / "curve.safetensors").exists()
    assert len(list((demo / "rounded").glob("*.png"))) == 8


def test_attacks_names_every_member():
    text = (DOCS / "attacks.md").read_text()
    for name in attacks.names():
        assert f"| `{name}` | `{attacks[name].__name__}` |" in text


def test_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = snippets("training.md")
    assert len(found) == 2
    names: dict[str, object] = {}
    for line, text in found:
        exec(compile("\n" * line + text, DOCS / "training.md", "exec"), names)
    assert names["fitted"].epoch == 1
    assert names["loss"].isfinite()


def test_the_configuration_in_training_is_one(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", TRAINING, re.MULTILINE | re.DOTALL)
    (tmp_path / "file.yaml").write_text(text)
    config = read_config(tmp_path / "file.yaml", ["training.epochs=5"])
    assert config.training.epochs == 5
    assert round(config.build_objective().attack.eps, 2) == 1.31


def test_training_names_every_objective_and_option():
    for name in objectives.names():
        assert f"`{name}`" in TRAINING
        for field in dataclasses.fields(objectives[name]):
            if field.name not in ("attack", "precision"):
                assert f"`{field.name}`" in TRAINING, (name, field.name)


def test_explanations(demo):
    found = snippets("explanations.md")
    assert len(found) >= 6
    names: dict[str, object] = {}
    for line, text in found:
        exec(compile("\n" * line + text, DOCS / "explanations.md", "exec"), names)
    assert names["picture"].shape == (8, 64, 64)
    assert set(names["maps"]["standard"]) == set(names["methods"])
    assert names["sums"].gap.max() < 1e-3


def test_explanations_name_every_member():
    text = (DOCS / "explanations.md").read_text()
    missing = [name for name in explainers if f"`{name}`" not in text]
    maps = {"localisation", "sharpness", "colour", "agreement", "faithfulness"}
    missing += [n for n in MEASURES if MEASURES[n].family in maps and f"`{n}`" not in text]
    assert not missing


def test_audit(demo):
    from diascope.audit.effort import Effort, effort
    from diascope.audit.stages import STAGES

    names: dict[str, object] = {}
    for line, text in snippets("audit.md"):
        exec(compile("\n" * line + text, DOCS / "audit.md", "exec"), names)
    assert (demo / "audit" / "report.html").exists()
    assert names["results"].complete
    text = (DOCS / "audit.md").read_text()
    for name in STAGES:
        assert f"| `{name}` |" in text, name
    for name in Effort.model_fields:
        cells = re.search(rf"^\| `{name}` \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE).groups()
        values = (getattr(effort(budget), name) for budget in ("quick", "standard", "thorough"))
        assert list(cells) == [_told(value) for value in values], name


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "all" if value is None else str(value)


def test_studies(tmp_path, monkeypatch):
    """The study of the page runs from its class folders to its report, cut to a few images."""
    from diascope.data.phantom import write_phantom

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diascope.studies.run.expectation", lambda *_: {})  # times real steps
    write_phantom("phantom", images=36, size=16, hospital="a")
    (own,) = re.findall(r"^```yaml\n(.*?)^```$", STUDIES, re.MULTILINE | re.DOTALL)
    Path("mine.yaml").write_text(own)
    (making, running) = snippets("studies.md")
    exec(compile(making[1], DOCS / "studies.md", "exec"), {})
    short = (
        "seeds=[0]",
        "every_run.training.epochs=1",
        "every_run.data.size=16",
        "every_run.model.options.channels=[4,4,8,8]",
        "runs.tuned.training.epochs=1",
        "runs.robust.objective.attack.steps=1",
        "evaluations.attacked.measure.epsilons=[0.3]",
        "evaluations.attacked.measure.attacks.pgd.steps=2",
        "evaluations.attacked.measure.steps=2",
        "evaluations.attacked.measure.queries=2",
        "evaluations.attacked.measure.images=4",
        "evaluations.attacked.measure.masking_images=0",
        "evaluations.shown.measure.images=1",
        "evaluations.shown.measure.attack={name: fgsm}",
    )
    text = running[1].replace('"seeds=[0]"', ", ".join(map(repr, short)))
    assert text != running[1]
    names: dict[str, object] = {}
    exec(compile("\n" * running[0] + text, DOCS / "studies.md", "exec"), names)
    assert names["results"].complete
    assert [claim.decision is not None for claim in names["results"].claims] == [True] * 3
    assert (tmp_path / "report" / "figures" / "curves.png").exists()


def test_studies_names_every_evaluation_claim_figure_and_verdict():
    from diascope.report.study.figures import FIGURES
    from diascope.report.study.words import SIGNS
    from diascope.studies.claims import CLAIMS
    from diascope.studies.engines import ENGINES
    from diascope.studies.evaluations import EVALUATIONS
    from diascope.studies.study import Study

    missing = [name for name in (*EVALUATIONS, *FIGURES) if f"| `{name}` |" not in STUDIES]
    missing += [name for name in CLAIMS if f"name: {name}," not in STUDIES]
    missing += [
        name for verdict, sign in SIGNS.items() if (name := f"| {sign} {verdict} |") not in STUDIES
    ]
    missing += [name for name in ENGINES if name not in STUDIES]
    missing += [
        key
        for key in Study.model_fields
        if f"`{key}`" not in STUDIES and key not in ("name", "scale")
    ]
    for kind in (*FIGURES, *CLAIMS):
        registry = FIGURES if kind in FIGURES.names() else CLAIMS
        fields = {field.name for field in dataclasses.fields(registry[kind])}
        missing += [f"{kind}: {field}" for field in fields if field not in STUDIES]
    assert not missing
