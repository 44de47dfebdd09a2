"""How well CLIP scores rank the pictures of an occupation, and whom they misrank (Tanjim et al. 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import check_choice

MISRANK_RULES = ("r-precision", "threshold", "zero-shot")


def curves(scores: Any, relevant: Any) -> dict[str, Any]:
    """Precision-recall (which the paper calls ROC), the true ROC, their areas and the areas' chance levels.

    Args:
        scores: (n,) higher is ranked first. relevant: (n,) bool, with at least one True and one False.

    Returns:
        precision, recall, fpr, tpr: arrays along the ranking; ap, auc: areas in [0, 1]; chance_ap: the prevalence, which
        is what a random ranking scores; chance_auc: 0.5.
    """
    from sklearn import metrics

    scores, relevant = np.asarray(scores, float), np.asarray(relevant, bool)
    if scores.ndim != 1 or scores.shape != relevant.shape:
        raise ValueError(f"scores and relevant need one shape (n,), got {scores.shape} and {relevant.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"scores hold {np.isnan(scores).sum()} NaN")
    if relevant.all() or not relevant.any():
        raise ValueError(f"a ranking needs relevant and other items, got {relevant.sum()} relevant of {relevant.size}")
    precision, recall, _ = metrics.precision_recall_curve(relevant, scores)
    fpr, tpr, _ = metrics.roc_curve(relevant, scores)
    return {
        "precision": precision,
        "recall": recall,
        "fpr": fpr,
        "tpr": tpr,
        "ap": float(metrics.average_precision_score(relevant, scores)),
        "auc": float(metrics.roc_auc_score(relevant, scores)),
        "chance_ap": float(relevant.mean()),
        "chance_auc": 0.5,
    }


def misranked(scores: Any, truth: Any, *, rule: str = "r-precision", threshold: float | None = None) -> np.ndarray:
    """Which pictures their own query misses. The paper does not publish its operating point; we offer three.

    Args:
        scores: (n, q) similarity of each picture to each query. truth: (n,) index of each picture's own query.
        rule: "r-precision": outside the top n_q of its query, n_q = number of pictures that belong there (default: it
            needs no threshold and as many slots as pictures); "threshold": its own score is below `threshold`;
            "zero-shot": another query scores higher.

    Returns:
        (n,) bool.
    """
    check_choice("misrank rule", rule, MISRANK_RULES)
    scores, truth = np.asarray(scores), np.asarray(truth)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"need (n, q) scores and (n,) truth, got {scores.shape} and {truth.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"scores hold {np.isnan(scores).sum()} NaN")
    if truth.size and not (truth.min() >= 0 and truth.max() < scores.shape[1]):
        raise ValueError(f"truth must index the {scores.shape[1]} queries, got {truth.min()} to {truth.max()}")
    if rule == "zero-shot":
        return scores.argmax(axis=1) != truth
    if rule == "threshold":
        if threshold is None:
            raise ValueError("rule 'threshold' needs a threshold")
        return scores[np.arange(len(truth)), truth] < threshold
    missed = np.zeros(len(truth), bool)
    for query in range(scores.shape[1]):
        own = truth == query
        top = np.argsort(-scores[:, query], kind="stable")[: own.sum()]
        missed |= own & ~np.isin(np.arange(len(truth)), top)
    return missed


def misrank_table(missed: Any, groups: Any, *, by: Any = None, confidence: float = 0.95) -> pd.DataFrame:
    """Who is misranked: the share that the paper plots, and the rate that it does not.

    share = misranked of the group / all misranked: it also grows with the size of the group.
    rate = misranked of the group / its pictures: comparable between groups of any size.

    Args:
        missed: (n,) bool. groups: (n,) labels. by: (n,) labels, such as the occupation; one block of rows for each.
        confidence: level of the Wilson intervals.

    Returns:
        Columns by, group, pictures, misranked, share, share_low, share_high, rate, rate_low, rate_high. The share of a
        block without misranks is NaN.
    """
    from scipy.stats import binomtest

    missed, groups = np.asarray(missed, bool), np.asarray(groups)
    by = np.full(missed.shape, "all", dtype=object) if by is None else np.asarray(by)
    if not missed.shape == groups.shape == by.shape:
        raise ValueError(f"missed, groups and by need one shape (n,), got {missed.shape}, {groups.shape}, {by.shape}")

    def proportion(count: int, total: int) -> tuple[float, float, float]:
        if total == 0:
            return np.nan, np.nan, np.nan
        interval = binomtest(count, total).proportion_ci(confidence, method="wilson")
        return count / total, interval.low, interval.high

    rows = []
    for block in pd.unique(by):
        inside = by == block
        total = int(missed[inside].sum())
        for group in np.unique(groups):
            members = inside & (groups == group)
            count = int(missed[members].sum())
            rows.append(
                (block, group, int(members.sum()), count, *proportion(count, total), *proportion(count, int(members.sum())))
            )
    columns = ["by", "group", "pictures", "misranked", "share", "share_low", "share_high", "rate", "rate_low", "rate_high"]
    return pd.DataFrame(rows, columns=columns)


def top(scores: Any, k: int) -> np.ndarray:
    """Indices of the k highest scores, best first; ties keep the input order."""
    scores = np.asarray(scores)
    if not 1 <= k <= len(scores):
        raise ValueError(f"k must be from 1 to n = {len(scores)}, got {k!r}")
    return np.argsort(-scores, kind="stable")[:k]


def indices(values: Sequence[Any], choices: Sequence[Any]) -> np.ndarray:
    """(n,) position of each value in `choices`; raises on one that is not there."""
    position = {choice: i for i, choice in enumerate(choices)}
    for value in pd.unique(np.asarray(values, dtype=object)):
        check_choice("label", value, choices)
    return np.array([position[value] for value in values], int)
