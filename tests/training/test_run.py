from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tests.training.toy import same_weights

from diascope.data import open_data
from diascope.data.phantom import PhantomReader
from diascope.errors import UserError
from diascope.evaluation import read_table
from diascope.models import load_model
from diascope.settings import override
from diascope.training import Progress, Run, open_run, read_config, train

CONFIG: dict[str, Any] = {
    "data": {"name": "phantom:images=60,size=32", "size": 32},
    "model": {"name": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}},
    "objective": {"name": "adversarial", "eps": 4.0, "eps_reference": 224, "attack": "fgsm"},
    "training": {"epochs": 2, "batch_size": 16, "checkpoint_seconds": 1e9, "device": "cpu"},
}


class Notes(Progress):
    def __init__(self, stop_at: str = "") -> None:
        self.notes: list[str] = []
        self.stop_at = stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, row: Any, epochs: int, best: bool, left: float) -> None:
        if self.stop_at == f"epoch {row['epoch']}":
            raise KeyboardInterrupt


def go(out: Path, *overrides: str, resume: bool = False, progress: Progress | None = None) -> Run:
    return train(read_config(CONFIG, overrides), out, resume, progress or Notes())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return go(tmp_path_factory.mktemp("runs") / "run")


def test_a_run_folder_holds_what_a_reader_needs(run: Run) -> None:
    assert {file.name for file in run.folder.iterdir()} == {
        "config.yaml",
        "split.csv",
        "metrics.csv",
        "model.safetensors",
        "validation.parquet",
    }
    assert open_run(run.folder) == run
    model = run.model()
    card = model.card
    assert card["classes"] == ["nevus", "keratosis", "melanoma"]
    assert card["size"] == 32
    assert card["preprocess"] == {"crop": "centre-square", "channels": 3}
    assert card["objective"]["attack"]["eps"] == pytest.approx(4 * (32 / 224) ** 2)
    assert card["epoch"] == run.epoch
    assert run.metrics.epoch.tolist() == [1, 2]
    assert card["metrics"]["val_loss"] == pytest.approx(run.metrics.val_loss[run.epoch - 1])


def test_the_configuration_is_complete_and_makes_the_same_run_again(
    run: Run, tmp_path: Path
) -> None:
    content = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert content["training"]["device"] == "cpu"
    assert content["training"]["precision"] in ("32-true", "bf16-mixed")
    assert content["training"]["metric"] == "adversarial_accuracy"
    record = content["record"]
    assert {"diascope", "torch", "timm", "python", "commit", "hardware"} <= record.keys()
    split = pd.read_csv(run.folder / "split.csv")
    counts = record["data"]["images"]
    assert {k: sum(v.values()) for k, v in counts.items()} == split.split.value_counts().to_dict()
    again = train(read_config(run.folder / "config.yaml"), tmp_path / "again", progress=Notes())
    assert same_weights(again.model(), run.model())


def test_the_predictions_are_those_of_the_chosen_epoch(run: Run) -> None:
    table, about = read_table(run.folder / "validation.parquet")
    row = run.metrics.iloc[run.epoch - 1]
    assert table.correct.mean() == pytest.approx(row.val_accuracy)
    assert table.loss.mean() == pytest.approx(row.val_loss, abs=1e-5)
    assert about["epoch"] == run.epoch
    split = pd.read_csv(run.folder / "split.csv")
    assert set(table.path) == set(split[split.split == "val"].path)


def test_test_images_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: set[str] = set()
    read = PhantomReader.image

    def watched(self: PhantomReader, path: str) -> Any:
        opened.add(path)
        return read(self, path)

    monkeypatch.setattr(PhantomReader, "image", watched)
    go(tmp_path, "training.epochs=1")
    split = pd.read_csv(tmp_path / "split.csv")
    assert opened == set(split[split.split != "test"].path)


