"""The square attack: its moves, its budget, and its strength beside torchattacks'."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.changed import Pooling, changes_with, passes
from tests.attacks.digits import digits
from tests.nets import images, small_net
from torch import nn

from diascope.attacks import PGD, Square, Threat, windows
from diascope.attacks.base import NotFiniteWarning, verdict
from diascope.attacks.losses import margin
from diascope.models.changes import Changes
from diascope.models.changes.around import Around
from diascope.randomness import Noise

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.15, "l2": 0.6, "l1": 2.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Recorder(nn.Module):
    """A net that keeps the logits of its frozen copies, not its own (of verdicts)."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.log = []
        self.log_of = {"original": self}

    def __deepcopy__(self, memo):
        copy = Recorder(self.net)
        copy.log, copy.log_of = self.log, self.log_of
        return copy

    def forward(self, x):
        logits = self.net(x)
        if self.log_of["original"] is not self:
            self.log.append(logits)
        return logits


@pytest.fixture(scope="module")
def ten():
    net, x, y = digits()
    return net, x[:150], y[:150]


@pytest.mark.parametrize("norm", NORMS)
def test_the_best_of_all_queries_is_returned_and_the_loss_never_falls(norm, ten):
    net, x, y = ten
    net, x, y = Recorder(net), x[:20], y[:20]
    attack = Square(norm=norm, eps=EPS[norm] / 10, queries=80, precision="float32")
    attack.run(net, x, y)  # the first look at the model is over
    net.log.clear()
    found = attack.run(net, x, y, generator=seeded())
    standing = (found.queries == 80).nonzero()[:, 0]
    assert len(standing) >= 15
    assert len(net.log) == 80
    same = [logits for logits in net.log if len(logits) == len(net.log[0])]
    assert len(same) == 80  # none left on the way
    asked = (~found.broken | (found.queries > 0)).nonzero()[:, 0]
    seen = torch.stack([margin(logits, y[asked]) for logits in same])
    at_end = margin(net.net(found.x_adv), y)[asked]
    torch.testing.assert_close(at_end, seen.amax(0), atol=1e-5, rtol=0)
    assert (at_end > seen[0]).float().mean() > 0.9  # and it did climb from the start


@pytest.mark.parametrize("norm", NORMS)
def test_queries_are_counted_and_the_budget_is_kept(norm, ten):
    net, x, y = ten
    recorder = Recorder(net)
    attack = Square(norm=norm, eps=EPS[norm], queries=40, restarts=2, precision="float32")
    attack.run(recorder, x, y)
    recorder.log.clear()
    found = attack.run(recorder, x, y, generator=seeded())
    assert sum(len(logits) for logits in recorder.log) == found.queries.sum()
    assert found.queries.max() == 2 * 40
    assert torch.equal(found.queries == 0, net(x).argmax(1) != y)
    assert (found.queries[~found.broken] == 2 * 40).all()
    assert torch.equal(found.broken, verdict(net, found.x_adv, y))
    within = (found.queries > 0) & found.broken
    assert within.sum() > 10
    assert (found.queries[within] < 2 * 40).float().mean() > 0.8
    assert (Threat(norm, 1.0).size(found.x_adv - x) <= EPS[norm] * (1 + 1e-5)).all()
    assert torch.equal(found.x_adv[found.queries == 0], x[found.queries == 0])


def test_queries_do_not_depend_on_the_batch(ten):
    net, x, y = (t[:12] if isinstance(t, torch.Tensor) else t.double() for t in ten)
    try:
        attack, ids = Square(norm="l2", eps=0.6, queries=100), torch.arange(12)
        whole = attack.run(net, x.double(), y, generator=seeded(), ids=ids)
        for i in range(12):
            one = attack.run(
                net, x[i : i + 1].double(), y[i : i + 1], generator=seeded(), ids=ids[i : i + 1]
            )
            assert one.queries == whole.queries[i]
    finally:
        net.float()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_as_strong_as_torchattacks(norm, ten):
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    net, x, y = ten
    name = {"linf": "Linf", "l2": "L2"}[norm]
    peer = torchattacks.Square(net, norm=name, eps=EPS[norm], n_queries=250, loss="margin", seed=0)
    theirs = (net(peer(x, y)).argmax(1) == y).float().mean()
    attack = Square(norm=norm, eps=EPS[norm], queries=250)
    ours = (~attack.run(net, x, y, generator=seeded()).broken).float().mean()
    assert ours <= theirs + 0.02


def test_l1_is_worth_its_queries(ten):
    net, x, y = ten
    left = [
        (~Square(norm="l1", eps=2.0, queries=q).run(net, x, y, generator=seeded()).broken).sum()
        for q in (1, 60, 300)
    ]
    assert left[0] > left[1] + 5
    assert left[1] > left[2]


