"""What small changes of images do to a net's logits, in bfloat16, where it is known in float32.

A random search asks a net thousands of times about points little other than the one before: the
differences in its logits fall below the rounding of bfloat16, in which CPUs compute several times
as fast. So not the points go through the net here, but their changes, whose rounding is a share of
the change and not of the maps.
"""

from diascope.models.changes.follow import Changes
from diascope.models.changes.points import Points
from diascope.models.changes.trial import changes_if, changes_of

__all__ = ["Changes", "Points", "changes_if", "changes_of"]
