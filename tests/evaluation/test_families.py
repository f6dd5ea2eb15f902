"""The contract of every measure of maps, by family: how it is called and what it promises."""

from __future__ import annotations

import pytest
import torch
from tests.nets import images, small_net

from diascope.evaluation.measures import MEASURES

CALLERS = {
    "localisation": lambda measure, case: measure(case["heat"], case["mask"]),
    "sharpness": lambda measure, case: measure(case["heat"]),
    "colour": lambda measure, case: measure(case["heat"], case["x"], case["mask"]),
    "agreement": lambda measure, case: measure(case["heat"], case["other"]),
    "faithfulness": lambda measure, case: measure(
        small_net(), case["x"], case["target"], case["heat"]
    ),
}
OF_MAPS = [name for name in MEASURES if MEASURES[name].family in CALLERS]
each = pytest.mark.parametrize("name", OF_MAPS)


def case_of(seed: int = 0, count: int = 4) -> dict[str, torch.Tensor]:
    """Maps with many equal values, others somewhat like them, masks, images and classes."""
    g = torch.Generator().manual_seed(seed)
    heat = torch.randint(0, 6, (count, 16, 16), generator=g) / 6
    other = heat + torch.rand(count, 16, 16, generator=g)
    mask = torch.zeros(count, 16, 16, dtype=torch.bool)
    for k in range(count):
        mask[k, 2 + k % 3 : 9 + k % 4, 3:12] = True
    target = torch.randint(0, 2, (count,), generator=g)
    return {"heat": heat, "other": other, "mask": mask, "x": images(count), "target": target}


def measured(name: str, case: dict[str, torch.Tensor]) -> torch.Tensor:
    measure = MEASURES[name]()
    return CALLERS[measure.family](measure, case)


def test_every_family_of_maps_has_a_caller_and_members():
    families = {MEASURES[name].family for name in MEASURES}
    assert families >= set(CALLERS)


@each
@pytest.mark.parametrize("seed", range(3))
def test_values_lie_within_the_limits(name, seed):
    values = measured(name, case_of(seed))
    low, high = MEASURES[name].limits
    assert values.dtype == torch.float32
    assert values.shape == (4,)
    assert ((values >= low) & (values <= high)).all()


@each
def test_an_image_is_measured_by_itself(name):
    case = case_of(1)
    whole = measured(name, case)
    single = [measured(name, {k: v[i : i + 1] for k, v in case.items()}) for i in range(4)]
    torch.testing.assert_close(torch.cat(single), whole, rtol=1e-4, atol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    turned = measured(name, {k: v[order] for k, v in case.items()})
    torch.testing.assert_close(turned, whole[order], rtol=1e-4, atol=1e-6)


@each
@pytest.mark.parametrize("factor", [1e-20, 3.7, 1e20])
def test_the_scale_of_a_map_does_not_matter(name, factor):
    case = case_of(2)
    expected = measured(name, case)
    scaled = measured(name, case | {"heat": case["heat"] * factor})
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_map_that_is_not_finite_is_undefined_and_spoils_no_other(name, value):
    case = case_of(3)
    expected = measured(name, case)
    heat = case["heat"].clone()
    heat[1, 5, 5] = value
    found = measured(name, case | {"heat": heat})
    assert found.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-4, atol=1e-6)


@each
def test_negative_heat_is_refused(name):
    if MEASURES[name].family == "faithfulness":
        pytest.skip("a measure of this family may take signed maps")
    case = case_of()
    with pytest.raises(ValueError, match="negative"):
        measured(name, case | {"heat": case["heat"] - 0.5})


@each
def test_input_is_left_alone_and_no_gradient_is_kept(name):
    case = case_of()
    before = {k: v.clone() for k, v in case.items()}
    case["heat"].requires_grad_()
    assert not measured(name, case).requires_grad
    assert all(torch.equal(case[k], before[k]) for k in case)


@each
def test_no_images(name):
    empty = {k: v[:0] for k, v in case_of().items()}
    assert measured(name, empty).shape == (0,)


@each
def test_many_images_are_measured_some_at_a_time(name, monkeypatch):
    from diascope.evaluation.measures import maps

    case = case_of(4)
    whole = measured(name, case)
    monkeypatch.setitem(maps._PIXELS, "cpu", 3 * 256)
    torch.testing.assert_close(measured(name, case), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@each
def test_a_gpu_measures_the_same(name):
    if MEASURES[name].family == "faithfulness":
        pytest.skip("the model of this test is on the CPU")
    case = case_of()
    found = measured(name, case | {"heat": case["heat"].cuda()})
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), measured(name, case), rtol=1e-4, atol=1e-5)


@each
def test_the_docstring_says_what_it_measures(name):
    assert MEASURES[name].__doc__.startswith("Measure ")
