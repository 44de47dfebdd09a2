"""Fairness of a ranking, and shifts of attributes: arrays in, numbers out; no model is imported here.

Scores are (n,) for one query or (m, n) for m queries at once, groups are (n,) labels. Every convention is an argument,
and every result carries the conventions it was computed with in its attribute ``conventions``, so that two numbers can
be compared knowingly. Random rankings do not score 0: print `random_floor` beside whatever you report.

Sources: Geyik et al. 2019 (Skew@k, MaxSkew@k, MinSkew@k, NDKL); Wang et al. 2021 (Bias@k); Zhang et al. 2025 (ABLE);
Tanjim et al. 2024 (attribute shift, printed there as "RMSE").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .errors import check_choice

ZERO_RULES = ("floor", "-inf", "exclude")
TIE_RULES = ("order", "all")
_BLOCK = 1 << 19  # scores ranked at once: bounds the working memory whatever the number of queries


class MeasuredFloat(float):
    """A float with the ``conventions`` (dict) of its measurement."""

    conventions: dict[str, Any]


class MeasuredArray(np.ndarray):
    """An array, one value a query, with the ``conventions`` (dict) of its measurement."""

    conventions: dict[str, Any]

    def __array_finalize__(self, parent: Any) -> None:
        self.conventions = getattr(parent, "conventions", {})

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # a mean over queries is a plain number, not an array without dimensions
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, context, return_scalar)


class MeasuredDict(dict):
    """{group: value} with the ``conventions`` (dict) of its measurement."""

    conventions: dict[str, Any]


def skew_at_k(
    scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"
) -> MeasuredDict:
    """Skew@k of each group: ln(share in the top k / desired share), Geyik et al. 2019, definition 2.

    0 means the desired share; ln 2 = 0.69 means twice as many as desired. Natural logarithm.

    Args:
        scores: (n,) or (m, n), higher is ranked first. groups: (n,) labels.
        k: length of the top, 1 <= k <= n.
        target: desired shares: "pool" (those of `groups`), "uniform" (1 / number of groups), or {group: share}.
        zero: a group with nobody in the top k gets the share 1/k ("floor", as the public reference implementations),
            0 ("-inf"), or is left out ("exclude"; NaN in the batched form).
        ties: at the k-th place, keep the input "order", or keep "all" tied items while still dividing by k (as
            oxai/debias-vision-lang does; shares can then exceed 1).

    Returns:
        {group: skew}; floats for (n,) scores, arrays (m,) for (m, n) scores.

    Raises:
        ValueError: NaN scores, k outside [1, n], unknown rule or target, a target group that is absent from the pool.
    """
    single, labels, skew, conventions = _skew(scores, groups, k, target, zero, ties)
    result = MeasuredDict()
    for i, label in enumerate(labels):
        if single:
            if not np.isnan(skew[0, i]):
                result[label] = float(skew[0, i])
        else:
            result[label] = skew[:, i]
    result.conventions = {"metric": "Skew@k", **conventions}
    return result


def max_skew_at_k(scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"):
    """MaxSkew@k: the skew of the most over-represented group (Geyik et al. 2019). Arguments as `skew_at_k`.

    0 means nobody is over-represented. A float for (n,) scores, an array (m,) for (m, n) scores.
    """
    single, _, skew, conventions = _skew(scores, groups, k, target, zero, ties)
    return _measured(np.nanmax(skew, axis=1), single, {"metric": "MaxSkew@k", **conventions})


def min_skew_at_k(scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"):
    """MinSkew@k: the skew of the most under-represented group (Geyik et al. 2019). Arguments as `skew_at_k`.

    0 means nobody is under-represented. A float for (n,) scores, an array (m,) for (m, n) scores.
    """
    single, _, skew, conventions = _skew(scores, groups, k, target, zero, ties)
    return _measured(np.nanmin(skew, axis=1), single, {"metric": "MinSkew@k", **conventions})


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
    scores, labels, codes, single, inherited = _validate(scores, groups)
    n = scores.shape[1]
    k = _check_k(n if k is None else k, n)
    q = _target_shares(target, labels, codes)
    # KL at prefix i is (1/i) sum_g c_g ln c_g - ln i - (1/i) sum_{j<=i} ln q_{g_j}. Adding one item to its group, the
    # c-th, adds c ln c - (c-1) ln (c-1) to the first sum: so NDKL is a weighted sum over the items, an item's weight being
    # that of all prefixes that hold it. Taken group by group, best first, items gain the same in every ranking.
    position = np.arange(1, n + 1)
    discount = 1.0 / np.log2(position + 1)
    gain = np.diff(position * np.log(position), prepend=0.0)
    gains = np.concatenate([gain[:size] - np.log(share) for size, share in zip(np.bincount(codes), q, strict=True)])  # (n,)
    result = np.empty(len(scores))
    for start, order, kept in _ranked(scores, k, ties):
        places = np.argsort(codes[order], axis=1, kind="stable")  # (b, n), group by group, best first; a radix sort
        for length in np.unique(kept):
            rows = np.flatnonzero(kept == length)
            weight = np.where(position <= length, discount, 0.0)
            held = (weight / position)[::-1].cumsum()[::-1]
            result[start + rows] = (held[places[rows]] * gains).sum(axis=1) - weight @ np.log(position)
    conventions = {"metric": "NDKL", "k": k, **_describe(target, labels, q), "ties": ties, **inherited}
    return _measured(result / discount[:k].sum(), single, conventions)


def bias_at_k(scores: Any, groups: Any, k: int, *, positive: Any, negative: Any, ties: str = "order"):
    """Bias@k: (positive - negative) / (positive + negative) counted in the top k (Wang et al. 2021).

    In [-1, 1]; 0 means as many of one group as of the other, or nobody of either.

    Args:
        positive, negative: two labels that occur in `groups`.
        scores, groups, k, ties: as in `skew_at_k`.
    """
    scores, labels, codes, single, inherited = _validate(scores, groups)
    for name, group in (("positive", positive), ("negative", negative)):
        check_choice(f"{name} group", group, labels)
    counts = _counts(scores, codes, labels, _check_k(k, scores.shape[1]), ties).astype(float)
    a, b = counts[:, labels.index(positive)], counts[:, labels.index(negative)]
    value = np.divide(a - b, a + b, out=np.zeros_like(a), where=a + b > 0)
    conventions = {"metric": "Bias@k", "k": k, "positive": positive, "negative": negative, "ties": ties, **inherited}
    return _measured(value, single, conventions)


def worst_group_recall(scores: Any, relevant: Any, groups: Any, k: int) -> MeasuredFloat:
    """The smallest recall at k over the groups: min_g |top k & relevant_g| / |relevant_g| (our reading of the term).

    Args:
        scores: (n,). relevant: (n,) bool. groups: (n,) labels; groups without a relevant item are left out.
        k: length of the top, 1 <= k <= n; ties at the k-th place keep the input order.
    """
    scores, labels, codes, single, inherited = _validate(scores, groups)
    relevant = _numpy(relevant)
    if not single or relevant.shape != scores.shape[1:] or relevant.dtype != bool:
        raise ValueError(f"need (n,) scores and (n,) bool relevant, got {scores.shape} and {relevant.shape} {relevant.dtype}")
    if not relevant.any():
        raise ValueError("no item is relevant: recall is not defined")
    top = np.zeros(scores.shape[1], bool)
    _, order, _ = next(_ranked(scores, _check_k(k, scores.shape[1]), "order"))
    top[order[0, :k]] = True
    recalls = {g: float(top[relevant & (codes == i)].mean()) for i, g in enumerate(labels) if (relevant & (codes == i)).any()}
    return _measured(
        np.array([min(recalls.values())]),
        True,
        {"metric": "worst-group recall@k", "k": k, "recall": recalls, "ties": "order", **inherited},
    )


def able(accuracy: float, max_skew: float) -> float:
    """ABLE: harmonic mean of the accuracy and e^-MaxSkew (Zhang et al. 2025).

    Args:
        accuracy: a fraction in [0, 1]. max_skew: MaxSkew@k >= 0, natural logarithm.

    Returns:
        A fraction in [0, 1]; 1 means all right and no skew, 0 that nothing is right.
    """
    if not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"accuracy must be a fraction in [0, 1], got {accuracy!r}")
    if not max_skew >= 0.0:
        raise ValueError(f"max_skew must be at least 0, got {max_skew!r}")
    fairness = float(np.exp(-max_skew))
    return 2.0 * fairness * accuracy / (fairness + accuracy) if accuracy else 0.0


def attribute_shift(before: Any, after: Any, *, mean: bool = False) -> np.ndarray:
    """How far an edit moved the predicted attribute of each picture: sqrt(sum_i (after_i - before_i)^2).

    The papers print this Euclidean distance as "RMSE" (Tanjim et al. 2024, section 4). 0 means no shift, sqrt(2) the
    largest between two distributions.

    Args:
        before, after: (n, d) probabilities. mean: divide by d inside the root, which makes it a true RMSE.

    Returns:
        (n,) shifts.
    """
    before, after = _numpy(before).astype(float), _numpy(after).astype(float)
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f"before and after need one shape (n, d), got {before.shape} and {after.shape}")
    if np.isnan(before).any() or np.isnan(after).any():
        raise ValueError("before or after holds NaN")
    squared = (after - before) ** 2
    shift = np.sqrt(squared.mean(axis=1) if mean else squared.sum(axis=1))
    return _measured(shift, False, {"metric": "attribute shift", "mean": mean})


def cosine_scores(images: Any, prompts: Any, *, normalize_images: bool = True) -> MeasuredArray:
    """Scores of every prompt for every image: (m, d) prompts x (n, d) images -> (m, n).

    Prompts are always made unit-length. With ``normalize_images=False`` images are not, as in two public
    implementations: the ranking is then not by cosine, and long embeddings win.

    Raises:
        ValueError: no prompt, shapes that do not fit, NaN.
    """
    images, prompts = _numpy(images), _numpy(prompts)
    if prompts.ndim != 2 or len(prompts) == 0:
        raise ValueError(f"need at least one prompt embedding, (m, d), got shape {prompts.shape}")
    if images.ndim != 2 or images.shape[1] != prompts.shape[1]:
        raise ValueError(f"images (n, d) and prompts (m, d) need one d, got {images.shape} and {prompts.shape}")
    for name, x in (("images", images), ("prompts", prompts)):
        length = np.linalg.norm(x, axis=1)
        if not np.all(length > 0):  # also false for NaN
            raise ValueError(f"{name}: {np.count_nonzero(~(length > 0))} embeddings hold NaN or have length 0")
    prompts = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    if normalize_images:
        images = images / np.linalg.norm(images, axis=1, keepdims=True)
    scores = (prompts @ images.T).view(MeasuredArray)
    scores.conventions = {"normalize_images": normalize_images}
    return scores


def random_floor(
    metric: Callable[..., Any], groups: Any, *, repeats: int = 200, seed: int = 0, **conventions: Any
) -> MeasuredDict:
    """What a random ranking scores: the mean and the central 95 % of `metric` over shuffled rankings.

    Args:
        metric: `max_skew_at_k`, `min_skew_at_k`, `ndkl` or `bias_at_k`.
        groups: (n,) labels. conventions: the metric's own keyword arguments (k, target, zero, ...).

    Returns:
        {"mean", "low", "high"}.
    """
    scores = np.random.default_rng(seed).random((repeats, len(groups)))
    values = np.asarray(metric(scores, groups, **conventions))
    low, high = np.quantile(values, [0.025, 0.975])
    result = MeasuredDict(mean=float(values.mean()), low=float(low), high=float(high))
    result.conventions = {"metric": metric.__name__, "repeats": repeats, "seed": seed, **conventions}
    return result


def _measured(values: np.ndarray, single: bool, conventions: dict[str, Any]) -> Any:
    result = MeasuredFloat(values[0]) if single else values.view(MeasuredArray)
    result.conventions = conventions
    return result


def _skew(scores, groups, k, target, zero, ties):
    check_choice("zero rule", zero, ZERO_RULES)
    scores, labels, codes, single, inherited = _validate(scores, groups)
    k = _check_k(k, scores.shape[1])
    q = _target_shares(target, labels, codes)
    share = _counts(scores, codes, labels, k, ties) / k  # (m, groups)
    if zero != "-inf":
        share[share == 0] = 1.0 / k if zero == "floor" else np.nan
    with np.errstate(divide="ignore"):
        skew = np.log(share) - np.log(q)
    return single, labels, skew, {"k": k, **_describe(target, labels, q), "zero": zero, "ties": ties, **inherited}


def _counts(scores: np.ndarray, codes: np.ndarray, labels: list, k: int, ties: str) -> np.ndarray:
    """(m, groups) people of each group in the top k. Only the k-th score is looked for; nothing is sorted."""
    check_choice("tie rule", ties, TIE_RULES)
    counts = np.empty((len(scores), len(labels)), int)
    for start, block in _blocks(scores):
        kth = np.partition(block, -k, axis=1)[:, -k, None]  # (b, 1)
        query, item = np.nonzero(block >= kth)
        found = np.bincount(query * len(labels) + codes[item], minlength=len(block) * len(labels)).reshape(len(block), -1)
        if ties == "order":
            for row in np.flatnonzero(found.sum(axis=1) > k):  # of those tied at the cut, the last ones do not count
                surplus = np.flatnonzero(block[row] == kth[row])[k - found[row].sum() :]
                found[row] -= np.bincount(codes[surplus], minlength=len(labels))
        counts[start : start + len(block)] = found
    return counts


def _blocks(scores: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """A few queries at a time: (first query, their scores)."""
    rows = max(1, _BLOCK // scores.shape[1])
    for start in range(0, len(scores), rows):
        yield start, scores[start : start + rows]


def _ranked(scores: np.ndarray, k: int, ties: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of queries: (first query, items by falling score (b, n), how many of them count (b,))."""
    check_choice("tie rule", ties, TIE_RULES)
    for start, block in _blocks(scores):
        order = _order(block)
        kept = np.full(len(block), k)
        if ties == "all":
            kept = (block >= np.take_along_axis(block, order[:, k - 1 : k], axis=1)).sum(axis=1)
        yield start, order, kept


