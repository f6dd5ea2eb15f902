"""Training the last layer groups of a classifier, while the first keep what they are."""

from __future__ import annotations

from torch import nn

from diascope.errors import UserError
from diascope.models import layer_groups, unwrapped


def freeze(model: nn.Module, trainable: int | None) -> None:
    """Leave the last `trainable` layer groups to be trained, and freeze the others; None: none.

    A frozen parameter has `requires_grad` false; so the optimizer does not take it, and
    batch-norm whose parameters are frozen sleeps in training (`modes.train_mode`). P1, appendix
    D, unfreezes the groups of a ResNet-18 from the last: 1 is the head alone, 5 the whole net.

    Raises `UserError` where the model has fewer groups.
    """
    if trainable is None:
        return
    groups = layer_groups(model)
    if trainable > len(groups):
        raise UserError(
            f"model.trainable = {trainable}: the model has {len(groups)} layer groups; "
            "null trains them all"
        )
    unwrapped(model).requires_grad_(False)
    for group in groups[-trainable:]:
        for parameter in group:
            parameter.requires_grad_(True)
