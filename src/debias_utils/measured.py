"""Numbers that carry how they were measured: through pickles, copies and other processes too."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np


class FlooredWarning(UserWarning):
    """A group with nobody in the top k decides a MaxSkew@k, by the value that ``zero="floor"`` gives it."""


class MeasuredFloat(float):
    """A float with the ``conventions`` (dict) of its measurement."""

    conventions: dict[str, Any]


class MeasuredArray(np.ndarray):
    """An array, one value a query, with the ``conventions`` (dict) of its measurement."""

    conventions: dict[str, Any]

    def __array_finalize__(self, parent: Any) -> None:
        self.conventions = dict(getattr(parent, "conventions", {}))

    def __reduce__(self) -> Any:  # what pickles, copies and sends arrays knows nothing of attributes
        reduced: Any = super().__reduce__()
        return (*reduced[:2], (reduced[2], self.conventions))

    def __setstate__(self, state: Any) -> None:
        state, self.conventions = state
        super().__setstate__(state)

    def __deepcopy__(self, memo: Any) -> MeasuredArray:
        twin = super().__deepcopy__(memo).view(MeasuredArray)
        twin.conventions = copy.deepcopy(self.conventions, memo)
        return twin

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # a mean over queries is a plain number, not an array without dimensions
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, context, return_scalar)


class MeasuredDict(dict):
    """{group: value} with the ``conventions`` (dict) of its measurement."""

    conventions: dict[str, Any]

    def copy(self) -> MeasuredDict:
        """The same values and conventions in a new dictionary."""
        return copy.copy(self)
