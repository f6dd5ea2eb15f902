"""What is computed, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.nets import small_net
from tests.viewer.conftest import SETTINGS, SIDE, client_of, events, png, upload

from diascope.attacks import PGD, robustness_curve
from diascope.audit import Subject
from diascope.audit.imagefiles import image_id
from diascope.audit.parts import Interface
from diascope.explain import Gradient, render
from diascope.models import heads
from diascope.viewer.app import Viewer, _lines, _teller
from diascope.viewer.limits import Refused
from diascope.viewer.room import Room
from diascope.viewer.samples import Samples
from diascope.viewer.session import Shelf
from diascope.viewer.work import Desk, Job, heed


def of(found, *keys):
    return [event for event in found if all(key in event for key in keys)]


def test_predictions_are_the_models_own(client, viewer, room):
    found = upload(client)
    told = events(client, "predict", found["id"])
    assert [e["state"] for e in of(told, "state")] == ["queued", "running", "done"]
    (seen,) = of(told, "model")
    x = room.tensor(viewer.pictures.get(found["id"]))
    with torch.no_grad():
        p = heads.probabilities(room.subjects[0].model(x))[0]
    assert seen["model"] == "tiny"
    assert seen["probabilities"] == pytest.approx(p.tolist(), abs=1e-5)
    assert seen["prediction"] == int(p.argmax())


def masked(shape=(60, 40), inside=(slice(20, 30), slice(5, 15)), level=255):
    pixels = np.zeros(shape, np.uint8)
    pixels[inside] = level
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def corners(path):
    """Left, top, right and bottom of an SVG path in pixels."""
    points = np.array([[float(v) for v in p.split()] for p in re.findall(r"[-\d.]+ [-\d.]+", path)])
    return [*points.min(0), *points.max(0)]


def test_the_outline_of_a_mask_lies_where_the_image_was_cut(client):
    file = io.BytesIO()
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(file, "PNG")
    found = upload(client, file.getvalue())
    assert found["outline"] == ""
    told = client.post(f"images/{found['id']}/mask", content=masked())
    assert told.status_code == 200, told.text
    # the centre square begins 10 pixels down; 40 pixels become SIDE
    k = SIDE / 40
    expected = [5 * k, 10 * k, 15 * k, 20 * k]
    assert corners(told.json()["outline"]) == pytest.approx(expected, abs=0.7)


def test_a_mask_that_does_not_fit_is_refused_in_a_sentence(client):
    name = upload(client)["id"]
    cases = {
        masked((40, 30)): (415, "The mask is 30 × 40 pixels, and its image 40 × 40."),
        masked((40, 40), level=0): (415, "The mask has nothing inside that the models see."),
        b"no picture": (415, "known format"),
        b"x" * 300_000: (413, "larger than"),
    }
    for content, (status, words) in cases.items():
        answer = client.post(f"images/{name}/mask", content=content)
        assert answer.status_code == status
        assert words in answer.json()["error"]
    assert client.post("images/nothing/mask", content=masked((40, 40))).status_code == 404


@pytest.mark.parametrize("region", ["mask", "boxes"])
def test_images_of_the_data_have_the_outline_of_their_mask_or_boxes(room, tmp_path, region):
    (tmp_path / "m.png").write_bytes(masked((40, 40), (slice(8, 32), slice(16, 24))))
    (tmp_path / "small.png").write_bytes(masked((20, 20)))
    regions = {"mask": ["m.png", "small.png", ""], "boxes": ["[[16,8,8,24]]", "[[50,50,3,3]]", ""]}[
        region
    ]
    lines = ["path,label,group," + region]
    for number, of in enumerate(regions):
        (tmp_path / f"{number}.png").write_bytes(png(seed=number))
        lines.append(f'{number}.png,nevus,g{number},"{of}"')
    (tmp_path / "table.csv").write_text("\n".join(lines))
    samples = Samples.open(str(tmp_path / "table.csv"), room)
    first, second, third = (samples.picture(number, room) for number in range(3))
    k = SIDE / 40
    assert corners(first.outline) == pytest.approx([16 * k, 8 * k, 24 * k, 32 * k], abs=0.7)
    assert second.outline == third.outline == ""  # of another size, or of none, or none at all


def test_an_attack_is_shown_at_each_epsilon_and_the_least_is_the_curves(client, viewer, room):
    found = upload(client)
    told = events(client, "attack", found["id"], norm="l2", steps=3)
    steps = of(told, "step")
    assert [e["step"] for e in steps] == [0, 1, 2]
    picture, model = viewer.pictures.get(found["id"]), room.subjects[0].model
    x = room.tensor(picture)
    y = heads.predictions(model(x))
    ids = torch.tensor([image_id(picture.levels)])

    def seeded():
        return torch.Generator().manual_seed(0)

    attack = PGD(norm="l2", steps=3)
    curve = robustness_curve(
        model, x, y, attack=attack, epsilons=[0.1, 0.5, 2.0], refine=4, generator=seeded(), ids=ids
    )
    (least,) = of(told, "minimal")
    assert least["minimal"] == pytest.approx(float(curve.minimal_epsilon))
    assert 0 < least["minimal"] <= 2
    for eps, step in zip((0.1, 0.5, 2.0), steps, strict=True):
        assert 0 < step["size"] <= eps * 1.0001
        assert (step["prediction"] != int(y)) == (least["minimal"] <= eps)
        assert step["image"].startswith("data:image/png")


def test_maps_come_without_and_under_attack_the_one_looked_at_first(client, viewer, room):
    found = upload(client)
    told = events(client, "attack", found["id"], norm="l2", steps=3)
    held = told[0]["attack"]
    more = {"method": "gradient", "target": 1, "attack": held, "first": 2}
    maps = of(events(client, "explain", found["id"], **more), "map")
    assert [e["step"] for e in maps] == [None, 2, 0, 1]
    assert {e["target"] for e in maps} == {"nevus"}
    assert len({e["map"] for e in maps}) == 4
    from diascope.viewer.pictures import map_of

    x = room.tensor(viewer.pictures.get(found["id"]))
    raw = Gradient()(room.subjects[0].model, x, 1, generator=torch.Generator().manual_seed(0))
    assert maps[0]["map"] == map_of(render(raw)[0])
    own = of(events(client, "explain", found["id"], method="gradient", target=None), "map")
    (seen,) = of(events(client, "predict", found["id"]), "prediction")
    assert own[0]["target"] == room.classes[seen["prediction"]]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"kind": "dance"}, 422),
        ({"kind": "attack", "norm": "l2", "steps": 10**9}, 422),
        ({"kind": "attack", "norm": "l2", "steps": True}, 422),
        ({"kind": "attack", "norm": "l7", "steps": 3}, 422),
        ({"kind": "explain", "method": "../gradient"}, 422),
        ({"kind": "explain", "method": "gradient", "target": 3}, 422),
        ({"kind": "explain", "method": "gradient", "attack": "x", "first": 0}, 404),
        ({"kind": "predict", "image": "x"}, 404),
        ({"kind": "predict", "image": ["x"]}, 404),
        ({"kind": "predict", "page": "x"}, 422),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(client, asked, status):
    found = upload(client)
    answer = client.post("work", json={"image": found["id"], "page": "a-page-of-tests", **asked})
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 60_000])
def test_a_body_that_is_no_object_is_refused(client, body):
    assert client.post("work", content=body).status_code == 422


def test_what_is_forgotten_is_gone(client, viewer):
    found = upload(client)
    events(client, "attack", found["id"], norm="l2", steps=1)
    assert (len(viewer.pictures), len(viewer.attacks)) == (1, 1)
    assert client.post("forget").status_code == 200
    assert (len(viewer.pictures), len(viewer.attacks)) == (0, 0)
    asked = {"kind": "predict", "image": found["id"], "page": "page-of-a-test"}
    assert client.post("work", json=asked).status_code == 404


def test_the_least_recently_used_leave_when_memory_is_full():
    def thing(size):
        return SimpleNamespace(nbytes=size)

    shelf = Shelf(100)
    a, b = shelf.put(thing(40)), shelf.put(thing(40))
    shelf.get(a)
    c = shelf.put(thing(50))
    assert shelf.get(a).nbytes == 40
    assert shelf.get(c).nbytes == 50
    with pytest.raises(Refused, match="no longer in memory"):
        shelf.get(b)
    with pytest.raises(Refused, match="more memory"):
        shelf.put(thing(101))
    assert len(shelf) == 2


class Slow:
    """A task that runs until it is told to end, as a forward pass would learn it."""

    def __init__(self):
        self.began, self.ended = threading.Event(), threading.Event()

    def __call__(self, job):
        self.began.set()
        try:
            while True:
                heed()
                time.sleep(0.005)
        finally:
            self.ended.set()


def job(task, *, page="page", kind="attack", about="image", timeout=20.0):
    told = []
    return Job(page, kind, about, task, told.append, timeout), told


def quick(job):
    job.tell({"model": "x"})


def waited(told):
    until = time.monotonic() + 10
    while not (told and told[-1].get("state") in ("done", "error", "stopped")):
        assert time.monotonic() < until
        time.sleep(0.005)
    return told[-1]


@pytest.fixture
def desk():
    desk = Desk(3)
    yield desk
    assert desk.close()


def test_a_newer_request_of_a_page_ends_the_older_one(desk):
    slow = Slow()
    older, told_older = job(slow)
    desk.submit(older)
    assert slow.began.wait(10)
    newer, told_newer = job(quick)
    assert desk.submit(newer) == 1
    assert waited(told_newer) == {"state": "done"}
    assert slow.ended.is_set()
    assert waited(told_older) == {"state": "stopped", "reason": "superseded"}


def test_other_kinds_wait_and_another_image_ends_all(desk):
    slow = Slow()
    first, told_first = job(slow)
    desk.submit(first)
    assert slow.began.wait(10)
    second, told_second = job(quick, kind="explain")
    other, told_other = job(quick, page="another page")
    desk.submit(second)
    desk.submit(other)
    assert not told_second
    third, told_third = job(quick, kind="predict", about="another image")
    desk.submit(third)
    assert waited(told_first)["reason"] == waited(told_second)["reason"] == "superseded"
    assert {"model": "x"} not in told_second
    assert waited(told_other) == waited(told_third) == {"state": "done"}


def test_work_ends_when_its_time_is_over_and_the_next_is_done(desk):
    late, told = job(Slow(), timeout=0.05)
    desk.submit(late)
    assert "longer than 0 seconds" in waited(told)["error"]
    after, told = job(quick)
    desk.submit(after)
    assert waited(told) == {"state": "done"}


def test_too_much_work_is_refused_and_what_nobody_waits_for_makes_room(desk):
    slow, jobs = Slow(), []
    for number in range(4):
        one, _ = job(slow if number == 0 else quick, page=f"page {number}")
        desk.submit(one)
        assert slow.began.wait(10)
        jobs.append(one)
    with pytest.raises(Refused, match="try again"):
        desk.submit(job(quick, page="one more")[0])
    desk.drop(jobs[3])
    last, told = job(quick, page="one more")
    desk.submit(last)
    desk.drop(jobs[0])
    assert waited(told) == {"state": "done"}


def test_a_task_that_fails_says_its_kind_alone(desk, capfd):
    def fail(job):
        raise ValueError("Mustermann^Erika")

    one, told = job(fail)
    desk.submit(one)
    assert waited(told) == {"state": "error", "error": "This failed (ValueError)."}
    assert "Mustermann" not in "".join(capfd.readouterr())


def test_a_model_stops_within_a_pass_when_its_work_is_not_wanted(room, desk):
    passes, began = [], threading.Event()

    def task(job):
        model = room.subjects[0].model
        for _ in range(10_000):
            PGD(norm="l2", eps=0.1, steps=50)(
                model, torch.rand(1, 3, SIDE, SIDE), torch.tensor([0])
            )
            passes.append(1)
            began.set()

    one, told = job(task)
    desk.submit(one)
    assert began.wait(20)
    desk.drop(one)
    assert waited(told) == {"state": "stopped", "reason": "left"}
    assert len(passes) < 10_000
    assert not room.subjects[0].model.training


def box(name, outputs):
    net = small_net(3)
    net.requires_grad_(False)

    class Box(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        @torch.no_grad()
        def forward(self, x):
            scores = self.net(x)
            best = torch.nn.functional.one_hot(scores.argmax(1), 3).float()
            return best if outputs == "labels" else scores

    interface = Interface("callable", False, outputs, 3, SIDE, "RGB in [0, 1]", True)
    card = {"classes": list("abc"), "size": SIDE, "preprocess": {"crop": "none", "channels": 3}}
    return Subject(name, Box().eval(), None, card, interface)


def test_black_boxes_get_occlusion_and_the_attacks_that_ask_only(monkeypatch):
    monkeypatch.setattr("diascope.viewer.room.QUERIES", 8)
    subjects = [box("scores", "probabilities"), box("labels", "labels")]
    bare = Room(subjects, SETTINGS, torch.device("cpu"))
    bare._find_methods()
    assert list(bare.methods) == ["occlusion"]
    assert "needs gradients" in bare.unfit["labels"]["gradient"]
    viewer = Viewer(SETTINGS)
    viewer.load(bare)
    client = client_of(viewer)
    state = client.get("state").json()
    assert [m["attack"] for m in state["models"]] == ["square", "boundary"]
    assert state["method"] == "occlusion"
    found = upload(client, png(SIDE))
    told = events(client, "attack", found["id"], norm="l2", steps=2)
    assert not of(told, "failed")
    assert [e["model"] for e in of(told, "minimal")] == ["scores", "labels"]
    assert len(of(told, "step")) >= 6
    maps = of(events(client, "explain", found["id"], method="occlusion", target=None), "map")
    assert [e["model"] for e in maps] == ["scores", "labels"]
    assert viewer.desk.close()


def test_one_models_failure_leaves_the_others_their_answers(monkeypatch):
    monkeypatch.setattr("diascope.viewer.room.QUERIES", 8)
    good, bad, wild = box("good", "logits"), box("bad", "logits"), box("wild", "logits")
    bad.model.forward = lambda x: 1 / 0
    wild.model.forward = lambda x: torch.full((len(x), 3), torch.nan)
    viewer = Viewer(SETTINGS)
    room = Room([bad, wild, good], SETTINGS, torch.device("cpu"))
    room._find_methods()
    viewer.load(room)
    client = client_of(viewer)
    found = upload(client)
    for kind, more in (("predict", {}), ("attack", {"norm": "linf", "steps": 1})):
        told = events(client, kind, found["id"], **more)
        failed = {e["model"]: e["failed"] for e in of(told, "failed")}
        assert failed["bad"] == "bad: fails on this image (ZeroDivisionError)"
        assert failed["wild"] == "wild: its outputs for this image are not finite"
        assert told[-1] == {"state": "done"}
        assert of(told, "model", "probabilities")[-1]["model"] == "good"
    assert viewer.desk.close()


def heard(desk, one, told, *, leave=False):
    """What a page reads of a job; with `leave` it goes away once the work is under way."""

    async def read():
        events = asyncio.Queue()
        one.tell = _teller(events)
        desk.submit(one)
        stream = _lines(desk, one, events, {"state": "queued"})
        async for line in stream:
            told.append(json.loads(line))
            if leave and told[-1]["state"] == "running":
                await stream.aclose()
                return

    asyncio.run(read())


def test_work_whose_page_has_gone_away_ends(desk):
    slow, told = Slow(), []
    one, _ = job(slow)
    heard(desk, one, told, leave=True)
    assert slow.ended.wait(10)
    assert one.reason == "left"


def test_a_model_that_never_comes_back_does_not_keep_the_page_waiting(desk, monkeypatch):
    monkeypatch.setattr("diascope.viewer.app.GRACE", 0.05)
    free, told = threading.Event(), []
    one, _ = job(lambda job: free.wait(20), timeout=0.05)
    heard(desk, one, told)
    free.set()
    assert told[-1]["state"] == "error"
    assert "does not come to an end" in told[-1]["error"]
