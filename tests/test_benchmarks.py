"""The benchmarks run, and their records say what a reader needs; never how fast anything is."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("foolbox", reason="foolbox is not installed")
pytest.importorskip("torchattacks", reason="torchattacks is not installed")

from benchmarks import convolution, inputs, peers, pgd, record, strength, timing

from diascope.attacks import Threat
from diascope.attacks.base import verdict


def test_a_row_of_pgd_writes_a_whole_record(tmp_path, capsys):
    pgd.main(["--quick", "--rows", "a", "--pairs", "2", "--results", str(tmp_path)])
    (line,) = (tmp_path / "pgd.jsonl").read_text().splitlines()
    found = json.loads(line)
    everyone = {"diascope", *peers.installed()}
    assert found["row"] == "a"
    assert found["quick"] is True
    for field in ("seconds", "spread", "images_per_second"):
        assert set(found[field]) == everyone
    assert {len(seconds) for seconds in found["seconds"].values()} == {2}
    assert set(found["ratio"]) == everyone - {"diascope"}
    assert found["ratio"]["foolbox"]["low"] <= found["ratio"]["foolbox"]["high"]
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["settings"]["eps"] > 0
    assert any("no meaning" in note for note in found["notes"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in everyone)
    assert record.read(tmp_path) == [found]


@pytest.mark.parametrize("name", peers.PACKAGES)
@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.5), ("linf", 0.02)])
def test_every_peer_attacks_within_the_ball(name, norm, eps):
    """The settings are handed on rightly: the ball is kept, used up, and the model fooled."""
    if name not in peers.installed():
        pytest.skip(f"{name} is not installed")
    model = inputs.untrained(0, tiny=True).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    with torch.no_grad():
        y = model(x).argmax(1)
    x_adv = peers.pgd(name, model, norm, eps, 10, eps / 4)(x, y)
    size = Threat(norm, eps).size(x_adv - x)
    assert (size <= eps * 1.001).all()
    assert (size > 0.8 * eps).all()
    with torch.no_grad():
        own = torch.nn.functional.cross_entropy(model(x_adv), y)
        assert own > torch.nn.functional.cross_entropy(model(x), y)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert verdict(model, x, y).sum() == 0


def test_rounds_take_turns_forwards_and_backwards():
    called = []
    contenders = {name: lambda n, name=name: called.append((name, n)) for name in "ab"}
    seconds = timing.rounds(contenders, 3, torch.device("cpu"), warm_up=lambda: None)
    assert called == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_ratio_of_pairs_and_the_coverage_of_its_interval():
    found = timing.ratio([2.0, 4.0, 6.0], [1.0, 1.0, 1.0])
    assert (found.median, found.low, found.high) == (4.0, 2.0, 6.0)
    assert found.coverage == pytest.approx(0.75)
    ten = timing.ratio([float(k) for k in range(1, 11)], [1.0] * 10)
    assert (ten.low, ten.high) == (2.0, 9.0)
    assert ten.coverage == pytest.approx(1 - 2 * 11 / 1024)
    with pytest.raises(ValueError, match="pairs"):
        timing.ratio([1.0], [])


def test_operations_of_a_net_that_can_be_counted_by_hand():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(5, 10, 1, groups=5, bias=False),
        torch.nn.Flatten(),
        torch.nn.Linear(10 * 16, 4),
    ).eval()
    by_hand = 2 * (5 * 16 * 27 + 10 * 16 * 1 + 160 * 4)
    assert convolution.forward_operations(net, torch.rand(1, 3, 8, 8)) == by_hand
    assert convolution.forward_operations(net, torch.rand(3, 3, 8, 8)) == 3 * by_hand


def test_torchattacks_autoattack_has_the_steps_asked_for():
    """As it comes it takes 10, which the standard version does not: the benchmark says so."""
    model = inputs.untrained(0, tiny=True).eval()
    for steps, expected in ((100, 100), (None, 10)):
        attack = peers.torchattacks_autoattack(model, "linf", 0.01, 0, steps=steps)
        *iterative, square = attack._autoattack.attacks
        assert [type(member).__name__ for member in iterative] == ["APGD", "APGDT", "FAB"]
        assert {member.steps for member in iterative} == {expected}
        assert square.n_queries == 5000


def test_images_outside_the_ball_or_the_bounds_break_nothing():
    model = inputs.untrained(0, tiny=True).eval()
    net = inputs.Net("standard", model, trained=False)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    with torch.no_grad():
        y = model(x).argmax(1)
    far = (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    wrong = (y + 1) % inputs.CLASSES
    stood, outside = strength._withstood(far, x, y, net, Threat("linf", 0.1))
    assert outside == 4
    assert stood.all()
    stood, outside = strength._withstood(x * 1.001, x, wrong, net, Threat("linf", 0.1))
    assert outside == 0
    assert not stood.any()
    _, outside = strength._withstood(x - 0.11, x, y, net, Threat("linf", 0.2))
    assert 0 < outside <= 4
