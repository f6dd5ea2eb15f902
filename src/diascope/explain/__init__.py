"""Explanations, one file a method: (model, x, target) -> attribution; rendering apart."""

from diascope.explain.base import Explainer, explainers
from diascope.explain.completeness import Completeness, completeness
from diascope.explain.fullgrad import FullGrad
from diascope.explain.gradcam import GradCAM
from diascope.explain.gradient import Gradient
from diascope.explain.integrated_gradients import IntegratedGradients
from diascope.explain.occlusion import Occlusion
from diascope.explain.render import rectify, render
from diascope.explain.several import explain_all
from diascope.explain.smoothgrad import SmoothGrad
from diascope.explain.soft_attention import SoftAttentionMap

__all__ = [
    "Completeness",
    "Explainer",
    "FullGrad",
    "GradCAM",
    "Gradient",
    "IntegratedGradients",
    "Occlusion",
    "SmoothGrad",
    "SoftAttentionMap",
    "completeness",
    "explain_all",
    "explainers",
    "rectify",
    "render",
]
