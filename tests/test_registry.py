from __future__ import annotations

from dataclasses import dataclass

import pytest

from diascope.attacks import attacks
from diascope.errors import UserError
from diascope.explain import explainers
from diascope.objectives import objectives
from diascope.registry import Registry, to_settings

REGISTRIES = (attacks, objectives, explainers)


def test_members_are_found_without_being_imported_first():
    assert {"fgsm", "pgd"} <= set(attacks)
    assert {"standard", "adversarial"} <= set(objectives)
    assert "gradient" in set(explainers)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_unknown_names_are_met_with_the_nearest(registry):
    name = registry.names()[0]
    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        registry[name + "x"]
    with pytest.raises(UserError, match="'name' is missing"):
        registry.build({})


def test_nested_members_are_built_and_written():
    settings = {
        "name": "adversarial",
        "attack": {"name": "pgd", "eps": 1, "norm": "l2"},
        "mix": 0.5,
    }
    built = objectives.build(settings)
    assert built.attack.eps == 1.0
    assert objectives.build(to_settings(built)) == built
    assert {built: 1}[objectives.build(settings)] == 1
    for bad, message in [
        ({"name": "adversarial"}, "'attack' is missing"),
        ({"name": "adversarial", "attack": {"name": "pdg"}}, "did you mean 'pgd'"),
        ({"name": "adversarial", "attack": {"name": "pgd", "steps": "many"}}, "attack.steps"),
        ({"name": "adversarial", "attack": "fgsm", "mix": -1}, "mix=-1"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            objectives.build(bad)
        assert "\n" not in str(caught.value)


def test_a_name_is_taken_once():
    registry = Registry("thing", "diascope.attacks")

    @dataclass
    class A: ...

    @dataclass
    class B: ...

    registry.register("a")(A)
    with pytest.raises(ValueError, match="two members"):
        registry.register("a")(B)
