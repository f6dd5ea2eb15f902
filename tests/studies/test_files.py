"""The study files of this repository: read, resolved and planned, at each of their scales.

Nothing is trained and no data are opened. A file that is added to studies/ is tested as it is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from diascope.data.named import DATASETS
from diascope.errors import UserError
from diascope.objectives.base import objectives
from diascope.report.study.figures import check_figures
from diascope.studies.claims import CLAIMS
from diascope.studies.costs.passes import objective_passes
from diascope.studies.planning import Plan, plan_study
from diascope.studies.quantities import atoms, check, parse
from diascope.studies.study import NEXT, Study, read_study, scales_of
from diascope.training.config import TrainConfig

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(file for file in STUDIES.glob("*.yaml") if not file.name.startswith("_"))
SCALES = ("small", "paper")
EACH = [pytest.param(f.stem, scale, id=f"{f.stem}-{scale}") for f in FILES for scale in SCALES]
P1 = ["p0", *(f"p1{letter}" for letter in "abcdefghi"), "p1-layers", "p1-epsilon"]


@lru_cache
def study_of(name: str, scale: str) -> Study:
    return read_study(STUDIES / f"{name}.yaml", scale)


@lru_cache
def plan_of(name: str, scale: str) -> Plan:
    """Return the plan of the first seeds: of one, or of two where seeds are compared."""
    study = study_of(name, scale)
    several = any(
        spec.beside == "seeds" or any(name.endswith(NEXT) for name in spec.beside)
        for spec in study.evaluations.values()
    )
    some = study.model_copy(update={"seeds": study.seeds[: 1 + several]})
    return plan_study(some, STUDIES / f"{name}.yaml")


def config_of(name: str, scale: str, run: str) -> TrainConfig:
    study = study_of(name, scale)
    return study.config(run, study.seeds[0], STUDIES / f"{name}.yaml")


def check_claims(study: Study) -> None:
    for name, claim in study.claims.items():
        where = f"{study.name}: claims.{name}"
        for quantity in CLAIMS.build(claim.test, where).quantities:
            check(atoms(parse(quantity, where)), study, where)


@pytest.mark.parametrize("name", P1)
def test_every_row_of_p1_has_a_study(name: str) -> None:
    assert STUDIES / f"{name}.yaml" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_has_both_scales_and_says_what_it_is(file: Path) -> None:
    assert scales_of(file) == list(SCALES)
    for scale in SCALES:
        study = study_of(file.stem, scale)
        assert study.name == file.stem
        assert study.title.endswith("?")
        assert study.source
        assert study.caveats
        assert study.claims or study.untestable
        for claim in [*study.claims.values(), *study.untestable.values()]:
            assert claim.says.endswith(".")
            assert claim.where


@pytest.mark.parametrize(("name", "scale"), EACH)
def test_claims_and_figures_read_what_their_study_measures(name: str, scale: str) -> None:
    study = study_of(name, scale)
    check_claims(study)
    check_figures(study, name)


@pytest.mark.parametrize(("name", "scale"), EACH)
def test_the_plan_is_a_graph_without_waste(name: str, scale: str) -> None:
    plan, seen, needed = plan_of(name, scale), set[str](), set[str]()
    for job in plan.jobs:
        assert job.key not in seen
        assert set(job.needs) <= seen, f"{job.label} comes before what it needs"
        seen.add(job.key)
        needed |= set(job.needs)
    for job in plan.jobs:
        assert job.kind == "examine" or job.key in needed, f"{job.label}: nothing looks at it"


@pytest.mark.parametrize(("name", "scale"), EACH)
def test_data_are_named_ones_in_the_folder_of_all_data(name: str, scale: str) -> None:
    jobs = plan_of(name, scale).jobs
    told = [job.content["config"]["data"]["name"] for job in jobs if job.kind == "train"]
    tests = study_of(name, scale).tests.values()
    told += [test.data for test in tests if test.data is not None]
    for text in told:
        dataset, _, rest = text.partition(":")
        assert dataset in DATASETS.names()
        assert rest.startswith("{data}/") or dataset in ("phantom", "joined"), text


@pytest.mark.parametrize("scale", SCALES)
def test_studies_of_one_paper_share_their_trainings(scale: str) -> None:
    plans = [plan_of(name, scale) for name in P1]
    keys = [plan.runs for plan in plans]
    for run in ("standard", "at-eps4", "at-eps3", "at-eps1", "tuned-3-5"):
        theirs = {each[run][study_of("p1a", scale).seeds[0]] for each in keys if run in each}
        assert len(theirs) == 1
        assert sum(run in each for each in keys) > 1


def test_the_small_scale_of_p1_has_the_papers_epsilons_by_both_rules() -> None:
    small = {
        run: config_of("p1b", "small", run).build_objective().attack.eps  # type: ignore[union-attr]
        for run in ("at-eps1", "at-eps4", "at-eps9", "at-eps9-root")
    }
    assert small["at-eps4"] == pytest.approx(4 * (64 / 224) ** 2)
    assert small["at-eps9"] == pytest.approx(9 * small["at-eps1"])
    assert small["at-eps9-root"] == pytest.approx(9 * 64 / 224)


def test_the_paper_scale_of_p1_is_the_published_setting() -> None:
    robust = config_of("p1b", "paper", "at-eps4")
    attack: Any = robust.build_objective().attack
    assert (attack.eps, attack.steps, attack.rel_step_size) == (4.0, 7, 0.2)
    assert (robust.data.size, robust.model.pretrained, robust.training.epochs) == (224, True, 25)
    tuned = config_of("p1c", "paper", "tuned-3-5")
    assert (tuned.model.trainable, tuned.training.optimizer.lr) == (3, 1e-5)
    assert (tuned.training.patience, tuned.training.schedule.patience) == (10, 5)
    order = [run for run in study_of("p1b", "paper").runs if run.startswith("at-")]
    wanted = ["4", "1", "7", "9", "3", "5", "2", "8", "1.5", "4.5", "0.5"]
    assert order == [f"at-eps{eps}" for eps in wanted]


@pytest.mark.parametrize("scale", SCALES)
def test_layers_that_are_kept_come_from_the_right_model(scale: str) -> None:
    plan = plan_of("p1-layers", scale)
    jobs = {job.key: job for job in plan.jobs}
    for run, start, objective, trainable in (
        ("first-2-robust", "at-eps3", "standard", 3),
        ("last-3-robust", "standard", "adversarial", 3),
        ("first-3-robust", "at-eps3", "standard", 2),
        ("last-2-robust", "standard", "adversarial", 2),
        ("none-robust", "standard", "standard", 3),
        ("all-robust", "at-eps3", "adversarial", 3),
    ):
        job = jobs[plan.runs[run][0]]
        assert job.needs == (plan.runs[start][0],)
        config = job.content["config"]
        assert config["model"]["weights"] == f"{{run:{plan.runs[start][0]}}}"
        assert config["model"]["trainable"] == trainable
        assert config["objective"]["name"] == objective
        whole = jobs[plan.runs[start][0]].content["config"]["model"]
        assert config["model"]["options"] == whole["options"]


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"name": "greater", "a": "at-eps4/maps.gradient.gini", "b": "standrad/maps.gradient.gini"},
         "no run 'standrad'"),
        ({"name": "greater", "a": "at-eps4/maps.gradient.ginny", "b": 0}, "no column"),
        ({"name": "greater", "a": "at-eps4/map.gradient.gini", "b": 0}, "no evaluation 'map'"),
    ],
)  # fmt: skip
def test_a_name_that_leads_nowhere_is_found(
    tmp_path: Path, test: dict[str, Any], told: str
) -> None:
    file = tmp_path / "wrong.yaml"
    content = {
        "base": str(STUDIES / "p1a.yaml"),
        "every_run": {"base": str(STUDIES / "../configs/p1/standard.yaml")},
        "claims": {"wrong": {"says": "it is not.", "test": test}},
    }
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=told):
        check_claims(read_study(file))


def test_a_study_keeps_the_runs_it_lists(tmp_path: Path) -> None:
    file = tmp_path / "kept.yaml"
    content: dict[str, Any] = {"base": str(STUDIES / "p1a.yaml"), "keep": ["at-eps4", "standard"]}
    file.write_text(yaml.safe_dump(content))
    assert list(read_study(file).runs) == ["standard", "at-eps4"]  # in the order of the base
    file.write_text(yaml.safe_dump({**content, "keep": ["standart"]}))
    with pytest.raises(UserError, match="keep: no run 'standart': did you mean 'standard'"):
        read_study(file)


@pytest.mark.parametrize("scale", SCALES)
def test_the_long_runs_of_p4_cost_what_their_rivals_do(scale: str) -> None:
    study = study_of("p4-cost", scale)
    costs = {}
    for run in ("st-long", "sgt-0.3", "at-fgsm-long", "at-mix-long", "asgt"):
        config = study.config(run, 0, STUDIES / "p4-cost.yaml")
        objective = objectives.build(config.objective)
        costs[run] = config.training.epochs * objective_passes(objective, 10).units
    for run, rival in {"st-long": "sgt-0.3", "at-fgsm-long": "asgt", "at-mix-long": "asgt"}.items():
        assert costs[run] == pytest.approx(costs[rival], rel=0.05)
