from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.claim_tables import study

from diascope.errors import UserError
from diascope.studies.quantities import Atom, Combined, Number, atoms, check, compute, parse


@pytest.mark.parametrize(
    ("written", "atom"),
    [
        ("at-eps1.5/rob.fgsm@0.25", Atom("at-eps1.5", "rob", "fgsm@0.25")),
        ("a+b/maps.gradient.mass_inside", Atom("a+b", "maps", "gradient.mass_inside")),
        ("auroc:nt/ood", Atom("nt", "ood", "", "auroc")),
        ("balanced:nt/ood", Atom("nt", "ood", "correct", "balanced")),
        ("balanced:nt/rob.pgd@0.2", Atom("nt", "rob", "pgd@0.2", "balanced")),
        ("nt/m.x  where all_correct", Atom("nt", "m", "x", "mean", "all_correct")),
        ("auroc:nt/ood where all_correct", Atom("nt", "ood", "", "auroc", "all_correct")),
    ],
)
def test_what_is_written_names_run_evaluation_column_and_statistic(written, atom):
    assert parse(written, "x") == atom
    assert atoms(parse(written, "x")) == [atom]


def test_combinations_are_computed_and_told():
    q = parse({"minus": [{"mean": ["a/e.v", "b/e.v", 3]}, {"times": [0.5, "a/e.v"]}]}, "x")
    values = {Atom("a", "e", "v"): 4.0, Atom("b", "e", "v"): 2.0}
    assert compute(q, values.__getitem__, float) == 3.0 - 2.0
    assert atoms(q) == list(values)
    assert str(q) == "(mean of a/e.v, b/e.v, 3) - (0.5 x a/e.v)"
    assert parse(7, "x") == Number(7.0)


def word(first: str, rest: str) -> st.SearchStrategy[str]:
    return st.builds(str.__add__, st.sampled_from(first), st.text(rest, max_size=5))


spelled = st.builds(
    Atom,
    word("aZ9", "aZ9.+-"),
    word("a9", "a9_-"),
    word("a_", "a_.@5"),
    st.sampled_from(["mean", "balanced"]),
    st.sampled_from(["", "all_correct"]),
)


@settings(max_examples=40)
@given(spelled)
def test_an_atom_is_read_back_from_its_spelling(atom):
    assert parse(str(atom), "x") == atom


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("a/e", "which column? write a/e.COLUMN"),
        ("acc", "write RUN/EVALUATION.COLUMN"),
        ("a/ e.v", "write RUN/EVALUATION.COLUMN"),
        ("aurok:a/e", "no statistic 'aurok': did you mean 'auroc'?"),
        ("auroc:a/e.v", "write auroc:a/e"),
        ("a/e.v where all_corect", "no condition 'all_corect': did you mean 'all_correct'?"),
        ({"menus": [1, 2]}, "no operation 'menus': did you mean 'minus'?"),
        ({"minus": [1, 2, 3]}, "two are needed, 3 given"),
        ({"minus": 1}, "write a list"),
        ({"mean": [1], "minus": [1, 2]}, "nothing beside it"),
        ({"times": ["a/e.v", 2]}, "the first must be a number"),
        (True, "write a number"),
        (None, "write a number"),
        (float("inf"), "not a finite number"),
        ({"mean": ["a/e"]}, "claims.c.test.mean: 'a/e'"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(written, said):
    with pytest.raises(UserError) as caught:
        parse(written, "claims.c.test")
    assert said in str(caught.value)
    assert str(caught.value).startswith("claims.c.test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("at-eps4/e.correct", "no run 'at-eps4': did you mean 'at-eps5'?"),
        ("b/f.correct", "no evaluation 'f': known: e"),
        ("b/e.corect", "no column 'corect': did you mean 'correct'?"),
        ("at-eps5/e.correct", "add it to evaluations.e.runs"),
    ],
)
def test_names_that_lead_nowhere_are_told_with_the_nearest(written, said):
    made = study({}, "ab")
    made = made.model_copy(update={"runs": {"at-eps5": {}, "b": {}}})
    spec = made.evaluations["e"].model_copy(update={"runs": ["b"]})
    made = made.model_copy(update={"evaluations": {"e": spec}})
    with pytest.raises(UserError, match="claims.c") as caught:
        check(atoms(parse(written, "claims.c")), made, "claims.c")
    assert said in str(caught.value)


def test_columns_of_every_table_and_of_classes_are_known():
    found = [parse(q, "x") for q in ("a/e.prob_mel", "auroc:b/e", "a/e.entropy")]
    check([atom for q in found for atom in atoms(q)], study({}), "x")


def test_a_combination_names_each_atom_once():
    q = Combined("mean", (Atom("a", "e", "v"), Atom("a", "e", "v")))
    assert atoms(q) == [Atom("a", "e", "v")]
