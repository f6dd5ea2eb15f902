"""What the audits of docs/examples stand on: the groups of ImageNet's classes, and the export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.examples import lite0, to_onnx
from benchmarks.examples.groups import GROUPS
from timm.data import ImageNetInfo

from diascope.data.named.cifar10 import CLASSES
from diascope.models import create_model, load_model
from diascope.models.checkpoint import save_model
from diascope.models.opening import open_classifier

KNOWN = {  # in timm's own list of ImageNet's classes
    "airplane": "airliner warplane",
    "automobile": "ambulance beach_wagon cab convertible jeep limousine minivan Model_T racer "
    "sports_car",
    "cat": "tabby tiger_cat Persian_cat Siamese_cat Egyptian_cat",
    "deer": "hartebeest impala gazelle",
    "frog": "bullfrog tree_frog tailed_frog",
    "horse": "sorrel zebra",
    "ship": "aircraft_carrier canoe catamaran container_ship fireboat gondola lifeboat liner "
    "pirate schooner speedboat submarine trimaran yawl",
    "truck": "fire_engine garbage_truck moving_van police_van tow_truck trailer_truck",
}
ENDS = {  # first and last of each run, and what stands just outside of it
    "bird": ("cock great_grey_owl black_grouse black_swan white_stork albatross", 59),
    "dog": ("Chihuahua Mexican_hairless", 118),
}
OUTSIDE = (
    "stingray European_fire_salamander centipede tusker isopod grey_whale sea_lion timber_wolf"
)


def lemmas(indices) -> set[str]:
    info = ImageNetInfo()
    found = (info.index_to_description(i).split(",")[0].strip() for i in indices)
    return {name.replace(" ", "_").replace("-", "_") for name in found}


def test_the_groups_hold_the_imagenet_classes_they_say():
    assert tuple(group.name for group in GROUPS) == CLASSES
    members = {group.name: group.indices for group in GROUPS}
    for name, known in KNOWN.items():
        assert lemmas(members[name]) == set(known.split()), name
    for name, (known, count) in ENDS.items():
        assert set(known.split()) <= lemmas(members[name]), name
        assert len(members[name]) == count
    everything = [i for group in GROUPS for i in group.indices]
    assert len(everything) == len(set(everything))
    assert not lemmas(everything) & set(OUTSIDE.split())
    assert set(OUTSIDE.split()) <= lemmas(range(1000))


def test_a_group_of_many_classes_is_not_favoured():
    silent = lite0.imagenet_to_cifar(torch.zeros(2, 1000))
    torch.testing.assert_close(silent, torch.zeros(2, 10))
    logits = torch.zeros(1, 1000)
    logits[0, 339] = 5.0  # a sorrel
    assert CLASSES[int(lite0.imagenet_to_cifar(logits).argmax())] == "horse"


def test_the_network_of_the_package_answers_in_ten_classes():
    pytest.importorskip(lite0.PACKAGE, reason="the package with the weights is not installed")
    model = lite0.classifier()
    assert not model.training
    with torch.no_grad():
        out = model(torch.zeros(1, 3, 64, 64))
    assert out.shape == (1, 10)
    assert out.isfinite().all()


def test_the_export_answers_as_the_run_does(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    torch.manual_seed(0)
    run, out = tmp_path / "run" / "model.safetensors", tmp_path / "run.onnx"
    run.parent.mkdir()
    save_model(create_model("alexnet-28", 3), run, size=28, classes=["a", "b", "c"])
    to_onnx.main([str(run), str(out)])
    assert "within" in capsys.readouterr().out
    assert to_onnx.difference(run, out) < 1e-4
    images = torch.rand(5, 3, 28, 28)
    with torch.no_grad():
        ours, theirs = load_model(run)(images), open_classifier(str(out)).model(images)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert list(tmp_path.glob("*.onnx*")) == [out]  # its weights lie in it
