from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import trees

from diascope.data import Dataset, Preprocess, ReadError, building, load_pixels, open_data
from diascope.data.cache import cache_folder
from diascope.data.store import ROW
from diascope.errors import UserError

FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Counting:
    """A reader that counts what it decodes; `pause` seconds an image."""

    def __init__(self, reader, pause: float = 0.0) -> None:
        self.reader, self.pause, self.count = reader, pause, 0

    def image(self, path: str) -> np.ndarray:
        self.count += 1
        time.sleep(self.pause)
        return self.reader.image(path)

    def mask(self, path: str) -> np.ndarray:
        return self.reader.mask(path)

    def stamp(self, path: str) -> str:
        return self.reader.stamp(path)


def counted(dataset: Dataset, pause: float = 0.0) -> tuple[Dataset, Counting]:
    reader = Counting(dataset.reader, pause)
    return Dataset(dataset.name, dataset.table, dataset.classes, reader), reader


def caches() -> list[Path]:
    return sorted(f for f in cache_folder().iterdir() if not f.name.startswith("."))


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    dataset = open_data(f"ham10000:{trees.reduced(tmp_path)}")
    calls: list[tuple[int, int]] = []
    pixels = load_pixels(dataset, 20, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)
    for row, path in enumerate(dataset.table.path):
        want = Preprocess().image(dataset.reader.image(path), 20)
        assert (pixels.images[row] == want).all()
        x = pixels.x([row])
        assert torch.equal(x, torch.from_numpy(want.copy()).permute(2, 0, 1)[None] / 255)
        region = Preprocess().mask(dataset.reader.mask(dataset.table["mask"][row]), 20)
        assert (pixels.m([row])[0].numpy() == region).all()
    assert pixels.x().is_contiguous(memory_format=torch.channels_last)
    assert pixels.x().dtype == torch.float32
    assert pixels.y().tolist() == dataset.labels.tolist()
    assert pixels.ids([2, 0]).tolist() == dataset.ids[[2, 0]].tolist()
    assert pixels.m().dtype == torch.bool
    assert pixels.has_mask.all()


def test_views_keep_rows_together(tmp_path: Path) -> None:
    dataset = open_data(trees.folders(tmp_path, 4))
    pixels = load_pixels(dataset, 16)
    part = pixels.take([6, 1, 4]).take(torch.tensor([2, 0]))
    assert list(part.dataset.table.path) == [dataset.table.path[4], dataset.table.path[6]]
    assert torch.equal(part.x(), pixels.x([4, 6]))
    assert torch.equal(part.y(), pixels.y([4, 6]))
    assert torch.equal(part.ids(), pixels.ids([4, 6]))
    assert part.images.shape == (2, 16, 16, 3)
    assert (np.asarray(part.images) == np.asarray(pixels.images)[[4, 6]]).all()
    assert not part.m().any()
    assert not part.has_mask.any()
    chosen = dataset.take(np.array([False, True] * 4))
    assert torch.equal(pixels.of(chosen).x(), pixels.x(slice(1, None, 2)))
    assert len(load_pixels(dataset.take([]), 16)) == 0


def test_a_second_load_decodes_nothing_and_a_subset_neither(tmp_path: Path) -> None:
    dataset, reader = counted(open_data(trees.folders(tmp_path)))
    whole = load_pixels(dataset, 16)
    assert reader.count == 6
    assert torch.equal(load_pixels(dataset, 16).x(), whole.x())
    assert torch.equal(load_pixels(dataset.take([5, 2]), 16).x(), whole.x([5, 2]))
    assert reader.count == 6
    assert len(caches()) == 1


def test_what_the_pixels_depend_on_makes_another_cache(tmp_path: Path) -> None:
    dataset, reader = counted(open_data(trees.folders(tmp_path)))
    load_pixels(dataset, 16)
    load_pixels(dataset, 17)
    load_pixels(dataset, 16, Preprocess(crop="none"))
    load_pixels(dataset, 16, Preprocess(channels=1))
    assert reader.count == 24
    assert len(caches()) == 4


def test_a_changed_source_is_decoded_again(tmp_path: Path) -> None:
    dataset, reader = counted(open_data(trees.folders(tmp_path)))
    before = load_pixels(dataset, 16).x()
    trees.write(tmp_path / dataset.table.path[2], trees.encoded(trees.pixels(55), "PNG"))
    after = load_pixels(dataset, 16).x()
    changed = (before != after).flatten(1).any(1).tolist()
    assert changed == [False, False, True, False, False, False]
    assert reader.count == 7  # the others are copied


