"""What every metric does with its results and conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import check_whole
from ..measured import MeasuredArray, MeasuredFloat

# Of a metric, never of the scores that it is given.
_OWN = {"metric", "k", "target", "shares", "zero", "floored", "ties", "positive", "negative", "recall", "asked", "floor"}


def measured(values: np.ndarray, single: bool, conventions: dict[str, Any]) -> Any:
    """(m,) values with their conventions: one number for a single query, else an array."""
    result = MeasuredFloat(values[0]) if single else values.view(MeasuredArray)
    result.conventions = conventions
    return result


def carried(scores: Any) -> dict[str, Any]:
    """How scores came about, as they carry it."""
    found = getattr(scores, "conventions", None)
    return {name: found[name] for name in found if name not in _OWN} if isinstance(found, Mapping) else {}


def check_k(k: Any, n: int) -> int:
    """The length of the top of n items, or a ``ValueError``."""
    return check_whole("k", k, at_most=n, limit="n = ")
