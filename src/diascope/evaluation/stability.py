"""Stability: do maps stay the same where they should?

Under input noise, between models that differ by their training seed alone (P1.e), and between an
image and its attacked self (P2.e). Agreement is measured by the family "agreement" (higher is
more stable), on maps rectified as the explainer says; every function returns columns (B,) for a
table with a row an image, NaN where undefined. What the explainer draws at random is the same in
all maps that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.evaluation.measures import members
from diascope.evaluation.measures.agreement import Agreement
from diascope.evaluation.measures.faithfulness import noise_of
from diascope.explain.base import Explainer, seeds
from diascope.explain.render import rectify
from diascope.explain.several import explain_all
from diascope.randomness import derive

Columns = dict[str, npt.NDArray[np.float32]]
Measures = Mapping[str, Agreement]


def agreement_table(heat: Tensor, other: Tensor, measures: Measures | None = None) -> Columns:
    """Return each measure of the family "agreement" of maps (B, H, W), a column each."""
    return {name: _column(measure(heat, other)) for name, measure in _chosen(measures).items()}


def noise_stability(
    explainer: Explainer,
    model: nn.Module,
    x: Tensor,
    target: Tensor | int,
    *,
    noise: float = 0.02,
    draws: int = 5,
    measures: Measures | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
) -> Columns:
    """Return how alike an image's map is to its maps under normal noise of deviation `noise`.

    x: images (B, C, H, W) in [0, 1], to which they are clamped again. For each measure `<name>`,
    the mean over `draws`, and `<name>_worst`, the least. An image's noise depends on `seed` and
    its id, or without one on its pixels. draws + 1 times the explainer's cost.
    """
    if draws < 1 or not noise > 0:
        raise ValueError(f"draws {draws} must be at least 1, noise {noise} above 0")
    drawn = noise_of(x, seed, "noise_stability", ids)
    explained = _Explained(explainer, target, seed, ids)
    found: list[Columns] = []
    heat = explained.heat(model, x)
    for draw in range(draws):
        change = drawn.normal(x.shape[1:], draw).to(x).mul_(noise)
        noisy = explained.heat(model, (x + change).clamp_(0, 1))
        found.append(agreement_table(heat, noisy, measures))
    table: Columns = {}
    for name in found[0]:
        values = np.stack([columns[name] for columns in found])  # (draws, B)
        table[name], table[name + "_worst"] = values.mean(0), values.min(0)
    return table


def model_stability(
    explainer: Explainer,
    models: Mapping[str, nn.Module],
    x: Tensor,
    target: Tensor | int,
    *,
    measures: Measures | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
) -> Columns:
    """Return how alike an image's maps of several models are, such as of training seeds.

    models: at least two, by name. For each measure `<name>`, the mean over all pairs of models
    (NaN where a pair is undefined), and `<name>_<a>_<b>` of each pair, in the order of `models`.
    """
    if len(models) < 2:
        raise ValueError(f"{len(models)} models: at least two are compared")
    generator = torch.Generator().manual_seed(derive(seed, "stability"))
    made = explain_all(models, {"": explainer}, x, target, generator=generator, ids=ids)
    heat = {name: rectify(maps[""], explainer.rectification) for name, maps in made.items()}
    pairs = {
        (a, b): agreement_table(heat[a], heat[b], measures) for a, b in combinations(models, 2)
    }
    table: Columns = {}
    for name in _chosen(measures):
        table[name] = np.stack([columns[name] for columns in pairs.values()]).mean(0)
        table |= {f"{name}_{a}_{b}": columns[name] for (a, b), columns in pairs.items()}
    return table


def attack_stability(
    explainer: Explainer,
    model: nn.Module,
    x: Tensor,
    target: Tensor | int,
    x_adv: Tensor | Attack,
    *,
    y: Tensor | None = None,
    measures: Measures | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
) -> Columns:
    """Return how alike the maps of images and of their attacked selves are, of one target.

    x_adv: adversarial images of the shape of x, or the attack that makes them of labels `y` (by
    default `target`). A map that turns over (P2.e sees some "nearly invert") has a negative
    agreement by the order of its pixels, `spearman`.
    """
    if not isinstance(x_adv, Tensor):
        labels = torch.as_tensor(target if y is None else y, device=x.device).long()
        labels = labels.expand(len(x)) if labels.ndim == 0 else labels
        generator = torch.Generator().manual_seed(derive(seed, "attack_stability"))
        x_adv = x_adv(model, x, labels, generator=generator, ids=ids)
    if x_adv.shape != x.shape:
        raise ValueError(f"x {tuple(x.shape)} and x_adv {tuple(x_adv.shape)} do not pair")
    explained = _Explained(explainer, target, seed, ids)
    return agreement_table(explained.heat(model, x), explained.heat(model, x_adv), measures)


def max_sensitivity(
    explainer: Explainer,
    model: nn.Module,
    x: Tensor,
    target: Tensor | int,
    *,
    radius: float = 0.02,
    draws: int = 10,
    seed: int = 0,
    ids: Tensor | None = None,
) -> Tensor:
    """Return the largest relative change of the raw attribution nearby, (B,) in [0, inf).

    max over d of |A(x + d) - A(x)| / |A(x)|, Euclidean lengths, d uniform in the L-inf ball of
    `radius` (Yeh et al. 2019, arXiv 1901.09392, definition 3.1), over `draws` of them: a lower
    bound of the maximum. Lower is better. NaN where the attribution of x is zero, or one is not
    finite. As an explainer is asked, and not a map, this is no member of "faithfulness".
    draws + 1 times the explainer's cost.
    """
    if draws < 1 or not radius > 0:
        raise ValueError(f"draws {draws} must be at least 1, radius {radius} above 0")
    drawn = noise_of(x, seed, "max_sensitivity", ids)
    explained = _Explained(explainer, target, seed, ids)
    at = explained.attribution(model, x)
    length = torch.linalg.vector_norm(at.flatten(1), dim=1)
    largest = torch.zeros_like(length)
    for draw in range(draws):
        change = drawn.uniform(x.shape[1:], draw).to(x).mul_(2).sub_(1).mul_(radius)
        moved = explained.attribution(model, x + change) - at
        largest = torch.maximum(largest, torch.linalg.vector_norm(moved.flatten(1), dim=1))
    return torch.where(length > 0, largest / length, torch.nan)


class _Explained:
    """The explanations of one explainer, target and set of images, with the same random draws."""

    def __init__(
        self, explainer: Explainer, target: Tensor | int, seed: int, ids: Tensor | None
    ) -> None:
        self.explainer, self.target, self.ids = explainer, target, ids
        self.same = seeds(torch.Generator().manual_seed(derive(seed, "stability")))

    def attribution(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the raw attribution (B, C or 1, H, W), in float32."""
        found = self.explainer(model, x, self.target, generator=self.same(), ids=self.ids)
        return found.detach().float()

    def heat(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the rectified map (B, H, W)."""
        return rectify(self.attribution(model, x), self.explainer.rectification)


def _chosen(measures: Measures | None) -> Measures:
    return members("agreement") if measures is None else measures


def _column(values: Tensor) -> npt.NDArray[np.float32]:
    return values.cpu().numpy().astype(np.float32, copy=False)
