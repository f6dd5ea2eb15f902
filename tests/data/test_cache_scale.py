"""Caches of many images: streamed, resumed, as small as can be, and read in any order."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import trees
from typer.testing import CliRunner

from diascope.cli.data import app
from diascope.data import Augment, Dataset, Preprocess, load_pixels, open_data
from diascope.data.cache import cache_folder
from diascope.data.caches import caches, remove
from diascope.data.readers import FileReader
from diascope.data.stamps import stamps
from diascope.data.store import ROW, Images, Masks, Shape, Store, sorted_by_print
from diascope.errors import UserError
from diascope.training.batches import Batches

FORK = multiprocessing.get_context("fork")
Usage = namedtuple("Usage", "total used free")


class Made:
    """A reader of images made from their number: grey where the path says so."""

    def __init__(self, side: int = 24) -> None:
        self.side, self.count = side, 0

    def image(self, path: str) -> np.ndarray:
        self.count += 1
        kind, number = path.split("/")
        colour = trees.pixels(int(number), self.side, self.side)
        if kind == "grey":
            return colour[..., :1]
        return np.repeat(colour[..., :1], 3, 2) if kind == "equal" else colour

    def mask(self, path: str) -> np.ndarray:
        return trees.region(self.side, self.side) ^ (int(path) % 2 == 0)

    def stamp(self, path: str) -> str:
        return "made"


def made(kinds: list[str], side: int = 24, masks: list[int] | None = None) -> Dataset:
    count = len(kinds)
    columns = {
        "path": [f"{kind}/{k}" for k, kind in enumerate(kinds)],
        "label": ["ab"[k % 2] for k in range(count)],
        "mask": [str(k) if k in (masks or []) else "" for k in range(count)],
    }
    return Dataset.of("made", columns, ["a", "b"], Made(side))


def held() -> dict[str, int]:
    (folder,) = (f for f in cache_folder().iterdir() if not f.name.startswith("."))
    return {f.name: f.stat().st_size for f in folder.iterdir()}


def test_grey_images_take_one_channel_and_are_read_with_three() -> None:
    dataset = made(["grey", "colour", "equal", "grey", "colour", "equal"], masks=[1, 3, 4])
    pixels = load_pixels(dataset, 24)
    sizes = held()
    assert sizes["grey.raw"] == 4 * 24 * 24
    assert sizes["colour.raw"] == 2 * 24 * 24 * 3
    assert sizes["masks.raw"] == 3 * 24 * 24 // 8
    want = np.stack(
        [np.broadcast_to(dataset.reader.image(p), (24, 24, 3)) for p in dataset.table.path]
    )
    assert (np.asarray(pixels.images) == want).all()
    lists = ([0, 2, 3], [1, 4], [4, 0, 5, 1], [3], np.zeros(0, int))
    for rows in (*lists, slice(1, 5), torch.tensor([5, 5])):
        x = pixels.x(rows)
        some = want[np.asarray(rows, np.int64) if not isinstance(rows, slice) else rows]
        assert torch.equal(x, torch.from_numpy(some.copy()).permute(0, 3, 1, 2) / 255)
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert pixels.raw([0, 2]).shape == (2, 1, 24, 24)
    assert pixels.raw([0, 1]).shape == (2, 3, 24, 24)
    contents = [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in want]
    assert pixels.fingerprints() == contents
    assert pixels.take([4, 0]).fingerprints() == [contents[4], contents[0]]
    assert pixels.has_mask.tolist() == [k in (1, 3, 4) for k in range(6)]
    for row in range(6):
        region = dataset.reader.mask(str(row)) if row in (1, 3, 4) else np.zeros((24, 24), bool)
        assert (pixels.m([row])[0].numpy() == region).all()


def test_grey_preprocessing_has_one_channel() -> None:
    pixels = load_pixels(made(["grey", "colour"]), 24, Preprocess(channels=1))
    assert pixels.x().shape == (2, 1, 24, 24)
    assert held()["colour.raw"] == 0


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    dataset = made(["grey", "colour", "colour"] * 20)
    pixels = load_pixels(dataset, 16)
    whole = np.asarray(pixels.images)
    draw = np.random.default_rng(0)
    for _ in range(5):
        rows = draw.integers(0, 60, 25)
        pixels.expect(rows)
        assert (pixels.images[rows] == whole[rows]).all()
        assert (pixels.take(rows).images[3:9] == whole[rows[3:9]]).all()
    again = pickle.loads(pickle.dumps(pixels.images))
    assert (again[[5, 3]] == whole[[5, 3]]).all()


def test_a_cache_cut_short_while_it_is_read_is_one_line() -> None:
    pixels = load_pixels(made(["colour"] * 3), 16)
    file = next(cache_folder().glob("*/colour.raw"))
    os.truncate(file, 16 * 16 * 3 * 2 + 5)
    assert len(pixels.x([0, 1])) == 2
    with pytest.raises(UserError, match=r"colour\.raw: is shorter than it was"):
        pixels.x([2])


def test_rows_that_another_cache_holds_are_copied(tmp_path: Path) -> None:
    kinds = ["grey", "colour"] * 4
    some = made(kinds[:6], masks=[1])
    load_pixels(some, 16)
    whole = made(kinds, masks=[1])
    pixels = load_pixels(whole, 16)
    assert whole.reader.count == 2
    fresh = load_pixels(made(kinds, masks=[1]), 16, cache=tmp_path)
    assert (np.asarray(pixels.images) == np.asarray(fresh.images)).all()
    assert torch.equal(pixels.m(), fresh.m())
    assert pixels.fingerprints() == fresh.fingerprints()


def test_a_refused_build_keeps_what_it_decoded(tmp_path: Path) -> None:
    trees.folders(tmp_path, 4)
    content = trees.encoded(trees.pixels(0), "PNG")
    trees.write(tmp_path / "cat" / "cat1.png", content[:100])
    with pytest.raises(UserError, match="1 of 8 images"):
        load_pixels(open_data(tmp_path), 16)
    assert [cache.state for cache in caches()] == ["unfinished"]
    trees.write(tmp_path / "cat" / "cat1.png", content)
    dataset = open_data(tmp_path)
    read = list[str]()
    image = FileReader.image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileReader, "image", lambda self, p: read.append(p) or image(self, p))
        assert len(load_pixels(dataset, 16)) == 8
    assert read == ["cat/cat1.png"]
    assert [cache.state for cache in caches()] == ["complete"]


def test_no_room_on_the_disk_is_said_before_anything_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def free(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, count))

    dataset = made(["colour"] * 100)
    free(100 * 32 * 32 - 1)
    with pytest.raises(UserError) as error:
        load_pixels(dataset, 32)
    assert dataset.reader.count == 0
    need = 100 * (32 * 32 * 3 + 2 * ROW.itemsize)
    for words in (f"need {need:,} bytes", f"{100 * 32 * 32 - 1:,} are free", "DIASCOPE_CACHE"):
        assert words in str(error.value)
    assert list(cache_folder().iterdir()) == []
    free(100 * 32 * 32 * 2)  # enough if they were grey: some are looked at
    with pytest.raises(UserError, match=f"need {need:,} bytes"):
        load_pixels(dataset, 32)
    assert 0 < dataset.reader.count <= 16
    assert len(load_pixels(made(["grey"] * 100), 32)) == 100


def test_a_disk_that_fills_up_is_one_line_and_what_was_done_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = made(["colour"] * 64)

    def full(done: int, _: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device.* is kept for the next start"):
        load_pixels(dataset, 16, progress=full)
    dataset.reader.count = 0
    assert len(load_pixels(dataset, 16)) == 64
    assert dataset.reader.count == 32


def _building(count: int, side: int, limit: int, results) -> None:
    """Build with at most `limit` bytes of memory more than this process has now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    data = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (data + limit, data + limit))
    try:
        dataset = made(["colour"] * count)
        image = np.zeros((side, side, 3), np.uint8)
        image[..., 1] = 7
        dataset.reader.image = lambda _: image
        load_pixels(dataset, side, progress=lambda *_: time.sleep(0.01))  # a slow writer
        results.put(sum(f.stat().st_size for f in cache_folder().rglob("colour.raw")))
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_memory_does_not_grow_with_the_number_of_images() -> None:
    side, count, limit = 512, 100, 36 << 20
    results = FORK.Queue()
    worker = FORK.Process(target=_building, args=(count, side, limit, results))
    worker.start()
    assert results.get(timeout=60) == count * side**2 * 3 > 2 * limit
    worker.join()


