"""How well CLIP scores rank the pictures of an occupation, and whom they misrank (Tanjim et al. 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..arrays import array, booleans, floats, labels, numbers
from ..errors import check_choice, check_whole

MISRANK_RULES = ("r-precision", "threshold", "zero-shot")


def curves(scores: Any, relevant: Any) -> dict[str, Any]:
    """Precision-recall (which the paper calls ROC), the true ROC, their areas and the areas' chance levels.

    Args:
        scores: (n,) higher is ranked first. relevant: (n,) bool, with at least one True and one False.

    Returns:
        precision, recall, fpr, tpr: arrays along the ranking; ap, auc: areas in [0, 1]; chance_ap: the prevalence, which
        is what a random ranking scores; chance_auc: 0.5. Nothing depends on the order of tied items.

    Raises:
        ValueError: something missing, shapes that do not fit, relevant items alone or none.
    """
    from sklearn import metrics

    scores, relevant = numbers("scores", scores), booleans("relevant", relevant)
    if scores.ndim != 1 or scores.shape != relevant.shape:
        raise ValueError(f"scores and relevant need one shape (n,), got {scores.shape} and {relevant.shape}")
    if relevant.all() or not relevant.any():
        raise ValueError(f"a ranking needs relevant and other items, got {relevant.sum()} relevant of {relevant.size}")
    scores = np.unique(scores, return_inverse=True)[1]  # the order is all that counts; scikit-learn refuses infinite scores
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

    A tie is no miss, by any rule: so the order of pictures and queries changes nothing.

    Args:
        scores: (n, q) similarity of each picture to each query. truth: (n,) index of each picture's own query.
        rule: "r-precision": outside the top n_q of its query, n_q = number of pictures that belong there (default: it
            needs no threshold and as many slots as pictures), that is, n_q or more of all pictures score higher there;
            "threshold": its own score is below `threshold`; "zero-shot": another query scores higher.
        threshold: of the rule "threshold" alone.

    Returns:
        (n,) bool.

    Raises:
        ValueError: something missing, shapes that do not fit, a query that does not exist, an unknown rule.
    """
    check_choice("misrank rule", rule, MISRANK_RULES)
    scores, truth = numbers("scores", scores), floats("truth", truth)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"need (n, q) scores and (n,) truth, got {scores.shape} and {truth.shape}")
    if (truth % 1).any():
        raise ValueError(f"truth must hold whole numbers, got {truth[truth % 1 != 0][0]}")
    truth = truth.astype(int)
    if truth.size and not (truth.min() >= 0 and truth.max() < scores.shape[1]):
        raise ValueError(f"truth must index the {scores.shape[1]} queries, got {truth.min()} to {truth.max()}")
    own = scores[np.arange(len(truth)), truth]
    if rule == "zero-shot":
        return own < scores.max(axis=1)
    if rule == "threshold":
        if threshold is None:
            raise ValueError("rule 'threshold' needs a threshold")
        least = floats("threshold", [threshold], finite=False)
        if least.shape != (1,):
            raise ValueError(f"threshold must be one number, got {threshold!r}")
        return own < (least.astype(scores.dtype) if scores.dtype.kind == "f" else least)  # .7 in float32 is no miss of .7
    missed = np.zeros(len(truth), bool)
    for query in np.unique(truth):
        mine = truth == query
        missed[mine] = own[mine] < np.sort(scores[:, query])[-mine.sum()]
    return missed


def misrank_table(missed: Any, groups: Any, *, by: Any = None, confidence: float = 0.95) -> pd.DataFrame:
    """Who is misranked: the share that the paper plots, and the rate that it does not.

    share = misranked of the group / all misranked: it also grows with the size of the group.
    rate = misranked of the group / its pictures: comparable between groups of any size.

    Args:
        missed: (n,) bool. groups: (n,) labels. by: (n,) labels, such as the occupation; one block of rows for each.
        confidence: level of the Wilson intervals.

    Returns:
        Columns by, group, pictures, misranked, share, share_low, share_high, rate, rate_low, rate_high. Blocks are in the
        order of their first picture. The share of a block without misranks is NaN, and so is the rate of a group without
        pictures in it.

    Raises:
        ValueError: something missing, shapes that do not fit.
    """
    from scipy.stats import binomtest

    missed = booleans("missed", missed)
    by = np.full(missed.shape, "all") if by is None else by
    shapes = [missed.shape, np.shape(array(groups)), np.shape(array(by))]
    if missed.ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(f"missed, groups and by need one shape (n,), got {', '.join(map(str, shapes))}")
    (names, codes), (blocks, block_codes) = labels("groups", groups), labels("by", by)

    def proportion(count: int, total: int) -> tuple[float, float, float]:
        if total == 0:
            return np.nan, np.nan, np.nan
        interval = binomtest(count, total).proportion_ci(confidence, method="wilson")
        return count / total, interval.low, interval.high

    rows = []
    for b in pd.unique(block_codes):
        inside = block_codes == b
        block, total = blocks[b], int(missed[inside].sum())
        for g, group in enumerate(names):
            members = inside & (codes == g)
            count = int(missed[members].sum())
            rows.append(
                (block, group, int(members.sum()), count, *proportion(count, total), *proportion(count, int(members.sum())))
            )
    columns = ["by", "group", "pictures", "misranked", "share", "share_low", "share_high", "rate", "rate_low", "rate_high"]
    return pd.DataFrame(rows, columns=columns)


def top(scores: Any, k: int) -> np.ndarray:
    """Indices of the k highest of (n,) scores, best first; ties keep the input order."""
    scores = numbers("scores", scores)
    if scores.ndim != 1:
        raise ValueError(f"scores must be (n,), got {scores.shape}")
    k = check_whole("k", k, at_most=len(scores), limit="n = ")
    # backwards, and not by the negative, which for unsigned numbers and Booleans has another order
    return len(scores) - 1 - np.argsort(scores[::-1], kind="stable")[::-1][:k]


def indices(values: Sequence[Any], choices: Sequence[Any]) -> np.ndarray:
    """(n,) position of each value in `choices`; raises on one that is missing or not there, and on a choice given twice."""
    names, codes = labels("values", values)
    position = {choice: i for i, choice in enumerate(choices)}
    if len(position) < len(choices):
        raise ValueError(f"choices must differ, got {list(choices)}")
    for name in names:
        check_choice("label", name, choices)
    return np.array([position[name] for name in names], int)[codes]
