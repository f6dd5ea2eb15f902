"""Reading the first sheet of an Excel workbook (.xlsx), without a library for it.

ECMA-376 part 1, SpreadsheetML: a ZIP file; `xl/worksheets/sheet1.xml` holds rows of cells, whose
text lies in the cell or, by number, in `xl/sharedStrings.xml`. Only text and numbers are read.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd

from diascope.data.readers import brief
from diascope.errors import UserError

MAX_BYTES = 1 << 27  # bytes of one unpacked part
_NS = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_xlsx(file: Path) -> pd.DataFrame:
    """Return the first sheet as text, its first row the columns, "" where a cell is empty.

    Raises `UserError` where the file is no workbook, or too large.
    """
    try:
        with zipfile.ZipFile(file) as book:
            names = book.namelist()
            sheets = sorted(n for n in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", n))
            if not sheets:
                raise ValueError("it has no sheet")
            shared = "xl/sharedStrings.xml"
            texts = _shared(_part(book, shared)) if shared in names else []
            first = min(sheets, key=lambda name: (len(name), name))
            rows = _rows(_part(book, first), texts)
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except (OSError, ValueError, IndexError, zipfile.BadZipFile, zlib.error, ET.ParseError) as e:
        raise UserError(f"{file}: cannot be read as a workbook ({brief(e)})") from None
    if not rows:
        raise UserError(f"{file}: its first sheet is empty")
    width = max(len(row) for row in rows)
    filled = [row + [""] * (width - len(row)) for row in rows]
    return pd.DataFrame(filled[1:], columns=[name.strip() for name in filled[0]], dtype=str)


def _part(book: zipfile.ZipFile, name: str) -> ET.Element:
    """Return a part's root; one that declares entities, which no workbook does, is refused."""
    if book.getinfo(name).file_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES >> 20} MiB")
    content = book.read(name)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{name} declares entities")
    return ET.fromstring(content)


def _shared(part: ET.Element) -> list[str]:
    return [_text(item) for item in part.iter(f"{_NS}si")]


def _rows(sheet: ET.Element, texts: list[str]) -> list[list[str]]:
    """Return the cells of each row that has any, in their columns."""
    rows = []
    for row in sheet.iter(f"{_NS}row"):
        cells: list[str] = []
        for cell in row.iter(f"{_NS}c"):
            place = _column(cell.get("r", ""), len(cells))
            cells += [""] * (place - len(cells)) + [_value(cell, texts)]
        if any(cells):
            rows.append(cells)
    return rows


def _value(cell: ET.Element, texts: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return _text(cell)
    value = cell.findtext(f"{_NS}v") or ""
    return texts[int(value)] if cell.get("t") == "s" and value else value


def _text(element: ET.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{_NS}t"))


def _column(reference: str, following: int) -> int:
    """Return the column of a cell such as "C7", 2; without one, it is the next."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if not letters:
        return following
    number = 0
    for letter in letters[0]:
        number = number * 26 + ord(letter) - ord("A") + 1
    return max(number - 1, following)
