"""The configurations in `configs/`: all can be read, and hold what the papers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.training.test_run import Notes

from diascope.data import open_data
from diascope.data.named import DATASETS
from diascope.models import create_model, layer_groups
from diascope.models.attention import check_attention
from diascope.models.create import is_known
from diascope.training import TrainConfig, open_run, read_config, train
from diascope.training.fit import settled, validation_attack
from diascope.training.search import trials_of

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PAPERS = {"p1": "Margeloiu et al. 2020", "p2": "Wasserman 2022", "p3": "Li et al. 2022"}
PAPERS |= {"p4": "ASGT 2024"}


def read(name: str, *overrides: str) -> TrainConfig:
    return read_config(CONFIGS / f"{name}.yaml", overrides)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_every_configuration_can_be_trained_as_far_as_reading_tells(path: Path) -> None:
    config = read_config(path)
    assert config.data.name.partition(":")[0] in DATASETS.names()
    for stage in (*config.stages_before(), config):
        here = settled(stage.training, stage.build_objective())
        assert is_known(stage.model.name)
        check_attention(stage.model.attention)
        if sum(config.data.split.fractions[1:]) == config.data.split.fractions[2]:
            assert (here.select, here.patience) == ("last", None), "there is no validation"
    assert config.resolved().to_dict() == config.to_dict()


OF_PAPERS = [p for p in FILES if p.parent.name in PAPERS]


@pytest.mark.parametrize("path", OF_PAPERS, ids=lambda p: p.stem)
def test_a_papers_configuration_names_paper_section_and_command(path: Path) -> None:
    paper, lines = path.parent.name, path.read_text().splitlines()
    assert lines[0].startswith(f"# {paper.upper()}, {PAPERS[paper]}, ")
    assert any(word in lines[0] for word in ("section", "append", "algorithm", "table"))
    assert any(f"diascope train configs/{paper}/{path.name} " in line for line in lines[:5])
    assert all(len(line) <= 100 for line in lines)


def test_p1_trains_the_head_then_all() -> None:
    config = read("p1/standard")
    (head,) = config.stages_before()
    assert (head.model.trainable, head.training.epochs, head.training.batch_size) == (1, 10, 32)
    assert (head.training.optimizer.lr, head.training.schedule.name) == (1e-3, "constant")
    assert (config.model.trainable, config.training.epochs) == (None, 25)
    assert (config.training.batch_size, config.training.optimizer.lr) == (16, 3e-4)
    assert (config.training.schedule.every, config.training.schedule.factor) == (15, 0.1)
    for stage in (head, config):
        assert (stage.training.optimizer.name, stage.training.optimizer.weight_decay) == (
            "adam",
            5e-4,
        )
        assert stage.training.select == "last"
        assert stage.model.pretrained


def test_p1_searches_nine_combinations_of_the_second_stage() -> None:
    config = read("p1/search")
    trials = trials_of(config)
    assert len(trials) == 9
    for trial in trials:
        (head,) = trial.config.stages_before()
        assert (head.training.optimizer.lr, head.training.batch_size) == (1e-3, 32)
    last = [(t.config.training.optimizer.lr, t.config.training.batch_size) for t in trials]
    assert sorted(set(last)) == [(r, b) for r in (1e-4, 3e-4, 1e-3) for b in (8, 16, 32)]
    refit = trials[4].refit()
    assert refit.data.split.fold == "all"


def test_p1_adversarial_differs_by_the_objective_alone() -> None:
    standard, robust = read("p1/standard"), read("p1/adversarial")
    for a, b in zip(
        (*standard.stages_before(), standard), (*robust.stages_before(), robust), strict=True
    ):
        assert a.training == b.training
        attack: Any = b.build_objective().attack
        assert (attack.eps, attack.steps, attack.norm) == (4.0, 7, "l2")
        assert (attack.rel_step_size, attack.random_start) == (0.2, True)
    smaller = read("p1/adversarial", "data.size=112").build_objective().attack
    assert smaller is not None
    assert smaller.eps == pytest.approx(1.0)


def test_p1_takes_a_found_configuration_as_base(tmp_path: Path) -> None:
    import yaml

    best = trials_of(read("p1/search"))[0].refit()
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(best.to_dict()))
    robust = read("p1/adversarial", f"base={tmp_path / 'best.yaml'}")
    assert robust.training == best.training
    assert robust.data.split.fold == "all"
    assert [stage.build_objective().attack.eps for stage in robust.stages_before()] == [4.0]


def test_p1_fine_tunes_on_the_same_training_images() -> None:
    config = read("p1/fine-tune")
    assert (config.stages, config.model.trainable, config.model.pretrained) == ([], 3, False)
    assert (config.training.optimizer.lr, config.training.patience) == (1e-5, 10)
    assert (config.training.schedule.name, config.training.schedule.patience) == ("plateau", 5)
    assert config.training.metric == "loss"
    data = open_data("phantom:images=1200,size=32")
    first, second = (
        data.split(c.data.split.seed, c.data.split.fractions) for c in (read("p1/standard"), config)
    )
    assert set(first.train.table.path) == set(second.train.table.path)
    rest = {*second.val.table.path, *second.test.table.path}
    assert rest == set(first.test.table.path)
    assert len(second.val) > 0


def test_p1_finds_its_800_and_299_images_a_class(shared_data: Path) -> None:
    data = read("p1/standard").data
    root = f"{data.name}:{shared_data / 'ham10000'}"
    splits = open_data(root, data.classes, **data.options).split(0, data.split.fractions)
    assert splits.train.counts == {"mel": 800, "nv": 800, "bkl": 800}
    assert splits.test.counts == {"mel": 299, "nv": 299, "bkl": 299}
    part = open_data(root, data.classes, **data.options).split(
        0, read("p1/fine-tune").data.split.fractions
    )
    assert (len(part.val), len(part.test)) == (149, 748)


def test_p2_stops_early_and_sees_a_tenth() -> None:
    for name in ("resnet50", "resnet50-soft", "inception-resnet-v2", "inception-resnet-v2-soft"):
        config = read(f"p2/{name}")
        training = config.training
        assert (training.optimizer.lr, training.optimizer.eps, training.epochs) == (0.01, 0.1, 300)
        assert (training.patience, training.min_delta, training.epoch_share) == (40, 1e-3, 0.1)
        assert training.class_weights == "inverse-frequency"
        assert config.data.size == (299 if "inception" in name else 224)
        assert (config.model.attention or "").startswith("soft") == name.endswith("soft")


def test_p3_draws_the_epsilon_for_each_batch() -> None:
    for name in ("adversarial", "sga"):
        epsilon = read(f"p3/{name}").training.epsilon
        assert (epsilon.name, epsilon.low, epsilon.high) == ("uniform", 0.01, 0.05)
    for name in ("standard", "adversarial", "saliency-guided", "sga"):
        training = read(f"p3/{name}").training
        assert (training.epochs, training.batch_size, training.select) == (30, 64, "best")
        assert training.optimizer.name == "sgd"
    sga: Any = read("p3/sga").build_objective()
    assert (sga.k, sga.lam, sga.attack.norm) == (0.1, 1.0, "linf")


def test_p3_reads_its_data(shared_data: Path) -> None:
    data = read("p3/sga").data
    dataset = open_data(f"{data.name}:{shared_data / 'cxr_radiography'}", **data.options)
    assert dataset.counts == {"negative": 1000, "COVID-19": 1000}
    assert dataset.reader.image(dataset.table.path[0]).shape == (224, 224, 1)


@pytest.mark.parametrize(
    ("data", "settings", "k"),
    [("mnist", (20, 128, 1e-2), 0.3), ("cifar10", (100, 256, 1e-4), 0.1)],
)
def test_p4_differs_by_the_objective_alone(
    data: str, settings: tuple[int, int, float], k: float
) -> None:
    found = {path.stem.removeprefix(data): path for path in (CONFIGS / "p4").glob(f"{data}*")}
    assert len(found) == 6
    for path in found.values():
        config = read_config(path)
        training = config.training
        assert (training.epochs, training.batch_size, training.optimizer.lr) == settings
        assert training == read(f"p4/{data}").training
        assert config.data == read(f"p4/{data}").data
    asgt: Any = read_config(found["-asgt"]).build_objective()
    assert (asgt.k, asgt.lam, asgt.attack.norm) == (k, 1.0, "linf")
    guided: Any = read_config(found[f"-sgt-{k}"]).build_objective()
    assert (guided.k, guided.attack) == (k, None)
    assert validation_attack(training, asgt) is not None


def test_p1_whole_recipe_on_the_phantom(tmp_path: Path) -> None:
    """Search, refit, adversarial training with what was found, fine-tuning: small, but whole."""
    small = [
        "data={name: 'phantom:images=90,size=32', size: 32}",
        "model.pretrained=false",
        "model.options={layers: [1, 1, 1, 1], channels: [4, 4, 4, 4]}",
        "training.epochs=1",
        "training.device=cpu",
    ]
    grid = ["search.folds=2", "search.grid={training.optimizer.lr: [0.01, 0.001]}"]
    search, robust, tuned = (tmp_path / name for name in ("search", "robust", "tuned"))
    train(read("p1/search", *small, *grid), search, progress=Notes())
    base = f"base={search / 'best.yaml'}"
    adversarial = read("p1/adversarial", base, "objective.attack.steps=1")
    train(adversarial, robust, progress=Notes())
    found, reused = open_run(search).config, open_run(robust).config
    metric = {"metric": found.training.metric}
    assert reused.training.model_copy(update=metric) == found.training
    fine = read("p1/fine-tune", *small, f"model.weights={robust}")
    run = train(fine, tuned, progress=Notes())
    start, end = open_run(robust).model().state_dict(), run.model().state_dict()
    moved = {key for key in end if not (end[key] == start[key]).all()}
    groups = layer_groups(create_model("resnet18", 3, **fine.model.options))
    assert len(groups) == 5
    assert {key.split(".")[1] for key in moved} == {"layer3", "layer4", "fc"}
