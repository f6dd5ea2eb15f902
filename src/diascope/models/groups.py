"""Layer groups of a backbone, from the input to the head, for fine-tuning."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from diascope.models.create import Classifier
from diascope.models.modes import unwrapped


def layer_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of a classifier in groups, first layers first, the head last.

    The stages are timm's own (`group_matcher(coarse=True)`); the stem joins the first stage.
    ResNet-18 has five: four convolutional stages and the head (P1, appendix B). A model that
    is not timm's has a group for each child module with parameters.
    """
    inner = unwrapped(model)
    backbone = inner.backbone if isinstance(inner, Classifier) else inner
    if not hasattr(backbone, "group_matcher"):
        groups = [list(child.parameters()) for child in backbone.children()]
        return [group for group in groups if group]
    names = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
    parameters = dict(backbone.named_parameters())
    head = list(backbone.get_classifier().parameters())  # type: ignore[operator]
    in_head = {id(p) for p in head}
    body = [
        [parameters[n] for n in names[stage] if id(parameters[n]) not in in_head]
        for stage in sorted(names)
    ]
    body = [group for group in body if group]
    if len(body) > 1:
        body[:2] = [body[0] + body[1]]
    return [*body, head]
