from __future__ import annotations

import numpy as np
import pytest

from diascope.errors import UserError
from diascope.registry import to_settings
from diascope.studies.claims import CLAIMS, deciding
from diascope.studies.inference import Affine

MADE = {
    "greater": {"a": "a/e.v", "b": "b/e.v", "margin": 0.1},
    "at_least": {"a": "a/e.v", "b": "b/e.v", "by": 0.2},
    "equal": {"a": "a/e.v", "b": {"mean": ["b/e.v", 1]}, "within": 0.05},
    "monotone": {"quantities": ["a/e.v", "b/e.v", "c/e.v", "d/e.v"], "tolerance": 0.01},
    "peak": {"quantities": ["a/e.v", "b/e.v", "c/e.v", "d/e.v"], "inside": [2, 3]},
}


def test_every_kind_of_claim_is_made_here():
    assert set(MADE) == set(CLAIMS)


@pytest.mark.parametrize("name", list(CLAIMS))
def test_a_claim_keeps_the_contract(name):
    claim = CLAIMS.build({"name": name, **MADE[name]})
    q = len(claim.quantities)
    values = np.random.default_rng(0).normal(size=(q, 3, 50))
    contrasts, parts = claim.contrasts(values), claim.parts(values)
    assert contrasts.shape[1:] == parts.shape[1:] == (3, 50)
    assert len(contrasts) % claim.alternatives == len(parts) % claim.alternatives == 0
    assert len(parts) // claim.alternatives >= 1
    np.testing.assert_array_equal(claim.effect(values), deciding(parts, claim.alternatives))
    for pieces in (claim.contrasts, claim.parts):  # affine, as their spread and range assume
        np.testing.assert_allclose(Affine.of(pieces, q)(values[:, 0]), pieces(values[:, 0]))
    np.testing.assert_allclose(claim.effect(values + 7), claim.effect(values))
    assert CLAIMS.build(to_settings(claim)) == claim
    assert list(claim.thresholds) == sorted(claim.thresholds)
    within = np.linspace(-1, 1, 401)  # thresholds are where the contrasts change sign
    holds = deciding(claim.contrasts(steps(claim, within)), claim.alternatives) > 1e-9
    low, high = claim.thresholds[0], [*claim.thresholds, np.inf][1]
    inside = (within > low + 1e-9) & (within < high - 1e-9)
    np.testing.assert_array_equal(holds, inside)
    assert claim.room == pytest.approx(max(0, min(-low, high)))
    assert all(letter in claim.describe() for letter in ("a/e.v", "b/e.v"))


def steps(claim, effects):
    """Quantities (Q, N) for which the claim shows these effects."""
    q = len(claim.quantities)
    if hasattr(claim, "inside"):
        places = [float(place in claim.inside) for place in claim.places]
    else:
        places = range(q) if hasattr(claim, "direction") else [1.0, 0.0]
    return np.outer(places, effects)


def build(name, **given):
    return CLAIMS.build({"name": name, **given})


def holds(claim, *values):
    """Whether the claim is true of the quantities, and the number it shows."""
    found = np.asarray(values, float)
    return bool(deciding(claim.contrasts(found), claim.alternatives) > 0), claim.effect(found)


def test_what_each_claim_says():
    a, b = "a/e.v", "b/e.v"
    assert holds(build("greater", a=a, b=b), 0.5, 0.4) == (True, pytest.approx(0.1))
    assert holds(build("greater", a=a, b=b, margin=0.2), 0.5, 0.4) == (False, pytest.approx(0.1))
    assert holds(build("greater", a=a, b=b, margin=-0.2), 0.3, 0.4) == (True, pytest.approx(-0.1))
    assert holds(build("at_least", a=a, b=b, by=0.05), 0.5, 0.4) == (True, pytest.approx(0.1))
    assert holds(build("equal", a=a, b=b, within=0.2), 0.3, 0.4) == (True, pytest.approx(-0.1))
    assert holds(build("equal", a=a, b=b, within=0.05), 0.5, 0.4) == (False, pytest.approx(0.1))
    rising = build("monotone", quantities=[a, b, a])
    assert holds(rising, 1, 2, 4) == (True, 1)
    assert holds(rising, 1, 4, 3) == (False, -1)
    falling = build("monotone", quantities=[a, b, a], direction="falling", tolerance=1.5)
    assert holds(falling, 4, 5, 3) == (True, -1)
    peak = build("peak", quantities=[a, b, a, b], among=[1, 4, 7, "none"], inside=[4, 7.0])
    assert holds(peak, 1, 2, 5, 3) == (True, 2)
    assert holds(peak, 1, 5, 2, 3) == (True, 2)
    assert holds(peak, 6, 5, 2, 3) == (False, -1)


def test_statements_are_told_in_symbols():
    a, b = "a/e.v", {"minus": ["b/e.v", 0.1]}
    assert build("greater", a=a, b=b, margin=-0.1).describe() == "a/e.v > (b/e.v - 0.1) - 0.1"
    assert build("at_least", a=a, b=0, by=0.2).describe() == "a/e.v - 0 >= 0.2"
    assert build("equal", a=a, b=1, within=0.2).describe() == "|a/e.v - 1| < 0.2"
    falling = build("monotone", quantities=[a, 0.3], direction="falling", tolerance=0.1)
    assert falling.describe() == "a/e.v > 0.3, each within 0.1"
    peak = build("peak", quantities=[a, "b/e.v", "c/e.v"], inside=[2])
    assert peak.describe() == "b/e.v > max(a/e.v, c/e.v)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "greatest", "a": 1, "b": 2}, "did you mean 'greater'?"),
        ({"name": "greater", "a": 1, "b": 2, "margen": 1}, "did you mean 'margin'?"),
        ({"name": "at_least", "a": 1, "b": 2}, "'by' is missing"),
        ({"name": "equal", "a": 1, "b": 2, "within": 0}, "within must be"),
        ({"name": "equal", "a": 1, "b": 2, "within": float("nan")}, "within must be"),
        ({"name": "greater", "a": 1, "b": 2, "margin": float("inf")}, "margin must be"),
        ({"name": "monotone", "quantities": ["a/e.v"]}, "two at least"),
        ({"name": "monotone", "quantities": [1, 2], "direction": "up"}, "direction"),
        ({"name": "peak", "quantities": [1, 2], "inside": [3]}, "no place '3'"),
        ({"name": "peak", "quantities": [1, 2], "inside": [1, 2]}, "one outside"),
        ({"name": "peak", "quantities": [1, 2], "inside": []}, "at least must be inside"),
        ({"name": "peak", "quantities": [1, 2], "inside": [1], "among": [1]}, "1 places for 2"),
        ({"name": "peak", "quantities": [1, 2], "inside": [1], "among": [1, 1.0]}, "twice"),
    ],
)
def test_mistakes_are_the_users(given, said):
    with pytest.raises(UserError) as caught:
        CLAIMS.build(given, "claims.c.test")
    assert said in str(caught.value)
    assert str(caught.value).startswith(("claims.c.test", "unknown claim"))
