"""The formats of image files, each in its own file, chosen by what a file holds.

`decode` is the one way in: bytes go in, an image (H, W, 1 or 3) of 8 bits comes out, or a
`FormatError` that says on one line what is wrong, and that names nobody.
"""

from diascope.data.formats.base import (
    Depth,
    FormatError,
    decode,
    decode_mask,
    is_dicom,
)

__all__ = ["Depth", "FormatError", "decode", "decode_mask", "is_dicom"]
