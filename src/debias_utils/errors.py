"""One way to refuse a value: name it, and name the choices."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def holds(name: str) -> str:
    """The verb for what a value is called: "styles" and "strata" hold, "x", "basis" and "std of the statistics" holds."""
    head = name.split(" of ")[0]
    return "hold" if head.endswith("ata") or (head.endswith("s") and not head.endswith(("ss", "is", "us"))) else "holds"


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ``ValueError`` naming ``value`` and every choice unless ``value`` is one of ``choices``."""
    choices = list(choices)
    try:
        known = value in choices
    except (TypeError, ValueError):  # pandas' NA and arrays cannot be compared
        known = False
    if not known:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"unknown {name} {value!r}; choose one of: {listed}")


def check_unit_interval(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number in [0, 1]."""
    try:
        inside = bool(0.0 <= value <= 1.0)  # also false for NaN
    except (TypeError, ValueError):  # no number, or many
        inside = False
    if not inside:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


def check_whole(name: str, value: Any, *, at_least: int = 1, at_most: int | None = None, limit: str = "") -> int:
    """``value`` as an int; ``ValueError`` unless it is one whole number in range, and of a whole type: 2.0 and True are none.

    ``limit``: what the largest is called in the error, such as "n = ".
    """
    try:
        number = None if "bool" in str(getattr(value, "dtype", type(value))) else operator.index(value)
    except TypeError:  # no whole number, or many
        number = None
    if number is None or number < at_least or (at_most is not None and number > at_most):
        allowed = f"of at least {at_least}" if at_most is None else f"from {at_least} to {limit}{at_most}"
        kind = f", a {type(value).__name__}" if number is None else ""
        raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}{kind}")
    return number


def check_probabilities(name: str, rows: np.ndarray, *, tolerance: float = 0.01) -> None:
    """Raise ``ValueError`` unless each row (n, c) is a distribution: percentages and logits are none.

    ``tolerance``: by how much a sum may miss 1; half precision and tables rounded to two digits need a hundredth.
    """
    outside = ~((rows >= -1e-6) & (rows <= 1 + 1e-6)).all(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"{name} must be probabilities in [0, 1], got {rows[row].min():.4g} to {rows[row].max():.4g} in row {row}"
        )
    sums = rows.sum(axis=1)
    wrong = ~(abs(sums - 1) <= tolerance + 1e-6)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{name} must be probabilities that sum to 1 in each row, got a sum of {sums[row]:.4g} in row {row}")
