"""How far an edit moved the predicted attributes of pictures (Tanjim et al. 2024, printed there as "RMSE")."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import floats
from ..errors import check_probabilities
from ._results import measured


def attribute_shift(before: Any, after: Any, *, mean: bool = False) -> np.ndarray:
    """How far an edit moved the predicted attribute of each picture: sqrt(sum_i (after_i - before_i)^2).

    The papers print this Euclidean distance as "RMSE" (Tanjim et al. 2024, section 4). 0 means no shift, sqrt(2) the
    largest between two distributions.

    Args:
        before, after: (n, d) probabilities, d >= 2. mean: divide by d inside the root, which makes it a true RMSE.

    Returns:
        (n,) shifts.

    Raises:
        ValueError: NaN, shapes that do not fit, rows that are no distributions (percentages, logits).
    """
    before, after = (floats(name, x).astype(float) for name, x in (("before", before), ("after", after)))
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f"before and after need one shape (n, d), got {before.shape} and {after.shape}")
    for name, rows in (("before", before), ("after", after)):
        check_probabilities(name, rows)
    squared = (after - before) ** 2
    shift = np.sqrt(squared.mean(axis=1) if mean else squared.sum(axis=1))
    return measured(shift, False, {"metric": "attribute shift", "mean": mean})
