"""One conversion and one sentence at the door of functions that take tensors: what is a number, and where one is missing."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch

from . import arrays
from .errors import holds


def floats(name: str, x: Any) -> torch.Tensor:
    """A float tensor as it is; an array, a list or a Series as a copy; whole numbers and bools as float64; the missing as NaN.

    Raises:
        ValueError: x holds no real numbers.
    """
    if not isinstance(x, torch.Tensor):
        if isinstance(x, (list, tuple)) and x and all(isinstance(row, torch.Tensor) for row in x):
            x = torch.stack([floats(name, row) for row in x])
        else:
            given = arrays.array(x)
            try:
                found = arrays.numbers(name, given, missing=True)  # callers say themselves what is not finite, see `check_finite`
            except ValueError as error:
                raise ValueError(f"{name} must hold real numbers, got {type(x).__name__} of {given.dtype}") from error
            native = given.dtype.kind == "f" and given.itemsize <= 8  # torch knows no longer ones, nor another order of bytes
            x = torch.from_numpy(found.astype(given.dtype.newbyteorder("=") if native else np.float64))
    if x.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}")
    if x.is_floating_point():
        return x
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)  # Apple's GPUs have no float64


def numbers_of(name: str, x: Any) -> np.ndarray:
    """The same as a float64 array, on whatever device x was."""
    found: np.ndarray = floats(name, x).detach().cpu().double().numpy()  # in this order: MPS has no float64
    return found


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, for its norms overflow and underflow and its sums lose; all else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def like(x: Any, result: torch.Tensor) -> Any:
    """A tensor if x is one, else an array."""
    return result if isinstance(x, torch.Tensor) else result.detach().cpu().numpy()


def check_finite(name: str, x: torch.Tensor) -> None:
    """Raise ``ValueError`` if anything is NaN or infinite: how many values, and the first one's place."""
    broken = ~x.isfinite()
    if broken.any():
        place = broken.nonzero()[0].tolist()
        first = f"; the first that is not finite is at {place}" if place else ""
        raise ValueError(f"{name} {holds(name)} {int(broken.sum())} NaN or infinite values of {x.numel()}{first}")


def is_number(value: Any) -> bool:
    """Whether `value` is one real, finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
