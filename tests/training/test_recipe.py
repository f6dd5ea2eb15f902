"""Bases, stages, start weights and trained groups, as a configuration asks for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.training.test_run import Notes
from tests.training.toy import TIMES, same_weights
from tests.training.victim import deaths

from diascope.data import open_data
from diascope.data.splits import Splits
from diascope.errors import UserError
from diascope.models import create_model, layer_groups, load_model
from diascope.training import Run, TrainConfig, open_run, read_config, train
from diascope.training.layers import difference, merge
from diascope.training.recipe import follows

CONFIG: dict[str, Any] = {
    "data": {"name": "phantom:images=60,size=32", "size": 32},
    "model": {"name": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}},
    "training": {"epochs": 2, "batch_size": 16, "checkpoint_seconds": 0, "device": "cpu"},
    "stages": [
        {"model.trainable": 1, "training": {"epochs": 1, "optimizer.lr": 0.01}},
        {"training.optimizer": {"name": "sgd", "lr": 0.02}},
    ],
}
PLAIN = {key: value for key, value in CONFIG.items() if key != "stages"}


def go(out: Path, *overrides: str, config: dict[str, Any] = CONFIG, **more: Any) -> Run:
    return train(read_config(config, overrides), out, **{"progress": Notes(), **more})


def run_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return go(tmp_path_factory.mktemp("runs") / "run")


def write(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file


# -- bases


def test_keys_set_values_and_a_name_replaces_the_whole() -> None:
    below = {"objective": {"name": "a", "k": 1, "attack": {"name": "x", "eps": 1}}, "n": {"m": 1}}
    assert merge(below, {"objective": {"k": 2}})["objective"] == {**below["objective"], "k": 2}
    assert merge(below, {"objective.attack.eps": 2})["objective"]["attack"] == {
        "name": "x",
        "eps": 2,
    }
    assert merge(below, {"objective": {"attack": {"name": "y"}}})["objective"] == {
        "name": "a",
        "k": 1,
        "attack": {"name": "y"},
    }
    assert merge(below, {"objective": {"name": "a"}})["objective"] == {"name": "a"}
    assert merge({"objective": "a"}, {"objective.k": 3})["objective"] == {"name": "a", "k": 3}
    assert merge(below, {"n": {"o.p": 2}})["n"] == {"m": 1, "o": {"p": 2}}
    assert below["n"] == {"m": 1}


def test_a_file_lies_on_its_base(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "a.yaml", {**PLAIN, "out": "there", "record": {"torch": "2"}})
    write(tmp_path / "b.yaml", {"base": "deep/a.yaml", "training.epochs": 5})
    top = write(tmp_path / "c.yaml", {"base": "b.yaml", "training": {"optimizer.lr": 0.5}})
    config = read_config(top, ["training.batch_size=3"])
    assert config.training.epochs == 5
    assert (config.training.optimizer.lr, config.training.batch_size) == (0.5, 3)
    assert config.model.options == CONFIG["model"]["options"]
    assert (config.out, config.record) == (None, None)
    other = write(tmp_path / "other.yaml", {**PLAIN, "training": {"seed": 8}})
    config = read_config(top, [f"base={other}"])
    assert (config.training.seed, config.training.epochs) == (
        8,
        TrainConfig(data=config.data).training.epochs,
    )
    assert config.training.optimizer.lr == 0.5


def test_a_base_that_goes_in_a_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", {"base": "b.yaml"})
    write(tmp_path / "b.yaml", {"base": "a.yaml"})
    with pytest.raises(UserError, match=r"a.yaml: is its own base; change 'base' in .*b.yaml"):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(UserError, match=r"no.yaml: there is no such file"):
        read_config(write(tmp_path / "c.yaml", {"base": "no.yaml"}))
    with pytest.raises(UserError, match="'base' = 3: name one YAML file"):
        read_config(write(tmp_path / "d.yaml", {"base": 3}))


def test_another_objective_leaves_the_record_of_the_bases_epsilon(tmp_path: Path) -> None:
    first = {**PLAIN, "objective": {"name": "adversarial", "eps": 4, "attack": "fgsm"}}
    base = write(tmp_path / "base.yaml", read_config(first).to_dict())
    attack = {"name": "fgsm", "eps": 0.5}
    top = {"base": base.name, "objective": {"name": "adversarial", "attack": attack}}
    config = read_config(write(tmp_path / "top.yaml", top))
    assert config.build_objective().attack.eps == 0.5
    assert config.objective_eps_given is None


# -- stages


def test_a_stage_says_what_differs_and_the_last_is_the_run() -> None:
    config = read_config(CONFIG)
    (first,) = config.stages_before()
    assert (first.model.trainable, first.training.epochs, first.training.optimizer.lr) == (
        1,
        1,
        0.01,
    )
    assert (first.training.optimizer.name, first.training.batch_size) == ("adam", 16)
    assert (config.model.trainable, config.training.epochs) == (None, 2)
    assert (config.training.optimizer.name, config.training.optimizer.lr) == ("sgd", 0.02)
    assert config.stages[-1] == {}


def test_reading_a_resolved_configuration_again_changes_nothing(tmp_path: Path) -> None:
    rest = {"options": {"layers": [1, 1, 1, 1]}, "name": "resnet18"}
    stages = [
        {"objective": {"name": "adversarial", "eps": 4, "attack": "fgsm"}, "model": rest},
        {"training": {"validation": {"attack": {"name": "pgd", "eps": 1, "steps": 2}}}},
        {"training": {"validation": {"attack": {"name": "fgsm", "eps": 2}}, "augment": None}},
    ]
    config = read_config({**CONFIG, "stages": stages})
    again = read_config(write(tmp_path / "a.yaml", config.to_dict()))
    assert again.to_dict() == config.to_dict() == config.resolved().to_dict()
    first, second = again.stages_before()
    assert first.model.options == rest["options"]
    assert second.model.options == CONFIG["model"]["options"]
    assert (first.objective_eps_given or {})["eps"] == 4
    assert second.training.augment is not None
    unread = TrainConfig.model_validate({**CONFIG, "stages": stages})
    assert unread.resolved().to_dict() == config.to_dict()


def test_another_objective_over_a_resolved_configuration_holds_in_every_stage(
    tmp_path: Path,
) -> None:
    write(tmp_path / "base.yaml", read_config(CONFIG).to_dict())
    objective = {"name": "adversarial", "eps": 0.1, "attack": "fgsm"}
    top = write(tmp_path / "top.yaml", {"base": "base.yaml", "objective": objective})
    config = read_config(top)
    for stage in (*config.stages_before(), config):
        assert stage.build_objective().attack.eps == 0.1
    assert config.stages_before()[0].training.optimizer.lr == 0.01


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}}),
        ({"m": {"name": "x", "o": {"p": 1, "q": 2}}}, {"m": {"name": "x", "o": {"p": 1}}}),
        ({"m": {"name": "x", "o": 1}}, {"m": {"name": "y", "z": 1}}),
        ({"a": None, "b": {"c": 1}}, {"a": {"c": 1}, "b": None}),
        ({}, {"a": {"b": {"c": 1}}}),
    ],
)
def test_a_difference_laid_over_the_one_gives_the_other(below: Any, above: Any) -> None:
    found = difference(below, above)
    assert found is not None
    assert merge(below, found) == above
    assert difference(above, above) == {}


def test_what_cannot_be_taken_away_makes_no_difference() -> None:
    assert difference({"a": 1}, {}) is None
    assert difference({"o": {"a": 1}}, {"o": {}}) is None
    assert difference({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}}) == {
        "b.d": 4
    }


def test_an_override_holds_in_every_stage(tmp_path: Path) -> None:
    resolved = write(tmp_path / "a.yaml", read_config(CONFIG).to_dict())
    for source in (CONFIG, resolved):
        config = read_config(source, ["training.epochs=7", "training.optimizer.lr=0.3"])
        (first,) = config.stages_before()
        for stage in (first, config):
            assert (stage.training.epochs, stage.training.optimizer.lr) == (7, 0.3)
        assert (first.training.optimizer.name, config.training.optimizer.name) == ("adam", "sgd")
    assert read_config(CONFIG, ["stages=[]"]).stages == []


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"training.epoch": 1}, {}], r"it: stage 1: unknown key 'training.epoch'.*'epochs'"),
        ([{"objective": "standrad"}, {}], "unknown objective 'standrad'"),
        ([{"data.size": 64}, {}], "stage 1: 'data' is the same in all stages"),
        ([{}, {"out": "x"}], "stage 2: 'out' is the same in all stages"),
        ("head", "'stages': write a list"),
        ([3], "'stages': write a list"),
    ],
)
def test_a_mistake_in_a_stage_is_one_line(stages: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_config({**CONFIG, "stages": stages}, where="it")
    assert "\n" not in str(caught.value)


def test_stages_are_runs_each_from_the_one_before(staged: Run, tmp_path: Path) -> None:
    folder = staged.folder
    first, last = run_weights(folder / "stage-1"), run_weights(folder)
    assert open_run(folder / "stage-1").config.training.optimizer.lr == 0.01
    assert not same_weights(first, last)
    # by hand: a run with the first stage's settings, then one from its weights
    overrides = ["training.epochs=1", "training.optimizer.lr=0.01", "model.trainable=1"]
    by_hand = go(tmp_path / "first", *overrides, config=PLAIN)
    assert same_weights(run_weights(by_hand.folder), first)
    sgd = ["training.optimizer={name: sgd, lr: 0.02}", f"model.weights={by_hand.folder}"]
    assert same_weights(run_weights(go(tmp_path / "last", *sgd, config=PLAIN).folder), last)


def test_the_configuration_of_a_staged_run_makes_it_again(staged: Run, tmp_path: Path) -> None:
    content = yaml.safe_load((staged.folder / "config.yaml").read_text())
    first = content["stages"][0]
    assert first["training.optimizer"]["lr"] == 0.01
    assert (first["model.trainable"], first["model.weights"]) == (1, None)
    assert "training.batch_size" not in first, "it is that of the run"
    assert content["model"]["weights"] == str(staged.folder / "stage-1")
    assert content["record"]["weights"]["path"] == str(staged.folder / "stage-1")
    again = train(read_config(staged.folder / "config.yaml"), tmp_path / "run", progress=Notes())
    assert same_weights(run_weights(again.folder), run_weights(staged.folder))
    assert again.config.model.weights == tmp_path / "run" / "stage-1"


def test_a_staged_run_goes_on_in_its_stage_and_trains_none_again(
    staged: Run, tmp_path: Path
) -> None:
    class StopsInTheSecond(Notes):
        def epoch(self, row: Any, epochs: int, best: bool, left: float) -> None:
            if any("stage 2" in note for note in self.notes):
                raise KeyboardInterrupt

    notes = StopsInTheSecond()
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", progress=notes)
    assert notes.notes[0] == f"stage 1 of 2, in {tmp_path / 'run' / 'stage-1'}"
    with pytest.raises(UserError, match="run: holds an unfinished run; go on with --resume"):
        go(tmp_path / "run")
    before = (tmp_path / "run" / "stage-1" / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "run").rename(tmp_path / "moved")
    notes = Notes()
    resumed = go(tmp_path / "moved", "training.checkpoint_seconds=9", resume=True, progress=notes)
    assert same_weights(run_weights(resumed.folder), run_weights(staged.folder))
    stage = tmp_path / "moved" / "stage-1"
    assert (stage / "model.safetensors").stat().st_mtime_ns == before
    assert f"{stage}: is finished; nothing to resume" in notes.notes
    assert "resumed in epoch 2, after step 0" in notes.notes
    with pytest.raises(UserError, match="stage-1: began with training.optimizer.lr = 0.01"):
        shorter = {**CONFIG, "stages": [{"model.trainable": 1, "training.epochs": 1}, {}]}
        (tmp_path / "moved" / "model.safetensors").unlink()
        go(tmp_path / "moved", config=shorter, resume=True)


def test_a_finished_staged_run_needs_its_stages_no_more(staged: Run, tmp_path: Path) -> None:
    shutil.copytree(staged.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("stage-1"))
    assert go(tmp_path / "copy", resume=True).epoch == staged.epoch
    assert not (tmp_path / "copy" / "stage-1").exists()


@pytest.mark.parametrize(
    ("given", "silent"),
    [
        ({}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, False),
        ({"RANK": "2"}, True),
        ({"LOCAL_RANK": "1"}, True),
        ({"SLURM_PROCID": "1", "LOCAL_RANK": "0"}, True),
    ],
)
def test_only_the_first_of_several_processes_speaks(
    given: dict[str, str], silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    assert follows() == silent


# -- start weights


def test_changed_start_weights_are_refused(staged: Run, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    shutil.copy(staged.folder / "stage-1" / "model.safetensors", weights)
    more = {"config": PLAIN, "progress": Notes(stop_at="epoch 1")}
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", f"model.weights={weights}", **more)
    shutil.copy(weights, tmp_path / "elsewhere.safetensors")
    shutil.copy(staged.folder / "model.safetensors", weights)
    again = {"config": PLAIN, "resume": True}
    with pytest.raises(UserError, match="began with model.weights = content .*cannot be resumed"):
        go(tmp_path / "run", f"model.weights={weights}", **again)
    with pytest.raises(UserError, match="began with model.weights = content .*with None"):
        go(tmp_path / "run", **again)
    elsewhere = f"model.weights={tmp_path / 'elsewhere.safetensors'}"
    assert go(tmp_path / "run", elsewhere, **again).folder.exists()
    with pytest.raises(UserError, match="began with model.weights"):
        go(tmp_path / "run", f"model.weights={weights}", **again)


def test_start_weights_of_classes_in_another_order_are_refused(staged: Run, tmp_path: Path) -> None:
    other = ["data.classes=[melanoma, nevus, keratosis]", f"model.weights={staged.folder}"]
    with pytest.raises(
        UserError, match="in the order nevus, keratosis, melanoma; give data.classes"
    ):
        go(tmp_path / "run", *other, config=PLAIN)


def test_foreign_weights_start_a_run(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net = create_model("resnet18", 10, **CONFIG["model"]["options"]).backbone
    save_file(net.state_dict(), tmp_path / "imagenet.safetensors")
    weights = f"model.weights={tmp_path / 'imagenet.safetensors'}"
    head = ["model.trainable=1", "training.epochs=1"]
    run = go(tmp_path / "run", weights, *head, config=PLAIN)
    trained = run.model().backbone
    assert torch.equal(trained.layer4[0].conv2.weight, net.layer4[0].conv2.weight)
    assert trained.fc.weight.shape[0] == 3


# -- trained groups


@pytest.mark.parametrize("trainable", [1, 3])
@pytest.mark.parametrize("averaging", ["none", "swa"])
def test_frozen_groups_stay_bit_for_bit(
    staged: Run, tmp_path: Path, trainable: int, averaging: str
) -> None:
    """Weights and statistics, after adversarial training, validation under attack, and a resume."""
    overrides = [
        f"model.weights={staged.folder}",
        f"model.trainable={trainable}",
        "objective={name: adversarial, attack: {name: pgd, eps: 0.05, steps: 2}, mix: 0.5}",
        f"training.averaging.name={averaging}",
        "training.select=last",
    ]
    stop = Notes(stop_at="epoch 1")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", *overrides, config=PLAIN, progress=stop)
    run = go(tmp_path / "run", *overrides, config=PLAIN, resume=True)
    whole = go(tmp_path / "whole", *overrides, config=PLAIN)
    assert same_weights(run_weights(run.folder), run_weights(whole.folder))
    before, after = load_model(staged.folder), run.model()
    groups = [[id(p) for p in group] for group in layer_groups(after)]
    trained = {i for group in groups[-trainable:] for i in group}
    old = before.state_dict()
    free = [f"backbone.layer{k}" for k in range(6 - trainable, 5)] + ["backbone.fc"]
    for name, parameter in after.named_parameters():
        assert (id(parameter) in trained) == name.startswith(tuple(free))
    for name, tensor in after.state_dict().items():
        moved = not torch.equal(tensor, old[name])
        assert moved == name.startswith(tuple(free)), name


def test_more_groups_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model.trainable = 6: the model has 5 layer groups"):
        go(tmp_path, "model.trainable=6", config=PLAIN)
    with pytest.raises(UserError, match="model.trainable"):
        read_config(PLAIN, ["model.trainable=0"])


# -- splits


def test_a_fold_joins_train_and_val_and_leaves_test(tmp_path: Path) -> None:
    whole = open_data("phantom:images=60,size=32").split()
    held: set[str] = set()
    for number in range(1, 4):
        splits = whole.refolded(f"{number}/3")
        held |= set(splits.val.table.path)
        assert set(splits.test.table.path) == set(whole.test.table.path)
    assert held == {*whole.train.table.path, *whole.val.table.path}
    run = go(tmp_path / "run", "data.split.fold=2/3", "training.epochs=1", config=PLAIN)
    split = Splits.load(run.folder / "split.csv", open_data("phantom:images=60,size=32"))
    assert set(split.val.table.path) == set(whole.refolded("2/3").val.table.path)
    with pytest.raises(UserError, match="data.split.fold"):
        read_config(PLAIN, ["data.split.fold=2-3"])
    with pytest.raises(UserError, match="fold = '4/3': write all, or 2/5"):
        go(tmp_path / "other", "data.split.fold=4/3", config=PLAIN)


def test_without_validation_the_last_epoch_is_taken(tmp_path: Path) -> None:
    attack = "objective={name: adversarial, attack: {name: fgsm, eps: 0.02}}"
    none = [attack, "data.split.fold=all", "training.select=last"]
    run = go(tmp_path / "run", *none, config=PLAIN)
    assert run.epoch == 2
    assert run.metrics.filter(like="val_").isna().all(axis=None)
    assert not (run.folder / "validation.parquet").exists()
    with pytest.raises(UserError, match=r"training.select = 'best' needs validation images"):
        go(tmp_path / "best", "data.split.fold=all", config=PLAIN)


# -- a real process, really killed


@pytest.mark.slow
def test_a_staged_run_killed_in_its_second_stage_gives_the_same_model(tmp_path: Path) -> None:
    """SIGKILL in stage 2, after stage 1 has finished: see victim.py."""
    kills = deaths(tmp_path, 2, staged=True)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert all(kill["epoch"] >= 0 for kill in kills[1:]), f"no kill in the second stage: {kills}"
    for stage in (".", "stage-1"):
        assert same_weights(run_weights(whole / stage), run_weights(killed / stage))
        first, second = (pd.read_csv(run / stage / "metrics.csv") for run in (whole, killed))
        pd.testing.assert_frame_equal(first.drop(columns=TIMES), second.drop(columns=TIMES))
    assert not same_weights(run_weights(whole), run_weights(whole / "stage-1"))
