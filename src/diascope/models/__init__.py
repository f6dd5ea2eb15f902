"""Backbones with normalisation inside, their groups, their checkpoints."""

from diascope.models.attention import attention_map
from diascope.models.checkpoint import load_model, read_card, save_model
from diascope.models.classifier import Classifier, ModelSpec
from diascope.models.create import create_model
from diascope.models.groups import layer_groups
from diascope.models.modes import evaluating, unwrapped

__all__ = [
    "Classifier",
    "ModelSpec",
    "attention_map",
    "create_model",
    "evaluating",
    "layer_groups",
    "load_model",
    "read_card",
    "save_model",
    "unwrapped",
]
