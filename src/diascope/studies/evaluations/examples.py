"""Pictures of a few images and of their maps, as they are and attacked, for the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diascope.attacks.threat import Norm
from diascope.audit.attackers import passes_of
from diascope.errors import gathered
from diascope.evaluation import perturbation_pictures
from diascope.explain import render
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.besieging import Attacking, pgd_40
from diascope.studies.evaluations.explaining import (
    Explaining,
    Of,
    Several,
    explained,
    heats,
    one,
    passes_of_all,
)
from diascope.studies.exam import Exam, Measured, Sample

MOST = 12


@EVALUATIONS.register("examples")
@dataclass(frozen=True, kw_only=True)
class Examples(Explaining, Attacking):
    """A few images, the same for every model, with their maps; no columns.

    explainers: by name. of: the class that is explained. images: how many, of those with a region
    where some have one, each class by its share; at most 12. side: of the pictures in pixels, at
    most. eps: the images are shown attacked within it as well, by `attack`; None for not.

    `about["pictures"]` holds of each image `id`, `path`, `label`, `prediction`, `correct`,
    `explained` (classes by name) and PNG files in base64: `image`, `mask` (0 or 255; None without
    one) and `maps` by explainer, grey, 255 the most evidence of the image (`render`); and, with
    eps, `attacked` with `image`, `perturbation` (stretched to its own range), `prediction`,
    `correct` and `maps` of the same class.
    """

    explainers: Several = field(default_factory=one(), hash=False)
    of: Of = "label"
    images: int = 6
    side: int = 128
    eps: float | None = None
    norm: Norm = "linf"
    attack: dict[str, Any] | str = field(default_factory=pgd_40, hash=False)

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST:
            raise ValueError(f"images={self.images}: from 1 to {MOST}")
        if self.side < 8:
            raise ValueError(f"side={self.side}: at least 8 pixels")
        if self.eps is not None and not self.eps > 0:
            raise ValueError(f"eps={self.eps}: above 0, or null")
        _ = self.methods, self.built  # raise UserError for mistakes in them

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        has = exam.pixels.has_mask
        rows = exam.drawn(self.images, among=has if has.any() else None)
        pictures = []
        with gathered() as doubts:
            for some in exam.batches(rows):
                target = explained(exam, some, self.of)
                shown = self._shown(exam, some, some.x, target)
                regions: list[str | None] = [None] * len(some.rows)
                if some.masks is not None:
                    masks = some.masks.cpu().numpy().astype(np.uint8) * 255
                    there = has[some.rows]
                    regions = [
                        self._png(mask) if it else None
                        for mask, it in zip(masks, there, strict=True)
                    ]
                attacked = self._attacked(exam, some, target)
                for place, row in enumerate(some.rows):
                    entry = exam.pixels.dataset.table.iloc[row]
                    pictures.append(
                        {
                            "id": int(some.ids[place]),
                            "path": str(entry.path),
                            "label": str(entry.label),
                            "explained": exam.classes[int(target[place])],
                            **shown[place],
                            "mask": regions[place],
                            **({"attacked": attacked[place]} if attacked else {}),
                        }
                    )
        about = {
            "pictures": pictures,
            "explainers": {name: to_settings(method) for name, method in self.methods.items()},
            "eps": self.eps,
            "norm": self.norm,
            "doubts": doubts,
        }
        return Measured({}, about)

    def _shown(self, exam: Exam, some: Sample, x: Tensor, target: Tensor) -> list[dict[str, Any]]:
        """Return of each image how it looks, what the model says, and the maps."""
        maps = heats(exam, self.methods, some, target, x=x)
        levels = {
            name: (render(heat[:, None]) * 255).round().to(torch.uint8).cpu().numpy()
            for name, heat in maps.items()
        }
        with torch.no_grad(), exactly(exam.model) as inner:
            logits = inner(x)
        exam.tell(len(x))
        guesses, right = heads.predictions(logits).tolist(), heads.is_correct(logits, some.y)
        photographs = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [
            {
                "image": self._png(photographs[i]),
                "prediction": exam.classes[guesses[i]],
                "correct": bool(right[i]),
                "maps": {name: self._png(level[i]) for name, level in levels.items()},
            }
            for i in range(len(x))
        ]

    def _attacked(self, exam: Exam, some: Sample, target: Tensor) -> list[dict[str, Any]]:
        if self.eps is None:
            return []
        x_adv = self.attacked(exam, some, self.eps)
        changes = perturbation_pictures((x_adv - some.x).cpu())
        shown = self._shown(exam, some, x_adv, target)
        return [
            {**each, "perturbation": self._png(change)}
            for each, change in zip(shown, changes, strict=True)
        ]

    def _png(self, pixels: NDArray[np.uint8]) -> str:
        """Return a PNG file, in base64, of (H, W), (H, W, 1) or (H, W, 3), at most `side` long."""
        flat = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        picture = Image.fromarray(np.ascontiguousarray(flat))
        if max(picture.size) > self.side:
            picture = picture.resize((self.side, self.side), Image.Resampling.BOX)
        file = io.BytesIO()
        picture.save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes; see `Evaluation`."""
        each = 1 + passes_of_all(self.methods)
        attacked = 0.0 if self.eps is None else each + passes_of(self.built, classes)
        return min(self.images, images) * (each + attacked + (self.of == "prediction"))

    def columns(self) -> list[str]:
        """Return no column."""
        return []
