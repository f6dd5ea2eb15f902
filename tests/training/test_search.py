"""The grid search: its folds, its choice, its refit, and what it leaves on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.training.test_run import Notes
from tests.training.toy import same_weights

from diascope.data import open_data
from diascope.errors import UserError
from diascope.training import Run, open_run, read_config, train
from diascope.training.search import judged, trials_of

DATA = "phantom:images=60,size=32"
CONFIG: dict[str, Any] = {
    "data": {"name": DATA, "size": 32, "split": {"fractions": [0.6, 0.1, 0.3]}},
    "model": {"name": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}},
    "training": {"epochs": 1, "batch_size": 16, "checkpoint_seconds": 0, "device": "cpu"},
    "search": {
        "grid": {"training.optimizer.lr": [1e-9, 0.02], "training": {"batch_size": [8]}},
        "folds": 2,
        "metric": "loss",
    },
}


def go(out: Path, *overrides: str, config: dict[str, Any] = CONFIG, **more: Any) -> Run:
    return train(read_config(config, overrides), out, **{"progress": Notes(), **more})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return go(tmp_path_factory.mktemp("runs") / "run")


def trial_runs(folder: Path) -> dict[tuple[float, str], Run]:
    """The trials' runs by learning rate and fold."""
    runs = [open_run(file.parent) for file in folder.glob("trials/*/fold-*/config.yaml")]
    return {
        (run.config.training.optimizer.lr, run.config.data.split.fold or ""): run for run in runs
    }


def test_every_trial_is_a_run_on_every_fold(found: Run) -> None:
    runs = trial_runs(found.folder)
    assert runs.keys() == {(lr, fold) for lr in (1e-9, 0.02) for fold in ("1/2", "2/2")}
    whole = open_data(DATA).split(0, (0.6, 0.1, 0.3))
    training = {*whole.train.table.path, *whole.val.table.path}
    for lr in (1e-9, 0.02):
        held = []
        for fold in ("1/2", "2/2"):
            split = pd.read_csv(runs[lr, fold].folder / "split.csv")
            held += list(split.path[split.split == "val"])
            assert set(split.path[split.split == "test"]) == set(whole.test.table.path)
        assert sorted(held) == sorted(training)


def test_the_table_holds_every_trial_and_the_best_is_refitted_on_all(found: Run) -> None:
    runs, table = trial_runs(found.folder), pd.read_csv(found.folder / "search.csv")
    assert table["training.optimizer.lr"].tolist() == [1e-9, 0.02]
    assert table["training.batch_size"].tolist() == [8, 8]
    for row in table.to_dict("records"):
        lr = row["training.optimizer.lr"]
        values = [runs[lr, fold].metrics.val_loss.iloc[0] for fold in ("1/2", "2/2")]
        assert [row["fold_1"], row["fold_2"]] == pytest.approx(values)
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert (found.folder / "trials" / row["trial"] / "fold-2").is_dir()
    lowest = table["training.optimizer.lr"][table["mean"].argmin()]
    config = found.config
    assert config.training.optimizer.lr == lowest
    assert (config.training.select, config.data.split.fold, config.search) == ("last", "all", None)
    split = pd.read_csv(found.folder / "split.csv")
    assert sorted(set(split.split)) == ["test", "train"]
    whole = open_data(DATA).split(0, (0.6, 0.1, 0.3))
    assert (split.split == "train").sum() == len(whole.train) + len(whole.val)


def test_the_best_is_a_configuration_for_other_objectives(found: Run, tmp_path: Path) -> None:
    text = (found.folder / "best.yaml").read_text()
    assert text.startswith("# The best of 2 trials by loss, ")
    again = train(read_config(found.folder / "best.yaml"), tmp_path / "again", progress=Notes())
    assert same_weights(again.model(), found.model())
    top = {"base": str(found.folder / "best.yaml")}
    top["objective"] = {"name": "adversarial", "eps": 0.1, "attack": "fgsm"}
    (tmp_path / "top.yaml").write_text(yaml.safe_dump(top))
    config = read_config(tmp_path / "top.yaml")
    assert config.build_objective().attack.eps == 0.1
    assert config.training.optimizer.lr == found.config.training.optimizer.lr
    assert config.training.select == "last"


def test_a_search_goes_on_and_trains_nothing_twice(found: Run, tmp_path: Path) -> None:
    class Stops(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            if text.startswith("fold 2") and any("trial 2" in note for note in self.notes):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, progress=Stops())
    with pytest.raises(UserError, match="holds an unfinished run; go on with --resume"):
        go(tmp_path)
    done = {file: file.stat().st_mtime_ns for file in tmp_path.glob("trials/*/*/model.safetensors")}
    assert len(done) == 3
    assert len(pd.read_csv(tmp_path / "search.csv")) == 1
    notes = Notes()
    resumed = go(tmp_path, "training.checkpoint_seconds=5", resume=True, progress=notes)
    assert sum("is finished; nothing to resume" in note for note in notes.notes) == 3
    assert all(file.stat().st_mtime_ns == time for file, time in done.items())
    assert same_weights(resumed.model(), found.model())
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "search.csv"), pd.read_csv(found.folder / "search.csv")
    )
    assert go(tmp_path, resume=True).epoch == 1
    for folder in (tmp_path, found.folder):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert "search" in config


