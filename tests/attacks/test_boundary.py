"""The Boundary Attack: its budget, its starts, its proposals, and foolbox beside it."""

from __future__ import annotations

import pytest
import torch
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.attacks import BoundaryAttack
from diascope.attacks.base import NotFiniteWarning, verdict
from diascope.attacks.boundary import directions
from diascope.randomness import Noise


class Counting(nn.Module):
    """Counts the images it is asked about, also in copies of itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen = Tally()

    def forward(self, x):
        self.seen.images += len(x)
        return self.inner(x)


class Tally:
    images = 0

    def __deepcopy__(self, memo):
        return self


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3) + 0 * x.flatten(1).sum(1)[:, None]


class NotANumber(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] * torch.nan


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def divided_net(seed: int = 0) -> nn.Sequential:
    """A net of three classes, each taken by some images."""
    net = small_net(seed=seed)
    with torch.no_grad():
        net[-1].bias -= net(images(64)).mean(0)
    return net


@pytest.fixture
def plane():
    """A linear model and images whose distances to its boundary are known."""
    weight = torch.randn(2, 3, 6, 6, generator=seeded(1))
    x = torch.rand(6, 3, 6, 6, generator=seeded(2)) * 0.4 + 0.3
    model = Linear(weight)
    margin = model(x) @ torch.tensor([1.0, -1.0])
    nearest = margin.abs() / (weight[1] - weight[0]).norm()
    return model, x, (margin < 0).long(), nearest.detach()


@pytest.mark.parametrize(("memory", "slack"), [(1000, 1.02), (0, 1.03)])
def test_approaches_the_nearest_point_of_a_plane(plane, memory, slack):
    model, x, y, nearest = plane
    found = BoundaryAttack(queries=2000, memory=memory).run(model, x, y, generator=seeded())
    assert found.started.all()
    assert (found.distance >= nearest * 0.999).all()
    assert (found.distance <= nearest * slack + 1e-3).all()
    torch.testing.assert_close(found.distance, (found.x_adv - x).flatten(1).norm(dim=1))
    assert verdict(model, found.x_adv, y).all()


def test_converged_images_leave_before_the_budget(plane):
    model, x, y, _ = plane
    found = BoundaryAttack(queries=20_000, tolerance=1e-3).run(model, x, y, generator=seeded())
    assert (found.queries < 10_000).all()
    assert found.queries.unique().numel() > 1  # each by itself


@pytest.mark.parametrize("queries", [1, 2, 5, 17, 60, 203])
def test_counts_every_query_and_keeps_to_the_budget(queries):
    model, x = Counting(divided_net()), images(5)
    y = torch.arange(5) % 3
    found = BoundaryAttack(queries=queries).run(model, x, y, generator=seeded())
    assert (found.queries <= queries).all()
    look = model.seen.images - int(found.queries.sum())
    assert 0 <= look <= 3  # the one image at which the model is made ready
    assert found.started.any() or queries < 10
    assert (found.distance.isfinite() == found.started).all()


def test_spends_the_budget_on_what_has_not_converged():
    model, x = divided_net(), images(4)
    y = model(x).argmax(1)
    found = BoundaryAttack(queries=150).run(model, x, y, generator=seeded())
    assert found.started.all()
    assert (found.queries >= 148).all()


def test_more_queries_come_nearer():
    model, x = divided_net(), images(8)
    y = model(x).argmax(1)
    few, many = (
        BoundaryAttack(queries=q).run(model, x, y, generator=seeded()).distance for q in (120, 600)
    )
    assert (many <= few).all()
    assert many.median() < 0.8 * few.median()


@pytest.mark.parametrize("targeted", [False, True])
def test_ends_where_nothing_can_be_found(targeted):
    x, y = images(3), torch.full((3,), int(targeted))
    model = Counting(Constant())
    found = BoundaryAttack(queries=10**9, targeted=targeted).run(model, x, y, generator=seeded())
    assert not found.started.any()
    assert found.distance.isinf().all()
    assert torch.equal(found.x_adv, x)
    assert (found.queries < 60).all()


def test_ends_where_only_the_pool_is_misclassified():
    """A model that is robust but around one image: without the pool nothing starts."""
    island = torch.rand(1, 3, 8, 8, generator=seeded(7))

    class Island(nn.Module):
        def forward(self, x):
            near = 0.5 - (x - island).flatten(1).norm(dim=1)
            return torch.stack([-near, near], 1)

    x, y = images(4, side=8, seed=3), torch.zeros(4).long()
    attack = BoundaryAttack(queries=300)
    assert not attack.run(Island(), x, y, generator=seeded()).started.any()
    found = attack.run(Island(), x, y, others=island, generator=seeded())
    assert found.started.all()
    assert verdict(Island(), found.x_adv, y).all()


def test_ends_where_the_model_gives_no_numbers():
    x = images(3)
    with pytest.warns(NotFiniteWarning):
        found = BoundaryAttack(queries=50).run(
            NotANumber(), x, torch.zeros(3).long(), generator=seeded()
        )
    assert found.started.all()
    assert torch.equal(found.x_adv, x)
    assert (found.queries == 1).all()


def test_images_misclassified_already_cost_one_query():
    model, x = divided_net(), images(4)
    y = (model(x).argmax(1) + 1) % 3
    found = BoundaryAttack(queries=50).run(model, x, y, generator=seeded())
    assert (found.distance == 0).all()
    assert (found.queries == 1).all()
    assert found.started.all()


def test_begins_at_the_starts_it_is_given():
    model, x = divided_net(), images(6)
    y = model(x).argmax(1)
    near = BoundaryAttack(queries=800).run(model, x, y, generator=seeded())
    again = BoundaryAttack(queries=40).run(model, x, y, start=near.x_adv, generator=seeded(1))
    assert (again.distance <= near.distance * 1.001).all()
    useless = BoundaryAttack(queries=100).run(model, x, y, start=x, generator=seeded(1))
    assert useless.started.all()


def test_an_epsilon_keeps_what_is_within_it_and_stops_there():
    model, x, ids = divided_net(), images(8), torch.arange(8)
    y = model(x).argmax(1)
    free = BoundaryAttack(queries=400).run(model, x, y, generator=seeded(), ids=ids)
    eps = float(free.distance.median()) * 1.001
    bound = BoundaryAttack(queries=400, eps=eps).run(model, x, y, generator=seeded(), ids=ids)
    size = (bound.x_adv - x).flatten(1).norm(dim=1)
    assert (size <= eps).all()
    assert torch.equal(size > 0, free.distance <= eps)
    assert (bound.queries[free.distance < 0.8 * eps] < 398).all()
    assert bound.started.all()


def test_does_not_depend_on_the_batch_when_budgets_end_apart():
    model, x, ids = divided_net().double(), images(6).double(), torch.arange(6) * 7 + 10**12
    y = torch.arange(6) % 3
    attack = BoundaryAttack(queries=211, tolerance=1e-3)
    whole = attack.run(model, x, y, generator=seeded(), ids=ids)
    for i in range(6):
        row = slice(i, i + 1)
        alone = attack.run(model, x[row], y[row], generator=seeded(), ids=ids[row])
        torch.testing.assert_close(alone.x_adv, whole.x_adv[row], atol=1e-9, rtol=0)
        assert torch.equal(alone.queries, whole.queries[row])
        assert torch.equal(alone.started, whole.started[row])


def test_directions_are_isotropic():
    noise, size = Noise(5, torch.arange(4000)), 30
    eta = directions(noise, size, 3).double()
    eta = eta / eta.std()
    covariance = eta.T @ eta / len(eta)
    assert (covariance - torch.eye(size)).abs().max() < 5 * (2 / len(eta)) ** 0.5
    assert eta.mean(0).abs().max() < 5 / len(eta) ** 0.5
    for axis in (torch.eye(size)[0], torch.ones(size) / size**0.5, torch.linspace(-1, 1, size)):
        along = eta @ (axis / axis.norm()).double()
        assert abs(float((along**4).mean()) - 3) < 0.4  # a normal distribution's kurtosis
        assert abs(float((along > 0).double().mean()) - 0.5) < 0.04
    other = directions(noise, size, 4).double()
    assert abs(float((eta * other / other.std()).mean())) < 5 / (4000 * size) ** 0.5
    one = directions(noise.take(torch.tensor([17])), size, 3)
    assert torch.equal(one[0], directions(noise, size, 3)[17])


def test_refuses_settings_without_meaning():
    for wrong in (
        {"queries": 0},
        {"norm": "l3"},
        {"eps": -1.0},
        {"step_adaptation": 1.0},
        {"source_step": 0.0},
        {"memory": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BoundaryAttack(**wrong)


@pytest.mark.parametrize("memory", [0, 1000])
def test_is_no_further_than_foolbox_at_equal_queries(memory):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    model, x = Counting(divided_net(2)).eval(), images(12)
    y = model(x).argmax(1)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    ours = BoundaryAttack(queries=40).run(model, x, y, generator=seeded())  # the same starts
    assert ours.started.all()
    before = model.seen.images
    torch.manual_seed(0)
    theirs = foolbox.attacks.BoundaryAttack(steps=700).run(
        wrapped, x, foolbox.criteria.Misclassification(y), starting_points=ours.x_adv
    )
    queries = (model.seen.images - before) // len(x)
    found = BoundaryAttack(queries=queries, memory=memory).run(
        model, x, y, start=ours.x_adv, generator=seeded()
    )
    assert found.queries.max() <= queries
    assert found.distance.median() <= 1.03 * (theirs - x).flatten(1).norm(dim=1).median()
