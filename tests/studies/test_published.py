"""The studies of P2, P3 and P4 hold every number that those papers publish for their claims."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from diascope.studies.study import read_study, scales_of

STUDIES = Path(__file__).parents[2] / "studies"
PUBLISHED = {
    "p2a": ["0.905", "0.88", "24%", "0.0"],
    "p2b": ["0.832", "0.818", "over 20", "3%"],
    "p2c": ["0.805", "1 to 2%"],
    "p2d": ["within 1%", "at most 6%"],
    "p3a": ["0.78", "0.79", "0.81", "0.82", "0.75"],
    "p3b": ["0.76", "0.81", "0.8", "0.78", "0.82", "0.79"],
    "p3c": ["0.82", "0.78", "0.8", "0.75", "0.81"],
    "p4a": ["27.88%", "51.79%", "44.29%"],
    "p4b": ["16.36%", "49.08%", "8.33%", "48.95%", "55.69%", "35%", "20 points", "30 points"],
    "p4c": ["over 20 points", "over 30 points"],
}
ATTACKED = {"p2a", "p2b", "p2c", "p2d", "p4a", "p4b", "p4c"}
FILES = sorted(p.stem for p in STUDIES.glob("p[234][a-e].yaml"))


read = cache(read_study)


def published(study: Any) -> set[str]:
    entries = [*study.claims.values(), *study.untestable.values()]
    return {str(value) for entry in entries for value in entry.published.values()}


def test_there_is_a_file_for_each_row():
    wanted = {"p2": "abcde", "p3": "abcd", "p4": "abcd"}
    assert [paper + row for paper, rows in wanted.items() for row in rows] == FILES


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_number_stands_in_a_claim(name):
    for scale in ("small", "paper"):
        found = published(read(STUDIES / f"{name}.yaml", scale))
        assert [number for number in PUBLISHED[name] if not any(number in f for f in found)] == []


@pytest.mark.parametrize("name", FILES)
def test_what_differs_is_said_at_each_scale_and_every_claim_has_a_place(name):
    file = STUDIES / f"{name}.yaml"
    assert scales_of(file) == ["small", "paper"]
    small, paper = read(file, "small"), read(file, "paper")
    assert small.caveats
    assert paper.caveats
    assert small.caveats != paper.caveats
    assert small.title.endswith("?")
    assert small.figures
    for claim in [*small.claims.values(), *small.untestable.values()]:
        assert claim.where
        assert claim.published or claim.where.startswith("ours"), claim.says


@pytest.mark.parametrize("name", sorted(ATTACKED))
def test_robustness_is_measured_where_the_strongest_attack_and_the_checks_are(name):
    from diascope.studies.evaluations import EVALUATIONS

    for scale in ("small", "paper"):
        study = read(STUDIES / f"{name}.yaml", scale)
        measure = EVALUATIONS.build(study.evaluations["attacked"].measure, name)
        assert measure.masking_images > 0
        assert {c for c in measure.columns() if c.startswith("strongest@")}
        assert any("/attacked." in str(claim.test) for claim in study.claims.values())


def test_caveats_of_a_base_and_of_its_study_add_up():
    base = yaml.safe_load((STUDIES / "_p2.yaml").read_text())["scales"]["small"]["caveats"]
    own = yaml.safe_load((STUDIES / "p2d.yaml").read_text())["scales"]["small"]["caveats"]
    assert read(STUDIES / "p2d.yaml").caveats == [*base, *own]
    assert base
    assert own
