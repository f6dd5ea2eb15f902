"""What every evaluation promises."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import numpy as np
import pytest
from tests.studies.exams import exam_of, line, pixels_of

from diascope.audit.masking.meter import Meter, Metered
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS

SMALL = {
    "predictions": {},
    "robust": {
        "epsilons": [0.004, 0.008],
        "attacks": {"fgsm": "fgsm", "pgd": {"steps": 4}},
        "steps": 4,
        "queries": 10,
        "masking_images": 0,
    },
    "maps": {"faithfulness": ["deletion"]},
    "attention_shift": {
        "epsilons": [0.01, 0.02],
        "explainers": {"gradient": {}},
        "attack": {"name": "pgd", "steps": 6},
    },
    "agreement": {"explainers": {"smoothgrad": {"samples": 3}}},
    "choice": {"folds": 3},
    "examples": {"images": 3, "eps": 0.02, "attack": {"name": "pgd", "steps": 6}},
}


def examined(name, batch_size=8):
    meter = Meter()
    nets = [Metered(line(seed=k, noise=0.2), meter) for k in (1, 2, 3)]
    beside = {"second": nets[1], "third": nets[2]}
    exam = exam_of(nets[0], pixels_of(12), batch_size=batch_size, beside=beside)
    evaluation = EVALUATIONS.build({"name": name, **SMALL[name]})
    return exam, evaluation, evaluation(exam), meter.passes


def test_every_evaluation_is_tested_here():
    assert set(SMALL) == set(EVALUATIONS)


@pytest.mark.parametrize("name", SMALL)
def test_an_evaluation_gives_the_columns_it_names_and_tells_what_it_costs(name):
    exam, evaluation, found, made = examined(name)
    named = evaluation.columns()
    for column, values in found.columns.items():
        assert any(fnmatchcase(column, pattern) for pattern in named), column
        assert values.shape == (len(exam.pixels),)
        assert np.isfinite(values).any() or column == "minimal_epsilon", column
    foreseen = evaluation.passes(len(exam.pixels), len(exam.classes), len(exam.beside))
    assert 0.5 < foreseen / made < 2
    assert 0.5 < sum(exam.heard) / made < 1.01
    assert EVALUATIONS.build(to_settings(evaluation)) == evaluation
    assert isinstance(hash(evaluation), int)
    json.dumps([found.about, found.masking], allow_nan=False)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_found_does_not_depend_on_the_batch_and_comes_again(name):
    one = examined(name)[2]
    other = examined(name, batch_size=5)[2]
    assert set(one.columns) == set(other.columns)
    for column, values in one.columns.items():
        assert np.allclose(values, other.columns[column], atol=1e-5, equal_nan=True), column
