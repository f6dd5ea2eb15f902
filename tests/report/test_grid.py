from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from diascope.report import figures
from diascope.report.figures import Said, Shown, UnderAttack
from diascope.report.grid import DPI, Cell, grid, save
from diascope.report.lettering import Lettering, wrapped


def drawn(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def words(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def boxes(figure: Figure) -> list[tuple[str, float, float, float, float]]:
    figure.canvas.draw()
    shown = [t for t in figure.findobj(Text) if t.get_text()]
    return [(t.get_text(), *t.get_window_extent().extents) for t in shown]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of words that stand over one another."""
    found = boxes(figure)
    return [
        (a[0], b[0])
        for i, a in enumerate(found)
        for b in found[:i]
        if min(a[3], b[3]) - max(a[1], b[1]) > 1 and min(a[4], b[4]) - max(a[2], b[2]) > 2.5
    ]


def flat(level: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def test_the_size_of_a_grid_follows_its_pictures():
    small = grid([[Cell(flat(9))] * 3] * 2, side=1.0).get_size_inches()
    wide = grid([[Cell(flat(9))] * 5] * 2, side=1.0).get_size_inches()
    tall = grid([[Cell(flat(9))] * 3] * 4, side=1.0).get_size_inches()
    gap = 4 / 72
    assert wide - small == pytest.approx([2 * (1 + gap), 0], abs=1e-6)
    assert tall - small == pytest.approx([0, 2 * (1 + gap)], abs=1e-6)
    flatter = grid([[Cell(flat(9)[:8])]], side=1.0).get_size_inches()
    square = grid([[Cell(flat(9))]], side=1.0).get_size_inches()
    assert square[1] - flatter[1] == pytest.approx(0.5)


def test_every_picture_stands_in_its_place_with_its_own_pixels():
    levels = np.arange(6).reshape(2, 3) * 40 + 20
    picture = drawn(grid([[Cell(flat(v)) for v in row] for row in levels.tolist()], side=1.0))
    step, first = (1 + 4 / 72) * DPI, (8 / 72 + 0.5) * DPI
    top = picture.shape[0] - (8 / 72 + 0.5) * DPI - step
    for (r, c), level in np.ndenumerate(levels):
        assert (picture[round(top + r * step), round(first + c * step)] == level).all()
    assert (picture[2, 2] == 255).all()


def test_a_place_may_be_empty_and_grey_pictures_are_grey():
    picture = drawn(grid([[Cell(np.full((8, 8), 77, np.uint8)), None]], side=1.0))
    assert ((picture == 77).all(-1)).mean() > 0.3
    assert (picture[:, picture.shape[1] // 2 + 5 :] == 255).all()


def test_the_outline_is_drawn_at_the_border_of_the_mask_and_nowhere_else():
    mask = np.zeros((100, 100), bool)
    mask[30:70, 30:70] = True
    plain = drawn(grid([[Cell(flat(120, 100))]], side=1.0))
    lined = drawn(grid([[Cell(flat(120, 100), mask=mask)]], side=1.0))
    changed = np.argwhere((plain != lined).any(-1))
    corner = round(8 / 72 * DPI)
    low, high = changed.min(0), changed.max(0)
    top = plain.shape[0] - corner - DPI
    for bound, wanted in ((low, 0.3), (high, 0.7)):
        assert abs((bound[0] - top) / DPI - wanted) < 0.02
        assert abs((bound[1] - corner) / DPI - wanted) < 0.02
    inner = lined[top + round(0.35 * DPI) : top + round(0.65 * DPI)]
    assert (inner[:, corner + round(0.35 * DPI) : corner + round(0.65 * DPI)] == 120).all()
    shades = lined[(plain != lined).any(-1)].mean(-1)
    assert shades.min() < 60  # a dark line
    assert shades.max() > 200  # and a light one


def test_boxes_and_frames_do_not_leave_their_picture():
    cell = Cell(flat(120, 100), boxes=[(60, 60, 100, 100)])
    plain = drawn(grid([[replace(cell, boxes=())]], side=1.0))
    boxed = drawn(grid([[cell]], side=1.0))
    changed = np.argwhere((plain != boxed).any(-1))
    corner = round(8 / 72 * DPI)
    assert changed[:, 1].max() <= corner + DPI + 1
    assert changed[:, 1].min() >= corner + 0.6 * DPI - 4
    framed = drawn(grid([[replace(cell, framed=True)]], side=1.0))
    green = (framed[..., 1] > framed[..., 0] + 80) & (framed[..., 1] > framed[..., 2])
    assert green.sum() > 4 * DPI


def test_labels_are_written_and_never_over_one_another():
    names = [f"models/a-rather-long-name-of-run-{i} with words" for i in range(6)]
    cells = [
        [
            Cell(flat(90), f"melanoma of the worst kind 0.{i}{j}", right=bool(j % 2))
            for j in range(6)
        ]
        for i in range(4)
    ]
    figure = grid(
        cells,
        rows=[f"ISIC_00{i}_a_long_name.jpg" for i in range(4)],
        columns=names,
        groups=[("Gradient", 2), ("Integrated gradients of a uniform baseline", 4)],
        sections=[("Uniform", 2), ("Gaussian", 2)],
        title="A title " * 12,
        colours="viridis",
    )
    assert overlapping(figure) == []
    text = words(figure)
    assert "Gradient" in text
    assert "Uniform" in text
    assert sum(t.startswith("✓ ") for t in text) == sum(t.startswith("✗ ") for t in text) == 12
    width, height = figure.get_size_inches() * figure.dpi
    assert all(x0 > -1 and y0 > -1 for _, x0, y0, _, _ in boxes(figure))
    assert all(x1 < width + 1 and y1 < height + 1 for *_, x1, y1 in boxes(figure))


def test_what_makes_no_grid_is_refused():
    cell = Cell(flat(9))
    for cells, options, message in (
        ([], {}, "do not make a grid"),
        ([[cell], [cell, cell]], {}, "do not make a grid"),
        ([[cell]], {"rows": ["a", "b"]}, "2 labels for 1 rows"),
        ([[cell]], {"columns": ["a", "b"]}, "2 labels for 1 columns"),
        ([[cell, cell]], {"groups": [("a", 1)]}, "groups of .1. do not fill 2"),
        ([[cell]], {"sections": [("a", 1), ("b", 0)]}, "do not fill 1"),
    ):
        with pytest.raises(ValueError, match=message):
            grid(cells, **options)


def test_files_are_png_or_svg_and_the_same_every_time(tmp_path):
    figure = grid([[Cell(flat(9), "$a_b$ 病 \N{CHECK MARK}")]], title="$x^2$")
    png = save(figure, tmp_path / "a.png")
    with Image.open(png) as picture:
        assert picture.size == tuple((figure.get_size_inches() * DPI).astype(int))
        assert picture.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
    svg = save(figure, tmp_path / "a.svg").read_text()
    assert "<svg" in svg
    assert "dc:date" not in svg
    again = grid([[Cell(flat(9), "$a_b$ 病 \N{CHECK MARK}")]], title="$x^2$")
    assert save(again, tmp_path / "a.svg").read_text() == svg
    assert {f.name for f in tmp_path.iterdir()} == {"a.png", "a.svg"}
    assert words(figure) == ["$x^2$", "$a_b$ □ ✓"]


def test_words_are_broken_where_they_may_be_and_cut_where_they_must():
    letters = Lettering(10)
    assert wrapped("", letters, 50) == []
    assert wrapped("one two", letters, 500) == ["one two"]
    lines = wrapped("adversarially trained model", letters, letters.width("adversarially"), lines=3)
    assert lines == ["adversarially", "trained", "model"]
    cut = wrapped("word " * 20, letters, 60, lines=2)
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert all(letters.width(line) <= 60 for line in cut)
    broken = wrapped("integrated_gradients", letters, letters.width("integrated_gra"), lines=2)
    assert broken == ["integrated_", "gradients"]
    assert all(wrapped("MMMM", letters, 1, lines=9))


@pytest.fixture
def shown() -> Shown:
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 12, 12, dtype=torch.bool)
    masks[0, 3:8, 3:8] = True
    return Shown(x, labels=["mel", "nv"], masks=masks)


HEATS = {"standard": torch.zeros(2, 12, 12), "eps 4": torch.ones(2, 12, 12)}


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].get_images()]


def test_maps_of_models_stand_beside_their_image(shown):
    said = {"eps 4": [Said("mel 0.90", True), Said("mel 0.60", False)]}
    figure = figures.maps_figure(shown, HEATS, captions=said, best=["eps 4", ""], title="Gradient")
    text = words(figure)
    for expected in ("Gradient", "Image", "standard", "eps 4", "mel", "nv", "✓ mel 0.90"):
        assert expected in text
    own = pictures(figure)
    assert len(own) == 2 * 3 + 1  # and the scale of colours
    wanted = (shown.x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert (own[0] == wanted[0]).all()
    assert (own[3] == wanted[1]).all()
    assert len(np.unique(own[1].reshape(-1, 3), axis=0)) == 1
    assert (own[1][0, 0] != own[2][0, 0]).any()


def test_sections_groups_and_datasets_hold_every_map(shown):
    twice = {"uniform": HEATS, "gaussian": HEATS}
    assert len(pictures(figures.sectioned_figure(shown, twice))) == 4 * 3 + 1
    figure = figures.grouped_figure(shown, twice)
    assert len(pictures(figure)) == 2 * 5 + 1
    assert words(figure).count("standard") == 2
    parts = {"MNIST": (Shown(shown.x[:, :1]), HEATS), "CIFAR-10": (shown, HEATS)}
    figure = figures.side_by_side_figure(parts)
    assert len(pictures(figure)) == 2 * 6 + 1
    assert {"MNIST", "CIFAR-10"} <= set(words(figure))
    assert overlapping(figure) == []


def test_attacked_images_stand_with_perturbation_and_both_maps(shown):
    moved = (shown.x + torch.tensor([0.0, 0.1])[:, None, None, None]).clamp(0, 1)
    before, after = [Said("mel 0.9", True)] * 2, [Said("nv 0.8", False)] * 2
    seen = UnderAttack(moved, HEATS["standard"], HEATS["eps 4"], before, after)
    figure = figures.attacked_figure(shown, {"plain": seen, "attentive": seen})
    own = pictures(figure)
    assert len(own) == 4 * 5 + 1
    assert (own[1] == 128).all()  # no change is mid-grey
    assert (own[7] == (moved[1] * 255).round().byte().permute(1, 2, 0).numpy()).all()
    assert (own[3] != own[4]).any()
    text = words(figure)
    assert text.count("✗ nv 0.8") == text.count("✓ mel 0.9") == 4
    assert {"plain", "attentive", "Perturbation"} <= set(text)


def test_a_gallery_wraps_and_keeps_pairs_together(shown):
    five = replace(shown, x=shown.x[[0, 1, 0, 1, 0]], labels=(), masks=None)
    heat = torch.rand(5, 12, 12)
    own = pictures(figures.gallery(five, heat, across=3))
    assert len(own) == 10 + 1
    assert (own[0] == own[4]).all()
    assert (own[6] == own[2]).all()
    with pytest.raises(ValueError, match="4 pictures and 0 captions of 5"):
        figures.gallery(five, heat[:4])
