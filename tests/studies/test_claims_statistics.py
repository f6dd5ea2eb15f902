"""Whether p, intervals and needed numbers keep what they promise, by simulation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from diascope.studies.inference import Affine, Spread, holm, union
from diascope.studies.quantities import Atom
from diascope.studies.samples import sample

STUDIES = 200


@cache
def simulated(
    seed, runs=2, groups=60, size=3, seeds=1, by_seed=0.0, shift=0.0, within=0.5, naive=False
):
    """A sample of `runs` x STUDIES atoms; images of a group are alike, runs differ by group.

    shift: the mean of the first run above the others.
    """
    rng = np.random.default_rng(seed)
    n = groups * size
    group = np.arange(n) if naive else np.repeat(np.arange(groups), size)
    tables = {}
    common = rng.normal(size=(STUDIES, groups))
    for run in range(runs):
        own = common + rng.normal(size=(STUDIES, groups))
        tables[f"r{run}"] = {}
        for s in range(seeds):
            values = np.repeat(own, size, axis=1) + rng.normal(0, within, (STUDIES, n))
            values += rng.normal(0, by_seed, (STUDIES, 1)) + shift * (run == 0)
            frame = pd.DataFrame(values.T, columns=[f"v{i}" for i in range(STUDIES)])
            tables[f"r{run}"][s] = frame.assign(id=np.arange(n), group=group)
    atoms = [Atom(f"r{run}", "e", f"v{i}") for run in range(runs) for i in range(STUDIES)]
    return sample(atoms, {"e": tables}, {"e": "t"}, replicates=300, seed=seed)


def differences(found, pairs=((0, 1),)):
    """The differences of runs in every study, a piece each: (pairs x STUDIES)."""

    def pieces(values):
        v = values.reshape(-1, STUDIES, *values.shape[1:])
        return np.concatenate([v[a] - v[b] for a, b in pairs])

    return Spread.of(Affine.of(pieces, len(found.atoms)), found)


def rates(spread, truth=0.0):
    """The share of studies shown to be above and below zero, and that whose interval is right."""
    low, high = spread.limits(0.025, 0.025)
    covered = ((low <= truth) & (truth <= high)).mean()
    return (spread.above() < 0.025).mean(), (spread.below() < 0.025).mean(), covered


@pytest.mark.parametrize(
    "given",
    [
        {"groups": 30, "seeds": 3},
        {"groups": 15, "size": 1},
        {"groups": 30, "size": 1, "seeds": 5, "by_seed": 0.6},
        {"groups": 30, "size": 1, "seeds": 5, "by_seed": 0.1},
    ],
    ids=str,
)
def test_the_size_and_the_cover_are_as_promised(given):
    above, below, covered = rates(differences(simulated(2, **given)))
    assert above + below <= 0.07
    assert covered >= 0.93
    assert covered <= 0.985
    assert min(above, below) > 0.001  # the test is not merely silent


def test_images_drawn_one_by_one_would_be_too_sure():
    assert rates(differences(simulated(2, groups=30)))[2] >= 0.93
    assert rates(differences(simulated(2, groups=30, naive=True)))[2] < 0.85


def test_a_spread_between_seeds_is_seen_from_five_on():
    four = differences(simulated(3, groups=30, size=1, seeds=4, by_seed=1.0))
    five = differences(simulated(3, groups=30, size=1, seeds=5, by_seed=1.0))
    assert rates(four)[2] < 0.7  # of new images and these very models only
    assert rates(five)[2] >= 0.93
    assert (four.seeds, five.seeds) == (0, 5)


def test_p_and_limits_are_those_of_the_t_test_for_lone_images():
    found = simulated(4, groups=25, size=1, shift=0.4)
    spread = differences(found)
    one = np.array([found.by_seed[i, 0] - found.by_seed[STUDIES + i, 0] for i in range(STUDIES)])
    np.testing.assert_allclose(spread.value, one)
    low, _ = spread.limits(0.025, 0.025)
    rng = np.random.default_rng(0)
    differ = rng.normal(0.3, 1, 25)
    frames = {"e": {"r": {0: pd.DataFrame({"id": range(25), "group": range(25), "v": differ})}}}
    single = sample([Atom("r", "e", "v")], frames, {"e": "t"}, replicates=3000)
    alone = Spread.of(Affine(np.ones((1, 1)), np.zeros(1)), single)
    exact = ttest_1samp(differ, 0, alternative="greater")
    assert alone.above()[0] == pytest.approx(exact.pvalue, rel=0.12)
    limit = ttest_1samp(differ, 0).confidence_interval(0.95).low
    assert alone.limits(0.025, 0.025)[0][0] == pytest.approx(limit, abs=0.02)
    assert ((low > 0) == (spread.above() < 0.025)).all()


def standard(n, mean, rng):
    values = rng.normal(size=n)
    return mean + (values - values.mean()) / values.std(ddof=1)


def test_the_needed_images_give_the_power_promised():
    rng = np.random.default_rng(0)
    pilot = standard(20, 0.3, rng)
    frames = {"e": {"r": {0: pd.DataFrame({"id": range(20), "group": range(20), "v": pilot})}}}
    found = sample([Atom("r", "e", "v")], frames, {"e": "t"})
    spread = Spread.of(Affine(np.ones((1, 1)), np.zeros(1)), found)
    needed = spread.needed(0, 0.025)
    images = needed.images
    assert np.isinf(needed.seeds)
    assert np.isinf(needed.both)
    n = int(np.ceil(20 * images))
    assert 80 <= n <= 100  # (1.96 + 0.84)^2 / 0.3^2 = 87, and two more for Student's t
    t = rng.normal(0.3, 1, (4000, n))
    shown = t.mean(1) / t.std(1, ddof=1) * np.sqrt(n) > 1.99
    assert 0.75 <= shown.mean() <= 0.87
    assert spread.needed(0, 0.0025).images > 1.4 * images  # of ten claims


def test_the_needed_seeds_give_the_power_promised():
    rng = np.random.default_rng(1)
    by_seed = standard(5, 1.0, rng)
    frame = pd.DataFrame({"id": range(40), "group": range(40)})
    noise = standard(40, 0, rng) * 0.01
    frames = {"e": {"r": {s: frame.assign(v=x + noise) for s, x in enumerate(by_seed)}}}
    found = sample([Atom("r", "e", "v")], frames, {"e": "t"})
    spread = Spread.of(Affine(np.ones((1, 1)), np.zeros(1)), found)
    needed = spread.needed(0, 0.025)
    assert np.isinf(needed.images)  # no number of images makes up for few seeds
    n = int(np.ceil(5 * needed.seeds))
    t = rng.normal(1.0, 1, (4000, n))
    shown = t.mean(1) / t.std(1, ddof=1) * np.sqrt(n) > student.isf(0.025, n - 1)
    assert 0.72 <= shown.mean() <= 0.88


@pytest.mark.parametrize(("inside", "outside"), [((0,), (1, 2, 3, 4)), ((0, 1, 2, 3), (4,))])
def test_a_peak_among_equals_is_not_decided_more_often_than_by_chance(inside, outside):
    found = simulated(5, runs=5, groups=30, size=1)
    spread = differences(found, [(i, j) for i in inside for j in outside])
    shape = (len(inside), len(outside), STUDIES)
    above, below = (p.reshape(shape).transpose(2, 0, 1) for p in (spread.above(), spread.below()))
    support, refute = union(above, below, len(outside))
    assert (support < 0.025).mean() <= 0.035
    assert (refute < 0.025).mean() <= 0.035
    parts = spread.value.reshape(shape).min(1).max(0)
    low, high = spread.limits(0.025 / len(inside), 0.025 / len(outside))
    low, high = (limit.reshape(shape).min(1).max(0) for limit in (low, high))
    assert ((low > 0) == (support < 0.025)).all()  # the interval goes with the test
    assert ((high < 0) == (refute < 0.025)).all()
    assert (low <= parts).all()
    assert (parts <= high).all()


def test_holm_by_hand():
    corrected, factors = holm([0.01, 0.04, 0.03, 0.005])
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert factors == [3, 1, 2, 4]
    assert holm([]) == ([], [])
    assert holm([0.9, 0.8])[0] == [1.0, 1.0]


def test_union_by_hand():
    above = np.array([[0.001, 0.3], [0.01, 0.02]])  # two alternatives of two contrasts
    below = np.array([[0.999, 0.7], [0.01, 0.4]])
    support, refute = union(above, below, 2)
    assert support == pytest.approx(0.04)  # the second, whose worst is 0.02, picked of two
    assert refute == pytest.approx(1.0)  # the first is not refuted: 2 x 0.7
