"""The benchmarks run, and their records say what a reader needs; never how fast anything is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("foolbox", reason="foolbox is not installed")
pytest.importorskip("torchattacks", reason="torchattacks is not installed")

from benchmarks import (
    bf16,
    bf16_convolutions,
    convolution,
    inputs,
    peers,
    pgd,
    record,
    schemes,
    strength,
    table,
    timing,
    training_accuracy,
    training_loops,
    training_run,
    training_step,
)

from diascope.attacks import Threat
from diascope.attacks.base import verdict
from diascope.training import convolutions

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("early", [False, True])
def test_a_row_of_pgd_writes_a_whole_record(early, tmp_path, capsys):
    options = ["--stop-early"] if early else []
    pgd.main(["--quick", "--rows", "a", "--pairs", "2", "--results", str(tmp_path), *options])
    (line,) = (tmp_path / "pgd.jsonl").read_text().splitlines()
    found = json.loads(line)
    everyone = {"diascope", *peers.installed()}
    assert found["row"] == "a"
    assert found["settings"]["stop_early"] is early
    assert ("early" in found["title"]) is early
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


def test_bfloat16_is_timed_and_held_against_float32(tmp_path, capsys, monkeypatch):
    found = bf16.main(["--quick", "--results", str(tmp_path)])
    assert found["gains"]["resnet18 at 64"]["training step"]["pairs"] == 2
    assert not {part for part in found["wrong"] if part != bf16_convolutions.WEIGHT}
    assert f"{found['shapes']} convolutions" in capsys.readouterr().out
    real = bf16_convolutions.answer

    def spoilt(part, shape, kind, *rest):
        right = real(part, shape, kind, *rest)
        if kind == torch.bfloat16 and part == bf16_convolutions.INPUT:
            right[0] = torch.nan
        return right * (1.5 if part == bf16_convolutions.WEIGHT and kind != torch.float32 else 1)

    monkeypatch.setattr(bf16_convolutions, "answer", spoilt)
    shape = bf16_convolutions.Shape((4, 4), 4, (3, 1), 2, False, False)
    assert bf16_convolutions.strange(shape, torch.device("cpu"), 0) == [
        "input gradient",
        "weight gradient",
    ]


def test_a_convolution_is_tried_apart_and_one_that_ends_its_process_told_so():
    fine = bf16_convolutions.Shape((4, 4), 4, (3, 1), 2, False, False)
    told = dict(bf16_convolutions.each_apart([fine._replace(batch=-1), fine], 0))
    assert told[fine] == []
    assert told[fine._replace(batch=-1)][0].startswith("refused: ")
    assert bf16_convolutions.apart(os.abort) is None


def test_only_in_training_are_kernels_gone_past(monkeypatch):
    shape = bf16_convolutions.Shape((4, 4), 4, (1, 2), 2, True, False)
    gone, every = [], convolutions._every
    monkeypatch.setattr(convolutions, "_every", lambda *args: gone.append(args) or every(*args))
    for part in bf16_convolutions.PARTS:
        bf16_convolutions.answer(part, shape, torch.bfloat16, torch.device("cpu"), 0)
        assert bool(gone) == (part == bf16_convolutions.TRAINING)


def test_fab_is_held_against_itself_in_float32(tmp_path):
    found = strength.main(["--quick", "--attacks", "fab", "--results", str(tmp_path)])
    for kind in ("standard", "robust"):
        rows = [each for each in found if each["model"] == kind]
        assert len(rows) == len(strength.FAB_SHARES)
        assert all(0 < each["median_distance"]["bf16"] < 1 for each in rows)
        for name in ("accuracy", "peer_accuracy"):
            stands = [each[name] for each in rows]
            assert stands == sorted(stands, reverse=True)


def test_square_is_held_against_itself_in_float32(tmp_path):
    options = ["--quick", "--attacks", "square", "--eps", "0.05", "--norm", "linf"]
    found = strength.main([*options, "--results", str(tmp_path)])
    assert [each["model"] for each in found] == ["standard", "robust"]
    assert all(each["peer"] == "in float32" and each["eps"] == 0.05 for each in found)
    assert all(0 <= each["accuracy"] <= each["clean_accuracy"] for each in found)


def test_the_boundary_attack_is_held_against_foolbox_s_at_its_distances(tmp_path):
    found = strength.main(["--quick", "--attacks", "boundary", "--results", str(tmp_path)])
    for kind in ("standard", "robust"):
        rows = [each for each in found if each["model"] == kind]
        assert len(rows) == len(strength.BOUNDARY_SHARES)
        assert rows[0]["started"] == rows[0]["images"] == 2
        eps = [each["eps"] for each in rows]
        assert eps == sorted(eps)
        assert eps[-1] <= (3 * 16 * 16) ** 0.5  # from one corner of the images to the other
        assert [each["peer_accuracy"] for each in rows] == [0.5, 0.5, 0.5, 0, 0]
        stands = [each["accuracy"] for each in rows]
        assert stands == sorted(stands, reverse=True)


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


def test_rows_of_training_steps_write_whole_records(tmp_path, capsys):
    arguments = ["--quick", "--rows", "a", "d", "f", "--results", str(tmp_path)]
    training_step.main([*arguments, "--pairs", "1"])
    lines = (tmp_path / "training_step.jsonl").read_text().splitlines()
    a, d, f = (json.loads(line) for line in lines)
    assert [r["row"] for r in (a, d, f)] == ["t-a", "t-d", "t-f"]
    trainers = {"diascope", *({"torchattacks", "art"} & set(peers.installed()))}
    for found, everyone in ((a, trainers), (d, {"diascope", "reference"})):
        assert set(found["seconds"]) == everyone
        assert set(found["ratio"]) == everyone - {"diascope"}
    assert set(f["ratio"]) == {"sga", "asgt"}
    assert a["settings"]["eps"] == pytest.approx(4 * (32 / 224) ** 2)
    capsys.readouterr()
    table.main(["--quick", "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert all(row in printed for row in ("t-a", "t-d", "t-f"))


def test_our_step_is_the_last_of_a_whole_fit(monkeypatch):
    """No more than one step is counted, and it is one of `fit` on half of the images."""
    times = iter([10.0, 11.0, 13.5])
    seen = []

    def fit(model, objective, train, none, config, *, progress):
        seen.append((len(train), len(none), config.batch_size, config.epochs, config.augment))
        for done in (1, 2):
            progress.step(done, 2, "", 0.0, 0.0)

    monkeypatch.setattr(training_loops, "fit", fit)
    monkeypatch.setattr(training_loops.time, "perf_counter", lambda: next(times))
    pixels = training_step.training_pixels(None, 6, 16, 0)
    model, cpu = inputs.untrained(0, tiny=True), torch.device("cpu")
    found = training_loops.OurStep(model, object(), pixels, cpu)(0)
    assert found == 1.0
    assert seen == [(6, 0, 3, 1, None)]
    assert timing.timed(lambda number: timing.Seconds(7.0), 0, cpu) == 7.0


@pytest.mark.parametrize(
    ("name", "forwards", "in_train_mode"), [("torchattacks", 8, 1), ("art", 10, 1), ("sgt", 3, 2)]
)
def test_a_peers_step_runs_the_passes_it_should(name, forwards, in_train_mode):
    """Seven steps and the loss; ART's two more are for a success rate that it always computes."""
    if name != "sgt" and name not in peers.installed():
        pytest.skip(f"{name} is not installed")
    model = inputs.untrained(0, tiny=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer = {
        "torchattacks": lambda: training_loops.torchattacks_pgd(model, 0.5),
        "art": lambda: training_loops.ArtTrainer(model, 0.5, inputs.CLASSES),
        "sgt": lambda: training_loops.saliency_guided_reference(model, 0.1, 1.0, 0),
    }[name]()
    modes = []
    trainer.model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trainer.step(x, torch.tensor([0, 1, 2, 3]))
    assert len(modes) == forwards
    assert sum(modes) == in_train_mode
    assert int(trainer.model.backbone.bn1.num_batches_tracked) == in_train_mode
    after = trainer.model.state_dict()
    assert not torch.equal(before["backbone.fc.weight"], after["backbone.fc.weight"])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_reference_masks_the_lowest_gradients_of_each_image():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 8, 8, generator=generator) / 2 + 0.25
    gradient = torch.randn(3, 3, 8, 8, generator=generator)
    masked = training_loops.masked_on_the_host(x, gradient, 0.25, np.random.default_rng(0))
    changed = (masked != x).flatten(1)
    assert changed.sum(1).tolist() == [48, 48, 48]
    for image, slope in zip(changed, gradient.flatten(1), strict=True):
        assert slope[image].max() < slope[~image].min()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert ((masked >= low) & (masked <= high)).all()


