"""Explanations, one file a method: (model, x, target) -> attribution; rendering apart."""

from diascope.explain.base import Explainer, explainers
from diascope.explain.completeness import Completeness, completeness
from diascope.explain.gradient import Gradient
from diascope.explain.integrated_gradients import IntegratedGradients
from diascope.explain.render import rectify, render
from diascope.explain.several import explain_all
from diascope.explain.smoothgrad import SmoothGrad

__all__ = [
    "Completeness",
    "Explainer",
    "Gradient",
    "IntegratedGradients",
    "SmoothGrad",
    "completeness",
    "explain_all",
    "explainers",
    "rectify",
    "render",
]
