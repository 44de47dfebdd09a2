"""Fairness of a ranking, and shifts of attributes: arrays in, numbers out; no model is imported here.

Scores are (n,) for one query or (m, n) for m queries at once, groups are (n,) labels. Every convention is an argument,
and every result carries the conventions it was computed with in its attribute ``conventions``, so that two numbers can
be compared knowingly. Random rankings do not score 0: print `random_floor` beside whatever you report.

Sources: Geyik et al. 2019 (Skew@k, MaxSkew@k, MinSkew@k, NDKL); Wang et al. 2021 (Bias@k); Zhang et al. 2025 (ABLE);
Tanjim et al. 2024 (attribute shift, printed there as "RMSE").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .arrays import array, booleans, floats, labels, numbers
from .errors import check_choice, check_probabilities, check_whole
from .measured import FlooredWarning, MeasuredArray, MeasuredDict, MeasuredFloat

ZERO_RULES = ("floor", "-inf", "exclude")
TIE_RULES = ("order", "all")
_BLOCK = 1 << 19  # scores ranked at once: bounds the working memory whatever the number of queries
_DRAWN = 1 << 23  # random scores held at once
_OWN = {"metric", "k", "target", "shares", "zero", "floored", "ties", "positive", "negative", "recall"}  # never a score's


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


def max_skew_at_k(scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"):
    """MaxSkew@k: the skew of the most over-represented group (Geyik et al. 2019). Arguments as `skew_at_k`.

    0 means nobody is over-represented. A float for (n,) scores, an array (m,) for (m, n) scores.

    The default ``zero="floor"`` is the public convention, and lets a group with nobody in the top k decide the value, as
    `skew_at_k` explains. When it does, a `FlooredWarning` says so and the conventions list such groups under "floored".
    """
    single, names, skew, floored, conventions = _skew(scores, groups, k, target, zero, ties)
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
    return _measured(largest, single, {**conventions, "metric": "MaxSkew@k", **_noted(decides, names)})


def min_skew_at_k(scores: Any, groups: Any, k: int, *, target: Any = "pool", zero: str = "floor", ties: str = "order"):
    """MinSkew@k: the skew of the most under-represented group (Geyik et al. 2019). Arguments as `skew_at_k`.

    0 means nobody is under-represented. A float for (n,) scores, an array (m,) for (m, n) scores. Groups that decide the value
    with nobody in the top k, by ``zero="floor"``, are listed in the conventions under "floored".
    """
    single, names, skew, floored, conventions = _skew(scores, groups, k, target, zero, ties)
    smallest = np.nanmin(skew, axis=1)
    decides = floored & (skew == smallest[:, None])
    decides &= np.where(floored, np.inf, skew).min(axis=1, keepdims=True) > smallest[:, None]
    return _measured(smallest, single, {**conventions, "metric": "MinSkew@k", **_noted(decides, names)})


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
    scores, names, codes, single, inherited = _validate(scores, groups)
    n = scores.shape[1]
    k = _check_k(n if k is None else k, n)
    q = _target_shares(target, names, codes)
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
    conventions = {**inherited, "metric": "NDKL", "k": k, **_describe(target, names, q), "ties": ties}
    return _measured(result / discount[:k].sum(), single, conventions)


def bias_at_k(scores: Any, groups: Any, k: int, *, positive: Any, negative: Any, ties: str = "order"):
    """Bias@k: (positive - negative) / (positive + negative) counted in the top k (Wang et al. 2021).

    In [-1, 1]; 0 means as many of one group as of the other, or nobody of either.

    Args:
        positive, negative: two different labels that occur in `groups`.
        scores, groups, k, ties: as in `skew_at_k`.
    """
    scores, names, codes, single, inherited = _validate(scores, groups)
    for name, group in (("positive", positive), ("negative", negative)):
        check_choice(f"{name} group", group, names)
    if positive == negative:
        raise ValueError(f"positive and negative must be two groups, got {positive!r} twice")
    counts = _counts(scores, codes, len(names), _check_k(k, scores.shape[1]), ties).astype(float)
    a, b = counts[:, names.index(positive)], counts[:, names.index(negative)]
    value = np.divide(a - b, a + b, out=np.zeros_like(a), where=a + b > 0)
    conventions = {**inherited, "metric": "Bias@k", "k": k, "positive": positive, "negative": negative, "ties": ties}
    return _measured(value, single, conventions)


def worst_group_recall(scores: Any, relevant: Any, groups: Any, k: int) -> MeasuredFloat:
    """The smallest recall at k over the groups: min_g |top k & relevant_g| / |relevant_g| (our reading of the term).

    Args:
        scores: (n,). relevant: (n,) bool. groups: (n,) labels; groups without a relevant item are left out.
        k: length of the top, 1 <= k <= n; ties at the k-th place keep the input order.
    """
    scores, names, codes, single, inherited = _validate(scores, groups)
    relevant = booleans("relevant", relevant)
    if not single or relevant.shape != scores.shape[1:]:
        raise ValueError(f"need (n,) scores and (n,) bool relevant, got {scores.shape} and {relevant.shape}")
    if not relevant.any():
        raise ValueError("no item is relevant: recall is not defined")
    top = np.zeros(scores.shape[1], bool)
    _, order, _ = next(_ranked(scores, _check_k(k, scores.shape[1]), "order"))
    top[order[0, :k]] = True
    recalls = {g: float(top[relevant & (codes == i)].mean()) for i, g in enumerate(names) if (relevant & (codes == i)).any()}
    return _measured(
        np.array([min(recalls.values())]),
        True,
        {**inherited, "metric": "worst-group recall@k", "k": k, "recall": recalls, "ties": "order"},
    )


def able(accuracy: float, max_skew: float) -> float:
    """ABLE: harmonic mean of the accuracy and e^-MaxSkew (Zhang et al. 2025).

    Args:
        accuracy: a fraction in [0, 1]. max_skew: MaxSkew@k >= 0, natural logarithm; what rounding leaves below 0 counts as 0.

    Returns:
        A fraction in [0, 1]; 1 means all right and no skew, 0 that nothing is right.

    Raises:
        ValueError: NaN, more than one number, a percentage, a negative skew.
    """
    values = {"accuracy": array(accuracy), "max_skew": array(max_skew)}
    for name, value in values.items():
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be one number, got {value.tolist()!r}")
    accuracy, max_skew = (float(value.item()) for value in values.values())
    if not 0.0 <= accuracy <= 1.0 + 1e-6:
        raise ValueError(f"accuracy must be a fraction in [0, 1], got {accuracy!r}")
    if not max_skew >= -1e-6:
        raise ValueError(f"max_skew must be at least 0, got {max_skew!r}")
    accuracy, fairness = min(accuracy, 1.0), float(np.exp(-max(max_skew, 0.0)))
    return 2.0 * fairness * accuracy / (fairness + accuracy) if accuracy else 0.0


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
    return _measured(shift, False, {"metric": "attribute shift", "mean": mean})


def cosine_scores(images: Any, prompts: Any, *, normalize_images: bool = True) -> MeasuredArray:
    """Scores of every prompt for every image: (m, d) prompts x (n, d) images -> (m, n).

    Prompts are always made unit-length. With ``normalize_images=False`` images are not, as in two public
    implementations: the ranking is then not by cosine, and long embeddings win. Half precision is computed, and returned, in
    float32: it holds too few different scores, so that many pictures would tie.

    Raises:
        ValueError: no prompt, shapes that do not fit, embeddings that hold NaN or infinity or have length 0.
    """
    images, prompts = (floats(name, x, missing=True) for name, x in (("images", images), ("prompts", prompts)))
    if prompts.ndim != 2 or prompts.size == 0:
        raise ValueError(f"need at least one prompt embedding, (m, d), got shape {prompts.shape}")
    if images.ndim != 2 or images.shape[1] != prompts.shape[1]:
        raise ValueError(f"images (n, d) and prompts (m, d) need one d, got {images.shape} and {prompts.shape}")
    images, prompts = _unit("images", images, change=normalize_images), _unit("prompts", prompts)
    scores = (prompts @ images.T).view(MeasuredArray)
    scores.conventions = {"normalize_images": bool(normalize_images)}
    return scores


def random_floor(
    metric: Callable[..., Any], groups: Any, *, repeats: int = 200, seed: int = 0, together: int = 1, **conventions: Any
) -> MeasuredDict:
    """What a random ranking scores: the mean and the central 95 % of `metric` over shuffled rankings.

    Args:
        metric: `max_skew_at_k`, `min_skew_at_k`, `ndkl` or `bias_at_k`; or a function of your own that takes the same
            arguments, (b, n) scores first. It gets some of the rankings at a time: about 64 MB, at least `together`.
        groups: (n,) labels. conventions: the metric's own keyword arguments (k, target, zero, ...).
        together: hand over whole multiples of so many rankings, for a function that averages over so many.

    Returns:
        {"mean", "low", "high"}. No `FlooredWarning` is given; the conventions list under "floored" whom it would be about.
    """
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    check_whole("together", together)
    labels("groups", groups)
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN // max(len(groups) * together, 1)) * together
    values: list[np.ndarray] = []
    measured: dict[str, Any] = {}
    floored: dict[Any, None] = {}
    for start in range(0, repeats, rows):
        scores = rng.random((min(rows, repeats - start), len(groups)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FlooredWarning)
            found = metric(scores, groups, **conventions)
        measured = getattr(found, "conventions", {})
        floored |= dict.fromkeys(measured.get("floored", ()))
        values.append(floats("a metric's values", np.ravel(np.asarray(found)), finite=False))
    found = np.concatenate(values)
    # between infinite values there is nothing to interpolate
    low, high = np.quantile(found, [0.025, 0.975], method="linear" if np.isfinite(found).all() else "inverted_cdf")
    result = MeasuredDict(mean=float(found.mean()), low=float(low), high=float(high))
    name = getattr(metric, "__name__", repr(metric))
    result.conventions = {**measured, "metric": name, "repeats": repeats, "seed": seed, **conventions}
    if floored:
        result.conventions["floored"] = list(floored)
    return result


def _measured(values: np.ndarray, single: bool, conventions: dict[str, Any]) -> Any:
    result = MeasuredFloat(values[0]) if single else values.view(MeasuredArray)
    result.conventions = conventions
    return result


def _noted(floored: np.ndarray, names: list) -> dict[str, Any]:
    """(m, groups) bool -> the entry of the conventions, if there is any."""
    return {"floored": [names[i] for i in np.flatnonzero(floored.any(axis=0))]} if floored.any() else {}


def _skew(scores, groups, k, target, zero, ties):
    check_choice("zero rule", zero, ZERO_RULES)
    scores, names, codes, single, inherited = _validate(scores, groups)
    k = _check_k(k, scores.shape[1])
    q = _target_shares(target, names, codes)
    share = _counts(scores, codes, len(names), k, ties) / k  # (m, groups)
    absent = share == 0
    if zero != "-inf":
        share[absent] = 1.0 / k if zero == "floor" else np.nan
    with np.errstate(divide="ignore"):
        skew = np.log(share) - np.log(q)
    conventions = {**inherited, "k": k, **_describe(target, names, q), "zero": zero, "ties": ties}
    return single, names, skew, absent & (zero == "floor"), conventions


def _counts(scores: np.ndarray, codes: np.ndarray, kinds: int, k: int, ties: str) -> np.ndarray:
    """(m, groups) people of each group in the top k. Only the k-th score is looked for; nothing is sorted."""
    check_choice("tie rule", ties, TIE_RULES)
    counts = np.empty((len(scores), kinds), int)
    for start, block in _blocks(scores):
        kth = np.partition(block, -k, axis=1)[:, -k, None]  # (b, 1)
        query, item = np.nonzero(block >= kth)
        found = np.bincount(query * kinds + codes[item], minlength=len(block) * kinds).reshape(len(block), -1)
        if ties == "order":
            for row in np.flatnonzero(found.sum(axis=1) > k):  # of those tied at the cut, the last ones do not count
                surplus = np.flatnonzero(block[row] == kth[row])[k - found[row].sum() :]
                found[row] -= np.bincount(codes[surplus], minlength=kinds)
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
    if block.dtype.kind != "f":  # the negative of unsigned numbers and of Booleans has another order
        return block.shape[1] - 1 - np.argsort(block[:, ::-1], axis=1, kind="stable")[:, ::-1]
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
    carried = getattr(scores, "conventions", None)
    inherited = {name: carried[name] for name in carried if name not in _OWN} if isinstance(carried, Mapping) else {}
    scores = array(scores)
    single = scores.ndim == 1
    if single:
        scores = scores[None]
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be (n,) or (m, n) and not empty, got shape {scores.shape[1:] if single else scores.shape}")
    scores = numbers("scores", scores, axes=("query", "item"))
    names, codes = labels("groups", groups, n=scores.shape[1])
    return scores, names, codes.astype(np.int16 if len(names) < 2**15 else np.int32), single, inherited


def _unit(name: str, x: np.ndarray, *, change: bool = True) -> np.ndarray:
    """(n, d) embeddings, checked, and divided by their lengths."""
    largest = np.maximum(x.max(axis=1), -x.min(axis=1))  # of each the largest absolute value; NaN if it holds NaN
    bad = ~((largest > 0) & np.isfinite(largest))
    if bad.any():
        what = f"{np.count_nonzero(bad)} embeddings hold NaN or have length 0 or infinity"
        raise ValueError(f"{name}: {what}, the first in row {bad.argmax()}")
    if not change:
        return x
    limits = np.finfo(x.dtype)
    extreme = (largest < limits.tiny**0.5 / limits.eps) | (largest > limits.max**0.5 / x.shape[1])
    if extreme.any():  # their squares are too large or too small to be added up
        x = x / np.where(extreme, largest, 1)[:, None].astype(x.dtype)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _check_k(k: int, n: int) -> int:
    return check_whole("k", k, at_most=n, limit="n = ")


def _target_shares(target: Any, names: list, codes: np.ndarray) -> np.ndarray:
    """(groups,) desired shares."""
    if isinstance(target, str) and target in ("pool", "uniform"):
        return np.bincount(codes) / len(codes) if target == "pool" else np.full(len(names), 1.0 / len(names))
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
