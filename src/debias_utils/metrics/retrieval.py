"""Does a search find what it should? Recall across the modalities, recall of each group, and queries that name a group."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import booleans, labels, numbers
from ..errors import check_choice
from ._results import check_k, measured
from .tops import rankings, retrieved, validate, validate_scores


def text_to_image_recall(scores: Any, image_of_text: Any, k: int, *, per_query: bool = False):
    """The share of texts whose own image is among the first k images (R@k; "IR" in some tables).

    Args:
        scores: (t, i), every text for every image, as `cosine_scores(images, texts)` makes them. Ties keep the order of the
            input.
        image_of_text: (t,) whole numbers: which image a text describes. An image may have several texts.
        k: 1 <= k <= i.
        per_query: the hits (t,) of the texts, 0 or 1, in place of their mean: for intervals.

    Returns:
        A fraction in [0, 1]. The conventions hold "floor": what a random ranking scores on average.

    Raises:
        ValueError: scores that are missing or no matrix, numbers that are no image, k outside [1, i].
    """
    scores, own, conventions = _matched(scores, image_of_text)
    k = check_k(k, scores.shape[1])
    hits = _rank(scores, own) < k
    return _recall(hits, per_query, {**conventions, "metric": "text-to-image R@k", "k": k, "floor": k / scores.shape[1]})


def image_to_text_recall(scores: Any, image_of_text: Any, k: int, *, per_query: bool = False):
    """The share of images of which any text is among the first k texts (R@k; "TR" in some tables).

    Args:
        scores, image_of_text, per_query: as `text_to_image_recall`: scores are (t, i) here too. An image without a text is not
            asked for.
        k: 1 <= k <= t.

    Returns:
        As `text_to_image_recall`; hits are in the order of the images.
    """
    scores, own, conventions = _matched(scores, image_of_text)
    texts = scores.shape[0]
    k = check_k(k, texts)
    asked, codes, counts = np.unique(own, return_inverse=True, return_counts=True)
    # The best text of each image, the first of those tied: texts sorted by image, then by falling score.
    order = np.lexsort((-_keys(scores[np.arange(texts), own]), codes))
    best = order[np.cumsum(counts) - counts]
    hits = _rank(scores.T[asked], best) < k
    missed = np.ones(len(asked))  # by a random ranking: none of an image's c texts is among the k
    for place in range(counts.max()):
        missed *= np.where(place < counts, np.clip(texts - k - place, 0, None) / np.maximum(texts - place, 1), 1)
    floor = float(1 - missed.mean())
    return _recall(hits, per_query, {**conventions, "metric": "image-to-text R@k", "k": k, "floor": floor})


def worst_group_recall(scores: Any, relevant: Any, groups: Any, k: int):
    """The smallest recall at k over the groups: min_g |top k & relevant_g| / |relevant_g| (our reading of the term).

    Args:
        scores: (n,) for one query, (m, n) for m. relevant: (n,) bool. groups: (n,) labels; groups without a relevant item are
            left out.
        k: length of the top, 1 <= k <= n; ties at the k-th place keep the input order.

    Returns:
        A float for (n,) scores, an array (m,) for (m, n). The conventions hold every group's "recall".
    """
    scores, names, codes, single, inherited = validate(scores, groups)
    relevant = booleans("relevant", relevant)
    if relevant.shape != scores.shape[1:]:
        raise ValueError(f"need (n,) bool relevant, one for each score, got {scores.shape[single:]} and {relevant.shape}")
    if not relevant.any():
        raise ValueError("no item is relevant: recall is not defined")
    top = retrieved(scores, k)
    members = {g: relevant & (codes == i) for i, g in enumerate(names)}
    recalls = {g: top[:, one].mean(axis=1) for g, one in members.items() if one.any()}
    shown = {g: float(recall[0]) if single else recall for g, recall in recalls.items()}
    conventions = {**inherited, "metric": "worst-group recall@k", "k": int(k), "recall": shown, "ties": "order"}
    return measured(np.min(list(recalls.values()), axis=0), single, conventions)


def explicit_query_precision(scores: Any, groups: Any, k: int, *, asked: Any, ties: str = "order"):
    """Does "a photo of a woman" still find women? The share of the first k that belong to the group which a query names.

    What takes a group's direction out of texts or images takes it out of such queries too: report this beside any skew.

    Args:
        scores: (n,) for one query, (m, n) for m, in any form that `skew_at_k` takes. groups: (n,) labels.
        asked: the group that the query names; (m,) labels for m queries.

    Returns:
        A fraction in [0, 1] for (n,) scores, an array (m,) for (m, n). The conventions hold, for each group that is asked for,
        the "floor", its share of the pool, which a random ranking scores, and the "ceiling", below 1 if it has fewer than k
        members.

    Raises:
        ValueError: as `skew_at_k`; a group that is not in the pool, another number of them than of queries.
    """
    ranking = rankings(scores, groups, k, ties)
    k = check_k(k, ranking.items)
    wanted, codes = labels("asked", [asked] if ranking.single and np.ndim(asked) == 0 else asked)
    if len(codes) != ranking.queries:
        raise ValueError(f"asked must name a group for each of {ranking.queries} queries, got {len(codes)}")
    for group in wanted:
        check_choice("group asked for", group, ranking.names)
    columns = np.array([ranking.names.index(group) for group in wanted])
    found = ranking.counts(k, ties)[np.arange(ranking.queries), columns[codes]] / k
    sizes = ranking.sizes[columns]
    conventions = {
        **ranking.conventions, "metric": "precision@k of explicit queries", "k": k, "ties": ties,
        "asked": [wanted[code] for code in codes],
        "floor": dict(zip(wanted, (sizes / ranking.items).tolist(), strict=True)),
        "ceiling": dict(zip(wanted, np.minimum(sizes / k, 1).tolist(), strict=True)),
    }  # fmt: skip
    return measured(found, ranking.single, conventions)


def _matched(scores: Any, image_of_text: Any) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    scores, single, conventions = validate_scores(scores)
    own = numbers("image_of_text", image_of_text)
    if single or own.shape != scores.shape[:1]:
        raise ValueError(f"need scores (t, i) and image_of_text (t,), got {scores.shape[single:]} and {own.shape}")
    wrong = (own != np.floor(own)) | (own < 0) | (own >= scores.shape[1])
    if own.dtype.kind == "b" or wrong.any():
        got = own[int(wrong.argmax())]
        raise ValueError(f"image_of_text must hold whole numbers from 0 to {scores.shape[1] - 1}, one of the images, got {got!r}")
    return scores, own.astype(int), conventions


def _rank(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(m,) place, from 0, of item own[q] in the ranking of query q; tied ones keep the order of the input."""
    ranks = np.empty(len(scores), int)
    for row, place in enumerate(own):
        score = scores[row, place]
        ranks[row] = np.count_nonzero(scores[row] > score) + np.count_nonzero(scores[row, :place] == score)
    return ranks


def _keys(scores: np.ndarray) -> np.ndarray:
    """Signed numbers in the order of the scores: the negative of unsigned ones and of Booleans has another order."""
    return scores if scores.dtype.kind == "f" else np.unique(scores, return_inverse=True)[1]


def _recall(hits: np.ndarray, per_query: bool, conventions: dict[str, Any]) -> Any:
    found = hits.astype(float) if per_query else np.array([hits.mean()])
    return measured(found, not per_query, {**conventions, "ties": "order"})