def test_the_table_finds_rows_by_their_prints(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    prints = np.frombuffer(draw.bytes(12 * 1000), "S12")
    table = np.zeros(600, ROW)
    table["print"], table["kind"] = prints[:600], 2
    for name in ("grey.raw", "colour.raw", "masks.raw"):
        (tmp_path / name).touch()
    store = Store(tmp_path, Shape(4, 3), sorted_by_print(table), {})
    rows = store.locate(prints)
    assert (rows[600:] == -1).all()
    assert (store.table["print"][rows[:600]] == prints[:600]).all()
    assert (Store(tmp_path, Shape(4, 3), table[:0], {}).locate(prints) == -1).all()
    assert Images(store).shape == (600, 4, 4, 3)
    assert Masks(store).shape == (600, 4, 4)


def test_stamps_of_many_are_those_of_each(tmp_path: Path) -> None:
    trees.folders(tmp_path, 3)
    trees.archive(tmp_path / "a.zip", {"x/1.png": b"one", "2.png": b"two"})
    trees.write(tmp_path / "b.zip", b"none")
    reader = FileReader(tmp_path)
    paths = ["cat/cat0.png", "dog/dog2.png", "none.png", "a.zip!x/1.png", "a.zip!2.png"]
    paths += ["a.zip!3.png", "b.zip!1.png", "none.zip!1.png", str(tmp_path / "cat" / "cat1.png")]
    found = stamps(reader, paths)
    assert found == [reader.stamp(path) for path in paths]
    assert found.count("absent") == 4
    assert len({stamp for stamp in found if stamp != "absent"}) == 5
    assert stamps(Made(), ["grey/1"]) == ["made"]


def test_caches_are_listed_and_cleared() -> None:
    load_pixels(made(["grey"] * 3), 16)
    load_pixels(made(["colour"] * 2), 20)
    old = cache_folder() / ("0" * 24 + "-" + "1" * 24)  # of an earlier version
    trees.write(old / "images.npy", b"x" * 1000)
    stray = trees.write(cache_folder() / "notes.txt", "not ours")
    trees.write(cache_folder() / "folder" / "file", "not ours")
    unpacked = trees.write(cache_folder() / "unpacked" / "a.npy", b"x" * 10)
    os.utime(old / "images.npy", (0, 0))
    found = caches()
    states = ["complete", "complete", "unpacked", "unusable"]
    assert sorted(cache.state for cache in found) == states
    assert found[0].folder == old
    assert found[0].days > 10_000
    seen = {(c.dataset, c.images, c.size, c.channels) for c in found if c.state == "complete"}
    assert seen == {("made", 3, 16, 3), ("made", 2, 20, 3)}
    listed = CliRunner().invoke(app, ["cache"])
    assert listed.exit_code == 0, listed.output
    assert "made, 3 images of 16x16" in listed.output
    assert "4 caches" in listed.output
    CliRunner().invoke(app, ["cache", "--clear", "--unused", "100"])
    assert not old.exists()
    assert len(caches()) == 3
    cleared = CliRunner().invoke(app, ["cache", "--clear"])
    assert cleared.output.count("removed") == 3
    assert caches() == []
    assert stray.exists()
    assert (cache_folder() / "folder" / "file").exists()
    assert not unpacked.exists()


def test_a_cache_that_is_being_built_is_not_cleared() -> None:
    seen = list[tuple[str, bool]]()

    def look(done: int, _: int) -> None:
        seen.extend((cache.state, remove(cache)) for cache in caches())

    pixels = load_pixels(made(["grey"] * 40), 16, progress=look)
    assert set(seen) == {("unfinished", False)}
    assert len(pixels.x()) == 40


def test_grey_images_are_augmented_as_one_channel_and_repeated() -> None:
    pixels = load_pixels(made(["grey"] * 5 + ["equal"] * 4), 24)
    assert pixels.grey
    batches = Batches(pixels, 4, seed=1, augment=Augment())
    rows = np.array([7, 2, 4])
    batches.expect(rows)
    got = batches.load(rows, 3).x
    want = Augment()(pixels.x(rows), pixels.ids(rows), 1, 3)
    assert got.shape == (3, 3, 24, 24)
    assert got.stride() == want.stride()
    assert (got - want).abs().max() < 1e-6
    mixed = load_pixels(made(["grey"] * 5 + ["colour"]), 24)
    assert not mixed.grey
    batches = Batches(mixed, 4, seed=1, augment=Augment())
    whole = batches.load(np.arange(6), 3).x
    assert torch.equal(batches.load(np.arange(3), 3).x, whole[:3])
