"""Maps of linear nets, whose gradient is their weight: known wherever the image is."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from tests.nets import Linear
from tests.studies.exams import SIDE, exam_of, line, pixels_of

from diascope.errors import UserError
from diascope.models import create_model
from diascope.studies.evaluations import EVALUATIONS

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def build(name, **settings):
    return EVALUATIONS.build({"name": name, **settings})


def turned(net):
    """Return a net that looks where the other class is."""
    return Linear(net.weight.detach().flip(0), net.bias.detach().flip(0))


def test_maps_on_the_region_are_perfect_and_those_on_the_other_as_bad_as_they_can_be():
    pixels = pixels_of(6, hair=["x"] * 6)
    there, away = (
        build("maps", of="label")(exam_of(net, pixels)).columns
        for net in (line(noise=0), turned(line(noise=0)))
    )
    assert (there["gradient.average_precision"] == 1).all()
    assert (there["gradient.mass_inside"] == 1).all()
    assert (away["gradient.mass_inside"] == 0).all()
    area = pixels.m()[0].double().mean()
    assert np.allclose(there["gradient.mass_inside_chance"], area)
    assert np.allclose(there["gradient.mass_inside_centre"], away["gradient.mass_inside_centre"])
    assert (there["gradient.hair_share"] == 0).all()
    assert np.allclose(there["gradient.hair_share_chance"], 1 / SIDE)
    # of the prediction: the turned net is wrong about each image, and looks at what it sees
    found = build("maps", of="prediction")(exam_of(turned(line(noise=0)), pixels)).columns
    assert (found["gradient.mass_inside"] == 1).all()


def test_bright_objects_are_regions_where_the_data_has_none():
    pixels = pixels_of(6, masks=False, channels=1)
    pixels.images[:] = 0
    pixels.images[:, 2:4, 3:9] = 255
    weight = torch.zeros(2, 1, SIDE, SIDE)
    weight[:, :, 2:4, 3:9] = 1
    found = build("maps", foreground=0.5)(exam_of(Linear(weight), pixels)).columns
    assert (found["gradient.average_precision"] == 1).all()
    with pytest.raises(UserError, match="no image has a mask"):
        build("maps")(exam_of(Linear(weight), pixels))
    bare = build("maps", masks=False)
    columns = bare(exam_of(Linear(weight), pixels)).columns
    assert "gradient.gini" in columns
    assert not [name for name in (*columns, *bare.columns()) if "inside" in name]


def test_soft_attention_is_measured_where_a_model_has_it():
    pixels = pixels_of(4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model("resnet18", 2, attention="soft", **TINY).eval()
    found = build("maps")(exam_of(net, pixels))
    assert np.isfinite(found.columns["soft_attention.average_precision"]).all()
    assert set(found.columns) <= set(build("maps").columns())
    plain = build("maps", soft_attention=False)(exam_of(net, pixels)).columns
    assert not [name for name in plain if name.startswith("soft")]


def test_the_map_of_a_linear_net_does_not_move_under_attack():
    pixels, net = pixels_of(8), line(seed=1)
    attack = {"name": "fgsm"}
    shift = build("attention_shift", epsilons=[0.05], attack=attack, explainers={"gradient": {}})
    found = shift(exam_of(net, pixels)).columns
    assert np.allclose(found["gradient.spearman@0.05"], 1)
    assert np.allclose(found["perturbation.linf@0.05"], 0.05, atol=1e-6)
    area = pixels.m()[0].double().mean()
    assert np.allclose(found["perturbation.energy_inside@0.05"], area, atol=1e-3)
    assert np.allclose(found["perturbation.energy_inside_chance@0.05"], area)
    assert (found["withstood@0.05"] == 0).all()


def test_models_agree_with_themselves_and_less_with_others():
    pixels, net = pixels_of(8), line(seed=1)
    measured = build("agreement", explainers={"gradient": {}})
    same = measured(exam_of(net, pixels, beside={"again": line(seed=1)})).columns
    for name in ("", "_worst", "_redrawn", "_noised"):
        assert np.allclose(same[f"gradient.spearman{name}"], 1, atol=1e-6)
    assert same["gradient.spearman_elsewhere"].max() < 0.9  # the class beside it alternates
    mixed = {"again": line(seed=1), "other": line(seed=9)}
    other = measured(exam_of(net, pixels, beside=mixed)).columns
    assert (other["gradient.spearman_worst"] < 0.9).all()
    assert np.allclose(other["gradient.spearman"], (1 + other["gradient.spearman_worst"]) / 2)
    drawn = build("agreement", explainers={"smoothgrad": {"samples": 2, "noise": 0.5}})
    with pytest.raises(UserError, match="no model beside"):
        drawn(exam_of(net, pixels))


def of_each_class():
    """Return nets that look at the region of class a alone, and at that of class b alone."""
    whole = line(noise=0.0).weight.detach()
    haze = 0.1 * torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return (
        Linear(torch.stack([w if k == which else w.mean() + haze[0] for k, w in enumerate(whole)]))
        for which in (0, 1)
    )


def test_the_best_model_of_each_image_is_chosen_by_the_maps_of_another_method():
    pixels = pixels_of(12)
    first, second = of_each_class()
    by = {"by": "average_precision", "by_explainer": {"name": "gradient", "times_input": True}}
    exam = exam_of(first, pixels, beside={"second": second})
    found = build("choice", folds=3, **by)(exam)
    column = found.columns
    labels = pixels.dataset.labels
    assert (column["best"] == labels).all()
    assert (column["chosen"] == labels).all()
    assert (column["per_image"] == 1).all()
    assert (column["oracle"] == 1).all()
    assert column["crossfitted"].mean() < 0.9
    assert (column["own"] == np.where(labels == 0, 1, column["own"])).all()
    assert found.about["best_of_images"] == {"this": 6, "second": 6}
    for mistake, says in (
        ({"by": "average_precision"}, "name another by_explainer"),
        ({"by": "spearman"}, "a measure of agreement"),
        ({"judge": "gini"}, "'gini' is not one of"),
    ):
        with pytest.raises(UserError, match=says):
            build("choice", **mistake)


def test_what_is_chosen_on_one_training_is_judged_on_another():
    """Whose maps were best may be the image's own, or the chance of one training."""
    pixels = pixels_of(12)
    (first, second), again = of_each_class(), [*of_each_class()]
    by = {"by": "average_precision", "by_explainer": "gradient", "folds": 3}
    for same, later in ((True, again), (False, again[::-1])):
        beside = {"second": second, "first@next": later[0], "second@next": later[1]}
        found = build("choice", **by)(exam_of(first, pixels, beside=beside))
        column = found.columns
        assert (column["chosen"] == pixels.dataset.labels).all()
        assert (column["oracle"] == 1).all()
        assert (column["per_image"] == 1).all() if same else (column["per_image"] < 1).all()
        assert found.about["models"] == ["this", "second"]


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        (["second"], "looks at the mask, of the same maps as are judged"),
        (["second", "second@next"], "name each model, this one too, of the next seed"),
        (["second", "first@next"], "name each model, this one too, of the next seed"),
        (["first@next"], "name each model, this one too, of the next seed"),
    ],
)
def test_a_choice_that_would_judge_itself_or_lacks_a_judge_is_refused(beside, says):
    first, second = of_each_class()
    nets = {"second": second, "second@next": first, "first@next": second}
    exam = exam_of(first, pixels_of(12), beside={name: nets[name] for name in beside})
    with pytest.raises(UserError, match=says):
        build("choice", by="average_precision", by_explainer="gradient", folds=3)(exam)


