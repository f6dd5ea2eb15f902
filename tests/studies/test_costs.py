"""The work in a training, the operations of a model, and jobs shared out among workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diascope.studies.costs.devices import Room
from diascope.studies.costs.flops import model_flops, step_flops
from diascope.studies.costs.passes import attack_passes, objective_passes
from diascope.studies.costs.sharing import Task, scheduled, ways
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage, stages_of
from diascope.studies.costs.telling import hours, table_lines
from diascope.training.config import read_config

CONFIGS = Path(__file__).parents[2] / "configs"


def stages(name, *overrides, train=2400, val=0, classes=3):
    return stages_of(read_config(CONFIGS / f"{name}.yaml", overrides), train, val, classes)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("p1/standard", 3),
        ("p1/adversarial", 3 + 2 * 7),
        ("p3/saliency-guided", 8),
        ("p3/sga", 10),
        ("p4/mnist-asgt", 13),
        ("p4/mnist-at-fgsm", 5),
    ],
)
def test_passes_are_those_of_the_docs(name, units):
    assert objective_passes(stages(name)[-1].objective, 3).units == units


def test_operations_of_a_resnet18_are_those_its_authors_count():
    stage = stages("p1/standard")[-1]
    flops = model_flops(stage)
    assert flops.forward == pytest.approx(2 * 1.81e9, rel=0.01)  # He et al. 2016, in multiply-adds
    assert flops.to_weights == pytest.approx(2 * flops.forward, rel=0.07)  # none to the image
    assert step_flops(stage) == flops.forward + flops.to_weights
    assert flops.parameters == pytest.approx(11.18e6, rel=0.01)


def test_a_frozen_net_trains_its_head_alone():
    head, whole = (model_flops(stage) for stage in stages("p1/standard"))
    assert head.forward == whole.forward
    assert head.to_weights == 2 * 512 * 3
    assert head.parameters == 512 * 3 + 3


def test_a_search_trains_every_trial_on_every_fold_and_then_on_all():
    found = stages("p1/search")
    assert len(found) == 2 * (45 + 1)  # P1 trains in two stages
    assert {(s.train, s.val) for s in found[:-2]} == {(1920, 480)}
    assert [(s.train, s.val, s.epochs) for s in found[-2:]] == [(2400, 0, 10), (2400, 0, 25)]
    assert sorted({s.config.training.batch_size for s in found[1:-2:2]}) == [8, 16, 32]


def test_what_costs_the_same_is_of_one_kind():
    kind = stages("p1/adversarial")[-1].kind
    assert stages("p1/adversarial", "objective.eps=1")[-1].kind == kind
    assert stages("p1/adversarial", "training.seed=3", train=100)[-1].kind == kind
    assert stages("p1/adversarial", "objective.attack.steps=3")[-1].kind != kind
    assert stages("p1/adversarial", "training.batch_size=8")[-1].kind != kind
    assert stages("p1/adversarial", "data.size=128")[-1].kind != kind
    assert len({s.kind for s in stages("p1/adversarial")}) == 2


def test_steps_and_what_is_judged_after_them():
    stage = stages("p4/mnist-at-fgsm", train=54_000, val=6_000, classes=10)[0]
    assert (stage.epochs, stage.steps, stage.images) == (20, 422, 54_000)
    # 6000 without attack, 1000 under FGSM, 128 under the PGD of 10 steps that checks it
    assert stage.judging == 6_000 + 1_000 * 2 + 128 * 20
    shared = stages("p2/resnet50", train=7_010, val=1_502, classes=7)[0]
    assert shared.images == 701


def test_copies_made_beforehand_are_attacked_and_trained_on():
    offline = "training.offline={attack: [{name: pgd, steps: 5, eps: 0.1}], every: 10, share: 0.5}"
    plain, copied = (stages("p4/mnist", *o, train=1000)[0] for o in ((), (offline,)))
    assert copied.preparing == 2 * 500 * 10
    assert (plain.images, copied.images) == (1000, 1500)
    assert attack_passes(None, 3) == 0


def test_one_worker_takes_the_sum_and_many_the_longest_chain():
    lengths = {"a": 3.0, "b": 2.0, "c": 4.0, "d": 1.0}
    needs = {"a": (), "b": ("a",), "c": (), "d": ("b", "elsewhere")}
    assert scheduled(lengths, needs, 1) == 10
    assert scheduled(lengths, needs, 9) == 6  # a, b, d
    assert scheduled(lengths, needs, 2) == 6
    assert scheduled({}, {}, 4) == 0


@given(
    st.lists(
        st.tuples(st.floats(0.01, 9), st.sets(st.integers(0, 11), max_size=3)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_a_schedule_keeps_grahams_bounds(jobs, workers):
    lengths = {str(i): length for i, (length, _) in enumerate(jobs)}
    needs = {str(i): tuple(str(n) for n in before if n < i) for i, (_, before) in enumerate(jobs)}
    chains = {}
    for name in lengths:
        chains[name] = lengths[name] + max((chains[n] for n in needs[name]), default=0.0)
    total, chain = sum(lengths.values()), max(chains.values())
    found = scheduled(lengths, needs, workers)
    assert found >= max(total / workers, chain) - 1e-9
    assert found <= total / workers + (1 - 1 / workers) * chain + 1e-9


def test_the_room_makes_the_published_speed_of_a_resnet50():
    """NVIDIA's ResNet-50: 2,470 images a second on one A100, 16,621 on eight, 256 each."""
    room = Room()

    def rate(gpus):
        settings = ("training.epoch_share=1", f"training.batch_size={256 * gpus}")
        stage = stages("p2/resnet50", *settings, train=256 * gpus, classes=1000)[0]
        return 256 * gpus / room.step(stage, room.speed(stage), gpus)

    assert rate(1) == pytest.approx(2470, rel=0.03)
    assert rate(8) == pytest.approx(16_621, rel=0.03)


