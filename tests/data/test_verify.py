from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tests.data import trees

from diascope.data import open_data, verify
from diascope.data.verify import in_threads


def test_every_problem_is_listed_in_one_pass(tmp_path: Path) -> None:
    good = trees.encoded(trees.pixels(0), "PNG")
    for name in ("good", "cut", "label", "both", "alone", "nolabel"):
        trees.write(tmp_path / f"{name}.png", good)
    trees.write(tmp_path / "cut.png", good[: len(good) // 2])
    trees.write(tmp_path / "empty.png", b"")
    trees.write(tmp_path / "text.png", "not found")
    trees.write(tmp_path / "small.png", trees.encoded(trees.pixels(0, 20, 15), "PNG"))
    trees.write(tmp_path / "m.png", trees.encoded(trees.region(), "PNG"))
    trees.write(tmp_path / "m_small.png", trees.encoded(trees.region(20, 15), "PNG"))
    trees.write(
        tmp_path / "t.csv",
        "path,label,mask\n"
        "good.png,a,m.png\ncut.png,a,m_cut.png\nempty.png,b,m.png\ntext.png,a,\nsmall.png,b,\n"
        "absent.png,a,\nlabel.png,aa,\nboth.png,b,m_small.png\nalone.png,a,m_absent.png\n"
        "nolabel.png,,\n",
    )
    dataset = open_data(f"table:{tmp_path}/t.csv,labels=[a, b],image_size=40x30")
    found = [(p.path, p.reason) for p in verify(dataset)]
    expected = [
        ("cut.png", "truncated"),
        ("m_cut.png", "there is no such file"),
        ("empty.png", "the file is empty"),
        ("text.png", "is not an image of a known format"),
        ("small.png", "is 20x15 pixels, expected 40x30"),
        ("absent.png", "there is no such file"),
        ("label.png", "unknown label 'aa': did you mean 'a'?"),
        ("m_small.png", "the mask is 20x15 pixels, its image 40x30"),
        ("m_absent.png", "there is no such file"),
        ("nolabel.png", "has no label"),
    ]
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (_, reason), (_, words) in zip(found, expected, strict=True):
        assert words in reason
        assert "\n" not in reason


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_keep_the_order_and_report_progress(threads: int) -> None:
    calls: list[tuple[int, int]] = []
    results = in_threads(lambda k: k * k, 100, lambda *call: calls.append(call), threads)
    assert results == [k * k for k in range(100)]
    assert calls == [(32, 100), (64, 100), (96, 100), (100, 100)]


def test_an_error_stops_the_threads_that_have_not_begun() -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def fail(k: int) -> int:
        with lock:
            seen.append(k)
        time.sleep(0.005)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        in_threads(fail, 32 * 1000, threads=1)
    assert len(seen) < 500