def test_examples_are_the_pictures_themselves():
    pixels, net = pixels_of(8), line(noise=0)
    eps = 10.5 / 255
    found = build("examples", images=4, eps=eps, attack="fgsm")(exam_of(net, pixels))
    again = build("examples", images=4)(exam_of(turned(net), pixels)).about["pictures"]
    place = {int(i): row for row, i in enumerate(pixels.dataset.ids)}
    pictures = found.about["pictures"]
    assert found.columns == {}
    assert [p["id"] for p in pictures] == [p["id"] for p in again]
    assert len(pictures) == 4

    def opened(text):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int)

    for picture in pictures:
        row = place[picture["id"]]
        image, mask = pixels.images[row].astype(int), pixels.masks[row]
        assert (opened(picture["image"]) == image).all()
        assert (opened(picture["mask"]) == 255 * mask).all()
        assert (opened(picture["maps"]["gradient"]) == 255 * mask).all()
        assert picture["correct"]
        assert picture["prediction"] == picture["label"] == picture["explained"]
        assert not picture["attacked"]["correct"]
        assert 9 <= np.abs(opened(picture["attacked"]["image"]) - image).max() <= 11
    small = build("examples", images=1, side=8)(exam_of(net, pixels)).about["pictures"][0]
    assert opened(small["image"]).shape == (8, 8, 3)
