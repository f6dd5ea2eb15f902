"""The benchmark of the input pipeline runs, and compares the same work; never how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import data, data_inputs, data_whole
from PIL import Image

from diascope.data import Preprocess
from diascope.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


def test_rows_of_the_input_pipeline_write_whole_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--pairs", "1", "--workers", "0", "--results", str(tmp_path)]
    before = torch.get_num_threads()
    data.main([*arguments, "--rows", "b", "d", "e", "--cpu-time"])
    torch.set_num_threads(before)
    lines = (tmp_path / "data.jsonl").read_text().splitlines()
    b, d, e = (json.loads(line) for line in lines)
    assert [record["row"] for record in (b, d, e)] == ["i-b", "i-d", "i-e"]
    assert set(b["ratio"]) == {"pillow, 0 w.", "tensor, 0 w."}
    assert {"pillow, 1 t.", "draft, 1 t.", "tv.io, 1 t."} <= set(d["ratio"])
    assert set(e["ratio"]) == set(d["ratio"])
    assert all(record["settings"]["bytes_per_file"] > 100 for record in (b, d, e))
    assert "as reduced: 120x90" in " ".join(b["notes"])
    assert "one core" in " ".join(b["notes"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*b["ratio"], *d["ratio"]))


@pytest.mark.parametrize("kind", ["ham10000", "chestxray14"])
def test_files_are_as_heavy_as_the_official_ones(tmp_path: Path, kind: str) -> None:
    what = data_inputs.KINDS[kind].shrunk()
    files = data_inputs.write_files(tmp_path, None, 40, 0, quick=True, kind=kind)
    assert what.kilobytes is not None
    weight = sum(file.stat().st_size for file in files) / len(files)
    assert weight == pytest.approx(1000 * what.kilobytes, rel=0.05)
    for file in files:
        with Image.open(file) as image:
            assert (image.size, image.mode, file.suffix) == (what.size, what.mode, what.suffix)


def test_images_that_are_too_heavy_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(data_inputs.KINDS, "light", data_inputs.Kind((600, 450), kilobytes=2))
    with pytest.raises(UserError, match="bytes, not"):
        data_inputs.write_files(tmp_path, None, 4, 0, quick=True, kind="light")
    assert not list(tmp_path.iterdir())


def test_every_way_of_decoding_sees_the_same_image(tmp_path: Path) -> None:
    files = data_inputs.write_files(tmp_path, None, 2, 0, quick=True)
    whole = np.asarray(data_inputs.by_pillow(files[0]))
    tensor = data_inputs.by_torchvision(files[0]).permute(1, 2, 0).numpy()
    assert whole.shape == (90, 120, 3)
    assert np.abs(whole.astype(int) - tensor).mean() < 2
    drafted = data_inputs.drafted(32)(files[0])
    assert drafted.size == (60, 45)
    half = np.asarray(Image.fromarray(whole).resize((60, 45), Image.Resampling.BOX)).astype(int)
    assert np.abs(half - np.asarray(drafted)).mean() < 3


def test_their_transforms_without_chance_are_our_preprocessing(tmp_path: Path) -> None:
    """Both cut out the centre square; the kernels differ, bilinear there and bicubic here."""
    (file, *_) = data_inputs.write_files(tmp_path, None, 2, 0, quick=True)
    ours = Preprocess().image(np.asarray(data_inputs.by_pillow(file)), 32).copy()
    mean, std = (torch.tensor(v)[:, None, None] for v in (data_inputs.MEAN, data_inputs.STD))
    for kind, read in (("pillow", data_inputs.by_pillow), ("tensor", data_inputs.by_torchvision)):
        chain = data_inputs.transforms(32, kind, full=False)
        x = torch.stack([chain(read(file)) for _ in range(16)]) * std + mean
        want = torch.from_numpy(ours).permute(2, 0, 1) / 255
        kinds = [want.flip(dims) for dims in ([], [1], [2], [1, 2])]
        least = [min((one - k).abs().mean().item() for k in kinds) for one in x]
        assert max(least) < 0.03
        assert len({int(np.argmin([(one - k).abs().mean() for k in kinds])) for one in x}) > 1


def test_a_whole_dataset_is_laid_out_read_and_cleared_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    words = ["--quick", "--images", "70", "--folder", str(tmp_path / "in")]
    (record,) = data_whole.main([*words, "--results", str(tmp_path / "results")])
    assert record["images"] == 70
    assert list(record["seconds"]) == list(record["peak_bytes"]) == ["table", "cache", "epoch"]
    assert all(took > 0 for took in record["seconds"].values())
    assert not list((tmp_path / "in").iterdir())
    told = json.loads((tmp_path / "results" / "data_whole.jsonl").read_text())
    assert told["seconds"] == record["seconds"]
    assert "peak of memory" in capsys.readouterr().out
