"""The same model audited twice: with its gradients, and as a black box that gives scores alone."""

from __future__ import annotations

import math

import pytest
import torch
from tests.audit.squares import SIDE, Eyes, squares

from diascope.audit import AuditSettings, Subject, audit, plan, unseen_pixels
from diascope.audit.parts import Interface
from diascope.audit.stages import STAGES
from diascope.models.black_box import BlackBox
from diascope.report.answers import belief
from diascope.report.words import difference_statements, verdict

MEASURED = ("predictions", "curve", "masking", "operating", "maps")
SETTINGS = AuditSettings(
    norm="linf",
    epsilons=(0.015, 0.3),
    replicates=200,
    cases=0,
    positive=("right",),
    attack={"name": "pgd", "steps": 3},
    effort={
        "queries": 5,
        "masking_images": 8,
        "masking_steps": 3,
        "masking_queries": 5,
        "operating_steps": 3,
        "explainers": ("gradient",),
        "map_images": 16,
        "faithfulness_images": 0,
        "steadiness_images": 0,
        "sanity_images": 0,
    },
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, eyes = tmp_path_factory.mktemp("both"), Eyes(4.0)
    face = Interface("callable", False, "logits", 3, SIDE, "RGB", True)

    def answers(images):
        return eyes(torch.from_numpy(images)).detach().numpy()

    box = BlackBox(answers, "box", ["left", "right"])
    subjects = [
        Subject("white", eyes, None, eyes.card),
        Subject("box", box, None, eyes.card, face),
    ]
    test = unseen_pixels(squares(), subjects, SETTINGS, cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "in_order", lambda: [(n, STAGES[n]) for n in MEASURED])
        return audit(subjects, test, SETTINGS, folder)


def test_what_few_queries_found_is_not_held_against_what_gradients_found(results):
    white, box = results.models
    assert (white.access, box.access) == ("white box", "scores")
    assert white.scores == box.scores
    assert white.curve[0] == box.curve[0]
    assert white.curve[2][0] < box.curve[2][0]  # of the very same model
    (comparison,) = results.comparisons
    assert comparison.curve[0][0] == 0
    assert all(math.isnan(value) for bounds in comparison.curve[1:] for value in bounds)
    assert [each.eps for each in comparison.operating] == [0.0]
    assert white.maps[0].explainer["name"] != box.maps[0].explainer["name"]
    assert comparison.localisation == comparison.localisation_correct == {}


def test_a_finding_and_the_first_screen_say_that_it_is_an_upper_bound(results):
    (found,) = [finding for finding in results.findings if finding.check == "black_box"]
    assert (found.model, found.severity) == ("box", "low")
    assert f"{results.models[1].queries:,} images in all" in found.evidence
    fragile = next(said.answer for said in verdict(results) if said.question == "How fragile?")
    assert "excludes zero" not in fragile
    assert (
        "The figure of box is an upper bound, of an attack that was shown scores alone" in fragile
    )
    assert "were not attacked alike" in difference_statements(results)[0]
    assert belief(results).startswith("white: ")
    assert belief(results).endswith("Of box nothing was checked.")
