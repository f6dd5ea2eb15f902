from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diascope.attacks import PGD, scale_eps
from diascope.errors import UserError
from diascope.objectives import Adversarial, Standard
from diascope.settings import override
from diascope.training import TrainConfig, read_config

PGD_L2 = {"name": "pgd", "norm": "l2", "steps": 7, "rel_step_size": 0.2}
PAPER = {
    "data": {"name": "phantom", "size": 64},
    "objective": {"name": "adversarial", "eps": 4.0, "eps_reference": 224, "attack": PGD_L2},
}


def with_(*assignments: str) -> dict[str, Any]:
    return override(PAPER, assignments)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.epoch=3", ["training.epoch", "'epochs'"]),
        ("trainig.epochs=3", ["'trainig'", "'training'"]),
        ("training.optimizer.learning_rate=1", ["learning_rate", "known: eps, lr"]),
        ("training.schedule.name=cosin", ["training.schedule", "cosine"]),
        ("training.schedule={name: cosine, every: 3}", ["'cosine' has no 'every'"]),
        ("training.optimizer={name: sgd, eps: 0.1}", ["'sgd' has no 'eps'"]),
        ("training.epochs=0", ["training.epochs", "greater than 0"]),
        ("training.epoch_share=1.5", ["training.epoch_share", "less than or equal to 1"]),
        ("training.augment.flip=true", ["training.augment.flip", "'flips'"]),
        ("training.validation.image=4", ["training.validation.image", "'images'"]),
        ("data.sise=64", ["data.sise", "'size'"]),
        ("data.split.fraction=1", ["data.split.fraction", "'fractions'"]),
        ("objective.attack.epss=1", ["objective.attack", "epss", "'eps'"]),
        ("objective.attack.name=pdg", ["'pdg'", "'pgd'"]),
        ("objective.name=adversial", ["'adversial'", "'adversarial'"]),
        ("objective.attack.eps=1", ["'eps' and 'attack.eps' are both given"]),
        ("objective.eps=-1", ["eps", "-1", "greater than or equal to 0"]),
        ("objective.eps_rule=area", ["eps_rule", "pixels"]),
        ("objective.eps_reference=0", ["eps_reference"]),
        ("objective={name: standard, eps: 1}", ["'eps' needs an attack", "standard"]),
        ("objective={name: standard, lam: 1}", ["objective", "lam", "label_smoothing"]),
        ("objective={name: adversarial}", ["'attack' is missing"]),
        ("data={size: 64}", ["data.name", "missing"]),
    ],
)
def test_mistakes_are_one_line_and_say_what_to_do(assignment: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_config(with_(assignment), where="it.yaml")
    message = str(caught.value)
    assert message.startswith(("it.yaml: ", "unknown "))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_shorthand_gives_the_papers_attack_at_this_size() -> None:
    config = read_config(PAPER)
    eps = scale_eps(4.0, 64, 224, "pixels")
    expected = Adversarial(attack=PGD(norm="l2", eps=eps, steps=7, rel_step_size=0.2))
    assert config.build_objective() == expected
    assert config.objective_eps_given == {"eps": 4.0, "eps_reference": 224, "eps_rule": "pixels"}
    root = read_config(with_("objective.eps_rule=root")).build_objective()
    assert root.attack.eps == pytest.approx(4 * 64 / 224)
    absolute = read_config(with_("objective.eps_reference=null")).build_objective()
    assert absolute.attack.eps == 4.0
    plain = {**PAPER, "objective": {"name": "adversarial", "attack": {**PGD_L2, "eps": 0.7}}}
    assert read_config(plain).build_objective().attack.eps == 0.7
    named = {**PAPER, "objective": {"name": "adversarial", "eps": 0.1, "attack": "fgsm"}}
    assert read_config(named).build_objective().attack.eps == 0.1


def test_a_resolved_configuration_reads_back_the_same(tmp_path: Path) -> None:
    content = with_("training.optimizer={name: sgd, lr: 1e-5}", "training.schedule=plateau")
    config = read_config(content)
    text = yaml.safe_dump({**config.to_dict(), "record": {"torch": "2"}}, sort_keys=False)
    (tmp_path / "config.yaml").write_text(text)
    again = read_config(tmp_path / "config.yaml")
    assert again.to_dict() == config.to_dict() == again.resolved().to_dict()
    assert again.build_objective() == config.build_objective()
    assert again.record == {"torch": "2"}
    assert config.training.optimizer.lr == 1e-5
    assert config.to_dict()["training"]["schedule"].keys() == {
        "name",
        "warmup_epochs",
        "patience",
        "factor",
    }


def test_a_stale_epsilon_is_refused_when_the_size_changes() -> None:
    resolved = read_config(PAPER).to_dict()
    with pytest.raises(UserError, match="not what objective_eps_given says for size 128"):
        read_config(resolved, ["data.size=128"])
    anew = read_config(resolved, ["data.size=128", "objective.eps=2"])
    assert anew.build_objective().attack.eps == scale_eps(2.0, 128, 224)
    assert anew.objective_eps_given == {"eps": 2.0, "eps_reference": 224, "eps_rule": "pixels"}
    other = read_config(resolved, ["data.size=128", "objective={name: standard}"])
    assert (other.build_objective(), other.objective_eps_given) == (Standard(), None)


def test_defaults_follow_the_name() -> None:
    config = TrainConfig.model_validate({"data": {"name": "phantom"}}).training
    assert (config.optimizer.name, config.optimizer.eps, config.optimizer.momentum) == (
        "adam",
        1e-8,
        None,
    )
    sgd = read_config(PAPER, ["training.optimizer.name=sgd"]).training.optimizer
    assert (sgd.momentum, sgd.nesterov, sgd.eps) == (0.9, False, None)
