"""The graph of an ExportedProgram, checked name by name before torch sees it.

torch turns strings of the file into Python: the target of a node becomes any attribute of torch
or math (`torch.os.system`), the names of nodes and symbols go into generated source, sizes through
sympy, which evaluates them, guards into a function, and tree specifications import modules.
"""

from __future__ import annotations

import json
import math
import operator
import re
from typing import Any

_OPERATION = re.compile(r"^torch\.ops\.(aten|prims?|quantized|torchvision)\.(\w+)\.(\w+)$")
_BARRED = ("from_file", "save", "load", "set_", "resize_", "rpc", "storage", "data_ptr", "print")
_NAME = re.compile(r"^[\w.]*$")
_WORD = re.compile(r"[A-Za-z_]\w*")
_SYMBOLIC = re.compile(r"^[\w\s'(),=+\-*/<>!&|~.]*$")
_FUNCTIONS = {
    *("Symbol", "Integer", "Rational", "positive", "integer", "nonnegative", "True", "False"),
    *("Max", "Min", "Mod", "FloorDiv", "CeilDiv", "ModularIndexing", "Where", "PythonMod"),
    *("IsNonOverlappingAndDenseIndicator", "CleanDiv", "TruncToInt", "CeilToInt", "FloorToInt"),
    *("Eq", "Ne", "Le", "Lt", "Ge", "Gt", "Identity", "IntTrueDiv", "FloatTrueDiv", "oo", "int_oo"),
}
_SYMBOL = re.compile(r"^[suz]f?\d+$")
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_FREE = ("as_string", "as_strings")  # arguments of operations, which torch quotes
_EMPTIED: dict[str, Any] = {"guards_code": [], "treespec_namedtuple_fields": {}, "metadata": {}}


class Unsafe(Exception):
    """An archive holds what an exported model does not need."""


def vetted(content: Any) -> Any:
    """Return the JSON of a graph without guards, metadata and traces, every string of it checked.

    Raises `Unsafe` for an operation outside torch's own on tensors, and for a name, a size or a
    tree specification that is more than one.
    """
    return _checked(content, "")


def _checked(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        for name in value:
            if not _NAME.match(name):
                raise Unsafe(f"has a name that is none ({name[:40]!r}), and is refused")
        return {k: _EMPTIED[k] if k in _EMPTIED else _checked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_checked(v, key) for v in value]
    if isinstance(value, str) and key not in _FREE:
        _check_text(value, key)
    return value


def _check_text(text: str, key: str) -> None:
    if key in ("target", "as_operator"):
        _check_target(text)
    elif key == "expr_str":
        words = {w for w in _WORD.findall(text) if w not in _FUNCTIONS and not _SYMBOL.match(w)}
        if words or not _SYMBOLIC.match(text):
            raise Unsafe(f"has a size that is no formula ({text[:40]!r}), and is refused")
    elif key in ("in_spec", "out_spec"):
        if text:
            _check_tree(json.loads(text))
    elif key != "torch_version" and (not _NAME.match(text) or (key == "name" and "." in text)):
        raise Unsafe(f"has a name that is none ({text[:40]!r}), and is refused")


def _check_target(text: str) -> None:
    found = _OPERATION.match(text)
    module, _, name = text.partition(".")
    plain = name.isidentifier() and not name.startswith("_")
    if found:
        allowed = not any(found[2] == b or found[2].startswith(f"{b}_") for b in _BARRED)
    elif module == "_operator":
        allowed = plain and hasattr(operator, name) and name not in ("attrgetter", "methodcaller")
        allowed = allowed and name != "call"
    else:
        allowed = module == "math" and plain and hasattr(math, name)
    if not allowed:
        raise Unsafe(f"calls {text[:60]}, which is no operation on tensors, and is refused")


def _check_tree(tree: Any) -> None:
    if isinstance(tree, list):
        for part in tree:
            _check_tree(part)
    elif isinstance(tree, dict):
        if tree.get("type") not in _TREES:
            raise Unsafe(
                f"takes or returns a {str(tree.get('type'))[:60]}; export a module that takes one "
                "batch of images and returns one tensor of logits"
            )
        if tree.get("context") not in (None, "null") and "__enum__" in str(tree["context"]):
            raise Unsafe("has a tree specification that imports modules, and is refused")
        _check_tree(tree.get("children_spec", []))
