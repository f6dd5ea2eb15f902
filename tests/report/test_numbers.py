from __future__ import annotations

import math

import pytest

from diascope.report import numbers as n

NAN = math.nan


@pytest.mark.parametrize(
    ("bounds", "signed", "text"),
    [
        ((0.7134, 0.6801, 0.7401), False, "0.713 [0.68, 0.74]"),
        ((-0.03, -0.081, 0.02), True, "−0.030 [−0.08, +0.02]"),
        ((0.02, 0.0031, 0.04), True, "+0.020 [+0.003, +0.04]"),
        ((0.5, NAN, NAN), False, "0.500"),
        ((NAN, NAN, NAN), False, "—"),
        ((None, None, None), False, "—"),
        (None, False, "—"),
        ((-0.003, -0.0061, -0.0002), True, "−0.003 [−0.01, −0.0002]"),
        ((0.017, 0.0152, 0.0188), False, "0.017 [0.015, 0.019]"),
        ((0.999, 0.9978, 1.0), False, "0.999 [0.998, 1.000]"),
        ((-0.0001, -0.2, 0.2), True, "0.000 [−0.20, +0.20]"),
    ],
)
def test_every_number_has_one_form(bounds, signed, text):
    assert n.ranged(bounds, signed) == text


def test_zero_is_excluded_only_by_a_defined_interval_on_one_side_of_it():
    assert n.excludes_zero((0.1, 0.01, 0.2))
    assert n.excludes_zero((-0.1, -0.2, -0.01))
    assert not n.excludes_zero((0.1, 0.0, 0.2))
    assert not n.excludes_zero((0.1, -0.1, 0.2))
    assert not n.excludes_zero((0.1, NAN, NAN))
    assert not n.excludes_zero(None)


def test_epsilons_of_the_cube_are_written_in_grey_levels():
    assert n.eps_text(8 / 255, "linf") == "8/255"
    assert n.eps_text(0.5 / 255, "linf") == "0.5/255"
    assert n.eps_text(0.1, "linf") == "0.1"
    assert n.eps_text(8 / 255, "l2") == "0.0314"
    assert n.eps_text(0.0, "linf") == "0"
    assert n.eps_text(math.inf, "l2") == "—"


def test_lists_and_durations_read_as_words():
    assert [n.listed(list("abc")[:k]) for k in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert n.duration(3 * 3600 + 65) == "3 h 1 min 5 s"
    assert n.duration(0.2) == "under 1 s"
    assert n.duration(NAN) == "—"
