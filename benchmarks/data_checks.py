"""The search for copies, measured: on images changed on purpose, on known pairs, and by size.

    python -m benchmarks.data_checks changed --data DATA [--images 1000] [--copies 100]
    python -m benchmarks.data_checks flagged FOLDER_OF_THE_REDUCED_SETS
    python -m benchmarks.data_checks size [--images 100000]

`changed`: of `--images` images the first are changed in each of several ways, `--copies` each, and
added; recall is the share of these pairs found, and everything else found is listed by file.
`flagged`: the X-ray sets, whose index files mark overlaps found by others. `size`: random
textures that share most of their contrast, and a copy of every tenth.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image

from diascope.audit.datachecks.copies import Copies, find_copies
from diascope.audit.datachecks.looking import SIDE, Looked, look
from diascope.data import Dataset, open_data

Picture = NDArray[np.uint8]


def _pillow(change: Callable[[Image.Image], Image.Image]) -> Callable[[Picture], Picture]:
    def changed(image: Picture) -> Picture:
        grey = image.shape[2] == 1
        found = np.asarray(change(Image.fromarray(image[..., 0] if grey else image)))
        return found[..., None] if grey else found

    return changed


def _cut(share: float) -> Callable[[Image.Image], Image.Image]:
    """Cut this share off one side, less off the others."""

    def change(image: Image.Image) -> Image.Image:
        w, h = image.size
        box = (share * w, 0.5 * share * h, w - 0.3 * share * w, h - 0.2 * share * h)
        return image.crop(tuple(round(v) for v in box))  # type: ignore[arg-type]

    return change


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return change


def _scaled(x: float, y: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * x), round(image.height * y)))


def _lit(gain: float, gamma: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.point(lambda v: int(min(255.0, 255 * gain * (v / 255) ** gamma)))


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "half the size": _pillow(_scaled(0.5, 0.5)),
    "squeezed to 80% of its width": _pillow(_scaled(0.8, 1.0)),
    "JPEG, quality 50": _pillow(_jpeg(50)),
    "JPEG, quality 20": _pillow(_jpeg(20)),
    "brighter by 25%": _pillow(_lit(1.25, 1.0)),
    "gamma 1.4": _pillow(_lit(1.0, 1.4)),
    "cut by 3% at one side": _pillow(_cut(0.03)),
    "cut by 6% at one side": _pillow(_cut(0.06)),
    "cut by 10% at one side": _pillow(_cut(0.10)),
    "cut by 5%, 70% size, JPEG 60, gamma 0.8": _pillow(
        lambda image: _jpeg(60)(_lit(1.0, 0.8)(_scaled(0.7, 0.7)(_cut(0.05)(image))))
    ),
}


class _Changed:
    """A reader of a dataset's images and of changed copies, `path?change`."""

    def __init__(self, dataset: Dataset) -> None:
        self.reader = dataset.reader

    def image(self, path: str) -> Picture:
        name, _, change = path.partition("?")
        image = self.reader.image(name)
        return CHANGES[change](image) if change else image

    def mask(self, path: str) -> NDArray[np.bool_]:
        return self.reader.mask(path)

    def stamp(self, path: str) -> str:
        return path


def changed(data: str, images: int, copies: int) -> None:
    whole = open_data(data)
    rows = np.random.default_rng(0).permutation(len(whole))[:images]
    part = whole.take(np.sort(rows))
    table = part.table.assign(mask="", boxes="")
    more = [
        table.iloc[k * copies : (k + 1) * copies].assign(
            path=lambda t, c=change: t.path + "?" + c  # type: ignore[misc]
        )
        for k, change in enumerate(CHANGES)
    ]
    table = pd.concat([table, *more], ignore_index=True)
    dataset = replace(part, table=table, reader=_Changed(part))
    looked = look(dataset)
    began = time.process_time()
    found = find_copies([looked])
    seconds = time.process_time() - began
    paths = table.path.to_numpy(object)
    pairs = {(paths[a], paths[b]) for a, b in found.pairs.tolist()}
    print(f"{data}: {len(table)} images, {seconds:.1f} s of one core, {_counts(found, len(table))}")
    print("| change | pairs | found |\n| --- | --- | --- |")
    for change, each in zip(CHANGES, more, strict=True):
        expected = [(path.partition("?")[0], path) for path in each.path]
        hits = sum(pair in pairs for pair in expected)
        print(f"| {change} | {len(expected)} | {hits} |")
    stems = np.array([path.partition("?")[0] for path in paths], object)
    other = [(a, b) for a, b in found.pairs.tolist() if stems[a] != stems[b]]
    groups = dataset.groups
    within = sum(groups[a] == groups[b] for a, b in other)
    print(f"other pairs: {len(other)}, {within} of one group")
    for a, b in [pair for pair in other if groups[pair[0]] != groups[pair[1]]][:20]:
        print(f"    {paths[a]} = {paths[b]}")


def _counts(found: Copies, images: int) -> str:
    every = images * (images - 1) // 2
    return (
        f"{found.comparisons:,} comparisons of places ({found.comparisons / every:.3%} of all "
        f"pairs), {found.aligned:,} of thumbnails"
    )


