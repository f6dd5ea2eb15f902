"""The phantom: generated dermatoscopy of which everything is known."""

from __future__ import annotations

from diascope.data.phantom.generate import Phantom, PhantomSettings, generate

__all__ = ["Phantom", "PhantomSettings", "generate"]