def _order(block: np.ndarray) -> np.ndarray:
    """(b, n) items by falling score, tied ones in the order of the input."""
    if block.dtype != np.float32:
        return np.argsort(-block, axis=1, kind="stable")
    # NumPy sorts integers many times faster than it finds a stable order: so sort (score, item) as one integer. The bits
    # of a float are ordered as a signed integer once those below the sign are flipped for negative numbers.
    bits = (0.0 - block).view(np.int32)  # 0.0 - x has no negative zero, which would part ties
    packed = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(block.shape[1])
    packed.sort(axis=1)
    return packed & 0xFFFFFFFF


def _validate(scores: Any, groups: Any) -> tuple[np.ndarray, list, np.ndarray, bool, dict[str, Any]]:
    """Scores (m, n), labels, codes (n,) of the groups, was it one query, the conventions that the scores carry."""
    inherited = dict(getattr(scores, "conventions", {}))
    scores, groups = _numpy(scores), _numpy(groups)
    single = scores.ndim == 1
    if single:
        scores = scores[None]
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be (n,) or (m, n) and not empty, got shape {scores.shape[1:] if single else scores.shape}")
    if groups.shape != scores.shape[1:]:
        raise ValueError(f"groups must be ({scores.shape[1]},), one label for each score, got {groups.shape}")
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(float)
    if np.isnan(scores.max()):  # the maximum of anything with NaN
        query, item = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"scores hold {np.isnan(scores).sum()} NaN, the first at query {query}, item {item}")
    labels, codes = np.unique(groups, return_inverse=True)
    return scores, labels.tolist(), codes.astype(np.int16 if len(labels) < 2**15 else np.int32), single, inherited