@pytest.mark.parametrize("norm", NORMS)
def test_in_bfloat16_it_is_as_strong_as_in_float32(norm, ten):
    net, x, y = ten
    low, plain = (
        Square(norm=norm, eps=EPS[norm], queries=300, precision=precision).run(
            net, x, y, generator=seeded()
        )
        for precision in ("bf16", "float32")
    )
    assert abs(int(low.broken.sum()) - int(plain.broken.sum())) <= 4
    assert torch.equal(low.broken, verdict(net, low.x_adv, y))
    assert (Threat(norm, 1.0).size(low.x_adv - x) <= EPS[norm] * (1 + 1e-5)).all()
    both = ~low.broken & ~plain.broken
    assert both.sum() > 20
    found, true = (margin(net(each.x_adv[both]), y[both]) for each in (low, plain))
    torch.testing.assert_close(found.mean(), true.mean(), atol=0.05, rtol=0.05)


def test_in_bfloat16_almost_nothing_is_asked_in_float32(ten, monkeypatch):
    net, x, y = ten
    asked, changed = passes(monkeypatch, more_than=8)  # beside trials
    Square(norm="linf", eps=0.02, queries=256, precision="bf16")(net, x, y)
    assert len(changed) == 2 + 255  # two of the trial, and all but the first query
    assert len(asked) < 255 // 8


@pytest.mark.parametrize("queries", [40, 64, 100])
def test_what_the_changes_make_up_is_found_out(queries, ten, monkeypatch):
    net, x, y = ten[0], ten[1][:60], ten[2][:60]
    asked = iter(range(1, 10_000))

    def boastful(self, x, base, where):  # every point is a little better, none is broken
        wrong = -1e-4 * nn.functional.one_hot(base.logits.argmax(1), 10)
        return base.logits + next(asked) * wrong

    answered = changes_with(monkeypatch, boastful)
    attack = Square(norm="linf", eps=0.02, queries=queries, precision="bf16")
    start = Square(norm="linf", eps=0.02, queries=1).run(net, x, y, generator=seeded())
    found = attack.run(net, x, y, generator=seeded())
    assert len(answered) == queries - 1
    assert torch.equal(found.broken, verdict(net, found.x_adv, y))
    before, after = (margin(net(each.x_adv), y) for each in (start, found))
    assert (after >= before - 1e-5)[~found.broken].all()
    same = (found.x_adv == start.x_adv).flatten(1).all(1) & (found.queries == queries)
    assert same.sum() > 10  # they went back to where they began
    assert not same.all()


def test_what_the_changes_miss_is_found_out(ten, monkeypatch):
    net, x, y = ten

    def timid(self, x, base, where):
        return base.logits + 0.5 * (Changes.__call__(self, x, base, where) - base.logits)

    changes_with(monkeypatch, timid)
    for queries in (63, 64, 65, 100):
        attack = Square(norm="linf", eps=0.06, queries=queries, precision="bf16")
        found = attack.run(net, x, y, generator=seeded())
        assert torch.equal(found.broken, verdict(net, found.x_adv, y))


def test_points_that_are_not_finite_are_asked_about_in_float32(ten, monkeypatch):
    net, x, y = ten

    def lost(self, x, base, where):
        return Changes.__call__(self, x, base, where).log() * torch.nan

    changes_with(monkeypatch, lost)
    low, plain = (
        Square(norm="linf", eps=0.1, queries=50, precision=precision, targeted=True).run(
            net, x[:40], (y[:40] + 1) % 10, generator=seeded()
        )
        for precision in ("bf16", "float32")
    )
    assert torch.equal(low.x_adv, plain.x_adv)
    assert torch.equal(low.broken, plain.broken)


@pytest.mark.parametrize("norm", NORMS)
def test_around_squares_of_the_pooled_maps_it_is_as_strong(norm, ten, monkeypatch):
    net, x = Pooling().eval(), nn.functional.interpolate(ten[1][:40], scale_factor=3)
    net.head.bias -= net(x).mean(0) / 20  # no class is the nearest of all
    y = net(x).argmax(1)
    patches, old = [], Around.pooled

    def pooled(self, x, where):
        patches.append(old(self, x, where))
        return patches[-1]

    monkeypatch.setattr(Around, "pooled", pooled)
    eps = torch.linspace(0.01, 0.05, 40) * {"linf": 1, "l2": 12, "l1": 180}[norm]
    low, plain = (
        Square(norm=norm, eps=eps, queries=200, restarts=2, precision=precision).run(
            net, x, y, generator=seeded()
        )
        for precision in ("bf16", "float32")
    )
    assert torch.equal(low.broken, verdict(net, low.x_adv, y))
    assert abs(int(low.broken.sum()) - int(plain.broken.sum())) <= 2
    assert low.broken.any()
    both = ~low.broken & ~plain.broken
    assert both.sum() > 5
    found, true = (margin(net(each.x_adv[both]), y[both]) for each in (low, plain))
    torch.testing.assert_close(found.mean(), true.mean(), atol=0.05, rtol=0.05)
    patched = sum(each is not None for each in patches)
    assert (patched > 100) == (norm == "linf")  # the windows of the others are two


