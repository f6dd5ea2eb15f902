"""The pictures of docs/datasets/preparing.md, of phantom images, and its numbers.

python -m benchmarks.preparing --out docs/images
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from diascope.data import Preprocess, open_data
from diascope.data.circle import find_disc
from diascope.data.filters.contrast import blur
from diascope.data.phantom import Phantom, generate

SIZE, SHOWN = 300, 224
CROPS = ("none", "centre-square", "circle")
FILTERS = {
    "none": [],
    "min-max": ["min-max"],
    "min-max, contrast": ["min-max", "contrast"],
    "contrast at reference 1024": ["min-max", {"name": "contrast", "reference": 1024}],
}
KERNELS = ("bicubic", "bilinear", "lanczos", "area")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--circles", metavar="DATA")
    args = parser.parse_args()
    if args.time:
        time_blurs()
    elif args.circles:
        count_circles(args.circles)
    else:
        draw(args.out)


def time_blurs() -> None:
    """Print the milliseconds of a blur of sigma 20 by ours, by scipy and by Pillow."""
    for size, channels in ((224, 1), (224, 3), (1024, 1)):
        image = np.random.default_rng(0).integers(0, 256, (size, size, channels), np.uint8)
        values = image.astype(np.float32)
        picture = Image.fromarray(image.squeeze())
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda values=values: blur(values, 20.0),
            "scipy": lambda values=values: gaussian_filter(values, (20, 20, 0)),
            "Pillow": lambda picture=picture: picture.filter(ImageFilter.GaussianBlur(20)),
        }
        exact = gaussian_filter(image.astype(np.float64), (20, 20, 0), truncate=8)
        for name, way in ways.items():
            away = np.abs(np.asarray(way()).reshape(image.shape) - exact).max()
            print(f"{size}x{size}x{channels} {name}: {least(way):.2f} ms, off by {away:.2g} levels")


def least(way: Callable[[], object], rounds: int = 15) -> float:
    """Return the least milliseconds of `rounds` calls."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds)


def count_circles(data: str) -> None:
    """Print in how many images of DATA a disc is found, and what the search takes."""
    dataset = open_data(data)
    sides, seconds, found = [], 0.0, 0
    for path in dataset.table.path:
        image = dataset.reader.image(path)
        began = time.perf_counter()
        disc = find_disc(image)
        seconds += time.perf_counter() - began
        if disc is not None:
            found += 1
            sides.append(2 * disc.radius / max(image.shape[:2]))
    low, middle, high = np.percentile(sides, (1, 50, 99)) if sides else (np.nan,) * 3
    print(f"{dataset.name}: discs in {found} of {len(dataset)} images")
    print(f"diameter / longer side: {middle:.3f} (1% to 99%: {low:.3f} to {high:.3f})")
    print(f"{1000 * seconds / len(dataset):.1f} ms an image")


def draw(out: Path) -> None:
    phantom = generate(images=64, size=SIZE, seed=3, hospital="b", difficulty=0.2)
    tubes = [k for k in range(len(phantom)) if find_disc(phantom.images[k]) is not None]
    plain = next(k for k in range(len(phantom)) if k not in tubes and phantom.labels[k] == 2)
    save(crops(phantom, plain, tubes[0]), out / "preparing-crops.png")
    save(filters(phantom.images[plain]), out / "preparing-filters.png")
    save(kernels(phantom.images[plain]), out / "preparing-kernels.png")


def crops(phantom: Phantom, plain: int, tube: int) -> Figure:
    """A picture of 4:3 and a round one off centre, whole and as each crop leaves them."""
    cut = slice(SIZE // 8, -SIZE // 8)
    wide = np.zeros((SIZE + 40, SIZE * 4 // 3 + 60, 3), np.uint8)
    wide[10 : 10 + SIZE, 20 : 20 + SIZE] = phantom.images[tube]
    region = np.zeros(wide.shape[:2], bool)
    region[10 : 10 + SIZE, 20 : 20 + SIZE] = phantom.masks[tube]
    rows = [(phantom.images[plain][cut], phantom.masks[plain][cut]), (wide, region)]
    figure, places = panels(len(rows), 1 + len(CROPS))
    for line, (image, mask) in zip(places, rows, strict=True):
        show(line[0], image, mask, "as it is stored")
        for place, crop in zip(line[1:], CROPS, strict=True):
            prepare = Preprocess(crop=crop)
            window = prepare.window(image)
            small = prepare.image(image, SHOWN, window)
            show(place, small, prepare.mask(mask, SHOWN, window), f"crop: {crop}")
    return figure


def filters(image: NDArray[np.uint8]) -> Figure:
    """A pale grey picture after each filter."""
    pale = (image.mean(2, keepdims=True) * 0.4 + 90).astype(np.uint8)
    figure, places = panels(1, len(FILTERS))
    for place, (title, chosen) in zip(places[0], FILTERS.items(), strict=True):
        show(place, Preprocess(filters=chosen).image(pale, SHOWN), None, f"filters: {title}")
    return figure


def kernels(image: NDArray[np.uint8]) -> Figure:
    """A picture at 32 pixels a side by each kernel."""
    figure, places = panels(1, len(KERNELS))
    for place, kernel in zip(places[0], KERNELS, strict=True):
        show(place, Preprocess(resize=kernel).image(image, 32), None, f"resize: {kernel}")
    return figure


def panels(rows: int, columns: int) -> tuple[Figure, NDArray[np.object_]]:
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained", dpi=80)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(place, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None, title: str) -> None:
    place.imshow(image, vmin=0, vmax=255, interpolation="nearest")
    if mask is not None:
        place.contour(mask, [0.5], colors="cyan", linewidths=1)
    place.set_title(title, fontsize=8)
    place.set_axis_off()


def save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(96).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
