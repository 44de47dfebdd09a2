"""Is the difference between two methods real? Paired over people: intervals, tests, and a correction for having asked often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..arrays import numbers
from ..discover.intervals import difference_interval, finite_values, mean_interval, rounding
from ..errors import check_choice, check_whole

__all__ = ["compare", "holm", "mean_interval", "sign_flip_test"]


def sign_flip_test(differences: Any, *, repeats: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test: under the null, a difference is as likely as its negative.

    Args:
        differences: (n,), one for each person; those below 1e-6 (of the largest, if that is above 1) are rounding, and count
            as 0. repeats: random sign flips; all 2^n where those are fewer.

    Raises:
        ValueError: as `mean_interval`.
    """
    from scipy.stats import permutation_test

    x = finite_values(differences)
    x = np.where(np.abs(x) <= rounding(x), 0, x)
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    found = permutation_test(
        (x,), lambda d, axis: d.mean(axis=axis), permutation_type="samples", vectorized=True, n_resamples=repeats,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def holm(p_values: Any) -> np.ndarray:
    """Adjusted p-values of a family of m tests: below a level, no test of the family is wrong more often (Holm 1979).

    Args:
        p_values: (m,) in [0, 1].

    Raises:
        ValueError: other values; NaN, with how many and where the first is.
    """
    p = numbers("p-values", p_values, missing=True).astype(float)
    missing = np.argwhere(np.isnan(p))
    if len(missing):
        raise ValueError(f"p-values (m,) hold {len(missing)} NaN, the first at {missing[0][0]}")
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"need p-values (m,) in [0, 1], got {p_values!r}")
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return adjusted


def compare(by_person: pd.DataFrame, pairs: Iterable[tuple[str, str]], measures: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """Differences between methods, all of them one family of tests.

    Args:
        by_person: as `table.summary` makes it: index (method, seed, person), a column for each measure.
        pairs: (method, other) of the differences method - other. measures: columns.

    Returns:
        A row for each pair and measure: method, other, measure, n (people whom both have), difference, low, high (95 %, of
        `difference_interval`), p, p_holm (adjusted for all rows). They are of these trainings: see `table.table1`.

    Raises:
        ValueError: an unknown method or measure; fewer than two people whom both have; a person twice; values that are not
            finite.
    """
    if by_person.index.has_duplicates:
        twice = dict(zip(by_person.index.names, map(str, by_person.index[by_person.index.duplicated()][0]), strict=True))
        raise ValueError(f"by_person holds {twice} more than once")
    rows = []
    for method, other in pairs:
        for name in (method, other):
            check_choice("method", name, by_person.index.unique("method"))
        both = by_person.loc[method].join(by_person.loc[other], how="inner", lsuffix="", rsuffix=" of other")
        if both.empty:
            raise ValueError(f"{method!r} and {other!r} have nobody in common")
        for measure in measures:
            check_choice("measure", measure, by_person.columns)
            x, y = (numbers(measure, both[name], missing=True).astype(float) for name in (measure, f"{measure} of other"))
            interval = difference_interval(x, y, seed=seed)
            rows.append((method, other, measure, len(both), *interval, sign_flip_test(x - y, seed=seed)))
    table = pd.DataFrame(rows, columns=["method", "other", "measure", "n", "difference", "low", "high", "p"])
    return table.assign(p_holm=holm(table["p"]))
