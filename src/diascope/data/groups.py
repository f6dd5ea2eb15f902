"""Groups out of DICOM files: an element such as PatientID, as a keyed hash."""

from __future__ import annotations

from collections.abc import Sequence

from diascope.data.dataset import ReadError
from diascope.data.formats import FormatError
from diascope.data.privacy import pseudonym
from diascope.data.readers import FileReader, opened
from diascope.data.verify import in_threads
from diascope.errors import UserError, nearest

PREFIX = "dicom:"
USUAL = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")


def of_dicom(reader: FileReader, paths: Sequence[str], group: str) -> list[str] | None:
    """Return the group of each file, where the option `group` is such as dicom:PatientID.

    It is a pseudonym of the element's value, equal for equal values, and "" for a file without
    one, an image of its own, and for one that cannot be read, which `verify` tells. None for
    another kind of option. Raises `UserError` where the standard has no such element, and where
    no file has it.
    """
    if not group.startswith(PREFIX):
        return None
    from diascope.data.formats.elements import tag_of, text

    keyword = group.removeprefix(PREFIX).strip()
    if tag_of(keyword) is None:
        raise UserError(f"group={group}: DICOM has no such element: {nearest(keyword, USUAL)}")

    def value(row: int) -> str:
        try:
            with opened(reader.root, paths[row]) as file:
                return " ".join(text(file, keyword).split())
        except (FormatError, ReadError):
            return ""

    values = in_threads(value, len(paths))
    if not any(values):
        raise UserError(f"group={group}: none of {len(paths)} files has this element")
    known = {each: pseudonym("group", each) if each else "" for each in set(values)}
    return [known[each] for each in values]
