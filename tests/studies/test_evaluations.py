"""What every evaluation promises."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
from tests.studies.exams import exam_of, line, pixels_of

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
}


def examined(name, batch_size=8, **options):
    exam = exam_of(line(seed=1, noise=0.2), pixels_of(12), batch_size=batch_size, **options)
    evaluation = EVALUATIONS.build({"name": name, **SMALL[name]})
    return exam, evaluation, evaluation(exam)


def test_every_evaluation_is_tested_here():
    assert set(SMALL) == set(EVALUATIONS)


@pytest.mark.parametrize("name", SMALL)
def test_an_evaluation_gives_the_columns_it_names_and_tells_what_it_costs(name):
    exam, evaluation, found = examined(name)
    named = evaluation.columns()
    for column, values in found.columns.items():
        assert any(fnmatchcase(column, pattern) for pattern in named), column
        assert values.shape == (len(exam.pixels),)
        assert np.isfinite(values).any() or column == "minimal_epsilon", column
    foreseen = evaluation.passes(len(exam.pixels), len(exam.classes), len(exam.beside))
    assert 0.5 < sum(exam.heard) / foreseen < 2
    assert EVALUATIONS.build(to_settings(evaluation)) == evaluation
    assert isinstance(hash(evaluation), int)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_found_does_not_depend_on_the_batch_and_comes_again(name):
    _, _, one = examined(name)
    _, _, other = examined(name, batch_size=5)
    assert set(one.columns) == set(other.columns)
    for column, values in one.columns.items():
        assert np.allclose(values, other.columns[column], atol=1e-5, equal_nan=True), column
