"""A tiny model, a room that holds it, and the viewer as its page meets it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from diascope.data import Preprocess
from diascope.models import create_model, save_model
from diascope.viewer.app import Viewer, make_app
from diascope.viewer.guard import Guard
from diascope.viewer.room import Room
from diascope.viewer.settings import ViewSettings

SIDE = 24
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
CLASSES = ["melanoma", "nevus", "keratosis"]
TOKEN = "t" * 43
BASE = f"http://127.0.0.1:8000/{TOKEN}/"
SETTINGS = ViewSettings(epsilons=(0.1, 0.5, 2.0), steps=3, max_upload=200_000)


def png(side: int = 40, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on disk, whose images stand near an edge."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("resnet18", len(CLASSES), **TINY).eval()
        with torch.no_grad():
            model.backbone.fc.weight.mul_(20)
            model.backbone.fc.bias.sub_(model(torch.rand(64, 3, SIDE, SIDE)).mean(0))
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    card = {"classes": CLASSES, "size": SIDE, "preprocess": Preprocess().model_dump()}
    save_model(model, folder / "model.safetensors", **card)
    return folder


@pytest.fixture(scope="session")
def room(run: Path) -> Room:
    return Room.open([str(run)], SETTINGS)


@pytest.fixture
def viewer(room: Room) -> Iterator[Viewer]:
    viewer = Viewer(SETTINGS)
    viewer.load(room)
    yield viewer
    assert viewer.desk.close()


@pytest.fixture
def client(viewer: Viewer) -> TestClient:
    return client_of(viewer)


def client_of(viewer: Viewer) -> TestClient:
    guard = Guard(make_app(viewer), {"localhost", "127.0.0.1", "[::1]"}, token=TOKEN)
    return TestClient(guard, base_url=BASE, follow_redirects=False)


def upload(client: TestClient, content: bytes | None = None) -> dict[str, Any]:
    answer = client.post("images", content=png() if content is None else content)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(client: TestClient, kind: str, image: str, **more: Any) -> list[dict[str, Any]]:
    asked = {"kind": kind, "image": image, "page": "page-of-a-test", **more}
    answer = client.post("work", json=asked)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]