def test_accuracy_after_equal_epochs_is_recorded_seed_by_seed(tmp_path, capsys):
    training_accuracy.main(["--quick", "--seeds", "3", "4", "--results", str(tmp_path)])
    records = record.read(tmp_path)
    assert [r["seed"] for r in records] == [3, 4]
    for found in records:
        assert set(found["accuracies"]) == set(found["seconds_training"])
        for accuracy in found["accuracies"].values():
            assert accuracy["pgd-40"] <= accuracy["clean"]
    assert "ours less" in capsys.readouterr().out


def test_the_interval_of_the_differences_over_seeds():
    def one(seed, ours, theirs):
        found = {"diascope": {"pgd-40": ours}, "peer": {"pgd-40": theirs}}
        about = {"row": "t-c", "title": "", "seconds_training": {"diascope": 1.0, "peer": 1.0}}
        return {**about, "seed": seed, "accuracies": found}

    pairs = [(0.50, 0.49), (0.52, 0.50), (0.51, 0.48)]
    lines = record.accuracy_lines([one(k, *pair) for k, pair in enumerate(pairs)])
    # differences of 1, 2, 3 points: 2 +- t(0.975, 2) / sqrt(3) = 2 +- 2.484
    assert lines[-1].endswith("+2.00 points [-0.48, +4.48], 3 seeds: 0 within")
    lines = record.accuracy_lines([one(k, a + 0.03, b) for k, (a, b) in enumerate(pairs)])
    assert lines[-1].endswith("+5.00 points [+2.52, +7.48], 3 seeds: 0 OUTSIDE")


