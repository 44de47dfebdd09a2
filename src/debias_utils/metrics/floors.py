"""What chance alone scores: random rankings, and shuffled groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import floats, labels
from ..errors import check_whole
from ..measured import FlooredWarning, MeasuredDict
from ._results import check_k
from .tops import RunningTop

_DRAWN = 1 << 23  # random scores held at once


def random_floor(
    metric: Callable[..., Any], groups: Any, *, repeats: int = 200, seed: int = 0, together: int = 1, **conventions: Any
) -> MeasuredDict:
    """What a random ranking scores: the mean and the central 95 % of `metric` over shuffled rankings.

    Args:
        metric: `max_skew_at_k`, `min_skew_at_k`, `ndkl` or `bias_at_k`; or a function of your own that takes the same
            arguments, (b, n) scores first. It gets some of the rankings at a time: about 64 MB, at least `together`.
        groups: (n,) labels, or the `RunningTop` of a pool of any size: only the first k of each ranking are drawn then, and the
            metric gets a `RunningTop` and None. conventions: the metric's own keyword arguments (k, target, zero, ...).
        together: hand over whole multiples of so many rankings, for a function that averages over so many.

    Returns:
        {"mean", "low", "high"}. No `FlooredWarning` is given; the conventions list under "floored" whom it would be about.
    """
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    check_whole("together", together)
    rng = np.random.default_rng(seed)
    if isinstance(groups, RunningTop):
        pool, size = groups, check_k(groups.k, groups.items)
    else:
        pool, size = None, len(labels("groups", groups)[1])
    rows = max(1, _DRAWN // max(size * together, 1)) * together
    values: list[np.ndarray] = []
    measured: dict[str, Any] = {}
    floored: dict[Any, None] = {}
    for start in range(0, repeats, rows):
        count = min(rows, repeats - start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FlooredWarning)
            if pool is None:
                found = metric(rng.random((count, size)), groups, **conventions)
            else:
                found = metric(pool.shuffled(count, rng), None, **conventions)
        measured = getattr(found, "conventions", {})
        floored |= dict.fromkeys(measured.get("floored", ()))
        values.append(floats("a metric's values", np.ravel(np.asarray(found)), finite=False))
    result = _summary(np.concatenate(values))
    name = getattr(metric, "__name__", repr(metric))
    result.conventions = {**measured, "metric": name, "repeats": repeats, "seed": seed, **conventions}
    if floored:
        result.conventions["floored"] = list(floored)
    return result


def shuffled_floor(
    measure: Callable[[np.ndarray], Any], groups: Any, *, strata: Any = None, repeats: int = 200, seed: int = 0
) -> MeasuredDict:
    """What remains of a gap if the groups mean nothing: mean and central 95 % of `measure` over shuffled labels.

    A gap between groups is never negative, so that chance alone leaves some: the more, the smaller the groups::

        shuffled_floor(lambda g: equal_opportunity_gap(predicted, truth, g), groups, strata=truth)

    Args:
        measure: takes (n,) labels, returns a number. groups: (n,) labels.
        strata: (n,) labels within which to shuffle, such as the true class: rates that differ between classes then are no gap.

    Returns:
        {"mean", "low", "high"}.
    """
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    names, codes = labels("groups", groups)
    within = labels("strata", np.zeros(len(codes), int) if strata is None else strata, n=len(codes))[1]
    rng, rows = np.random.default_rng(seed), np.argsort(within, kind="stable")
    named = np.array([*names, None], dtype=object)[:-1]  # NumPy would make text of mixed labels
    found = np.empty(repeats)
    for i in range(repeats):
        # sorted by stratum, then at random within it
        shuffled = np.empty_like(codes)
        shuffled[rows] = codes[np.lexsort((rng.random(len(codes)), within))]
        found[i] = measure(named[shuffled])
    result = _summary(found)
    result.conventions = {"shuffled": "groups" if strata is None else "groups within strata", "repeats": repeats, "seed": seed}
    return result


def _summary(found: np.ndarray) -> MeasuredDict:
    # between infinite values there is nothing to interpolate
    low, high = np.quantile(found, [0.025, 0.975], method="linear" if np.isfinite(found).all() else "inverted_cdf")
    return MeasuredDict(mean=float(found.mean()), low=float(low), high=float(high))
