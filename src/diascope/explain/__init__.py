"""Explanations, one file a method: (model, x, target) -> attribution; rendering apart."""

from diascope.explain.base import Explainer, explainers
from diascope.explain.gradient import Gradient
from diascope.explain.render import rectify, render

__all__ = ["Explainer", "Gradient", "explainers", "rectify", "render"]
