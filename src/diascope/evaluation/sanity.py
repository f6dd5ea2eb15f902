"""Does the map depend on the model? Weights are lost layer by layer, and the maps compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from diascope.evaluation.measures.agreement import Agreement, Spearman, Ssim
from diascope.evaluation.resampling import REPLICATES
from diascope.evaluation.statistics import Groups, Interval, bootstrap_mean
from diascope.explain.base import Explainer, seeds
from diascope.explain.render import rectify
from diascope.models.groups import layer_groups
from diascope.models.modes import unwrapped
from diascope.randomness import derive

THRESHOLD = 0.5
FEWEST = 8  # images, with which it is decided at all
_MEASURES: Mapping[str, Agreement] = {"spearman": Spearman(), "ssim": Ssim()}


@dataclass(frozen=True, eq=False)
class Sanity:
    """How alike the maps stay while the weights are lost from the head down.

    groups: the names of the G layer groups, in the order in which they were randomised.
    similarity: for each measure (G, B), the agreement of each image's map with the map of the
    model as it was, once this group and all before it are random; NaN where undefined, such as
    for a map that has become the same everywhere. `threshold` is what `decided` asks.
    """

    groups: tuple[str, ...]
    similarity: Mapping[str, npt.NDArray[np.float32]]
    threshold: float = THRESHOLD

    @property
    def table(self) -> pd.DataFrame:
        """A row a group and measure: `group`, `measure`, `mean` over images, `images` defined."""
        rows = [
            (group, name, _mean(values[number]), int(np.isfinite(values[number]).sum()))
            for name, values in self.similarity.items()
            for number, group in enumerate(self.groups)
        ]
        return pd.DataFrame(rows, columns=["group", "measure", "mean", "images"])

    @property
    def per_image(self) -> pd.DataFrame:
        """A row an image, group and measure: `image` (its place), `group`, `measure`, `value`."""
        rows = [
            (image, group, name, float(values[number, image]))
            for name, values in self.similarity.items()
            for number, group in enumerate(self.groups)
            for image in range(values.shape[1])
        ]
        return pd.DataFrame(rows, columns=["image", "group", "measure", "value"])

    def intervals(
        self,
        patients: Groups | None = None,
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
        level: float = 0.95,
    ) -> dict[str, list[Interval]]:
        """Return for each measure the mean similarity (G,) with its interval.

        A bootstrap over `patients` (B,), the patient or lesion of each image; None for images that
        are each of their own.
        """
        images = next((v.shape[1] for v in self.similarity.values()), 0)
        whose = np.arange(images) if patients is None else patients
        return {
            name: [
                bootstrap_mean(row, whose, replicates=replicates, seed=seed, level=level)
                for row in values
            ]
            for name, values in self.similarity.items()
        }

    def decided(
        self,
        patients: Groups | None = None,
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
        level: float = 0.95,
    ) -> bool | None:
        """Tell whether the map has changed when no trained weight is left; None for undecided.

        It has where by every measure the interval of the mean similarity (see `intervals`) ends at
        or below `threshold`, and has not where by some measure it begins above. A measure that is
        defined on fewer than `FEWEST` images decides nothing; one that is defined on none, such as
        for maps that have become the same everywhere, is not asked.
        """
        found = self.intervals(patients, replicates=replicates, seed=seed, level=level)
        asked = [of[-1] for of in found.values() if of and of[-1].images]
        verdicts = [_decided(interval, self.threshold) for interval in asked]
        if False in verdicts:
            return False
        return True if verdicts and None not in verdicts else None

    @property
    def passed(self) -> bool | None:
        """What `decided` says of images that are each of their own patient."""
        return self.decided()


def _decided(interval: Interval, threshold: float) -> bool | None:
    if interval.images < FEWEST or not interval.defined:
        return None
    if interval.high <= threshold:
        return True
    return False if interval.low > threshold else None


def sanity_check(
    explainer: Explainer,
    model: nn.Module,
    x: Tensor,
    target: Tensor | int,
    *,
    measures: Mapping[str, Agreement] | None = None,
    threshold: float = THRESHOLD,
    seed: int = 0,
    ids: Tensor | None = None,
) -> Sanity:
    """Compare the maps of `model` with those of copies whose weights are random, ever deeper.

    Cascading randomisation (Adebayo et al. 2018, Sanity checks for saliency maps, arXiv
    1810.03292, section 3.1) of the groups of `randomised`. x: images (B, C, H, W) in [0, 1];
    target (B,) or one for all. The maps are rectified as the explainer says; its own random draws
    are the same every time. measures: by default the paper's, `Spearman` and `Ssim`. A map that
    passes has changed; that it is right is another matter. 1 + G times the explainer's cost.
    """
    chosen = _MEASURES if measures is None else measures
    same = seeds(torch.Generator().manual_seed(derive(seed, "sanity")))

    def maps(of: nn.Module) -> Tensor:
        attribution = explainer(of, x, target, generator=same(), ids=ids)
        return rectify(attribution, explainer.rectification)

    before = maps(model)
    groups: list[str] = []
    found: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in chosen}
    for group, changed in randomised(model, seed):
        groups.append(group)
        after = maps(changed)
        for name, measure in chosen.items():
            found[name].append(measure(after, before).cpu().numpy().astype(np.float32))
    return Sanity(tuple(groups), {k: np.stack(v) for k, v in found.items()}, threshold)


def randomised(model: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Yield a copy of `model`, one more group of layers random each time, from the head down.

    The groups are `layer_groups`; for a model that they do not know, its modules one by one. A
    module with `reset_parameters` is drawn anew as it would be on being made, batch-norm with its
    running statistics (mean 0, variance 1); any other parameter is drawn normal with the mean and
    the spread of its values, and so one number alone stays. The draw depends on `seed` and the
    module's name. The same copy is yielded every time: use it before going on.
    """
    inner = unwrapped(model)
    changed = copy.deepcopy(inner)
    for group in reversed(module_groups(inner)):
        for name in group:
            _redraw(changed.get_submodule(name), derive(seed, "randomised", name))
        yield _called(group), changed


def module_groups(model: nn.Module) -> list[list[str]]:
    """Return the names of the modules that hold parameters, in groups from the input to the head.

    A module whose parameters are in several groups counts to the last of them.
    """
    owners = {
        id(parameter): name
        for name, module in model.named_modules()
        for parameter in module.parameters(recurse=False)
    }
    try:
        groups = layer_groups(model)
    except Exception:  # a model of any kind: its stages may not be found in any way
        return [[name] for name in dict.fromkeys(owners.values())]
    last = {owners[id(p)]: number for number, group in enumerate(groups) for p in group}
    return [
        names
        for number in range(len(groups))
        if (names := [name for name, where in last.items() if where == number])
    ]


def _redraw(module: nn.Module, seed: int) -> None:
    devices = {p.device for p in module.parameters(recurse=False) if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        torch.manual_seed(seed)
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            return
        for parameter in module.parameters(recurse=False):
            drawn = torch.randn(parameter.shape).to(parameter)
            spread = parameter.std(correction=0) if parameter.numel() > 1 else 0.0
            parameter.copy_(parameter.mean() + spread * drawn)


def _called(names: list[str]) -> str:
    """Return what a group of modules is called: the first and the last of its parts."""
    parts = list(dict.fromkeys(_part(name) for name in names))
    return parts[0] if len(parts) == 1 else f"{parts[0]} to {parts[-1]}"


def _part(name: str) -> str:
    name = name.removeprefix("backbone.").removeprefix("features.body.")
    return name.partition(".")[0] or "model"


def _mean(values: npt.NDArray[np.float32]) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