def test_a_split_file_is_obeyed(run: Run, tmp_path: Path) -> None:
    split = pd.read_csv(run.folder / "split.csv", keep_default_na=False)
    split["split"] = split.split.replace({"test": "val", "val": "test"})
    split.to_csv(tmp_path / "given.csv", index=False)
    other = go(tmp_path / "run", f"data.split.file={tmp_path / 'given.csv'}", "training.epochs=1")
    table, _ = read_table(other.folder / "validation.parquet")
    assert set(table.path) == set(split[split.split == "val"].path)


def test_a_run_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    before = (run.folder / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds a finished run"):
        go(run.folder)
    notes = Notes()
    assert go(run.folder, resume=True, progress=notes) == run
    assert notes.notes == [f"{run.folder}: is finished; nothing to resume"]
    with pytest.raises(UserError, match=r"training.seed = 0, cannot be resumed with 1"):
        go(run.folder, "training.seed=1", resume=True)
    with pytest.raises(UserError, match=r"epochs = 2, cannot be resumed with 3 \(it is finished\)"):
        go(run.folder, "training.epochs=3", resume=True)
    assert (run.folder / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        go(tmp_path / "file")
    with pytest.raises(UserError, match="name a folder"):
        train(read_config(CONFIG))


def test_an_unfinished_run_is_resumed_and_not_begun_anew(run: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, progress=Notes(stop_at="epoch 1"))
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(UserError, match="unfinished run; go on with --resume"):
        go(tmp_path)
    with pytest.raises(UserError, match="began with objective.attack.eps = 0.08"):
        go(tmp_path, "objective.eps=5", resume=True)
    notes = Notes()
    resumed = go(tmp_path, "training.checkpoint_seconds=3", resume=True, progress=notes)
    assert notes.notes[0] == "resumed in epoch 2, after step 0"
    assert same_weights(resumed.model(), run.model())
    assert (tmp_path / "split.csv").read_text() == (run.folder / "split.csv").read_text()


def test_what_is_written_stands_in_for_auto_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "training.precision=bf16-mixed", progress=Notes(stop_at="epoch 1"))
    go(tmp_path, resume=True)
    assert open_run(tmp_path).config.training.precision == "bf16-mixed"


def test_changed_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", progress=Notes(stop_at="epoch 1"))
    read = PhantomReader.image
    monkeypatch.setattr(PhantomReader, "image", lambda self, path: 255 - read(self, path))
    monkeypatch.setenv("DIASCOPE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="images, labels or splits of phantom have changed"):
        go(tmp_path / "run", resume=True)


def test_resume_where_nothing_is_begins(tmp_path: Path) -> None:
    assert go(tmp_path / "new", "training.epochs=1", resume=True).epoch == 1


def test_a_mistake_leaves_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="timm has no such model"):
        go(tmp_path, "model.name=resnet81")
    go(tmp_path, "training.epochs=1")


def test_unusable_images_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(16):
            pixels = draw.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    dataset = open_data(str(tmp_path / "images"))
    seen = dataset.split().train.table.path[0]
    (tmp_path / "images" / seen).write_bytes(b"not an image")
    here = [f"data.name={tmp_path / 'images'}", "training.epochs=1"]
    with pytest.raises(UserError, match="verify|skip"):
        go(tmp_path / "run", *here)
    notes = Notes()
    result = go(tmp_path / "run", *here, "data.skip_unreadable=true", progress=notes)
    assert any("1 unusable images are left out" in note for note in notes.notes)
    record = yaml.safe_load((result.folder / "config.yaml").read_text())["record"]
    assert record["data"]["skipped"] == 1


def test_grey_images_and_two_classes(tmp_path: Path) -> None:
    data = ["data.channels=1", "data.classes=[nevus, melanoma]", "training.epochs=1"]
    result = go(tmp_path, *data, "training.class_weights=inverse-frequency")
    model = load_model(result.folder)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 2)


def test_the_model_is_drawn_by_the_seed(tmp_path: Path) -> None:
    still = override(CONFIG, ["training.optimizer.lr=1e-30", "training.epochs=1"])
    a, b = (
        train(
            read_config(still, [f"training.seed={seed}"]), tmp_path / str(seed), progress=Notes()
        ).model()
        for seed in (0, 1)
    )
    assert not torch.equal(a.backbone.conv1.weight, b.backbone.conv1.weight)
