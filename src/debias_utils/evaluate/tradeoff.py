"""What a cure costs: shift against occupation score along the strength, so that no method wins by editing less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..arrays import floats
from ..discover.intervals import mean_interval
from ..errors import check_choice, check_whole
from .compare import sign_flip_test
from .table import summary

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
    x, y, q = (floats(name, v).astype(float) for name, v in (("scores", scores), ("shifts", shifts), ("asked", asked)))
    if x.shape != y.shape or x.ndim < 1 or x.shape[-1] < 1 or q.ndim < 1:
        raise ValueError(f"need scores and shifts (..., s) alike and asked (..., q), got {x.shape}, {y.shape} and {q.shape}")
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

    Intervals (`mean_interval`) and tests are those of `compare`, on the jackknife's pseudo-values of each person (Efron and
    Tibshirani 1993, chapter 11): the mean of a least shift is no mean over people, but nearly one of these.

    Args:
        rows: of one editor, with several strengths for each method; for all methods the same people and occupations. measure:
            such as "gender_shift". other: the method that the rest is compared with. points: scores, evenly spaced between the
            largest of the methods' smallest and the smallest of their largest mean scores. repeats: bootstrap resamples of
            people, for `dominates` alone, the same for all methods.

    Returns:
        A row for each method: method, area (the mean least shift), difference (to the other's), low, high (95 %), p (of a sign
        flip test, not corrected), dominates (share of the resamples in which its shift is higher at no score, and lower at one),
        n (people), from_score, to_score.

    Raises:
        ValueError: as `table.summary`; an unknown method, methods without a strength, with other people or occupations than the
            rest; curves that share no score.
    """
    check_choice("method", other, rows["method"].unique())
    check_whole("points", points)
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    curves = {method: _curve(block, measure, rows) for method, block in rows.groupby("method", sort=False)}
    low = max(scores.mean(axis=0).min() for scores, _ in curves.values())
    high = min(scores.mean(axis=0).max() for scores, _ in curves.values())
    if not low < high:
        raise ValueError(f"the curves share no occupation score: one begins at {low:.3f}, another ends at {high:.3f}")
    asked = np.linspace(low, high, points)

    def least(method: str, weights: np.ndarray) -> np.ndarray:
        """(..., q) for people with weights (..., n), which sum to one."""
        x, y = (weights @ values for values in curves[method])  # (..., s)
        return least_shift(x, y, np.minimum(asked, x.max(axis=-1, keepdims=True)))  # some end early

    n = len(curves[other][0])
    each = np.full(n, 1 / n)
    without = (1 - np.eye(n)) / (n - 1)  # (n, n), one person left out in each row
    drawn = np.random.default_rng(seed).multinomial(n, each, size=repeats) / n  # (repeats, n)
    area, pseudo, resampled = {}, {}, {}
    for method in curves:
        area[method] = float(least(method, each).mean())
        pseudo[method] = n * area[method] - (n - 1) * least(method, without).mean(axis=-1)  # (n,)
        resampled[method] = least(method, drawn)  # (repeats, q)
    lines = []
    for method in curves:
        d, apart = pseudo[method] - pseudo[other], resampled[method] - resampled[other]
        dominates = float(((apart < 1e-9).all(axis=1) & (apart < -1e-9).any(axis=1)).mean())
        span = (0.0, 0.0) if method == other else mean_interval(d, seed=seed, support=(-np.inf, np.inf))[1:]
        p = sign_flip_test(d, seed=seed)
        lines.append((method, area[method], area[method] - area[other], *span, p, dominates, n, low, high))
    columns = ["method", "area", "difference", "low", "high", "p", "dominates", "n", "from_score", "to_score"]
    return pd.DataFrame(lines, columns=columns)


def _curve(block: pd.DataFrame, measure: str, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(scores, shifts), each (n, s), of one method: a person in each row, strengths in order."""
    method = block["method"].iloc[0]
    if block["strength"].isna().any():
        raise ValueError(f"{method!r} has no strength, and so no curve: leave it out")
    people = pd.MultiIndex.from_frame(rows[["seed", "person"]].drop_duplicates()).sort_values()
    points = []
    for strength, part in block.groupby("strength"):
        point = summary(part, [SCORE, measure]).loc[method].sort_index()
        lacking = set(rows["occupation"]) - set(part["occupation"])
        if lacking or not point.index.equals(people):
            raise ValueError(
                f"{method!r} lacks {sorted(lacking) if lacking else 'some of the people'} at strength {strength:g}: all methods "
                "need the same"
            )
        points.append(point.to_numpy())
    scores, shifts = np.stack(points, axis=-1).transpose(1, 0, 2)  # (people, 2, s) -> (2, people, s)
    return scores, shifts