def test_a_whole_training_tells_where_its_time_went(tmp_path, capsys):
    standard, robust = training_run.main(["--quick", "--results", str(tmp_path)])
    assert standard["parts"]["seconds_attack"] == 0
    parts = robust["parts"]
    assert 0 < parts["seconds_attack"] < parts["seconds_update"] < parts["seconds"]
    assert robust["data_share"] == parts["seconds_data"] / parts["seconds"]
    assert robust["seconds_run"] > parts["seconds"] * 0.99
    assert "ham10000-128-pgd-l2" in capsys.readouterr().out


def test_schemes_train_each_configuration_once_and_print_a_line_each(tmp_path, shared_data, capsys):
    configs = [str(CONFIGS / "p4" / f"{name}.yaml") for name in ("mnist", "mnist-asgt")]
    words = [*configs, "--quick", "--data", f"mnist:{shared_data / 'mnist'}"]
    words += ["--out", str(tmp_path / "runs"), "--results", str(tmp_path)]
    schemes.main(words)
    first = record.read(tmp_path)
    assert [found["scheme"] for found in first] == ["mnist", "mnist-asgt"]
    for found in first:
        assert found["images"] == 8
        assert len(found["fgsm"]) == len(found["pgd"]) == 1
        assert found["fgsm"][0] <= found["clean"] + 1e-9
    out = capsys.readouterr().out
    assert out.count("| mnist-asgt | 0 | ") == 1
    schemes.main(words)
    assert [found["seconds"] for found in record.read(tmp_path)[2:]] == [
        found["seconds"] for found in first
    ]