def test_a_judge_is_asked_of_what_the_changes_find(ten):
    net, x, y = ten
    refused = []

    def judge(x_adv, x, y):
        refused.append(verdict(net, x_adv, y))
        return torch.zeros(len(x_adv), dtype=torch.bool)

    attack = Square(norm="linf", eps=0.15, queries=130, precision="bf16")
    x_adv = attack(net, x[:40], y[:40], judge=judge, generator=seeded())
    hits = refused[1:]  # the first are the images themselves
    assert hits
    assert all(bool(each.all()) for each in hits)
    assert (verdict(net, x_adv, y[:40]) & ~verdict(net, x[:40], y[:40])).sum() > 5


def test_needs_no_gradient():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net(7)

        def forward(self, x):
            return self.net((x * 32).round() / 32)  # flat almost everywhere

    model, x = Steps(), images(8)
    y = model(x).argmax(1)
    blind = PGD(norm="linf", eps=0.5, random_start=False)(model, x, y)
    assert not verdict(model, blind, y).any()
    found = Square(norm="linf", eps=0.5, queries=200).run(model, x, y, generator=seeded())
    assert found.broken.float().mean() > 0.7


@pytest.mark.parametrize("norm", NORMS)
def test_spends_the_whole_radius(norm):
    model, x = small_net(), images(6) * 0.2 + 0.4  # far from the bounds
    y = model(x).argmax(1)
    eps = {"linf": 0.01, "l2": 0.1, "l1": 1.0}[norm]
    x_adv = Square(norm=norm, eps=eps, queries=60)(model, x, y, generator=seeded())
    assert not torch.equal(x_adv, x)
    size = Threat(norm, eps).size(x_adv - x)
    torch.testing.assert_close(size, torch.full_like(size, eps), rtol=1e-3, atol=0)
    if norm == "linf":  # every pixel at a corner of the cube
        torch.testing.assert_close((x_adv - x).abs(), torch.full_like(x, eps), rtol=1e-3, atol=0)


def test_the_window_halves_at_the_published_queries():
    at = lambda query, queries=10_000: windows.share(query, queries, 0.8)
    assert [at(q) for q in (1, 10, 11, 51, 8000, 8001)] == [
        0.8,
        0.8,
        0.4,
        0.2,
        0.8 / 2**8,
        0.8 / 2**9,
    ]
    assert at(5, 5000) == 0.8
    assert at(6, 5000) == 0.4


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 9])
def test_a_bump_is_equation_2(side):
    def pyramid(high, wide):
        n = max(high, wide) // 2
        values = torch.zeros(high, wide)
        for r in range(high):
            for s in range(wide):
                reach = n - max(abs(r - high // 2), abs(s - wide // 2))
                values[r, s] = sum(1 / (n + 1 - k) ** 2 for k in range(reach + 1))
        return values

    bump = windows._bump(side, torch.float32, torch.device("cpu"))
    expected = torch.cat([pyramid(side // 2, side), -pyramid(side - side // 2, side)])
    torch.testing.assert_close(bump, expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 14), (3, 2, 3), (1, 1, 1)])
def test_moves_stay_in_the_ball_and_reach_every_pixel(norm, shape):
    x = torch.rand(200, *shape, generator=seeded(), dtype=torch.float64) * 0.5 + 0.25
    threat, noise = Threat(norm, 0.2), Noise(1, torch.arange(200))
    these = windows.moves(x, threat)
    start = these.start(noise, 0)
    reached = torch.zeros(shape[1:], dtype=torch.bool)
    for query, share in enumerate((0.8, 0.1, 0.001)):
        u = noise.uniform((these.count,), query + 1)
        point = these.propose(start, u, share)
        assert (threat.size(point - these.x) <= 0.2 * (1 + 1e-5)).all()
        moved = (point - start).abs() > 1e-9
        reached |= moved.any(0).any(-1)
    assert reached.all()
    changed = moved.any(-1).sum((1, 2))
    assert changed.max() <= 2 * max(9, round(0.001 * shape[1] * shape[2]))


def test_a_window_takes_its_length_from_another():
    x = torch.full((50, 3, 20, 20), 0.5)
    noise = Noise(2, torch.arange(50))
    these = windows.moves(x, Threat("l2", 0.5))
    start = these.start(noise, 0)
    u = noise.uniform((these.count,), 1)
    delta = these.propose(start, u, 0.05) - these.x
    torch.testing.assert_close(these.threat.size(delta), torch.full((50,), 0.5))
    emptied = (delta == 0).all(-1).sum((1, 2))
    assert (emptied > 0).float().mean() > 0.9
    assert emptied.max() <= 5 * 5


def test_logits_that_are_not_finite_count_as_misclassified():
    class Edge(nn.Module):
        def forward(self, x):
            brightest = x.flatten(1).amax(1, keepdim=True)
            return torch.cat([torch.sqrt(0.6 - brightest) + 9, brightest], 1)  # NaN above 0.6

    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3).long()
    with pytest.warns(NotFiniteWarning):
        found = Square(norm="linf", eps=0.2, queries=50).run(Edge(), x, y, generator=seeded())
    assert found.broken.all()
    assert found.x_adv.isfinite().all()


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "l3"},
        {"eps": -1.0},
        {"queries": 0},
        {"p_init": 0.0},
        {"restarts": 0},
        {"loss": "x"},
    ],
)
def test_refuses_nonsense(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Square(**settings)
