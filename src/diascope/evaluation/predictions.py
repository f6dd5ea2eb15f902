"""Predictions of a model, one row an image, from which every score can be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.evaluation.scores import score_table
from diascope.evaluation.statistics import Interval
from diascope.models import heads
from diascope.models.modes import exactly

if TYPE_CHECKING:
    from diascope.data.dataset import Dataset
    from diascope.data.pixels import Pixels

_PROBABILITY = "prob_"


def predict(
    model: nn.Module,
    pixels: Pixels,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Return the table of `prediction_table` for the model on every image of `pixels`.

    Computed in float32 and eval mode; each module's own train or eval flag is given back. The
    model is expected on `device` already.
    """
    return prediction_table(pixels.dataset, predict_logits(model, pixels, batch_size, device))


@torch.no_grad()
def predict_logits(
    model: nn.Module, pixels: Pixels, batch_size: int = 64, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the logits (N, K) of every image of `pixels`, float32 on the CPU."""
    count = len(pixels.dataset)
    parts: list[Tensor] = []
    with exactly(model) as inner:
        for start in range(0, count, batch_size):
            rows = np.arange(start, min(start + batch_size, count))
            parts.append(inner(pixels.x(rows, device=device)).float().cpu())
    if not parts:
        raise UserError(f"{pixels.dataset.name}: there are no images to predict")
    return torch.cat(parts)


def prediction_table(dataset: Dataset, logits: Tensor) -> pd.DataFrame:
    """Return one row an image: logits (N, K) of the images of `dataset`, in its order.

    Columns: `id` (int64), `path`, `label`, `group`, `source`, `prob_<class>` (float32, sum 1; a
    single logit gives two), `prediction` (a class name), `correct` (bool; never for logits that
    are not finite), `loss` (cross-entropy in nats). Raises `UserError` where the model's classes
    are not as many as the data's, or a label is none of them.
    """
    classes = dataset.classes
    if (outputs := max(2, logits.shape[1])) != len(classes):
        raise UserError(
            f"{dataset.name}: the model tells {outputs} classes apart, the data has {len(classes)}"
            f" ({', '.join(classes)}): name the model's classes in its order"
        )
    logits = logits.detach().float().cpu()
    y = torch.as_tensor(dataset.labels)
    if (y < 0).any():
        row = dataset.table.iloc[int(y.argmin())]
        raise UserError(f"{dataset.name}: {row['path']}: label '{row['label']}' is not a class")
    probabilities = heads.probabilities(logits).numpy()
    table = dataset.table[["path", "label", "group", "source"]].reset_index(drop=True)
    table.insert(0, "id", dataset.ids)
    for c, name in enumerate(classes):
        table[_PROBABILITY + name] = probabilities[:, c]
    table["prediction"] = np.asarray(classes, dtype=object)[heads.predictions(logits).numpy()]
    table["correct"] = heads.is_correct(logits, y).numpy()
    table["loss"] = heads.cross_entropy(logits, y).numpy()
    return table


def score_predictions(table: pd.DataFrame, **options: Any) -> Mapping[str, Interval]:
    """Return `score_table` of a table of predictions, as `prediction_table` makes it.

    Reads the columns `prob_<class>`, whose order is that of the classes, `label`, `prediction`
    and `group`; `options` are `replicates`, `seed` and `level`.
    """
    columns = [name for name in table.columns if name.startswith(_PROBABILITY)]
    classes = [name.removeprefix(_PROBABILITY) for name in columns]
    number = {name: c for c, name in enumerate(classes)}
    return score_table(
        table[columns].to_numpy(dtype=np.float64),
        table["label"].map(number).to_numpy(dtype=np.int64),
        table["group"],
        classes=classes,
        predicted=table["prediction"].map(number).to_numpy(dtype=np.int64),
        **options,
    )
