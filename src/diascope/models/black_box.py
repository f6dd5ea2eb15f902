"""Models that only answer: no weights, no gradients, scores or labels for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.errors import UserError

Ask = Callable[[NDArray[np.float32]], Any]
LABEL = 10.0  # the logit of the class that a model names, where the others have 0


class BlackBox(nn.Module):
    """What answers questions, as a module: images (B, C, H, W) -> scores (B, K), no gradient.

    ask: is given float32 numpy images (B, C, H, W), contiguous; returns scores (B, K), a score
    (B,) of whole images, or labels (B,): integers, or names of `classes`. A named class becomes
    the logits 10 for it and 0 for the others. outputs: what it returns; "auto" takes whole numbers
    (B,) for labels. `queries` counts the images asked about. It has no parameters, and a copy of
    it is itself.
    """

    def __init__(
        self,
        ask: Ask,
        name: str,
        classes: Sequence[str] = (),
        outputs: Literal["logits", "probabilities", "labels", "auto"] = "auto",
    ) -> None:
        super().__init__()
        self.ask = ask
        self.name = name
        self.classes = list(classes)
        self.outputs = outputs
        self.queries = 0
        self.labels: bool | None = None  # whether it answered with labels, None: not asked yet

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (B, K), float32, on the device of the images.

        Raises `UserError` for an answer that is neither scores nor labels of these images.
        """
        self.queries += len(x)
        answer = self.ask(np.ascontiguousarray(x.detach().float().cpu().numpy()))
        found = np.asarray(answer.detach().cpu() if isinstance(answer, Tensor) else answer)
        if found.ndim not in (1, 2) or len(found) != len(x) or found.dtype.kind not in "fiubUS":
            shown = f"shape {found.shape}" if found.ndim else f"type {type(answer).__name__}"
            raise UserError(
                f"returns an answer of {shown} for {len(x)} images, not scores (B, K) or "
                "labels (B,)"
            )
        if found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        self.labels = found.ndim == 1 and self._are_labels(found)
        if self.labels:
            return self._of_labels(found).to(x.device)
        scores = torch.from_numpy(found.astype(np.float32))
        return (scores[:, None] if scores.ndim == 1 else scores).to(x.device)

    def _are_labels(self, found: NDArray[Any]) -> bool:
        if found.dtype.kind in "US" or self.outputs == "labels":
            return True
        return self.outputs == "auto" and bool((found == np.round(found.astype(np.float64))).all())

    def _of_labels(self, found: NDArray[Any]) -> Tensor:
        if not self.classes:
            raise UserError("returns labels; give --classes, so that their number is known")
        number = {name: k for k, name in enumerate(self.classes)}
        if found.dtype.kind in "US":
            found = np.array([number.get(str(name), -1) for name in found.astype(str)])
        labels = torch.from_numpy(found.astype(np.int64))
        outside = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(outside):
            raise UserError(
                f"returns the label {int(outside[0])}, and its {len(self.classes)} classes "
                f"({', '.join(self.classes)}) are numbered from 0; give --classes as its labels go"
                if int(outside[0]) >= 0
                else f"returns a label that is none of {', '.join(self.classes)}"
            )
        logits = torch.zeros(len(labels), len(self.classes))
        logits[torch.arange(len(labels)), labels] = LABEL
        return logits

    def __deepcopy__(self, memo: dict[int, Any]) -> BlackBox:
        return self
