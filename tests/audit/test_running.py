"""The steps of an audit: planned, done once, read back, and none of them able to stop the rest."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.counted import Counted, cached, make, raising, steps, with_scratch
from tests.audit.squares import Eyes

from diascope.audit import AuditSettings, Subject
from diascope.audit.mapmethods import misfit
from diascope.audit.parts import Interface
from diascope.audit.perform import out_of_memory, perform
from diascope.audit.plan import Step, seconds_a_pass
from diascope.audit.stored import Shelf, identity, key_of
from diascope.errors import UserError
from diascope.evaluation import predict


@pytest.fixture
def pixels(tmp_path):
    return cached(tmp_path)


@pytest.fixture
def bench(pixels, tmp_path):
    return with_scratch(pixels, tmp_path)


def test_a_stage_is_done_once_and_read_back_as_it_was(bench, tmp_path):
    counted = Counted()
    plan = steps(bench, predictions=counted.stage())
    first = perform(plan, Shelf(tmp_path))
    again = perform(plan, Shelf(tmp_path))
    assert len(counted.calls) == 1
    for done in (first, again):
        (score,) = done.results["eyes"]["predictions"]
        assert score.accuracy == (0.5, 0.25, float("inf"))
        assert np.isnan(score.drop).all()
        assert isinstance(score.accuracy, tuple)
        np.testing.assert_array_equal(done.tables["eyes"].column, np.arange(60) / 3)
        assert done.reports[0].state == "done"
        assert done.reports[0].images == 60


@pytest.mark.parametrize(
    "change",
    [
        lambda bench: bench.model.weight.data.mul_(1.5),
        lambda bench: setattr(bench, "pixels", bench.pixels.take(np.arange(59))),
        lambda bench: setattr(bench, "settings", AuditSettings(seed=1, replicates=200)),
        lambda bench: setattr(
            bench, "effort", bench.effort.model_copy(update={"corruption_images": 7})
        ),
    ],
    ids=["weights", "images", "settings", "effort"],
)
def test_another_model_image_or_setting_is_measured_anew(bench, tmp_path, change):
    counted = Counted()
    stage = counted.stage(effort=("corruption_images",))
    perform(steps(bench, predictions=stage), Shelf(tmp_path))
    change(bench)
    perform(steps(bench, predictions=stage), Shelf(tmp_path))
    assert len(counted.calls) == 2


def test_what_does_not_matter_to_a_stage_does_not_measure_it_anew(bench, tmp_path):
    counted = Counted()
    stage = counted.stage(effort=("corruption_images",))
    perform(steps(bench, predictions=stage), Shelf(tmp_path))
    bench.effort = bench.effort.model_copy(update={"masking_images": 7})
    bench.batch_size = 3
    bench.settings = bench.settings.model_copy(update={"cases": 2, "budget": "quick"})
    bench.others = {"other": Eyes(2.0)}
    perform(steps(bench, predictions=stage), Shelf(tmp_path))
    assert len(counted.calls) == 1


def test_the_purpose_of_the_model_matters_to_the_stage_that_asks_for_it_alone(bench):
    names = ("curve", "operating", "group_scores")
    before = [key_of(bench, name, Counted().stage()) for name in names]
    bench.settings = bench.settings.model_copy(update={"positive": ("a",), "sensitivity": 0.8})
    after = [key_of(bench, name, Counted().stage()) for name in names]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    bench.settings = bench.settings.model_copy(update={"attributes": ("sex",)})
    last = [key_of(bench, name, Counted().stage()) for name in names]
    assert [a == b for a, b in zip(after, last, strict=True)] == [True, True, False]


def test_a_module_from_elsewhere_is_another_when_its_code_is(pixels):
    class Tilted(Eyes):
        def forward(self, x):
            return super().forward(1 - x)

    Tilted.__name__ = "Eyes"  # the same weights, the same structure

    told, found = Interface("module", True, "logits", 3, 16, "RGB", False), []
    for model in (Eyes(1.0), Eyes(1.0), Tilted(1.0)):
        bench = make(pixels, model)
        bench.subject = Subject("eyes", model, None, model.card, told)
        found.append(identity(bench))
    assert found[0] == found[1] != found[2]


def test_only_a_stage_that_compares_depends_on_the_other_models(bench):
    alone, beside = Counted().stage(), Counted().stage(beside=True)
    before = key_of(bench, "s", alone), key_of(bench, "s", beside)
    bench.others = {"other": Eyes(2.0)}
    assert key_of(bench, "s", alone) == before[0]
    assert key_of(bench, "s", beside) != before[1]


def test_a_black_box_is_known_again_by_its_answers(pixels):
    class Opaque(torch.nn.Module):
        card = Eyes(1.0).card

        def __init__(self, sign):
            super().__init__()
            self.sign = sign  # no parameter: nothing of it is in any state

        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([mean, self.sign * mean], 1)

    told = Interface("callable", False, "logits", 3, 16, "RGB", True)
    found = []
    for sign in (1.0, 1.0, -1.0):
        bench = make(pixels, Opaque(sign))
        bench.subject = Subject("eyes", bench.model, None, bench.model.card, told)
        found.append(identity(bench))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("harm", ["cut", "other", "gone", "list"])
def test_a_damaged_result_is_measured_anew(bench, tmp_path, harm):
    counted = Counted()
    plan, shelf = steps(bench, predictions=counted.stage()), Shelf(tmp_path)
    perform(plan, shelf)
    file = shelf.place("eyes", "predictions")
    if harm == "cut":
        file.write_text(file.read_text()[:-40])
    elif harm == "other":
        file.with_suffix(".parquet").write_bytes(b"PAR1")
    elif harm == "gone":
        file.with_suffix(".parquet").unlink()
    else:
        file.write_text(file.read_text().replace('"severity": 3', '"severity": "three"'))
    done = perform(plan, shelf)
    assert len(counted.calls) == 2
    assert done.reports[0].state == "done"


def test_a_stage_that_fails_is_told_and_the_rest_goes_on(bench, tmp_path):
    said = []
    plan = steps(
        bench,
        predictions=Counted().stage(),
        broken=Counted(act=raising(ZeroDivisionError("by\nnothing"))).stage(),
        refused=Counted(act=raising(UserError("no such thing"))).stage(),
        last=Counted().stage(),
    )
    done = perform(plan, Shelf(tmp_path), say=said.append)
    assert [r.state for r in done.reports] == ["done", "failed", "failed", "done"]
    assert done.reports[1].reason == "ZeroDivisionError: by nothing"
    assert done.reports[2].reason == "no such thing"
    assert "ZeroDivisionError" in (tmp_path / "eyes" / "broken.error.txt").read_text()
    assert not (tmp_path / "eyes" / "refused.error.txt").exists()
    assert len(said) == 2
    assert done.complete


def test_a_model_that_exits_within_a_stage_is_a_stage_that_failed(bench, tmp_path):
    def act(bench):
        sys.exit(3)

    stages = {"predictions": Counted().stage(), "s": Counted(act=act).stage()}
    done = perform(steps(bench, **stages, last=Counted().stage()), Shelf(tmp_path))
    assert [r.state for r in done.reports] == ["done", "failed", "done"]
    assert done.reports[1].reason == "SystemExit: 3"
    with pytest.raises(UserError, match="eyes: gives no predictions: SystemExit: 3"):
        perform(steps(bench, predictions=Counted(act=act).stage()), Shelf(tmp_path / "other"))


class Exits(Eyes):
    """Ends the program where it is asked about one image at a time, or differentiated."""

    def forward(self, x):
        if len(x) == 1 or x.requires_grad:
            raise SystemExit("one image")
        return super().forward(x)


def test_a_model_that_exits_anywhere_is_planned_and_tried(pixels):
    bench = make(pixels.take(np.arange(1)), Exits(1.0))
    assert seconds_a_pass(bench) == 0
    assert misfit(bench, bench.settings.build_explainer(), bench.model) == "SystemExit: one image"


def test_without_predictions_there_is_no_audit(bench, tmp_path):
    plan = steps(bench, predictions=Counted(act=raising(RuntimeError("shape"))).stage())
    with pytest.raises(UserError, match="eyes: gives no predictions: RuntimeError: shape"):
        perform(plan, Shelf(tmp_path))


def test_out_of_memory_halves_the_batch_and_goes_on(bench, tmp_path):
    def hungry(bench):
        if bench.batch_size > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")

    counted, said = Counted(act=hungry), []
    done = perform(
        steps(bench, predictions=Counted().stage(), s=counted.stage()),
        Shelf(tmp_path),
        say=said.append,
    )
    assert counted.calls == [64, 32, 16]
    assert done.reports[1].state == "done"
    assert [line.split()[-1] for line in said] == ["32", "16"]


def test_out_of_memory_with_one_image_is_a_failure_of_this_stage(bench, tmp_path):
    counted = Counted(act=raising(MemoryError()))
    done = perform(steps(bench, predictions=Counted().stage(), s=counted.stage()), Shelf(tmp_path))
    assert counted.calls == [64, 32, 16, 8, 4, 2, 1]
    assert done.reports[1].state == "failed"


def test_only_words_of_memory_are_taken_for_want_of_it():
    assert out_of_memory(RuntimeError("[enforce fail] can't allocate memory: 12 bytes"))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert out_of_memory(RuntimeError("std::bad_alloc"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_an_interrupt_keeps_what_is_done_and_names_what_is_not(bench, tmp_path):
    later = Counted()
    plan = steps(
        bench,
        predictions=Counted().stage(),
        stopped=Counted(act=raising(KeyboardInterrupt())).stage(),
        later=later.stage(),
    )
    plan.steps.append(Step(bench, "never", Counted().stage(), 0, 0, "no image has a mask"))
    done = perform(plan, Shelf(tmp_path))
    assert not done.complete
    states = [(r.stage, r.state) for r in done.reports]
    assert states == [
        ("predictions", "done"),
        ("stopped", "unfinished"),
        ("later", "unfinished"),
        ("never", "left out"),
    ]
    assert not later.calls


def test_an_interrupt_before_any_prediction_is_an_interrupt(bench, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        perform(
            steps(bench, predictions=Counted(act=raising(KeyboardInterrupt())).stage()),
            Shelf(tmp_path),
        )


def test_checkpoints_of_a_stage_go_when_it_is_done(bench, tmp_path):
    seen = []

    def keep(bench):
        place = bench.checkpoint("part")
        place.parent.mkdir(parents=True)
        place.write_text("half")
        seen.append(place)

    perform(steps(bench, predictions=Counted(act=keep).stage()), Shelf(tmp_path))
    assert not seen[0].parent.exists()
    assert (tmp_path / "eyes" / "predictions.json").exists()


def test_a_stage_without_a_folder_of_its_own_leaves_nothing_behind(pixels, tmp_path, monkeypatch):
    from diascope.audit.stages import STAGES

    monkeypatch.chdir(tmp_path)
    bench = make(pixels, Eyes(1.0), positive=("left",))
    bench.effort = bench.effort.model_copy(
        update={"curve_images": 8, "curve_steps": 1, "operating_images": 8, "operating_steps": 1}
    )
    bench.table = predict(bench.model, pixels)
    for name in ("curve", "operating"):
        assert np.isfinite(STAGES[name].measure(bench).images)
    assert not list(tmp_path.rglob("*.safetensors"))
    bench.scratch = tmp_path / "kept"
    STAGES["curve"].measure(bench)
    assert [f.parent.name for f in tmp_path.rglob("*.safetensors")] == ["kept"]


def test_a_stage_that_failed_is_a_finding(bench, tmp_path):
    from tests.report.factory import make_results

    from diascope.audit.checks import CHECKS

    plan = steps(
        bench,
        predictions=Counted().stage(),
        maps=Counted(act=raising(ValueError("odd"))).stage(),
    )
    done = perform(plan, Shelf(tmp_path))
    check = CHECKS["stages"]
    results = make_results(cases=0, stages=done.reports, models=("standard", "eyes"))
    (finding,) = check(results)
    assert finding.severity == "medium"
    assert finding.model == "eyes"
    both = [replace(report, model="standard and eyes") for report in done.reports]
    assert check(replace(results, stages=both))[0].model == ""
    assert "ValueError: odd" in finding.evidence
    assert check(make_results(cases=0, stages=done.reports[:1])) == []


def test_the_main_attack_is_not_run_twice(bench, tmp_path, monkeypatch):
    from diascope.audit.stages import STAGES, attacks

    bench.scratch = tmp_path
    bench.effort = bench.effort.model_copy(
        update={"attacks": ("pgd", "apgd"), "curve_images": 30, "attack_images": 20}
    )
    bench.settings = bench.settings.model_copy(update={"effort": {"attacks": ("pgd", "apgd")}})
    curve = STAGES["curve"].measure(bench)
    bench.table = bench.table.assign(**curve.columns)
    asked = []
    real = attacks.minimal_on_grid
    monkeypatch.setattr(
        attacks,
        "minimal_on_grid",
        lambda model, x, y, attack, grid, **options: (
            asked.append(type(attack).__name__) or real(model, x, y, attack, grid, **options)
        ),
    )
    measured = STAGES["attacks"].measure(bench)
    assert asked == ["APGD"]
    assert [c.name for c in measured.result] == ["pgd", "apgd", "worst case"]
    rows = bench.drawn(20)
    known = curve.columns["minimal_epsilon"][rows]
    np.testing.assert_array_equal(measured.columns["pgd:minimal_epsilon"][rows], known)
    together = measured.result[2].accuracy
    assert all(
        w[0] <= min(a[0], b[0])
        for w, a, b in zip(
            together, measured.result[0].accuracy, measured.result[1].accuracy, strict=True
        )
    )
    bench.table = bench.table.drop(columns="minimal_epsilon")
    STAGES["attacks"].measure(bench)
    assert asked == ["APGD", "PGD", "APGD"]


def test_one_attack_alone_is_told_of_the_images_of_its_curve(bench, tmp_path):
    from diascope.audit.stages import STAGES

    bench.scratch = tmp_path
    numbers = {"attacks": ("pgd",), "curve_images": 30, "attack_images": 20, "curve_steps": 2}
    bench.effort = bench.effort.model_copy(update=numbers)
    bench.settings = bench.settings.model_copy(update={"effort": numbers})
    curve = STAGES["curve"].measure(bench).columns
    bench.table = bench.table.assign(**curve)
    (alone,) = STAGES["attacks"].measure(bench).result
    assert alone.images == 30
    minimal = curve["minimal_epsilon"][bench.drawn(30)]
    assert [a[0] for a in alone.accuracy] == [(minimal > eps).mean() for eps in bench.epsilons]
    assert STAGES["attacks"].passes(bench) == 1  # for nothing is attacked again
    two = {**numbers, "attacks": ("pgd", "apgd")}
    bench.effort = bench.effort.model_copy(update=two)
    bench.settings = bench.settings.model_copy(update={"effort": two})
    assert {found.images for found in STAGES["attacks"].measure(bench).result} == {20}
