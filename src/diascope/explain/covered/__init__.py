"""Images with a part covered, and what a model makes of them: no more is computed than changes."""

from diascope.explain.covered.choice import covered_of
from diascope.explain.covered.images import Covered, Windows
from diascope.explain.covered.maps import CoveredMaps
from diascope.explain.covered.nearby import TRIAL, CoveredNearby

__all__ = ["TRIAL", "Covered", "CoveredMaps", "CoveredNearby", "Windows", "covered_of"]