def flagged(root: Path) -> None:
    parts = {
        "radiography": _table(root / "cxr_radiography", "images_224", "label", "source_group"),
        "cohen": _table(root / "cxr_cohen", "images_256", "finding", ""),
        "nih": _table(root / "cxr_nih_pneumonia", "images_256", "label", ""),
    }
    looked = {name: look(dataset) for name, dataset in parts.items()}
    names = [f"{name}:{Path(f).stem}" for name in parts for f in parts[name].table.file]
    began = time.process_time()
    found = find_copies(list(looked.values()))
    seconds = time.process_time() - began
    print(f"{len(names)} images, {seconds:.1f} s of one core, {_counts(found, len(names))}")
    similar = {
        frozenset((names[a], names[b])): s
        for (a, b), s in zip(found.pairs.tolist(), found.similarity.tolist(), strict=True)
    }
    known = set(names)
    original = {
        Path(o).stem: f"cohen:{Path(f).stem}"
        for o, f in zip(*(parts["cohen"].table[c] for c in ("orig_filename", "file")), strict=True)
    }
    every: set[frozenset[str]] = set()
    for here, column, there in (
        ("nih", "radiography_normal_match", "radiography"),
        ("radiography", "nih_match", "nih"),
        ("cohen", "radiography_match", "radiography"),
        ("radiography", "cohen_or_fig1_match", "cohen"),
        ("cohen", "exact_dup_of", "cohen"),
        ("nih", "exact_dup_of", "nih"),
    ):
        table = parts[here].table
        marks = table[table[column] != ""]
        other = [f"{there}:{Path(m).stem}" for m in marks[column]]
        if column == "cohen_or_fig1_match":
            other = [original.get(Path(m).stem, "elsewhere") for m in marks[column]]
        pairs = [
            frozenset((f"{here}:{Path(f).stem}", o))
            for f, o in zip(marks.file, other, strict=True)
            if o in known
        ]
        every |= set(pairs)
        hits = [pair for pair in pairs if pair in similar]
        print(f"{here}.{column}: {len(marks)} flags, {len(pairs)} in both, {len(hits)} found")
        for pair in pairs:
            if pair not in similar:
                print(f"    missed: {' = '.join(sorted(pair))}")
    rest = sorted((s, sorted(pair)) for pair, s in similar.items() if pair not in every)
    print(f"found and not flagged: {len(rest)}")
    for similarity, pair in rest:
        print(f"    {similarity:.3f} {' = '.join(pair)}")


def _table(folder: Path, archive: str, label: str, source: str) -> Dataset:
    text = f"table:{folder / 'index.csv'}"
    return open_data(text, path=f"{archive}.zip!{{file}}", label=label, source=source)


def size(images: int) -> None:
    rng = np.random.default_rng(0)
    side = 2 * SIDE
    base = scipy.ndimage.gaussian_filter(rng.normal(size=(side, side)), 8) * 16
    thumbnails = np.empty((images, SIDE, SIDE), np.uint8)
    for k in range(0, images, 1000):
        noise = rng.normal(size=(min(1000, images - k), SIDE, SIDE)).astype(np.float32)
        coarse = scipy.ndimage.gaussian_filter(noise, (0, 5, 5)) * 10
        fine = scipy.ndimage.gaussian_filter(noise[::-1], (0, 1.2, 1.2)) * 2
        values = 128 + 40 * (base[::2, ::2] + 0.6 * coarse + 0.4 * fine)
        thumbnails[k : k + 1000] = np.clip(values, 0, 255)
    tenth = np.arange(0, images, 10)
    copy = scipy.ndimage.gaussian_filter(thumbnails[tenth].astype(np.float32), (0, 0.5, 0.5))
    thumbnails[tenth + 1] = np.clip(1.15 * copy, 0, 255)
    looked = _looked(thumbnails)
    began = time.process_time()
    found = find_copies([looked])
    seconds = time.process_time() - began
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    hits = sum((int(k), int(k) + 1) in pairs for k in tenth)
    print(f"{images} images, {seconds:.1f} s of one core, {_counts(found, images)}")
    print(f"{hits} of {len(tenth)} copies found, {len(pairs) - hits} other pairs")


def _looked(thumbnails: Picture) -> Looked:
    count = len(thumbnails)
    paths = [str(k) for k in range(count)]
    dataset = Dataset.of("textures", {"path": paths, "label": ["a"] * count}, ["a"], None)  # type: ignore[arg-type]
    empty = np.zeros(0)
    return Looked(
        dataset,
        read=np.ones(count, np.bool_),
        contents=paths,
        thumbnails=thumbnails,
        centres=thumbnails,
        oblong=np.zeros(count, np.bool_),
        statistics=empty.astype(np.float32),
        sizes=np.full((count, 3), SIDE),
        stored=empty,
        formats=[],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("changed")
    one.add_argument("--data", required=True)
    one.add_argument("--images", type=int, default=1000)
    one.add_argument("--copies", type=int, default=100)
    two = verbs.add_parser("flagged")
    two.add_argument("root", type=Path)
    three = verbs.add_parser("size")
    three.add_argument("--images", type=int, default=100_000)
    given = parser.parse_args()
    if given.verb == "changed":
        changed(given.data, given.images, given.copies)
    elif given.verb == "flagged":
        flagged(given.root)
    else:
        size(given.images)


if __name__ == "__main__":
    main()
