"""A model for which memory runs out with a few images at once is audited all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.audit.mapworld import CARD, Seer, pixels

from diascope.audit import plan
from diascope.audit.bench import Bench
from diascope.audit.perform import perform
from diascope.audit.settings import AuditSettings
from diascope.audit.stages import STAGES
from diascope.audit.stored import Shelf
from diascope.audit.subject import Subject

EFFORT = {"masking_images": 10, "masking_steps": 2, "masking_queries": 5}
STAGES_OF = ("predictions", "masking", "confusion", "maps")
MAPS = {"explainers": ("gradient",), "map_images": 5, "faithfulness_images": 0}
MAPS |= {"operating_images": 6, "steadiness_images": 4, "sanity_images": 4}


class Hungry(Seer):
    """Runs out of memory for more than so many images at once."""

    most = 3

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def audited(model, folder):
    """Return what the stages came to, and the outcomes of the checks on masking."""
    settings = AuditSettings(
        replicates=100,
        epsilons=(0.05,),
        norm="linf",
        effort={**EFFORT, **MAPS},
        positive=("light",),
    )
    world = pixels(12)
    bench = Bench(
        Subject("m", model, None, CARD),
        model,
        world,
        settings,
        settings.build_effort(),
        torch.device("cpu"),
    )
    done = perform(plan.make_plan([bench]), Shelf(folder))
    return done, {outcome.name: outcome for outcome in done.results["m"]["masking"]}


@pytest.mark.parametrize("most", [3, 1])
def test_no_stage_is_lost_to_a_batch_of_four(tmp_path, monkeypatch, most):
    some = [(name, STAGES[name]) for name in STAGES_OF]
    monkeypatch.setattr(plan, "in_order", lambda: some)
    monkeypatch.setattr(Hungry, "most", most)
    done, outcomes = audited(Hungry().eval(), tmp_path / "hungry")
    states = {report.stage: (report.state, report.reason) for report in done.reports}
    assert states == dict.fromkeys(STAGES_OF, ("done", ""))
    assert len(outcomes) == 14
    if most == 3:  # and what was found is what is found with all images at once
        _, others = audited(Seer().eval(), tmp_path / "whole")
        for name in ("agreement", "returned", "gradients"):
            ours, theirs = outcomes[name], others[name]
            assert ours.verdict == theirs.verdict
            np.testing.assert_allclose(
                list(ours.numbers.values()), list(theirs.numbers.values()), rtol=1e-3, atol=1e-6
            )