def test_stages_are_searched_in_the_last_and_every_stage_is_refitted(tmp_path: Path) -> None:
    stages = [{"model.trainable": 1, "training.optimizer.lr": 0.001}, {}]
    grid = {"grid": {"training.optimizer.lr": [0.01]}, "folds": 2}
    run = go(tmp_path, config={**CONFIG, "stages": stages, "search": grid})
    (trial,) = (tmp_path / "trials").iterdir()
    for folder in (tmp_path, trial / "fold-1", trial / "fold-2"):
        first, last = open_run(folder / "stage-1").config, open_run(folder).config
        assert (first.training.optimizer.lr, last.training.optimizer.lr) == (0.001, 0.01)
        assert first.data.split.fold == last.data.split.fold
    first = open_run(run.folder / "stage-1")
    assert (first.config.data.split.fold, first.config.training.select) == ("all", "last")


def test_of_equal_trials_the_first_is_taken(tmp_path: Path) -> None:
    grid = {"grid": {"training.checkpoint_seconds": [1, 2]}, "folds": 2}
    run = go(tmp_path, config={**CONFIG, "search": grid})
    table = pd.read_csv(tmp_path / "search.csv")
    assert table["mean"].nunique() == 1
    assert run.config.training.checkpoint_seconds == 1
    assert len(list((tmp_path / "trials").iterdir())) == 1, "the trials are the same training"


def test_a_trial_whose_loss_is_not_finite_loses(tmp_path: Path) -> None:
    wild = {"training.optimizer": [{"name": "sgd", "lr": 1e30}, {"name": "sgd", "lr": 1e-3}]}
    run = go(tmp_path / "a", config={**CONFIG, "search": {"grid": wild, "folds": 2}})
    assert run.config.training.optimizer.lr == 1e-3
    table = pd.read_csv(tmp_path / "a" / "search.csv")
    assert table["mean"].isna().tolist() == [True, False]
    only = {"grid": {"training.optimizer": wild["training.optimizer"][:1]}, "folds": 2}
    with pytest.raises(UserError, match="no trial kept a finite loss on every fold"):
        go(tmp_path / "b", config={**CONFIG, "search": only})


def test_trials_come_in_the_order_of_the_grid() -> None:
    search = {"grid": {"training.batch_size": [8, 4], "model.options.drop_rate": [0.1, 0.2]}}
    trials = trials_of(read_config({**CONFIG, "search": search}))
    assert [list(trial.values.values()) for trial in trials] == [
        [8, 0.1],
        [8, 0.2],
        [4, 0.1],
        [4, 0.2],
    ]
    assert [t.config.model.options["drop_rate"] for t in trials] == [0.1, 0.2, 0.1, 0.2]
    assert trials[0].config.model.options["layers"] == [1, 1, 1, 1]
    assert len({trial.key for trial in trials}) == 4
    fewer = trials_of(read_config({**CONFIG, "search": {**search, "folds": 3}}))
    assert {t.key for t in fewer}.isdisjoint(t.key for t in trials)


def test_a_run_is_judged_at_the_epoch_it_selected(found: Run, tmp_path: Path) -> None:
    rows = {"epoch": [1, 2], "val_accuracy": [0.9, 0.2], "val_loss": [1.0, 2.0]}
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    search = read_config(CONFIG, ["search.metric=accuracy"]).search
    assert search is not None
    assert judged(Run(tmp_path, found.config, 1), search) == 0.9
    assert judged(Run(tmp_path, found.config, 2), search) == 0.2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": {"training.lr": [1]}}, "search.grid: unknown key 'training.lr'"),
        ({"grid": {"training.batch_size": [0]}}, "search.grid: 'training.batch_size' = 0"),
        ({"grid": {"data.size": [32]}}, "a search goes over model, objective or training"),
        ({"grid": {"training.batch_size": []}}, "has no value to try"),
        ({"grid": {"training.batch_size": 8}}, "valid list"),
        ({"grid": {}}, "search.grid"),
        ({"folds": 1}, "search.folds"),
        ({"metric": "accurracy"}, "search.metric"),
        ({"metric": "adversarial_accuracy"}, "the objective has no attack"),
        ({"grid": {"training.patience": [3]}}, "the refit has no validation images"),
        ({"grid": {"training.schedule": ["plateau"]}}, "the refit has no validation images"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    content = {**CONFIG, "search": {**CONFIG["search"], **change}}
    with pytest.raises(UserError, match=words) as caught:
        go(tmp_path / "run", config=content)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="search: makes its own folds"):
        go(tmp_path / "run", "data.split.fold=1/2")