@pytest.mark.parametrize("damage", ["absent", "short", "not json", "no key", "another table"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str) -> None:
    dataset, reader = counted(open_data(trees.folders(tmp_path)))
    want = load_pixels(dataset, 16).x()
    (folder,) = caches()
    if damage == "absent":
        (folder / "colour.raw").unlink()
    elif damage == "short":
        (folder / "colour.raw").write_bytes((folder / "colour.raw").read_bytes()[:-100])
    elif damage == "not json":
        (folder / "about.json").write_text("{")
    elif damage == "no key":
        (folder / "about.json").write_text(json.dumps({"images": 6}))
    else:
        np.save(folder / "rows.npy", np.load(folder / "rows.npy")[:-1])
    assert torch.equal(load_pixels(dataset, 16).x(), want)
    assert reader.count == 12
    assert torch.equal(load_pixels(dataset, 16).x(), want)
    assert reader.count == 12
    assert caches() == [folder]


def _load(dataset: Dataset, start, results) -> None:
    start.wait()
    results.put(np.asarray(load_pixels(dataset, 16).images).tobytes())


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    dataset, _ = counted(open_data(trees.folders(tmp_path, 20)), pause=0.01)
    start, results = FORK.Barrier(3), FORK.Queue()
    workers = [FORK.Process(target=_load, args=(dataset, start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    got = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    (folder,) = caches()
    assert [f for f in cache_folder().iterdir() if f != folder] == []
    assert got == {np.asarray(load_pixels(dataset, 16).images).tobytes()}


def killed(dataset: Dataset, after: int) -> None:
    """Build a cache in another process, and kill that when it has noted `after` images."""
    worker = FORK.Process(target=load_pixels, args=(dataset, 16))
    worker.start()
    until = time.monotonic() + 30
    while _noted() < after and time.monotonic() < until:
        time.sleep(0.002)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def _noted() -> int:
    files = list(cache_folder().glob(".building-*/noted.raw"))
    return files[0].stat().st_size // ROW.itemsize if files else 0


def test_a_killed_builder_leaves_nothing_that_is_taken_for_complete_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "NOTE_EVERY", 0.02)
    dataset, reader = counted(open_data(trees.folders(tmp_path, 60)), pause=0.008)
    killed(dataset, after=1)
    first = _noted()
    killed(dataset, after=first + 1)  # the second goes on, and is killed as well
    second = _noted()
    assert 0 < first < second < 120
    assert caches() == []
    (left,) = cache_folder().glob(".building-*")
    with (left / "colour.raw").open("ab") as file:  # what was written and not yet noted
        file.write(b"half an image")
    reader.pause = 0
    calls: list[int] = []
    pixels = load_pixels(dataset, 16, progress=lambda done, _: calls.append(done))
    assert reader.count == 120 - second
    assert min(calls) > second
    assert calls[-1] == 120
    for row in range(120):
        want = Preprocess().image(dataset.reader.image(dataset.table.path[row]), 16)
        assert (pixels.images[row] == want).all()
    assert [f for f in cache_folder().iterdir() if f.name.startswith(".")] == []


def test_an_interrupted_build_goes_on(tmp_path: Path) -> None:
    dataset, reader = counted(open_data(trees.folders(tmp_path, 100)))

    def interrupt(done: int, _: int) -> None:
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_pixels(dataset, 16, progress=interrupt)
    assert caches() == []
    assert reader.count < 200
    reader.count = 0
    assert len(load_pixels(dataset, 16)) == 200
    assert reader.count == 136


def test_what_stopped_builders_left_is_swept_after_a_week(tmp_path: Path) -> None:
    old, new = cache_folder() / ".building-old", cache_folder() / ".building-new"
    for folder in (old, new):
        trees.write(folder / "images.npy", b"x")
    for path in (old / "images.npy", old):
        os.utime(path, (0, 0))
    load_pixels(open_data(trees.folders(tmp_path)), 16)
    assert not old.exists()
    assert new.exists()


def broken(root: Path) -> Dataset:
    trees.folders(root, 4)
    content = trees.encoded(trees.pixels(0), "PNG")
    trees.write(root / "cat" / "cat1.png", content[: len(content) // 2])
    trees.write(root / "dog" / "dog0.png", b"")
    trees.write(root / "stray.png", content)
    return open_data(root)


def test_unreadable_images_stop_the_start_in_one_line(tmp_path: Path) -> None:
    dataset = broken(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError) as error:
            load_pixels(dataset, 16)
        text = str(error.value)
        for words in ("3 of 9 images", "cat/cat1.png: ", "dog/dog0.png: the file is empty"):
            assert words in text
        assert "stray.png: has no label" in text
        assert "skip_unreadable" in text
        assert "\n" not in text


def test_unreadable_images_are_skipped_when_told_to(tmp_path: Path) -> None:
    dataset, reader = counted(broken(tmp_path))
    for _ in range(2):
        pixels = load_pixels(dataset, 16, skip_unreadable=True)
        assert len(pixels) == 6
        assert {p.path for p in pixels.skipped} == {"cat/cat1.png", "dog/dog0.png", "stray.png"}
        for row, path in enumerate(pixels.dataset.table.path):
            want = Preprocess().image(dataset.reader.image(path), 16)
            assert (pixels.images[row] == want).all()
        assert (pixels.y() >= 0).all()
        assert len(pixels.of(dataset.take(range(4)))) == 3
    with pytest.raises(UserError, match="3 of 9"):
        load_pixels(dataset, 16)
    trees.write(tmp_path / "cat" / "cat1.png", trees.encoded(trees.pixels(3), "PNG"))
    trees.write(tmp_path / "dog" / "dog0.png", trees.encoded(trees.pixels(4), "PNG"))
    assert len(load_pixels(dataset.take(dataset.labels >= 0), 16)) == 8
    assert reader.count


def test_a_problem_that_went_away_is_noticed(tmp_path: Path) -> None:
    dataset, _ = counted(open_data(trees.folders(tmp_path)))

    class Locked(Counting):
        def image(self, path: str) -> np.ndarray:
            if path.endswith("dog1.png"):
                raise ReadError(path, "cannot be read: Permission denied")
            return super().image(path)

    locked = Dataset(dataset.name, dataset.table, dataset.classes, Locked(dataset.reader))
    assert len(load_pixels(locked, 16, skip_unreadable=True)) == 5
    assert len(load_pixels(dataset, 16)) == 6


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = trees.write(tmp_path / "file", "")
    dataset = open_data(trees.folders(tmp_path / "data"))
    with pytest.raises(UserError, match="cannot be written") as error:
        load_pixels(dataset, 16, cache=file / "deep")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="size 0"):
        load_pixels(dataset, 0)


def test_the_default_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIASCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/diascope")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "diascope"
