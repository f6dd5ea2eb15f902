"""What comes in and who may speak: sizes, types, the token, names and origins, identifiers."""

from __future__ import annotations

import base64
import io
import logging
import os
import pickle
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.data.dicoms import dicom, words
from tests.viewer.conftest import BASE, SETTINGS, SIDE, TOKEN, client_of, events, png, upload

from diascope.viewer.app import Viewer, make_app
from diascope.viewer.guard import Guard
from diascope.viewer.limits import Doorway, Refused


class Bomb:
    def __reduce__(self):
        return (Path("/tmp/never").touch, ())


def bomb(side: int) -> bytes:
    """A PNG of `side` x `side` pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(min(side, 400)))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def refused(client: TestClient, content: bytes, **headers: str) -> tuple[int, str]:
    answer = client.post("images", content=content, headers=headers)
    assert set(answer.json()) == {"error"}
    sentence = answer.json()["error"]
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return answer.status_code, sentence


def test_an_image_comes_back_as_the_model_sees_it_by_an_id_that_is_not_guessed(client):
    first, second = upload(client), upload(client)
    assert first["id"] != second["id"]
    assert len(first["id"]) >= 20
    uri = first["image"].removeprefix("data:image/png;base64,")
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))
    assert seen.shape == (SIDE, SIDE, 3)
    whole = Image.open(io.BytesIO(png())).resize((SIDE, SIDE), Image.Resampling.BICUBIC, None, 3.0)
    assert (seen == np.asarray(whole)).all()


@pytest.mark.parametrize(
    "content", [b"", pickle.dumps(Bomb()), b"PK\x03\x04" + bytes(400), b"<svg/>"]
)
def test_what_is_no_image_is_refused_in_a_sentence(client, content):
    status, sentence = refused(client, content)
    assert status == 415
    assert sentence.startswith("The file ")
    assert not Path("/tmp/never").exists()


def test_the_content_tells_the_type_whatever_it_is_called(client):
    headers = {"content-type": "application/dicom", "content-disposition": "filename=a.dcm"}
    assert client.post("images", content=png(), headers=headers).status_code == 200
    broken = dicom(np.zeros((8, 8), np.uint8))[:200]
    assert refused(client, broken, **{"content-type": "image/png"})[0] == 415


def test_a_bomb_of_pixels_is_refused_before_memory_is_taken(client):
    content = bomb(30_000)
    assert len(content) < SETTINGS.max_upload
    status, sentence = refused(client, content)
    assert status == 415
    assert "more than 80,000,000 pixels" in sentence


def test_a_file_that_is_too_large_is_refused_declared_or_not(client):
    too_large = bytes(SETTINGS.max_upload + 1)
    assert refused(client, too_large)[0] == 413

    def in_parts():
        for _ in range(30):
            yield bytes(10_000)

    answer = client.post("images", content=in_parts())
    assert answer.status_code == 413
    assert "--max-upload" in answer.json()["error"]
    assert client.post("work", content=b" " * 70_000).status_code == 413


OPENED: list[str] | None = None


def _listen(event, arguments):
    """Note what is opened to be written, which no later unlinking hides."""
    if OPENED is not None and event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        OPENED.append(str(arguments[0]))


sys.addaudithook(_listen)


def test_no_upload_is_ever_a_file(client, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(globals(), "OPENED", [])
    with tempfile.TemporaryFile():
        assert {str(tmp_path)} == set(OPENED)
    OPENED.clear()
    content = dicom(np.random.default_rng(0).integers(0, 255, (400, 400), np.uint8))
    assert len(content) > 150_000
    found = upload(client, content)
    events(client, "attack", found["id"], norm="l2", steps=1)
    assert OPENED == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_who_a_dicom_file_belongs_to_is_told_or_logged(client, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    good = dicom(np.random.default_rng(0).integers(0, 255, (30, 30), np.uint8))
    broken = [
        good[:-300],
        dicom(b"\xff\xd8 no JPEG", Rows=9, Columns=9),
        good.replace(b"MONO", b"ERIK"),
    ]
    told = [client.post("images", content=content).text for content in (good, *broken)]
    found = upload(client, good)
    for kind, more in (("predict", {}), ("attack", {"norm": "linf", "steps": 1})):
        told += [str(events(client, kind, found["id"], **more))]
    told += [caplog.text, *capfd.readouterr()]
    for word in words():
        assert not any(word in each for each in told), word


def test_only_who_knows_the_token_is_served(client):
    assert client.get(BASE).status_code == 200
    for path in ("/", "/state", f"/{TOKEN}", f"/{TOKEN[:-1]}x/state", f"/{TOKEN}x/", "/ü/state"):
        answer = client.get(f"http://127.0.0.1:8000{path}")
        assert answer.status_code == 404
        assert TOKEN not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "10.0.0.7:8000", ""]
)
def test_a_name_that_is_not_the_servers_is_refused(client, host):
    assert client.get("state", headers={"host": host}).status_code == 421
    assert client.get("state", headers={"host": "localhost:1234"}).status_code == 200


def test_a_server_that_others_reach_goes_by_addresses_which_no_page_can_rebind(viewer):
    guard = Guard(make_app(viewer), {"clinic-pc"}, any_address=True, token=TOKEN)
    client = TestClient(guard, base_url=BASE)
    for host in ("10.0.0.7:8000", "[fe80::1]:8000", "clinic-pc:8000"):
        assert client.get("state", headers={"host": host}).status_code == 200
    for host in ("evil.example", "10.0.0.7.evil.example", "localhost"):
        assert client.get("state", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "path", ["samples/abc", "samples/0", "report", "../x", "docs", "openapi.json"]
)
def test_what_is_not_there_is_said_in_a_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
def test_another_page_may_not_speak_to_it(client, headers):
    assert client.get("state", headers=headers).status_code == 403
    assert client.post("images", content=png(), headers=headers).status_code == 403
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert client.post("images", content=png(), headers=own).status_code == 200


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for path in ("", "view.js", "view.css", "state", "nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers


def test_a_link_for_a_browser_leads_to_the_page_once(viewer):
    client = client_of(viewer)
    path = client.app.once()
    answer = client.get(f"http://127.0.0.1:8000{path}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/{TOKEN}/")
    assert client.get(f"http://127.0.0.1:8000{path}").status_code == 410


def test_a_failure_is_a_sentence_and_its_words_are_not_printed(client, viewer, monkeypatch, capfd):
    def fail(*_):
        raise ValueError("Mustermann^Erika")

    monkeypatch.setattr(viewer.room, "prepare", fail, raising=False)
    client = TestClient(client.app, base_url=BASE, raise_server_exceptions=False)
    answer = client.post("images", content=png())
    assert answer.status_code == 500
    assert answer.json() == {"error": "The viewer failed (ValueError)."}
    printed = "".join(capfd.readouterr())
    assert "ValueError in test_door.py" in printed
    assert "Mustermann" not in printed


def test_no_more_files_than_allowed_are_read_at_once():
    door = Doorway(2)
    with door.entered(), door.entered():
        with pytest.raises(Refused, match="try again"), door.entered():
            pass
        assert door.inside == 2
    assert door.inside == 0


def test_until_the_models_are_loaded_the_page_stands_and_says_so():
    waiting = Viewer(SETTINGS)
    client = client_of(waiting)
    assert client.get("").status_code == 200
    assert client.get("state").json()["state"] == "loading"
    answer = client.post("images", content=png())
    assert (answer.status_code, answer.json()["error"]) == (503, "The models are still loading.")
    waiting.failed = "x: there is no such file"
    assert client.get("state").json() == {"state": "failed", "error": "x: there is no such file"}
    assert waiting.desk.close()
