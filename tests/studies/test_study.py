"""Study files: how they lie on top of one another, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.studies.toystudy import TOY, written

from diascope.errors import UserError
from diascope.studies.layering import assigned, lay
from diascope.studies.planning import plan_study
from diascope.studies.study import read_study, scales_of


def config(file: Path, run: str, seed: int = 0, **options: Any) -> Any:
    return read_study(file, **options).config(run, seed, file)


def test_dotted_keys_set_one_value_and_a_mapping_with_a_name_is_complete(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        runs={
            "renamed": {"data.name": "phantom:images=30,size=16"},
            "renewed": {"data": {"name": "phantom:images=30,size=16", "size": 32}},
            "attacked": {"objective": {"name": "adversarial", "attack": {"name": "fgsm"}}},
        },
    )
    assert config(file, "renamed").data.size == 16
    assert config(file, "renamed").data.name == "phantom:images=30,size=16"
    assert config(file, "renamed").data.split.fractions == (0.5, 0.2, 0.3)
    assert config(file, "renewed").data.size == 32
    assert config(file, "renewed").data.split.fractions != (0.5, 0.2, 0.3)
    assert config(file, "attacked").objective["attack"]["name"] == "fgsm"
    assert config(file, "attacked", seed=7).training.seed == 7


def test_scales_are_laid_over_the_study_and_assignments_over_both(tmp_path: Path) -> None:
    scales = {
        "small": {"every_run.training.epochs": 3, "runs": {"second": None}, "seeds": [4]},
        "paper": {"runs": {"eps1.5": {"objective": "standard", "training.epochs": 9}}},
    }
    file = written(tmp_path, scales=scales)
    assert scales_of(file) == ["small", "paper"]
    small, paper = read_study(file), read_study(file, "paper")
    assert list(small.runs) == ["first"]
    assert small.seeds == [4]
    assert config(file, "first").training.epochs == 3
    assert list(paper.runs) == ["first", "second", "eps1.5"]
    assert config(file, "eps1.5", scale="paper").training.epochs == 9
    words = ["runs.eps1.5.training.epochs=2", "evaluations.clean.on=other", "tests.other.images=3"]
    changed = read_study(file, "paper", words)
    assert changed.config("eps1.5", 0, file).training.epochs == 2
    assert changed.evaluations["clean"].on == "other"
    assert changed.tests["other"].images == 3
    assert changed.runs["eps1.5"] == {"objective": "standard", "training.epochs": 2}


def test_a_study_lies_on_its_base_with_scales_of_both(tmp_path: Path) -> None:
    written(tmp_path, "_base.yaml", scales={"small": {"runs": {"third": {}}}})
    (tmp_path / "upper.yaml").write_text(
        "base: _base.yaml\ntitle: upper\nscales: {small: {runs: {second: }}, paper: {seeds: [1]}}"
    )
    small = read_study(tmp_path / "upper.yaml")
    assert (small.name, small.title) == ("upper", "upper")
    assert list(small.runs) == ["first", "third"]
    assert read_study(tmp_path / "upper.yaml", "paper").seeds == [1]


def test_a_run_lies_on_a_configuration_named_for_it_or_for_all(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    base = {**TOY["every_run"], "training": {**TOY["every_run"]["training"], "epochs": 6}}
    (tmp_path / "far" / "base.yaml").write_text(yaml.safe_dump({**base, "out": "elsewhere"}))
    study = {"title": "t", "seeds": [0], "runs": {"a": {"training.batch_size": 4}, "b": None}}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**study, "every_run": {"base": "far/base.yaml"}}))
    assert config(file, "a").training.epochs == config(file, "b").training.epochs == 6
    assert (config(file, "a").training.batch_size, config(file, "b").training.batch_size) == (4, 10)
    assert config(file, "a").out is None


def test_on_without_quotes_is_a_word(tmp_path: Path) -> None:
    file = written(tmp_path)
    text = file.read_text().replace("'on': held-out", "on: held-out")
    assert yaml.safe_load(text)["evaluations"]["clean"][True] == "held-out"
    file.write_text(text)
    assert read_study(file).evaluations["clean"].on == "held-out"


def test_names_and_published_numbers_may_hold_dots() -> None:
    below = lay({}, {"claims": {"a": {"published": {"FGSM 0.25": 1}}}, "runs": {"eps0.5": {}}})
    assert below["claims"]["a"]["published"] == {"FGSM 0.25": 1}
    above = assigned(below, ["runs.eps0.5.training.epochs=2", "claims.a.says=x=y"])
    assert above["runs"] == {"eps0.5": {"training.epochs": 2}}
    assert above["claims"]["a"]["says"] == "x=y"
    assert below["runs"] == {"eps0.5": {}}


CLAIM_OF = {"says": "s", "test": {"name": "greater", "a": "first/clean.correct", "b": 0.5}}
TYPOS = [
    (["runs.frist.training.epochs=1"], "no run 'frist': did you mean 'first'?"),
    (["runs.secnd="], "no run 'secnd': did you mean 'second'?"),
    (["evaluations.claen.on=held-out"], "no evaluation 'claen': did you mean 'clean'?"),
    (["claims.bette.test.b=0.6"], "no claim 'bette': did you mean 'better'?"),
    (["tests.heldout.images=3"], "no test 'heldout': did you mean 'held-out'?"),
]


@pytest.mark.parametrize(("words", "said"), TYPOS, ids=[words[0] for words, _ in TYPOS])
def test_what_differs_names_what_is_there(tmp_path: Path, words: list[str], said: str) -> None:
    file = written(tmp_path, claims={"better": CLAIM_OF})
    with pytest.raises(UserError) as error:
        read_study(file, "small", words)
    assert str(error.value) == f"{file}: {said}"
    key, _, value = words[0].partition("=")
    scaled = written(tmp_path, "scaled.yaml", claims={"better": CLAIM_OF}, scales={"paper": 0})
    content = yaml.safe_load(scaled.read_text())
    content["scales"] = {"paper": {key: yaml.safe_load(value)}}
    scaled.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as error:
        read_study(scaled, "paper")
    assert str(error.value) == f"{scaled}: scales.paper: {said}"


def test_what_differs_may_add_what_is_whole(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TOY["every_run"]))
    words = [
        "runs.third.training.epochs=3",
        "runs.third.base=base.yaml",
        "runs.fourth={objective: standard}",
        "runs.fourth.training.epochs=4",
        "claims.c={says: s, test: {name: greater, a: third/clean.correct, b: 0.5}}",
    ]
    study = read_study(written(tmp_path), "small", words)
    assert list(study.runs) == ["first", "second", "third", "fourth"]
    assert study.runs["fourth"]["training.epochs"] == 4
    assert list(study.claims) == ["c"]


def test_bases_of_runs_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    for name, epochs in (("paper", 6), ("mine", 7)):
        (tmp_path / name).mkdir()
        base = {**TOY["every_run"], "training": {**TOY["every_run"]["training"], "epochs": epochs}}
        (tmp_path / name / "b.yaml").write_text(yaml.safe_dump(base))
    written(
        tmp_path / "paper",
        every_run={"base": "b.yaml"},
        runs={"third": {"base": "b.yaml", "training.batch_size": 4}},
        scales={"small": {"runs": {"fourth": {"base": "b.yaml"}}}},
    )
    file = tmp_path / "mine" / "s.yaml"
    file.write_text(
        "base: ../paper/toy.yaml\nruns: {fifth: {base: b.yaml}}\nevery_run.training: {}"
    )
    study = read_study(file)
    assert [study.runs[name]["base"] for name in ("third", "fourth", "fifth")] == [
        "../paper/b.yaml", "../paper/b.yaml", "b.yaml",
    ]  # fmt: skip
    assert str(tmp_path) not in str(study.model_dump())
    found = {name: study.config(name, 0, file).data.size for name in study.runs}
    assert set(found.values()) == {16}


CLAIM = {"says": "s", "test": {"name": "greater", "a": "first/clean.correct", "b": 0.5}}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no title": ({"title": None}, "'title'"),
    "unknown key": ({"claim": {}}, "unknown key 'claim': did you mean 'claims'?"),
    "a key that is written wrongly": (
        {"title": None, "titel": "x"},
        "unknown key 'titel': did you mean 'title'?",
    ),
    "a mistake within a measure": (
        {
            "evaluations.clean.measure": {
                "name": "robust",
                "epsilons": [0.1],
                "attacks": {"fgm": {}},
            }
        },
        "evaluations.clean: ",
    ),
    "no seeds": ({"seeds": []}, "'seeds'"),
    "a seed twice": ({"seeds": [1, 1]}, "give each seed once"),
    "a seed that is no number": ({"seeds": ["a"]}, "'seeds.0' = 'a'"),
    "no runs": ({"runs": {"first": None, "second": None}}, "'runs'"),
    "runs as a list": ({"runs": ["first"]}, "'runs' = ['first']"),
    "a run that is a word": ({"runs": {"first": "standard"}}, "'runs.first' = 'standard'"),
    "a name with a slash": ({"runs": {"a/b": {}}}, "runs: 'a/b': a name is of letters"),
    "an evaluation with a dot": (
        {"evaluations": {"a.b": {"measure": "predictions", "on": "held-out"}}},
        "evaluations: 'a.b': a name is of letters",
    ),
    "an unknown key of a run": (
        {"runs": {"first": {"training.epoch": 2}}},
        "runs.first: unknown key 'training.epoch': did you mean 'epochs'?",
    ),
    "a wrong value of a run": (
        {"every_run": {"training.epochs": "many"}},
        "runs.first: 'training.epochs' = 'many'",
    ),
    "an unknown objective": (
        {"runs": {"second": {"objective": {"name": "advesarial"}}}},
        "runs.second: objective: unknown objective 'advesarial': did you mean 'adversarial'?",
    ),
    "a base that is not there": ({"runs": {"first": {"base": "no.yaml"}}}, "no.yaml: there is no"),
    "a base that is no word": ({"runs": {"first": {"base": 3}}}, "runs.first: 'base' = 3"),
    "a run that starts from no run": (
        {"runs": {"first": {"model.weights": "{run:secnd}"}}},
        "runs.first: no run 'secnd': did you mean 'second'?",
    ),
    "a run that starts from itself": (
        {"runs": {"first": {"model.weights": "{run:first}"}}},
        "runs.first: starts from itself (first -> first)",
    ),
    "two runs that start from each other": (
        {
            "runs": {
                "first": {"model.weights": "{run:second}"},
                "second": {"model.weights": "{run:first}"},
            }
        },
        "starts from itself (first -> second -> first)",
    ),
    "no such test": ({"evaluations.clean.on": "heldout"}, "no test 'heldout': did you mean"),
    "no such measure": (
        {"evaluations.clean.measure": "prediction"},
        "evaluations.clean: unknown evaluation 'prediction': did you mean 'predictions'?",
    ),
    "an unknown setting of a measure": (
        {"evaluations.clean.measure": {"name": "predictions", "many": 1}},
        "evaluations.clean: unknown key 'many'",
    ),
    "an examination of no run": (
        {"evaluations.clean.runs": ["third"]},
        "evaluations.clean: no run 'third'",
    ),
    "beside no run": ({"evaluations.clean.beside": ["third"]}, "evaluations.clean: no run 'third'"),
    "all of the run's own images": ({"tests.held-out.part": "all"}, "part 'all' is for data that"),
    "no such part": ({"tests.held-out.part": "tests"}, "'tests.held-out.part' = 'tests'"),
    "no images": ({"tests.held-out.images": 0}, "'tests.held-out.images' = 0"),
    "an unknown kind of claim": (
        {"claims": {"c": {**CLAIM, "test": {"name": "graeter"}}}},
        "claims.c.test: unknown claim 'graeter': did you mean 'greater'?",
    ),
    "a claim about no run": (
        {"claims": {"c": CLAIM, "d": {**CLAIM, "test": {**CLAIM["test"], "a": "x/clean.correct"}}}},
        "claims.d.test: 'x/clean.correct': no run 'x'",
    ),
    "a claim about no column": (
        {"claims": {"c": {**CLAIM, "test": {**CLAIM["test"], "a": "first/clean.corect"}}}},
        "no column 'corect': did you mean 'correct'?",
    ),
    "a claim without words": ({"claims": {"c": {"test": CLAIM["test"]}}}, "'claims.c.says' is mis"),
    "a scale that is a list": ({"scales": {"small": [1]}}, "'scales.small' = [1]"),
    "scales that are a list": ({"scales": [1]}, "'scales' = [1]"),
    "another scale": ({"scales": {"paper": {}}}, "no scale 'small': known: paper."),
    "a study that is its own base": ({"base": "toy.yaml"}, "toy.yaml: is its own base"),
    "a base study that is not there": ({"base": "gone.yaml"}, "gone.yaml: there is no such file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_line_says_what_is_wrong_in_a_bad_study(tmp_path: Path, kind: str) -> None:
    changes, said = BAD[kind]
    file = written(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        plan_study(read_study(file), file)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("- a\n- b", "expected keys and values"), ("a: [", "not YAML"), (None, "there is no such")],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "s.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_study(file)


def test_a_base_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a base for studies"):
        read_study(written(tmp_path, "_toy.yaml"))


@pytest.mark.parametrize("word", ["seeds", "=3", "seeds=[", "every_run=3"])
def test_an_assignment_that_is_none(tmp_path: Path, word: str) -> None:
    with pytest.raises(UserError):
        read_study(written(tmp_path), "small", [word])
