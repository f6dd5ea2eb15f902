from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.report.factory import around, bare_results, make_results

from diascope.audit.parts import Localisation
from diascope.report.answers import belief, elsewhere, everyday
from diascope.report.glance import glance
from diascope.report.words import broken_at, curve_images, difference_statements, sizes
from diascope.report.words import verdict as answers


def verdict(results) -> list[str]:
    return [said.answer for said in answers(results)]


def test_the_verdict_says_where_the_interval_includes_zero_and_where_not():
    clean, attacked, looks = verdict(bare_results())
    assert clean == (
        "Without an attack, accuracy is 0.880 for standard and 0.850 for pgd-l2; "
        "the interval of the difference, [−0.08, +0.02], includes zero."
    )
    assert "(L2 eps 0.5) it is 0.252 for standard (below chance) and 0.714 for pgd-l2;" in attacked
    assert attacked.endswith("[+0.17, +0.27], excludes zero.")
    assert "standard do better than chance, but worse than a Gaussian" in looks
    assert "pgd-l2 do better than chance, but are not shown to do better" in looks


def test_one_model_has_its_interval_and_no_difference():
    sentences = verdict(bare_results(models=("only",), findings=False, masks=False))
    assert sentences[0] == "Without an attack, accuracy is 0.880 [0.84, 0.92]."
    assert sentences[1].endswith("it is 0.252 [0.21, 0.29] (below chance).")
    assert len(sentences) == 2


def test_three_models_name_each_difference():
    text = verdict(make_results(models=("a", "b", "c")))[1]
    assert "the interval of the difference b − a, [+0.17, +0.27], excludes zero" in text
    assert "the interval of the difference c − a, [+0.17, +0.27], excludes zero" in text


def test_no_skill_is_said():
    results = make_results()
    data = {**results.data, "majority": 0.87}
    text = verdict(replace(results, data=data))[0]
    assert "standard and pgd-l2 are not shown to do better than always naming" in text


def test_an_undefined_difference_is_said_to_be_so():
    results = make_results()
    undefined = replace(results.comparisons[0], scores={"accuracy": (0.1, math.nan, math.nan)})
    text = verdict(replace(results, comparisons=[undefined]))[0]
    assert text.endswith("the interval of the difference could not be given.")


@pytest.mark.parametrize(
    ("chance", "centre", "words"),
    [
        (0.3, 0.2, "the maps do better than a Gaussian fixed in the middle"),
        (0.3, 0.0, "do better than chance, but are not shown to do better than a Gaussian"),
        (0.3, -0.2, "do better than chance, but worse than a Gaussian"),
        (0.0, -0.2, "are not told apart from chance, and do worse than a Gaussian"),
        (0.0, 0.0, "are not told apart from chance, and are not shown to do better than"),
        (-0.2, -0.2, "do worse than chance, and worse than a Gaussian"),
        (math.nan, 0.0, "cannot be judged on so few images"),
    ],
)
def test_what_the_maps_show_follows_both_intervals(chance, centre, words):
    results = make_results(models=("only",))
    found = Localisation(around(0.5), around(0.2), around(0.5), around(chance), around(centre))
    model = replace(results.models[0], localisation={"average_precision": found})
    assert words in " ".join(verdict(replace(results, models=[model])))


def test_the_statement_names_every_epsilon_once():
    (text,) = difference_statements(make_results())
    assert text == (
        "pgd-l2 is more accurate than standard at eps 0.25, 0.5, 1 and 2: there the interval "
        "excludes zero. At eps 0 the interval of the difference includes zero: these images do "
        "not tell pgd-l2 and standard apart."
    )


def test_of_several_epsilons_the_first_screen_tells_the_same_as_of_the_curve():
    results = make_results(models=("only",))
    (model,) = results.models
    assert results.reference_eps == 0.5
    points = [replace(p, eps=e, missed=int(50 + e)) for p in model.operating.points[1:]
              for e in (0.25, 0.5, 2.0)]  # fmt: skip
    operating = replace(model.operating, points=[model.operating.points[0], *points])
    results = replace(results, models=[replace(model, operating=operating)])
    said = {each.question: each.answer for each in answers(results)}
    assert "Under attack (L2 eps 0.5) it misses 50 of 60." in said["Does it still detect?"]
    (seen,) = [figure for figure in glance(results) if figure.label == "Sensitivity"]
    assert seen.under.endswith("attacked at eps 0.5")


def test_sizes_count_groups_only_where_they_differ():
    results = make_results(size=64)
    assert sizes(results) == "300 images of 262 patients or lesions, 64×64 pixels"
    alone = replace(results, data={**results.data, "images": 1, "groups": 1})
    assert sizes(alone) == "1 image, 64×64 pixels"


