"""The house of the design: floors that import downwards only, and files that stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import diascope

ROOT = Path(diascope.__file__).parent
FLOORS = (
    "data",
    "models",
    "explain",
    "attacks",
    "evaluation",
    "objectives",
    "training",
    "audit",
    "studies",
    "report",
    "viewer",
    "cli",
)
FILES = sorted(ROOT.rglob("*.py"))


def floor(module: str) -> int:
    """The height of `diascope.x.y`; what stands beside the folders is below all of them."""
    parts = module.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] in FLOORS else -1


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("diascope")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_do_not_climb(path):
    here = floor(".".join(["diascope", *path.relative_to(ROOT).with_suffix("").parts]))
    if path.name == "__main__.py":
        return
    for name in imports(path):
        assert floor(name) <= here, f"{path.relative_to(ROOT)} imports {name}"


def test_every_folder_is_a_floor():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == set(FLOORS)


def test_no_file_passes_400_lines():
    long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert not long
