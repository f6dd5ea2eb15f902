"""Backbones that timm does not have, one file a backbone."""

from diascope.models.backbones.base import Backbone, backbones

__all__ = ["Backbone", "backbones"]
