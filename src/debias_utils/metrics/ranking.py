"""Fairness of a ranking: Skew@k, MaxSkew@k, MinSkew@k and NDKL (Geyik et al. 2019), Bias@k (Wang et al. 2021).

Scores are (n,) for one query, (m, n) for m queries at once, or an iterator of blocks (m, b) of a pool that does not fit into
memory; see `RunningTop`. Groups are (n,) labels, or an iterator of blocks (b,).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..arrays import floats
from ..errors import check_choice
from ..measured import FlooredWarning, MeasuredDict
from ._results import check_k, measured
from .tops import rankings

ZERO_RULES = ("floor", "-inf", "exclude")


def skew_at_k(
    scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"
) -> MeasuredDict:
    """Skew@k of each group: ln(share in the top k / desired share), Geyik et al. 2019, definition 2.

    0 means the desired share; ln 2 = 0.69 means twice as many as desired. Natural logarithm.

    Args:
        scores: (n,) or (m, n), higher is ranked first; an iterator of blocks (m, b), or a `RunningTop`. groups: (n,) labels; for
            blocks also an iterator of blocks (b,), and None for a `RunningTop`, which knows them.
        k: length of the top, 1 <= k <= n.
        target: desired shares: "pool" (those of `groups`), "uniform" (1 / number of groups), or {group: share}.
        zero: a group with nobody in the top k gets the share 1/k ("floor", as the public reference implementations),
            0 ("-inf"), or is left out ("exclude"; NaN in the batched form). With "floor", a group whose desired share is
            below 1/k gets a positive skew without anybody in the top, which can be the largest of all: with 600, 399 and 1
            people and a fair top 10 MaxSkew is ln(0.1 / 0.001) = 4.61, and .0025 with "exclude".
        ties: at the k-th place, keep the input "order", or keep "all" tied items while still dividing by k (as
            oxai/debias-vision-lang does; shares can then exceed 1).

    Returns:
        {group: skew}; floats for (n,) scores, arrays (m,) for (m, n) scores. Where the floor was used, the conventions list
        those groups under "floored".

    Raises:
        ValueError: scores or labels that are missing (NaN, None, ...), k outside [1, n], unknown rule or target, a target group
            that is absent from the pool.
    """
    single, names, skew, floored, conventions = _skew(scores, groups, k, target, zero, ties)
    result = MeasuredDict()
    for i, label in enumerate(names):
        if single:
            if not np.isnan(skew[0, i]):
                result[label] = float(skew[0, i])
        else:
            result[label] = skew[:, i]
    result.conventions = {**conventions, "metric": "Skew@k", **_noted(floored, names)}
    return result


def max_skew_at_k(
    scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order", absolute: bool = False
):
    """MaxSkew@k: the skew of the most over-represented group (Geyik et al. 2019). Arguments as `skew_at_k`.

    0 means nobody is over-represented. A float for (n,) scores, an array (m,) for (m, n) scores.

    The default ``zero="floor"`` is the public convention, and lets a group with nobody in the top k decide the value, as
    `skew_at_k` explains. When it does, a `FlooredWarning` says so and the conventions list such groups under "floored".

    ``absolute=True`` takes the largest size of a skew of either sign, as the code of Jung et al. 2024 does: of two groups that is
    the minority's, and infinite with ``zero="-inf"`` where one of them is absent.
    """
    single, names, skew, floored, conventions = _skew(scores, groups, k, target, zero, ties)
    if absolute:
        skew, conventions = np.abs(skew), {**conventions, "absolute": True}
    largest = np.nanmax(skew, axis=1)
    decides = floored & (skew == largest[:, None])
    decides &= np.where(floored, -np.inf, skew).max(axis=1, keepdims=True) < largest[:, None]
    if decides.any():  # the same words every time: Python then shows them once for each line that asks
        warnings.warn(
            "MaxSkew@k is decided by a group with nobody in the top k, whose share zero='floor' sets to 1/k; "
            "conventions['floored'] names it, and zero='exclude' leaves such groups out",
            FlooredWarning,
            stacklevel=2,
        )
    return measured(largest, single, {**conventions, "metric": "MaxSkew@k", **_noted(decides, names)})


def min_skew_at_k(scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"):
    """MinSkew@k: the skew of the most under-represented group (Geyik et al. 2019). Arguments as `skew_at_k`.

    0 means nobody is under-represented. A float for (n,) scores, an array (m,) for (m, n) scores. Groups that decide the value
    with nobody in the top k, by ``zero="floor"``, are listed in the conventions under "floored".
    """
    single, names, skew, floored, conventions = _skew(scores, groups, k, target, zero, ties)
    smallest = np.nanmin(skew, axis=1)
    decides = floored & (skew == smallest[:, None])
    decides &= np.where(floored, np.inf, skew).min(axis=1, keepdims=True) > smallest[:, None]
    return measured(smallest, single, {**conventions, "metric": "MinSkew@k", **_noted(decides, names)})


def ndkl(scores: Any, groups: Any, *, k: int | None = None, target: Any = "pool", ties: str = "order"):
    """NDKL: the discounted mean over all prefixes of KL(shares in the prefix || desired shares), Geyik et al. 2019.

    (1 / Z) sum_{i<=k} KL(p^i || q) / log2(i + 1) with Z = sum_{i<=k} 1 / log2(i + 1). Natural logarithm in KL; a group
    that is absent from a prefix adds 0. 0 would mean that every prefix has the desired shares, which no ranking reaches.

    Args:
        k: prefixes up to k; None means all n. With ties="all", tied items beyond k are summed too (Z stays at k).
        scores, groups, target, ties: as in `skew_at_k`.

    Returns:
        A float for (n,) scores, an array (m,) for (m, n) scores.
    """
    ranking = rankings(scores, groups, k, ties)
    k = check_k(ranking.items if k is None else k, ranking.items)
    q = _target_shares(target, ranking.names, ranking.sizes)
    # KL at prefix i is (1/i) sum_g c_g ln c_g - ln i - (1/i) sum_{j<=i} ln q_{g_j}. Adding one item to its group, the
    # c-th, adds c ln c - (c-1) ln (c-1) to the first sum: so NDKL is a weighted sum over the items, an item's weight being
    # that of all prefixes that hold it. Taken group by group, best first, an item's c is its place in its group.
    result = np.empty(ranking.queries)
    for rows, codes in ranking.best_first(k, ties):
        position = np.arange(1, codes.shape[1] + 1)
        weight = 1.0 / np.log2(position + 1)
        held = (weight / position)[::-1].cumsum()[::-1]
        gain = np.diff(position * np.log(position), prepend=0.0)
        places = np.argsort(codes, axis=1, kind="stable")  # group by group, best first; a radix sort
        # If all items count, every query has the same ones.
        grouped = np.sort(codes[:1] if len(position) == ranking.items else codes, axis=1)
        first = np.pad(np.diff(grouped, axis=1) != 0, ((0, 0), (1, 0)), constant_values=True)
        start = np.maximum.accumulate(np.where(first, position - 1, 0), axis=1)
        gains = gain[position - 1 - start] - np.log(q)[grouped]
        result[rows] = (held[places] * gains).sum(axis=1) - weight @ np.log(position)
    z = (1.0 / np.log2(np.arange(2, k + 2))).sum()
    conventions = {**ranking.conventions, "metric": "NDKL", "k": k, **_describe(target, ranking.names, q), "ties": ties}
    return measured(result / z, ranking.single, conventions)


def kl_at_k(scores: Any, groups: Any, k: int, *, target: Any = "pool", ties: str = "order"):
    """KL@k: KL(shares in the top k || desired shares), as BEND-VLM and SEM print it (Gerych et al. 2024). Natural logarithm.

    0 means the desired shares. It looks at one cut, where NDKL looks at every prefix; an absent group adds 0.

    Args:
        scores, groups, k, target, ties: as in `skew_at_k`; with ties="all" tied items count in the shares.

    Returns:
        A float for (n,) scores, an array (m,) for (m, n) scores.
    """
    ranking = rankings(scores, groups, k, ties)
    k = check_k(k, ranking.items)
    q = _target_shares(target, ranking.names, ranking.sizes)
    counts = ranking.counts(k, ties)
    share = counts / counts.sum(axis=1, keepdims=True)  # (m, groups)
    value = (share * (np.log(np.where(share > 0, share, 1.0)) - np.log(q))).sum(axis=1)
    conventions = {**ranking.conventions, "metric": "KL@k", "k": k, **_describe(target, ranking.names, q), "ties": ties}
    return measured(value, ranking.single, conventions)


def bias_at_k(scores: Any, groups: Any, k: int, *, positive: Any, negative: Any, ties: str = "order"):
    """Bias@k: (positive - negative) / (positive + negative) counted in the top k (Wang et al. 2021).

    In [-1, 1]; 0 means as many of one group as of the other, or nobody of either.

    Args:
        positive, negative: two different labels that occur in `groups`.
        scores, groups, k, ties: as in `skew_at_k`.
    """
    ranking = rankings(scores, groups, k, ties)
    names = ranking.names
    for name, group in (("positive", positive), ("negative", negative)):
        check_choice(f"{name} group", group, names)
    if positive == negative:
        raise ValueError(f"positive and negative must be two groups, got {positive!r} twice")
    counts = ranking.counts(check_k(k, ranking.items), ties).astype(float)
    a, b = counts[:, names.index(positive)], counts[:, names.index(negative)]
    value = np.divide(a - b, a + b, out=np.zeros_like(a), where=a + b > 0)
    conventions = {
        **ranking.conventions, "metric": "Bias@k", "k": k, "positive": positive, "negative": negative, "ties": ties,
    }  # fmt: skip
    return measured(value, ranking.single, conventions)


def _noted(floored: np.ndarray, names: list) -> dict[str, Any]:
    """(m, groups) bool -> the entry of the conventions, if there is any."""
    return {"floored": [names[i] for i in np.flatnonzero(floored.any(axis=0))]} if floored.any() else {}


def _skew(scores, groups, k, target, zero, ties):
    check_choice("zero rule", zero, ZERO_RULES)
    ranking = rankings(scores, groups, k, ties)
    k = check_k(k, ranking.items)
    q = _target_shares(target, ranking.names, ranking.sizes)
    share = ranking.counts(k, ties) / k  # (m, groups)
    absent = share == 0
    if zero != "-inf":
        share[absent] = 1.0 / k if zero == "floor" else np.nan
    with np.errstate(divide="ignore"):
        skew = np.log(share) - np.log(q)
    conventions = {**ranking.conventions, "k": k, **_describe(target, ranking.names, q), "zero": zero, "ties": ties}
    return ranking.single, ranking.names, skew, absent & (zero == "floor"), conventions


def _target_shares(target: Any, names: list, sizes: np.ndarray) -> np.ndarray:
    """(groups,) desired shares."""
    if isinstance(target, str) and target in ("pool", "uniform"):
        return sizes / sizes.sum() if target == "pool" else np.full(len(names), 1.0 / len(names))
    if not hasattr(target, "items"):  # a table's column has them too
        raise ValueError(f"unknown target {target!r}; choose one of: 'pool', 'uniform', or a dictionary {{group: share}}")
    given = dict(target.items())
    pool = set(names)
    absent, missing = [group for group in given if group not in pool], [name for name in names if name not in given]
    if absent or missing:
        raise ValueError(
            f"target groups {absent or missing} {'are absent from the pool' if absent else 'are missing'}; pool: {names}"
        )
    shares = floats("target shares", [given[name] for name in names]).astype(float)
    if (shares <= 0).any() or not np.isclose(shares.sum(), 1.0):
        raise ValueError(f"target shares must be above 0 and sum to 1, got {given!r}")
    return shares / shares.sum()


def _describe(target: Any, names: list, q: np.ndarray) -> dict[str, Any]:
    return {"target": target if isinstance(target, str) else "given", "shares": dict(zip(names, q.tolist(), strict=True))}
