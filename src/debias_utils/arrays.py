"""The door for arrays: lists, columns of tables and tensors in, checked NumPy arrays out.

Nothing missing passes: None, NaN, pandas' NA and NaT and masked entries are one ``ValueError``, which says how many there are
and where the first one is. NumPy is all that is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import holds


def array(values: Any) -> np.ndarray:
    """An array from a list, an array, a column of a table or a torch tensor on any device; masked entries become None."""
    if isinstance(values, (list, tuple)) and any(_is_tensor_or_masked(kind) for kind in set(map(type, values))):
        return np.stack([array(value) for value in values])
    if hasattr(values, "detach"):
        values = values.detach().cpu()  # first: not every device has every precision
        if values.is_floating_point() and values.dtype.itemsize < 4:
            values = values.float()  # NumPy has no bfloat16
        values = values.numpy()
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        masked, values = np.ma.getmaskarray(values), np.ma.getdata(values).astype(object)
        values[masked] = None
    return np.asarray(values)


def _is_tensor_or_masked(kind: type) -> bool:
    return hasattr(kind, "detach") or issubclass(kind, np.ma.MaskedArray)


def is_missing(value: Any) -> bool:
    """Is it None, NaN, NA or NaT?"""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas' NA is neither equal nor unequal to itself
        return type(value).__name__ == "NAType"


def floats(name: str, values: Any, *, axes: Sequence[str] = (), finite: bool = True, missing: bool = False) -> np.ndarray:
    """Numbers as float64, or as float32 if they had its precision or less.

    Args:
        name: what to call them in errors. values: of any shape. axes: names of the axes in errors, such as ("query", "item").
        finite: refuse infinite ones too. missing: let NaN and infinity pass, for a caller that looks for them itself.

    Raises:
        ValueError: something missing, something that is no number, an infinite one if those are refused.
    """
    x = numbers(name, values, axes=axes, finite=finite, missing=missing)
    return x if x.dtype.kind == "f" else x.astype(float)


def numbers(name: str, values: Any, *, axes: Sequence[str] = (), finite: bool = False, missing: bool = False) -> np.ndarray:
    """As `floats`, but whole numbers and Booleans keep their type: large ones would lose their order as floats."""
    x = array(values)
    if x.dtype.kind == "O":
        x = _from_objects(name, x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, got values of type {x.dtype}")
    if x.dtype == np.float16:
        x = x.astype(np.float32)
    if not missing and x.dtype.kind == "f" and x.size and np.isnan(x.max()):  # the maximum of anything with NaN
        nan = np.isnan(x)
        raise ValueError(f"{name} {holds(name)} {nan.sum()} NaN, the first at {_first(nan, axes)}")
    if finite and not missing and x.dtype.kind == "f" and x.size and not (np.isfinite(x.max()) and np.isfinite(x.min())):
        infinite = np.isinf(x)
        raise ValueError(f"{name} must be finite, got {infinite.sum()} infinite values, the first at {_first(infinite, axes)}")
    return x


def booleans(name: str, values: Any) -> np.ndarray:
    """True and False, or 1 and 0, as bool; anything else, or something missing, is a ``ValueError``."""
    x = array(values)
    if x.dtype.kind == "b":
        return x
    x = numbers(name, x)
    wrong = (x != 0) & (x != 1)
    if wrong.any():
        raise ValueError(f"{name} must hold True or False, got {x[wrong][0]} at {_first(wrong, ())}")
    return x.astype(bool)


def labels(name: str, values: Any, *, n: int | None = None) -> tuple[list[Any], np.ndarray]:
    """Labels of any type: the different ones in order, and the place of each value among them, (n,).

    Args:
        name: what to call them in errors. values: (n,), such as a list, an array or a column. n: how many there must be.

    Raises:
        ValueError: something missing, another shape, objects that cannot be looked up, such as lists.
    """
    x = array(values)
    # A list of words with something missing would become an array of words, one of which is "nan".
    if x.dtype.kind == "T" or (x.dtype.kind in "US" and not hasattr(values, "dtype")):
        x = np.array(values, dtype=object)
    if x.ndim != 1 or (n is not None and len(x) != n):
        wanted = f"({'n' if n is None else n},), one label for each {'row' if n is None else 'score'}"
        raise ValueError(f"{name} must be {wanted}, got {x.shape}")
    if x.dtype.kind == "O":
        return _object_labels(name, x)
    missing = np.isnan(x) if x.dtype.kind in "fc" else np.isnat(x) if x.dtype.kind in "mM" else np.zeros(0, bool)
    if missing.any():
        raise _missing_labels(name, missing)
    low, high = (int(x.min()), int(x.max())) if x.dtype.kind in "iu" and x.size else (0, 2**63)
    if high - low < x.size and high < 2**63:  # counting is faster than sorting
        above = x.astype(np.int64) - low  # differences of short types overflow
        counts = np.bincount(above)
        found = np.flatnonzero(counts)
        codes = (np.cumsum(counts > 0) - 1)[above]
        return (found + low).tolist(), codes
    unique, codes = np.unique(x, return_inverse=True)
    return list(unique) if x.dtype.kind in "mM" else unique.tolist(), codes


def _object_labels(name: str, x: np.ndarray) -> tuple[list[Any], np.ndarray]:
    # A look-up finds equal labels where sorting does not: NaN, NA and labels of several types cannot be put in order.
    items = x.tolist()
    try:
        unique = list(dict.fromkeys(items))
    except TypeError as error:
        raise ValueError(f"{name} must be words, numbers or the like, that can be told apart: {error}") from error
    if any(is_missing(value) for value in unique):
        raise _missing_labels(name, np.array([is_missing(value) for value in items]))
    try:
        unique.sort()
    except TypeError:
        unique.sort(key=lambda value: (type(value).__name__, str(value)))
    place = {value: i for i, value in enumerate(unique)}
    plain = [value.item() if isinstance(value, (np.str_, np.bool_, np.number)) else value for value in unique]
    return plain, np.fromiter((place[value] for value in items), int, len(items))


def _missing_labels(name: str, missing: np.ndarray) -> ValueError:
    return ValueError(
        f"{name} {holds(name)} {missing.sum()} missing labels (None or NaN), the first at item {int(missing.argmax())}"
    )


def _from_objects(name: str, x: np.ndarray) -> np.ndarray:
    items = [np.nan if is_missing(value) else value for value in x.ravel().tolist()]
    try:
        if any(isinstance(value, (str, bytes)) for value in items):
            raise TypeError("text")
        return np.array(items, float).reshape(x.shape)
    except TypeError as error:
        raise ValueError(f"{name} must be numbers, got values of other types") from error


def _first(marked: np.ndarray, axes: Sequence[str]) -> str:
    """Where the first True is, in words."""
    place = np.unravel_index(int(marked.argmax()), marked.shape)
    axes = axes or {1: ("item",), 2: ("row", "column")}.get(marked.ndim, [f"axis {i}" for i in range(marked.ndim)])
    return ", ".join(f"{axis} {int(i)}" for axis, i in zip(axes, place, strict=True))