def _check_k(k: int, n: int) -> int:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n:
        raise ValueError(f"k must be a whole number from 1 to n = {n}, got {k!r}")
    return int(k)


def _target_shares(target: Any, labels: list, codes: np.ndarray) -> np.ndarray:
    """(groups,) desired shares."""
    if isinstance(target, str):
        check_choice("target", target, ("pool", "uniform", "{group: share}"))
        return np.bincount(codes) / len(codes) if target == "pool" else np.full(len(labels), 1.0 / len(labels))
    absent = [group for group in target if group not in labels]
    missing = [label for label in labels if label not in target]
    if absent or missing:
        raise ValueError(
            f"target groups {absent or missing} {'are absent from the pool' if absent else 'are missing'}; pool: {labels}"
        )
    shares = np.array([target[label] for label in labels], float)
    if (shares <= 0).any() or not np.isclose(shares.sum(), 1.0):
        raise ValueError(f"target shares must be above 0 and sum to 1, got {dict(target)!r}")
    return shares / shares.sum()


def _describe(target: Any, labels: list, q: np.ndarray) -> dict[str, Any]:
    return {"target": target if isinstance(target, str) else "given", "shares": dict(zip(labels, q.tolist(), strict=True))}


def _numpy(values: Any) -> np.ndarray:
    """An array from a list, an array or a torch tensor on any device."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
