"""One image in training, in an audit, and for explanations and attacks: the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.data.trees import encoded, write
from torch import nn

from diascope.attacks import FGSM
from diascope.audit import AuditSettings, Subject, unseen_pixels
from diascope.audit.attacked import AttackOnFiles
from diascope.audit.cases import cases
from diascope.audit.explained import ExplanationOfFiles, prepared_masks
from diascope.audit.imagefiles import prepared
from diascope.data import Preprocess, load_region, open_data
from diascope.explain import Gradient
from diascope.training import Progress, read_config
from diascope.training.run import open_parts

SIZE = 32
PREPARED = {
    "circle and contrast": {"crop": "circle", "filters": ["min-max", "contrast"]},
    "centre": {"crop": "centre-square", "channels": 3},
    "grey": {"crop": "none", "channels": 1, "resize": "area", "filters": ["min-max"]},
}


class Witness(nn.Module):
    """A classifier that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.shown: list[torch.Tensor] = []

    def forward(self, x):
        self.shown.append(x.detach().clone())
        return torch.stack([x.mean((1, 2, 3)), x[:, :, :8].mean((1, 2, 3))], 1) * self.scale


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Discs on black, off centre, and one picture without a disc; each with a region."""
    root = tmp_path_factory.mktemp("data")
    rows, columns = np.mgrid[:60, :90]
    for k in range(6):
        away = np.hypot(rows - 28 - k, columns - 30 - 5 * k)
        light = np.where(away < 25, 200 - 4 * away, 0) if k else 100 + rows + columns / 9
        image = np.stack([light, light / 2, light / 3 + k], -1).clip(0, 255).astype(np.uint8)
        image[20 : 22 + 2 * k, 40:50] = 250 - 30 * k
        name = f"{'ab'[k % 2]}/{k}.png"
        write(root / name, encoded(image, "PNG"))
        write(root / "regions" / name, encoded(away < 9 + k, "PNG"))
    return root


@pytest.mark.parametrize("kind", PREPARED)
def test_every_verb_sees_the_same_bytes(kind, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    preprocess = Preprocess.model_validate(PREPARED[kind])
    fractions = [0.5, 0.5, 0.0]
    data = {"name": str(folder), "options": {"masks": "regions"}, "size": SIZE}
    config = read_config({"data": {**data, **PREPARED[kind], "split": {"fractions": fractions}}})
    assert config.data.preprocess == preprocess
    _, train, val = open_parts(config, Progress())
    trained, regions = {}, {}
    for part in (train, val):
        for row, path in enumerate(part.dataset.table.path):
            trained[path] = part.images[np.array([row])][0]
            regions[path] = part.m([row]).numpy()[0]
    files = sorted(trained)
    assert len(files) == 6
    assert len({pixels.tobytes() for pixels in trained.values()}) == 6
    assert all(0 < region.mean() < 0.9 for region in regions.values())

    model = Witness()
    card = {"classes": ["a", "b"], "size": SIZE, "preprocess": preprocess.model_dump()}
    subject = Subject("witness", model, None, card)
    dataset = open_data(str(folder), masks="regions")
    test = unseen_pixels(dataset, [subject], AuditSettings()).pixels
    shown = cases({}, {}, test, AuditSettings(cases=6), torch.device("cpu"))
    assert len(shown) == 6
    ready = prepared(files, subject).permute(0, 2, 3, 1).numpy()
    masks = prepared_masks(files, [f"regions/{file}" for file in files], subject).numpy()
    again = load_region(dataset, "mask", SIZE, preprocess)
    for place, path in enumerate(test.dataset.table.path):
        want = trained[path]
        assert (test.images[np.array([place])][0] == want).all()
        assert (ready[files.index(path)] == want).all()
        (case,) = [case for case in shown if case.id == path]
        assert (case.image == want).all()
        region = regions[path]
        assert (case.mask == region).all()
        assert (masks[files.index(path)] == region).all()
        assert (again[list(dataset.table.path).index(path)] == region).all()

    stack = torch.from_numpy(np.stack([trained[path] for path in files])).permute(0, 3, 1, 2)
    for verb in (
        AttackOnFiles(subject, FGSM(norm="linf", eps=0.01), tmp_path / "attack"),
        ExplanationOfFiles([subject], {"gradient": Gradient()}, tmp_path / "explain"),
    ):
        model.shown.clear()
        verb(files)
        assert torch.equal((model.shown[0].cpu() * 255).round().byte(), stack)


def test_the_preprocessing_is_recorded_and_read_back(tmp_path):
    content = {
        "data": {"name": "phantom", "crop": "circle", "filters": ["min-max", "contrast"]},
    }
    config = read_config(content, ["data.split.per_class=[3,0,2]", "data.resize=area"])
    again = read_config(config.to_dict())
    assert again.data == config.data
    assert [each["name"] for each in config.to_dict()["data"]["filters"]] == ["min-max", "contrast"]
    assert again.data.preprocess.filters[1].sigma == 20
    old = config.to_dict()
    for key in ("resize", "filters"):
        del old["data"][key]
    for key in ("stratify", "hold_out", "spanning", "per_class", "lists"):
        del old["data"]["split"][key]
    old["data"]["crop"] = "none"
    assert read_config(old).data.preprocess == Preprocess(crop="none")
