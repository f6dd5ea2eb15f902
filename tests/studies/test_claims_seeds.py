"""What is said of seeds: few that must agree, many that are drawn, pairs, and none that differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from tests.studies.claim_tables import GREATER, decided, study, table

from diascope.studies.decide import decide_study
from diascope.studies.inference import Affine, Spread
from diascope.studies.quantities import Atom
from diascope.studies.samples import sample

LONE = np.arange(40)
NOISE = np.random.default_rng(0).normal(0, 0.02, 40)
NOISE -= NOISE.mean()


PEAK = {"name": "peak", "quantities": [0, "a/e.v", "b/e.v"], "inside": [2, 3]}


def seeds(*means, turn=1):
    """A table for each seed, forty values of its mean and of little spread."""
    return [table(LONE, v=mean + np.roll(NOISE, turn)) for mean in means]


@pytest.mark.parametrize(
    ("test", "runs", "verdict"),
    [
        (GREATER, ([0.5, 0.6, 0.9], [0.4, 0.4, 0.4]), "supported"),
        (GREATER, ([0.3, 0.3, 0.9], [0.4, 0.4, 0.4]), "undecided"),
        (GREATER, ([0.4, 0.4, 0.4], [0.3, 0.3, 0.9]), "undecided"),
        (GREATER, ([0.4, 0.4, 0.4], [0.5, 0.6, 0.9]), "refuted"),
        (GREATER, ([0.5, 0.6, 0.4], [0.4, 0.4, 0.4]), "undecided"),  # one is a tie
        (GREATER, ([0.4, 0.4, 0.4], [0.5, 0.6, 0.4]), "undecided"),
        ({**GREATER, "margin": 0.15}, ([0.5, 0.6, 0.9], [0.4, 0.4, 0.4]), "undecided"),
        ({"name": "at_least", "a": "a/e.v", "b": 0, "by": 0.2}, ([0.3, 0.5, 0.9],), "supported"),
        ({"name": "at_least", "a": "a/e.v", "b": 0, "by": 0.4}, ([0.3, 0.5, 0.9],), "undecided"),
        # the least step, and the larger of those inside, of each seed by itself
        (
            {"name": "monotone", "quantities": [0, "a/e.v", "b/e.v"]},
            ([1, 1, 3], [2, 3, 4]),
            "supported",
        ),
        (
            {"name": "monotone", "quantities": [0, "a/e.v", "b/e.v"]},
            ([1, 1, 3], [2, 3, 2]),
            "undecided",
        ),
        (
            {"name": "monotone", "quantities": [0, "a/e.v", "b/e.v"]},
            ([3, 1, -1], [2, 0, 0]),
            "refuted",
        ),
        (PEAK, ([1, 3], [3, 1]), "supported"),  # now the one, now the other
        (PEAK, ([1, 3], [3, -1]), "supported"),
        (PEAK, ([5, -1], [0, -1]), "undecided"),
        (PEAK, ([-5, -1], [-1, -2]), "refuted"),
        # equal on average, and no model of the three is
        ({"name": "equal", "a": "a/e.v", "b": 0, "within": 0.1}, ([-0.5, 0.2, 0.3],), "undecided"),
        ({"name": "equal", "a": "a/e.v", "b": 0, "within": 0.1}, ([-0.03, 0, 0.03],), "supported"),
        ({"name": "equal", "a": "a/e.v", "b": 0, "within": 0.1}, ([0.05, 0.2, 0.3],), "undecided"),
        ({"name": "equal", "a": "a/e.v", "b": 0, "within": 0.1}, ([-0.2, 0.9, 0.3],), "refuted"),
    ],
    ids=str,
)
def test_few_seeds_are_given_a_verdict_where_each_says_the_same(test, runs, verdict):
    frames = {
        name: seeds(*of, turn=k) for k, (name, of) in enumerate(zip("ab", runs, strict=False))
    }
    result = decided(test, frames)
    if verdict == "undecided":
        assert result.decision.p_corrected < 0.05
        assert result.decision.seeds_differ or "equal" in test.values()
    assert result.verdict == verdict


def test_a_verdict_of_few_seeds_is_of_these_models_and_one_that_is_not_given_tells_the_seeds():
    b = seeds(0.4, 0.4, 0.4, turn=2)
    same = decided(GREATER, {"a": seeds(0.5, 0.6, 0.9), "b": b})
    assert (same.these_seeds, same.decision.seeds_drawn, same.decision.seeds_differ) == (
        3,
        False,
        False,
    )
    differ = decided(GREATER, {"a": seeds(0.3, 0.3, 0.9), "b": b})
    assert (differ.these_seeds, differ.decision.seeds_differ) == (None, True)
    told = "the seeds differ: it holds for seed 2 (+0.5), and not for seed 0 (-0.1), seed 1 (-0.1)"
    assert differ.reason == told
    assert differ.decision.needed_images is None
    assert differ.decision.thresholds == [0.0]
    five = decided(GREATER, {"a": seeds(0.5, 0.6, 0.9, 0.6, 0.4), "b": seeds(*[0.4] * 5, turn=2)})
    assert (five.these_seeds, five.decision.seeds_drawn) == (None, True)
    test = {"name": "equal", "a": "a/e.v", "b": 0, "within": 0.1}
    none = decided(test, {"a": seeds(-0.5, 0.2, 0.3)})
    assert none.reason.startswith("the seeds differ: it holds for their mean, and for none alone:")
    assert none.decision.thresholds == [-0.1, 0.1]


def test_seeds_that_differ_on_the_strongest_attack_alone_are_told():
    def run(fgsm, *strongest):
        frames = [table(LONE) for _ in strongest]
        for frame, count in zip(frames, strongest, strict=True):
            frame["fgsm@1"] = (fgsm > LONE) * 1.0
            frame["strongest@1"] = (count > LONE) * 1.0
        return frames

    test = {"name": "greater", "a": "a/e.fgsm@1", "b": "b/e.fgsm@1"}
    result = decided(test, {"a": run(35, 5, 30, 30), "b": run(10, 8, 8, 8)})
    assert (result.decision.verdict, result.strongest.verdict) == ("supported", "undecided")
    assert result.verdict in ("undecided", "under a weak attack")
    assert "the seeds differ: it holds for seed 1" in result.reason
    assert "too few images" not in result.reason


def crossed(images, seeds, both, size=(200, 5), shift=0.0, studies=200, seed=0):
    """Pieces, a study each, of values that differ by image, by seed, and by both."""
    rng = np.random.default_rng(seed)
    n, s = size
    values = rng.normal(0, images**0.5, (studies, 1, n)) + rng.normal(
        0, seeds**0.5, (studies, s, 1)
    )
    values += rng.normal(0, both**0.5, (studies, s, n)) + shift
    names = [f"v{k}" for k in range(studies)]
    given = {"id": range(n), "group": range(n)}
    frames = {k: pd.DataFrame(values[:, k].T, columns=names).assign(**given) for k in range(s)}
    atoms = [Atom("r", "e", name) for name in names]
    found = sample(atoms, {"e": {"r": frames}}, {"e": "t"}, replicates=200, seed=seed)
    return values, Spread.of(Affine(np.eye(studies), np.zeros(studies)), found)


ALIKE = (1.29e-4 * 200, 0.48e-4 * 5, 1.77e-4 * 1000)  # as measured of two nets on MNIST


@pytest.mark.parametrize(
    "parts", [ALIKE, (0.06, 0.001, 0.0), (0.02, 0.0, 0.2)], ids=["both", "apart", "no seeds"]
)
def test_images_and_seeds_that_are_crossed_keep_the_size_and_the_cover(parts):
    spreads = [crossed(*parts, seed=k)[1] for k in range(3)]
    shown = np.concatenate([np.minimum(s.above(), s.below()) < 0.025 for s in spreads])
    low, high = (np.concatenate(each) for each in zip(*(s.limits(0.025, 0.025) for s in spreads),
                                                      strict=True))  # fmt: skip
    assert 0.012 <= shown.mean() <= 0.085  # of 600: 5% within three standard errors and a little
    assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(1 - shown.mean())


def test_what_seeds_and_images_make_together_is_counted_once():
    values, spread = crossed(*ALIKE)
    by_image, by_seed = values.mean(1), values.mean(2)
    rest = values - by_image[:, None] - by_seed[..., None] + values.mean((1, 2))[:, None, None]
    n, s = values.shape[2], values.shape[1]
    of_images, of_seeds = by_image.var(1, ddof=1) / n, by_seed.var(1, ddof=1) / s
    both = (rest**2).sum((1, 2)) / (n - 1) / (s - 1) / n / s
    expected = np.maximum(of_images + of_seeds - both, np.maximum(of_images, of_seeds))
    np.testing.assert_allclose(spread.error**2, expected, rtol=0.4)  # of 200 replicates
    assert np.median(spread.error**2 / expected) == pytest.approx(1, abs=0.03)
    power = crossed(*ALIKE, shift=0.059)[1].above() < 0.025
    assert power.mean() > 0.7  # 0.54 where the part of both is counted three times


def test_more_images_and_seeds_together_decide_what_neither_does_alone():
    parts = (0.2, 0.02, 0.2)
    _, spread = crossed(*parts, size=(60, 5), shift=0.06, studies=40)
    piece = int(np.abs(spread.value - 0.06).argmin())
    needed = spread.needed(piece, 0.025)
    assert np.isinf(needed.images)
    assert np.isinf(needed.seeds)
    assert 1.5 < needed.both < 100
    # as many by the plan's own formula: the parts again, each divided by what it is drawn from
    a, b = spread.by_images[piece], spread.by_seeds[piece]
    c, f = spread.of_both[piece], needed.both
    error = ((a - c) / f + (b - c) / f + c / f**2) ** 0.5
    assert spread.value[piece] / error == pytest.approx(0.8416 + 2.0, abs=0.25)


def test_five_seeds_that_agree_exactly_tell_nothing_of_new_ones():
    def frames(*counts, n=200):
        return {"a": [table(np.arange(n), v=(np.arange(n) < k) * 1.0) for k in counts]}

    test = {"name": "at_least", "a": "a/e.v", "b": 0, "by": 0.05}
    alike = decided(test, frames(0, 0, 0, 0, 0))
    assert (alike.verdict, alike.these_seeds) == ("refuted", 5)
    assert not alike.decision.seeds_drawn
    assert alike.decision.effect.high == pytest.approx(1 - 0.025 ** (1 / 200))  # over images
    apart = decided(test, frames(0, 0, 1, 0, 0))
    assert (apart.verdict, apart.these_seeds) == ("refuted", None)
    assert apart.decision.seeds_drawn
    free = {"a": [table(LONE, v=0.5 + NOISE)] * 5}  # no share: it does not depend on the seed
    constant = decided({"name": "at_least", "a": "a/e.v", "b": 0, "by": 0.1}, free)
    assert (constant.verdict, constant.these_seeds) == ("supported", None)


def agreements(count, of="pairs", studies=400, n=30):
    """How much each seed agrees with the others, or the next; 0.5 on average."""
    rng = np.random.default_rng(count)
    typical = rng.normal(0, 0.05, (studies, count))
    pair = 0.5 + typical[:, :, None] + typical[:, None]
    pair[:, range(count), range(count)] = np.nan
    own = np.nanmean(pair, 2)  # (studies, seeds)
    if of == "rings":
        own = 0.5 + typical + np.roll(typical, -1, 1)
    noise = rng.normal(0, 0.01, (studies, n))
    names = [f"g.spearman{k}" for k in range(studies)]
    given = {"id": range(n), "group": range(n)}
    frames = {
        s: pd.DataFrame((own[:, s, None] + noise).T, columns=names).assign(**given)
        for s in range(count)
    }
    return [Atom("r", "e", name) for name in names], {"e": {"r": frames}}


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize(("of", "unaware"), [("pairs", 0.8), ("rings", 0.9)])
def test_what_speaks_of_other_seeds_too_is_no_surer_than_they_are(of, unaware, count):
    atoms, tables = agreements(count, of)
    cover = {}
    for names in ((), ("e",)):
        found = sample(atoms, tables, {"e": "t"}, **{of: names}, replicates=100)
        low, high = Spread.of(Affine(np.eye(len(atoms)), np.zeros(len(atoms))), found).limits(
            0.025, 0.025
        )
        cover[names] = ((low <= 0.5) & (high >= 0.5)).mean()
    assert cover[()] < unaware
    assert cover["e",] >= 0.9


def test_only_what_is_an_average_over_pairs_is_widened():
    frames = {s: table(LONE, **{"g.spearman": 0.5 + NOISE + s / 50}) for s in range(5)}
    for s, frame in frames.items():
        frame["g.spearman_noised"], frame["correct"] = frame["g.spearman"], s / 5
    own = ["g.spearman", "g.spearman_noised", "correct"]
    found = sample([Atom("a", "e", c) for c in own], {"e": {"a": frames}}, {"e": "t"}, pairs=["e"])
    assert found.stretch == pytest.approx([8 / 3, 1, 1])
    tables = {"e": {"a": frames}}
    test = {"name": "greater", "a": "a/e.g.spearman", "b": 0.5}
    made = study({"c": test}, "a", 5)
    paired = made.model_copy(
        update={"evaluations": {"e": made.evaluations["e"].model_copy(update={"beside": "seeds"})}}
    )
    narrow, wide = (decide_study(each, tables)[0].decision.effect for each in (made, paired))
    of_seeds = student.ppf(0.975, 4) * np.std(np.arange(5) / 50, ddof=1) / 5**0.5
    assert narrow.high - narrow.value == pytest.approx(of_seeds, rel=0.05)
    assert wide.high - wide.value == pytest.approx(of_seeds * 8 / 3, rel=0.05)


def test_a_value_of_this_seed_and_the_next_is_widened_in_a_study_too():
    tables = {"e": {"a": {s: table(LONE, per_image=0.5 + NOISE + s / 50) for s in range(5)}}}
    made = study({"c": {"name": "greater", "a": "a/e.per_image", "b": 0.5}}, "a", 5)
    spec = made.evaluations["e"]
    effects = [
        decide_study(
            made.model_copy(update={"evaluations": {"e": spec.model_copy(update=change)}}), tables
        )[0].decision.effect
        for change in ({}, {"beside": ["a@next"]})
    ]
    narrow, wide = (effect.high - effect.value for effect in effects)
    assert wide / narrow == pytest.approx((8 / 3) ** 0.5, rel=0.05)


def test_one_seed_differs_from_nothing():
    test = {"name": "monotone", "quantities": ["a/e.v", "b/e.v", "a/e.v", "b/e.v"]}
    result = decided(test, {"a": seeds(0.4), "b": seeds(0.401, turn=2)})
    assert (result.verdict, result.reason, result.decision.seeds_differ) == ("undecided", "", False)
