"""Maps of several models by several methods."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from diascope.explain.base import Explainer, seeds
from diascope.models.frozen import Arithmetic, frozen


def explain_all(
    models: Mapping[str, nn.Module],
    methods: Mapping[str, Explainer],
    x: Tensor,
    target: Tensor | int,
    *,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Return the raw attribution of every model by every method: `maps[model][method]`.

    x: images (B, C, H, W) in [0, 1]; target (B,) or one for all, of every model the same. Each
    attribution is what the method alone would give, (B, C or 1, H, W), on x's device. Each model
    is frozen once for a precision and serves every method; the random draws of a method are the
    same for every model, so that maps differ by the models only.
    """
    same = seeds(generator)
    maps: dict[str, dict[str, Tensor]] = {}
    for name, model in models.items():
        made: dict[str, Tensor] = {}
        for precision in dict.fromkeys(_precision(method) for method in methods.values()):
            asked = [key for key, method in methods.items() if _precision(method) == precision]
            ready: AbstractContextManager[nn.Module] = nullcontext(model)
            if len(x):
                ready = frozen(model, x[:1], precision=precision, exact_pooling=True)
            with ready as net:
                for key in asked:
                    made[key] = methods[key](net, x, target, generator=same(), ids=ids)
        maps[name] = {key: made[key] for key in methods}
    return maps


def _precision(method: Explainer) -> Arithmetic:
    return getattr(method, "precision", "auto")
