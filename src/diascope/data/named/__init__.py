"""Named datasets, one file a member.

A member is a function `open_x(root, *, option=default, ...) -> Dataset`, filed by
`@DATASETS.register("x")`. `root` is a `Path`, or None where the user gave none; options are
keyword arguments with type hints, by which the command line reads them.
"""

from __future__ import annotations

from diascope.registry import Registry

DATASETS = Registry("dataset", "diascope.data.named")