def test_the_median_epsilon_is_said_in_words_where_it_is_no_number():
    model = make_results().models[0]
    assert broken_at(model, "l2") == "0.4"
    assert broken_at(replace(model, median_epsilon=0.0), "l2").startswith("0, for half are wrong")
    assert "over half of the images were never broken" in broken_at(
        replace(model, median_epsilon=math.inf), "l2"
    )
    assert "not measured" in broken_at(replace(model, median_epsilon=math.nan), "l2")


def test_of_many_models_only_the_ends_are_named():
    clean, attacked = verdict(bare_results(models=tuple("abcdef"), masks=False))
    assert "from 0.730 (f) to 0.880 (a)" in clean
    assert clean.endswith("; none is told apart from a.")
    assert attacked.endswith("; told apart from a: b, c, d, e and f.")


def test_each_part_that_was_measured_has_its_answer():
    said = {each.question: each.answer for each in answers(make_results(models=("only",)))}
    assert said["Can that be believed?"] == "No sign of masked gradients."
    assert said["Does it still detect?"] == (
        "It misses 6 of 60 images of melanoma, and calls 27 of the 140 others positive. "
        "Under attack (L2 eps 0.5) it misses 47 of 60."
    )
    assert said["Everyday images?"].startswith("Worst of the corruptions: rotation at severity 5")
    assert said["In another hospital?"] == (
        "Balanced accuracy falls by 0.16 [0.10, 0.22] at another hospital."
    )
    said = {each.question: each.answer for each in answers(make_results())}
    assert (
        "pgd-l2: the figures under attack are too good to be true (checks 2 and 8 failed)"
        in (said["Can that be believed?"])
    )


def test_belief_needs_most_of_the_checks():
    results = make_results(models=("only",))
    (model,) = results.models
    doubtful = [replace(o, verdict="undecided") for o in model.masking[:8]] + model.masking[8:]
    text = belief(replace(results, models=[replace(model, masking=doubtful)]))
    assert text.startswith("Too many checks are undecided")
    assert belief(bare_results()) == ""


def test_a_place_that_loses_nothing_is_not_said_to_lose():
    results = make_results(models=("only",))
    (model,) = results.models

    def told(*drop):
        places = [replace(e, drop={"accuracy": drop}) for e in model.elsewhere]
        return elsewhere(replace(results, models=[replace(model, elsewhere=places)]))

    unsure = "Accuracy is not shown to change at another hospital: −0.02 [−0.09, +0.05]."
    assert told(0.02, -0.05, 0.09) == unsure
    assert told(-0.06, -0.09, -0.03) == "Accuracy rises by 0.06 at another hospital."


def test_another_mix_of_classes_does_not_hide_a_loss_elsewhere():
    (model,) = (results := make_results(models=("only",))).models
    drop = {"accuracy": (-0.05, -0.09, -0.01), "balanced_accuracy": (0.2, 0.1, 0.3)}
    results = replace(
        results,
        models=[replace(model, elsewhere=[replace(e, drop=drop) for e in model.elsewhere])],
    )
    assert elsewhere(results).startswith("Balanced accuracy falls by 0.20 [0.10, 0.30]")
    (figure,) = [f for f in glance(results) if f.label == "Elsewhere"]
    assert figure.under == "change in balanced accuracy"
    assert figure.cells[0].text == "−0.200"


def test_a_corruption_that_may_cost_nothing_is_not_said_to_cost():
    (model,) = (results := make_results(models=("only",))).models
    unsure = [replace(c, drop=(0.19, -0.03, 0.41)) for c in model.corruptions[:1]]
    told = everyday(replace(results, models=[replace(model, corruptions=unsure)]))
    assert told.startswith("None of the corruptions is shown to cost accuracy; the worst, ")
    assert told.endswith(": 0.19 [−0.03, 0.41].")
    unsure.append(replace(unsure[0], name="jpeg", severity=3, drop=(0.15, 0.02, 0.30)))
    told = everyday(replace(results, models=[replace(model, corruptions=unsure)]))
    assert (
        told == "Worst of the corruptions: jpeg at severity 3 costs 0.15 [0.02, 0.30] of accuracy."
    )


def test_the_curve_says_on_how_many_images_it_was_measured():
    results = make_results(cases=0)
    all_of_them = [replace(m, attacked=300) for m in results.models]
    assert curve_images(replace(results, models=all_of_them)) == ""
    assert (
        curve_images(replace(results, models=[replace(m, attacked=0) for m in all_of_them])) == ""
    )
    some = [replace(m, attacked=48) for m in all_of_them]
    assert curve_images(replace(results, models=some)).startswith("Measured on 48 of the 300")


def test_accuracy_under_attack_on_few_images_has_theirs_without_beside_it():
    results = bare_results()
    few = replace(results, models=[replace(m, attacked=48) for m in results.models])
    before = [f"{m.curve[0][0]:.2f}" for m in few.models]
    told = (
        f"on 48 images drawn by lot, on which it is {before[0]} and {before[1]} without an attack."
    )
    assert verdict(few)[1].endswith(told)
