"""One way to refuse a value: name it, and name the choices."""

from __future__ import annotations

from collections.abc import Iterable


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ``ValueError`` naming ``value`` and every choice unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"unknown {name} {value!r}; choose one of: {listed}")


def check_unit_interval(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number in [0, 1]."""
    if not 0.0 <= value <= 1.0:  # also false for NaN
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


def check_positive(name: str, value: int) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
