"""Images with a part covered, and what a model makes of them: mostly of what changes alone."""

from diascope.explain.covered.choice import covered_of
from diascope.explain.covered.images import Covered, Windows
from diascope.explain.covered.maps import CoveredMaps
from diascope.explain.covered.nearby import TRIAL, CoveredNearby

__all__ = ["TRIAL", "Covered", "CoveredMaps", "CoveredNearby", "Windows", "covered_of"]
