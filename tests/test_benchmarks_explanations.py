"""The benchmarks of maps and their measures run, and what they compare is the same."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("captum", reason="captum is not installed")
pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
pytest.importorskip("quantus", reason="quantus is not installed")

from benchmarks import (
    explanations,
    explanations_agreement,
    explanations_memory,
    explanations_peers,
    inputs,
    maps,
    record,
    road,
    table,
)

from diascope.evaluation.measures import members


def test_rows_of_explanations_write_whole_records_and_the_maps_agree(tmp_path, capsys):
    explanations.main(["--quick", "--pairs", "1", "--results", str(tmp_path)])
    rows = {found["row"]: found for found in record.read(tmp_path)}
    assert set(rows) == {"x-a", "x-b", "x-c", "x-q", *(f"x{k}" for k in range(1, 7))}
    assert set(rows["x2"]["ratio"]) == {"captum", "captum, best"}
    assert set(rows["x5"]["ratio"]) == {"captum", "grad-cam"}
    assert set(rows["x6"]["ratio"]) == {"grad-cam"}
    each = [rows[f"x{k}"]["seconds"] for k in range(1, 7)]
    ours = rows["x-a"]["seconds"]["diascope"]
    assert ours == pytest.approx([sum(seconds["diascope"][0] for seconds in each)])
    assert rows["x-b"]["seconds"]["best knobs"] <= rows["x-a"]["seconds"]["defaults"]
    found = {(pair["what"], pair["beside"]): pair for pair in rows["x-q"]["agreement"]}
    for what in explanations_agreement.SAME:
        at_kinks = 0.05 if what == "integrated_gradients" else 1e-4
        assert max(found[what, "captum"]["difference"]) < at_kinks
        assert max(found[what, "captum in float64"]["difference"]) < at_kinks
        assert max(found[f"captum's {what}", "captum in float64"]["difference"]) < at_kinks
        assert min(found[what, "captum"]["rank"]) > 0.9995
        assert len(found[what, "ours in float32"]["rank"]) > 0
    capsys.readouterr()
    table.main(["--quick", "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert all(row in printed for row in rows)


def test_the_sums_take_the_faster_peer_by_its_median():
    times = {"diascope": [1.0, 1.0, 1.0], "captum": [2.0, 9.0, 2.0], "grad-cam": [3.0, 3.0, 3.0]}
    assert explanations.fastest(times, {"captum", "grad-cam"}) == [2.0, 9.0, 2.0]
    assert explanations.fastest(times, {"grad-cam"}) == [3.0, 3.0, 3.0]


def test_the_difference_of_maps_is_relative_to_each_images_largest_value():
    theirs = torch.tensor([[[[2.0, -4.0]]], [[[0.1, 0.0]]]])
    ours = theirs + torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.1]]]])
    assert explanations_agreement.difference(ours, theirs) == pytest.approx([0.25, 1.0])


def test_captums_knobs_change_how_many_rows_a_pass_has_and_not_the_maps():
    model = inputs.untrained(0, tiny=True).eval()
    rows = []
    model.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y, layer = torch.tensor([0, 1, 2, 3]), "backbone.layer4"
    settings = explanations_peers.Settings(steps=6, samples=2, window=16, stride=16)
    kept = {}
    for images, batch in ((4, None), (2, None), (4, 8)):
        knobs = explanations_peers.Knobs(internal_batch_size=batch, images=images)
        explainers = explanations_peers.captum_explainers(model, layer, settings, knobs)
        rows.clear()
        kept[images, batch] = explainers["integrated_gradients"](x, y)
        assert set(rows) == {batch or 6 * images}
        assert sum(rows) == 24
    first, *others = kept.values()
    assert all(torch.allclose(first, other, atol=1e-6) for other in others)


def test_memory_is_the_childs_own_and_grows_while_it_explains(tmp_path, monkeypatch):
    monkeypatch.setattr(explanations_memory, "installed", list)
    held = torch.ones(2**28)  # a gibibyte here, of which the child knows nothing
    (found,) = explanations_memory.main(["--quick", "--results", str(tmp_path)])
    before, peak = found["before_bytes"]["diascope"], found["peak_bytes"]["diascope"]
    assert 2**26 < before <= peak
    assert peak < explanations_memory._of_process("VmHWM")
    assert held.numel() == 2**28
    with pytest.raises(ValueError, match="unpack"):
        explanations_memory._of_process("VmNothing")


def test_every_measure_of_the_families_is_timed_once_a_round(tmp_path, capsys):
    maps.main(["--quick", "--pairs", "2", "--results", str(tmp_path)])
    (found,) = record.read(tmp_path)
    everyone = {f"{family}: {name}" for family in maps.FAMILIES for name in members(family)}
    assert set(found["costs"]) == everyone
    assert {len(seconds) for seconds in found["costs"].values()} == {2}
    assert len(found["seconds"]["diascope"]) == 2
    heat, other, masks = maps.maps(6, 48, 0, torch.device("cpu"), tiny=True)
    assert heat.shape == other.shape == masks.shape == (6, 48, 48)
    assert torch.equal(heat[2:4], heat[:2].flip(1))  # with their masks
    assert torch.equal(masks[4:], masks[:2].flip(2))
    assert not torch.equal(heat, other)
    assert "measures of 4 maps of 48" in capsys.readouterr().out


def test_road_beside_the_peers_removes_and_fills_in_the_same(tmp_path):
    (found,) = road.main(["--quick", "--pairs", "1", "--results", str(tmp_path)])
    assert set(found["ratio"]) == {"grad-cam", "quantus"}
    compared = {(pair["what"], pair["beside"]): pair for pair in found["agreement"]}
    for peer in ("grad-cam", "quantus"):
        assert max(compared["filled pixels", peer]["difference"]) < 2e-3
    assert max(compared["ROAD", "grad-cam, twice"]["difference"]) < 0.1
