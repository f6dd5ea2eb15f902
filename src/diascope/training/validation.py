"""How good the model is on the validation images, with and without an attack."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.attacks import Attack
from diascope.data.pixels import Pixels
from diascope.evaluation import predict_logits
from diascope.models.heads import cross_entropy, is_correct
from diascope.models.modes import exactly
from diascope.randomness import derive
from diascope.training.overfitting import CHECK_IMAGES
from diascope.training.team import Team

NOTHING = {
    "val_loss": float("nan"),
    "val_accuracy": float("nan"),
    "val_balanced_accuracy": float("nan"),
    "val_adversarial_accuracy": float("nan"),
    "val_check_accuracy": float("nan"),
}


@dataclass(frozen=True)
class Validation:
    """The validation images, and the attack under which they are judged (or None).

    `images`: how many are attacked, the same ones every epoch; None for all. `check`: another
    attack for the first `CHECK_IMAGES` of them, by which that of a single step is judged.
    `autocast` is entered for the attacks' gradients; verdicts are always in float32. Each process
    of `team` takes a share of the images, and all get the same figures.
    """

    pixels: Pixels
    attack: Attack | None = None
    images: int | None = None
    batch_size: int = 64
    seed: int = 0
    device: torch.device | str = "cpu"
    autocast: Callable[[], AbstractContextManager[None]] = torch.enable_grad
    team: Team = field(default_factory=Team)
    check: Attack | None = None

    def __call__(
        self, model: nn.Module, tick: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Return loss, accuracy, balanced accuracy and accuracy under attack, as `val_...`.

        The last is NaN without an attack, and so is `val_check_accuracy` without a check; an image
        counts as right under attack where it is right without, too. Without images all are NaN.
        `tick` is called after each attacked batch.
        """
        if not len(self.pixels):
            return dict(NOTHING)
        logits, y = self._logits(model), self.pixels.y()
        right = is_correct(logits, y)
        recalls = torch.stack([right[y == k].double().mean() for k in sorted(set(y.tolist()))])
        return {
            "val_loss": float(cross_entropy(logits, y).double().mean()),
            "val_accuracy": float(right.double().mean()),
            "val_balanced_accuracy": float(recalls.mean()),
            "val_adversarial_accuracy": self._attacked(model, right, self.attack, None, tick),
            "val_check_accuracy": self._attacked(model, right, self.check, CHECK_IMAGES, tick),
        }

    @property
    def attacked(self) -> int:
        """How many images are attacked."""
        return len(self.pixels) if self.images is None else min(self.images, len(self.pixels))

    @property
    def constant(self) -> float:
        """The accuracy of the best constant answer."""
        counts = torch.bincount(self.pixels.y())
        return float(counts.max()) / max(1, len(self.pixels)) if len(counts) else 0.0

    def _logits(self, model: nn.Module) -> Tensor:
        """Return the logits (N, K) of all images, float32 on the CPU."""
        if len(self.pixels) < self.team.world or self.team.alone:
            return predict_logits(model, self.pixels, self.batch_size, self.device)
        mine = self.team.share(np.arange(len(self.pixels)))
        found = predict_logits(model, self.pixels.take(mine), self.batch_size, self.device)
        logits = torch.zeros(len(self.pixels), found.shape[1], device=self.device)
        logits[mine] = found.to(self.device)
        return self.team.total(logits).cpu()

    def _attacked(
        self,
        model: nn.Module,
        right: Tensor,
        attack: Attack | None,
        first: int | None,
        tick: Callable[[], None],
    ) -> float:
        """Return the share of the `first` drawn images that are right (N,) and withstand."""
        if attack is None:
            return float("nan")
        drawn = self._drawn()[:first]
        standing = self.team.share(np.sort(drawn[right.numpy()[drawn]]))
        withstood = 0
        for start in range(0, len(standing), self.batch_size):
            rows = standing[start : start + self.batch_size]
            withstood += self._withstand(model, rows, attack)
            tick()
        count = self.team.total(torch.tensor(withstood, device=self.device))
        return int(count) / len(drawn)

    def _withstand(self, model: nn.Module, rows: NDArray[np.int64], attack: Attack) -> int:
        x, y = self.pixels.x(rows, self.device), self.pixels.y(rows, self.device)
        generator = torch.Generator().manual_seed(derive(self.seed, "validation", "attack"))
        with self.autocast():
            x_adv = attack(model, x, y, generator=generator, ids=self.pixels.ids(rows))
        with exactly(model) as inner, torch.no_grad():
            return int(is_correct(inner(x_adv.float()), y).sum())

    def _drawn(self) -> NDArray[np.int64]:
        draw = np.random.default_rng(derive(self.seed, "validation", "images"))
        return draw.permutation(len(self.pixels))[: self.images]
