"""The phantom: generated dermatoscopy of which everything is known."""

from __future__ import annotations

from diascope.data.phantom.generate import Phantom, PhantomSettings, generate
from diascope.data.phantom.reader import PhantomReader, phantom_dataset
from diascope.data.phantom.traits import CLASSES
from diascope.data.phantom.write import write_phantom

__all__ = [
    "CLASSES",
    "Phantom",
    "PhantomReader",
    "PhantomSettings",
    "generate",
    "phantom_dataset",
    "write_phantom",
]
