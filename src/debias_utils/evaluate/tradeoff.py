"""What a cure costs: shift against occupation score along the strength, so that no method wins by editing less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..errors import check_choice, check_positive

SCORE = "occupation_score"


def least_shift(scores: Any, shifts: Any, asked: Any) -> np.ndarray:
    """The least shift on a curve at which the occupation is shown at least as well as is asked.

    Between two strengths the curve is taken for straight. Asking for more never gives less: what counts is the best edit that
    shows enough, at whatever strength.

    Args:
        scores, shifts: (..., s) points of curves, in the order of their strengths, s at least 1. asked: (..., q) occupation
            scores.

    Returns:
        (..., q); NaN where no point of the curve shows enough.

    Raises:
        ValueError: shapes that differ, no points, values that are not finite.
    """
    x, y, q = (np.asarray(v, float) for v in (scores, shifts, asked))
    if x.shape != y.shape or x.ndim < 1 or x.shape[-1] < 1 or q.ndim < 1:
        raise ValueError(f"need scores and shifts (..., s) alike and asked (..., q), got {x.shape}, {y.shape} and {q.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(q).all()):
        raise ValueError("scores, shifts and what is asked must be finite")
    q = q[..., None, :]
    best = np.where(x[..., None] >= q, y[..., None], np.inf).min(axis=-2)  # over (..., s, q)
    x0, x1, y0, y1 = (v[..., None] for v in (x[..., :-1], x[..., 1:], y[..., :-1], y[..., 1:]))
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (q - x0) / (x1 - x0)  # where each piece crosses what is asked
        crossing = np.where((at >= 0) & (at <= 1), y0 + at * (y1 - y0), np.inf)
    best = np.minimum(best, crossing.min(axis=-2, initial=np.inf))
    return np.where(np.isinf(best), np.nan, best)


def compare_curves(
    rows: pd.DataFrame, measure: str, other: str, *, points: int = 50, repeats: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Methods against another at equal occupation scores: the mean of `least_shift` over the scores that all of them reach.

    Args:
        rows: of one editor, with several strengths for each method; for all methods the same people and occupations. measure:
            such as "gender_shift". other: the method that the rest is compared with. points: scores, evenly spaced between the
            largest of the methods' smallest and the smallest of their largest mean scores. repeats: bootstrap resamples of
            people, the same for all methods.

    Returns:
        A row for each method: method, area (the mean least shift), difference (to the other's), low, high (95 %, percentiles),
        dominates (share of the resamples in which its shift is no higher at any score, and lower at one), from_score,
        to_score.

    Raises:
        ValueError: an unknown measure or method, methods with different people, curves that share no score.
    """
    check_choice("measure", measure, rows.columns)
    check_choice("method", other, rows["method"].unique())
    check_positive("points", points)
    check_positive("repeats", repeats)
    by = rows.groupby(["method", "seed", "person", "strength"], sort=False)[[SCORE, measure]].mean()
    curves: dict[str, np.ndarray] = {}
    people = by.loc[other].unstack("strength").index
    for method in rows["method"].unique():
        wide = by.loc[method].unstack("strength").sort_index()  # a person in each row, strengths in order
        if wide.isna().any(axis=None) or not wide.index.equals(people.sort_values()):
            raise ValueError(f"the people of {method!r} are not those of {other!r}, or lack a strength")
        curves[method] = np.stack([wide[SCORE].to_numpy(), wide[measure].to_numpy()])  # (2, n, s)
    low = max(curve[0].mean(axis=0).min() for curve in curves.values())
    high = min(curve[0].mean(axis=0).max() for curve in curves.values())
    if not low < high:
        raise ValueError(f"the curves share no occupation score: one begins at {low:.3f}, another ends at {high:.3f}")
    asked = np.linspace(low, high, points)
    n = len(people)
    draws = np.random.default_rng(seed).integers(n, size=(repeats, n))
    weights = np.stack([np.bincount(draw, minlength=n) for draw in draws]) / n  # (repeats, n)
    found = {m: least_shift(curve[0].mean(axis=0), curve[1].mean(axis=0), asked) for m, curve in curves.items()}
    drawn = {}  # (repeats, q)
    for method, curve in curves.items():
        x, y = weights @ curve[0], weights @ curve[1]  # (repeats, s)
        drawn[method] = least_shift(x, y, np.minimum(asked, x.max(axis=1, keepdims=True)))  # some end early
    lines = []
    for method in curves:
        difference = drawn[method].mean(axis=1) - drawn[other].mean(axis=1)
        apart = drawn[method] - drawn[other]
        below = (apart < 1e-9).all(axis=1) & (apart < -1e-9).any(axis=1)
        lines.append(
            (
                method,
                found[method].mean(),
                found[method].mean() - found[other].mean(),
                *np.quantile(difference, [0.025, 0.975]),
                below.mean(),
                low,
                high,
            )
        )
    columns = ["method", "area", "difference", "low", "high", "dominates", "from_score", "to_score"]
    return pd.DataFrame(lines, columns=columns)
