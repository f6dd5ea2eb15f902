"""Layer groups of a backbone, from the input to the head, for fine-tuning."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import nn

from diascope.models.attention import AttentiveBackbone
from diascope.models.classifier import Classifier
from diascope.models.modes import unwrapped
from diascope.models.weights import classifier_parameters


def layer_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of a classifier in groups, first layers first, the head last.

    The stages are timm's own (`group_matcher(coarse=True)`); the stem joins the first stage.
    ResNet-18 has five: four convolutional stages and the head (P1, appendix B). Attention belongs
    to the head. A backbone without stages of its own has a group for each child module with
    parameters, the first with those that no child holds. Every parameter is in one group.
    """
    inner = unwrapped(model)
    backbone = inner.backbone if isinstance(inner, Classifier) else inner
    head = _head(backbone)
    taken = {id(p) for p in head}
    body: Any = backbone.features.body if isinstance(backbone, AttentiveBackbone) else backbone
    groups = [[p for p in stage if id(p) not in taken] for stage in _stages(body)]
    groups = [group for group in groups if group]
    if len(groups) > 1 and hasattr(body, "group_matcher"):
        groups[:2] = [groups[0] + groups[1]]
    return [*groups, head] if head else groups


def _head(backbone: nn.Module) -> list[nn.Parameter]:
    if isinstance(backbone, AttentiveBackbone):
        return list(backbone.head.parameters())
    return classifier_parameters(backbone)


def _stages(body: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters stage by stage, each once."""
    parameters = dict(body.named_parameters())
    if hasattr(body, "group_matcher"):
        matcher: Any = body.group_matcher
        try:
            names = group_parameters(body, matcher(coarse=True))
        except AssertionError:  # stages are all it has
            names = group_parameters(body, matcher(coarse=False))
        return [[parameters[name] for name in names[stage]] for stage in sorted(names)]
    stages: dict[str, list[nn.Parameter]] = {}
    loose = [p for name, p in parameters.items() if "." not in name]
    for name, parameter in parameters.items():
        if "." in name:
            stages.setdefault(name.split(".")[0], []).append(parameter)
    groups = list(stages.values())
    return [loose + groups[0], *groups[1:]] if groups else [loose]