def test_a_small_batch_gains_nothing_from_more_gpus():
    stage, room = stages("p1/standard")[-1], Room()
    speed = room.speed(stage)
    assert speed.step(16) == speed.least == speed.step(1)
    assert room.step(stage, speed, 8) > room.step(stage, speed, 1)


def test_gpus_are_as_many_as_images_and_gradients_go_around_in_a_ring():
    stage = stages("p1/adversarial", "training.batch_size=8")[-1]
    room = Room(latency=0, bandwidth=1e6, bandwidth_between=1e5, per_node=4)
    size = 4 * model_flops(stage).parameters
    assert room.talking(stage, 1) == 0
    assert room.talking(stage, 4) == pytest.approx(2 * 3 / 4 * size / 1e6)
    assert room.talking(stage, 8) == pytest.approx(2 * 7 / 8 * size / 1e5)
    speed = room.speed(stage)
    assert room.step(stage, speed, 64) == room.step(stage, speed, 8)


def test_a_slow_reader_holds_up_the_gpus():
    stage = stages("p1/standard")[-1]
    slow, speed = Room(reader=1e4, disk=4e4), Speed(1e-3, 1e-4, "known")
    bytes_ = stage.batch * 3 * 224**2
    assert slow.step(stage, speed, 1) == pytest.approx(bytes_ / 1e4)
    assert slow.reading(stage, 2) == pytest.approx(bytes_ / 2e4)
    assert slow.reading(stage, 8) == pytest.approx(bytes_ / 4e4)


def test_the_best_way_lies_between_one_gpu_each_and_all_for_one():
    stage = stages("p3/standard", "training.batch_size=256", train=9600)[0]
    speed = Speed(image=1e-2, forward=1e-3, source="known")
    tasks = [Task(name, (stage,), (speed,)) for name in "ab"]
    found = {way.each: way for way in ways(tasks, 8, Room())}
    assert list(found) == [1, 2, 4, 8]
    assert min(found.values(), key=lambda way: way.seconds).each == 4
    alone = tasks[0].on(1, Room())
    assert found[1].seconds == found[1].path == alone
    assert ways(tasks, 1, Room())[0].seconds == 2 * alone
    line = table_lines([list(found.values())])[-1]
    assert "2 runs side by side, 4 GPUs each" in line


def test_judging_is_by_passes_or_as_recorded():
    stage = stages("p4/mnist-at-fgsm", train=1280, val=100, classes=10)[0]
    passes = 100 + 100 * 2 + 100 * 20
    by_passes = Speed(image=0.01, forward=0.001, source="known")
    assert by_passes.stage(stage) == pytest.approx(20 * (12.8 + passes * 0.001))
    recorded = Speed(image=0.01, forward=0.001, source="known", judged=0.1)
    assert recorded.stage(stage) == pytest.approx(20 * (12.8 + 10))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (80, "80 s"), (600, "10 min"), (9000, "2.5 h"), (864_000, "10 days")],
)
def test_hours(seconds, text):
    assert hours(seconds) == text


def test_stage_is_of_the_configuration_alone():
    stage = Stage(stages("p1/standard")[0].config, 10, 5, 3)
    assert stage.config.stages == []
    assert stage.config.search is None
    assert stage.steps == 1
