from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data import trees

from diascope.data import ReadError
from diascope.data.readers import FileReader


def saved(path: Path, image: Image.Image) -> FileReader:
    image.save(path)
    return FileReader(path.parent)


def test_grey_stays_one_channel_and_colour_three(tmp_path: Path) -> None:
    colour = trees.pixels(0)
    grey = colour[..., 0]
    assert (saved(tmp_path / "g.png", Image.fromarray(grey)).image("g.png")[..., 0] == grey).all()
    assert (saved(tmp_path / "c.png", Image.fromarray(colour)).image("c.png") == colour).all()
    palette = Image.fromarray(colour).quantize(256)
    assert saved(tmp_path / "p.png", palette).image("p.png").shape == colour.shape
    alpha = Image.fromarray(np.dstack([colour, np.full_like(grey, 9)]))
    assert (saved(tmp_path / "a.png", alpha).image("a.png") == colour).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    image = saved(tmp_path / "deep.png", Image.fromarray(deep)).image("deep.png")
    assert image.shape == (30, 40, 1)
    assert np.abs(image[..., 0].astype(float) - deep / 257).max() <= 1


@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_zero_and_one_or_of_black_and_white(tmp_path: Path, white: int) -> None:
    region = trees.region()
    reader = saved(tmp_path / "m.png", Image.fromarray(region.astype(np.uint8) * white))
    assert (reader.mask("m.png") == region).all()


def test_every_kind_of_broken_file_says_why(tmp_path: Path) -> None:
    good = trees.encoded(trees.pixels(0, 200, 150))
    png = trees.encoded(trees.pixels(0, 200, 150), "PNG")
    broken = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"<html>404</html>", "not an image"),
        "cut.jpg": (good[: len(good) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "head.jpg": (good[:30], "cannot be decoded|not an image"),
    }
    reader = FileReader(tmp_path)
    for name, (content, words) in broken.items():
        trees.write(tmp_path / name, content)
        with pytest.raises(ReadError, match=words) as error:
            reader.image(name)
        assert error.value.path == name
    trees.archive(tmp_path / "z.zip", {k: v for k, (v, _) in broken.items()})
    for name, (_, words) in broken.items():
        with pytest.raises(ReadError, match=words):
            reader.image(f"z.zip!{name}")
    for path in ("absent.jpg", "absent.zip!a.jpg", "z.zip!absent.jpg"):
        with pytest.raises(ReadError, match="no such"):
            reader.image(path)
        assert reader.stamp(path) == "absent"
    with pytest.raises(ReadError):
        reader.image("")


@pytest.mark.parametrize("side", [9_000, 10_000, 20_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int, monkeypatch) -> None:
    reader = saved(tmp_path / "bomb.png", Image.new("1", (side, side)))
    loads = []
    monkeypatch.setattr(Image.Image, "load", lambda self: loads.append(self))
    with pytest.raises(ReadError, match="more than 80,000,000 pixels"):
        reader.image("bomb.png")
    assert not loads


def test_a_damaged_archive_entry_is_found_by_its_checksum(tmp_path: Path) -> None:
    content = trees.encoded(trees.pixels(0, 200, 150))
    file = trees.archive(tmp_path / "z.zip", {"a.jpg": content})
    spoiled = bytearray(file.read_bytes())
    spoiled[len(content) // 2] ^= 0xFF
    file.write_bytes(spoiled)
    with pytest.raises(ReadError, match="CRC"):
        FileReader(tmp_path).image("z.zip!a.jpg")


def test_the_stamp_changes_with_the_source(tmp_path: Path) -> None:
    one, two = (trees.encoded(trees.pixels(k)) for k in (0, 1))
    reader = FileReader(tmp_path)
    trees.write(tmp_path / "a.jpg", one)
    trees.archive(tmp_path / "z.zip", {"a.jpg": one, "b.jpg": one})
    before = reader.stamp("a.jpg"), reader.stamp("z.zip!a.jpg"), reader.stamp("z.zip!b.jpg")
    assert before == (reader.stamp("a.jpg"), *before[1:])
    trees.write(tmp_path / "a.jpg", two)
    trees.archive(tmp_path / "z.zip", {"a.jpg": two, "b.jpg": one})
    after = reader.stamp("a.jpg"), reader.stamp("z.zip!a.jpg"), reader.stamp("z.zip!b.jpg")
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert after[2] == before[2]
    assert (reader.image("z.zip!a.jpg") == reader.image("a.jpg")).all()


def _read(reader: FileReader, paths: list[str]) -> int:
    return sum(int(reader.image(path).sum()) for path in paths)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_an_archive_open_here_is_read_by_forked_processes(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(20)]
    entries = {name: trees.encoded(trees.pixels(k), "PNG") for k, name in enumerate(names)}
    trees.archive(tmp_path / "z.zip", entries)
    reader = FileReader(tmp_path)
    paths = [f"z.zip!{name}" for name in names]
    want = _read(reader, paths)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        got = pool.starmap(_read, [(pickle.loads(pickle.dumps(reader)), paths)] * 4)
    assert got == [want] * 4


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ReadError("a.jpg", "is broken")))
    assert (error.path, error.reason, str(error)) == ("a.jpg", "is broken", "a.jpg: is broken")
