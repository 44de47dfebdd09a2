"""Parameters of the chapters from the command line: of the type that a chapter declares, or refused."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

import nbformat


def declared(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What the cell tagged `parameters` assigns: {name: its value as Python}.

    Read by Python itself: papermill's own reader stops at a `#` inside a text.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    found = {}
    for line in ast.parse(cells[0].source).body if cells else []:
        targets = line.targets if isinstance(line, ast.Assign) else [line.target] if isinstance(line, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and line.value is not None:
                found[target.id] = ast.unparse(line.value)
    return found


def parse(name: str, text: str, default: str) -> Any:
    """The value of `text`, written as Python writes it in the cell of parameters; texts need no quotes.

    Args:
        name: of the parameter. text: what the reader gave. default: what the cell says, as Python.

    Raises:
        ValueError: it is of another type than the default; a whole number will do for a float.
    """
    wanted, value = _literal(default), _literal(text.strip())
    if isinstance(wanted, str):
        return text
    if isinstance(wanted, float) and type(value) is int:
        value = float(value)
    if wanted is ... or not _alike(value, wanted):
        raise ValueError(f"the parameter {name} must be written like {default}, got {text!r}")
    return value


def of_chapter(texts: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, Any]:
    """The values of those parameters that a chapter declares."""
    return {name: parse(name, text, defaults[name]) for name, text in texts.items() if name in defaults}


def _literal(text: str) -> Any:
    """The plain value that `text` writes, or ... for none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ...


def _alike(value: Any, wanted: Any) -> bool:
    """Are these of one type, and the members of a list of the types of the other's members?"""
    if type(value) is not type(wanted):
        return False
    if isinstance(wanted, (list, tuple)) and wanted:
        return bool(value) and {type(x) for x in value} <= {type(x) for x in wanted}
    return not isinstance(value, float) or math.isfinite(value)
