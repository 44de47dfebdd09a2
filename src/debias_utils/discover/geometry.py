"""Where bias lies in the joint space: modality gap, alignment, matching (Zhang's experiments 1-3, seed 003)."""

from __future__ import annotations

from typing import Any

import numpy as np


def modality_gap(images: Any, texts: Any) -> float:
    """Distance between the mean image and the mean text embedding (Liang et al. 2022); 0 would mean no gap, at most 2."""
    return float(np.linalg.norm(np.asarray(images).mean(axis=0) - np.asarray(texts).mean(axis=0)))


def lean(words: Any, positive: Any, negative: Any) -> np.ndarray:
    """Lean of each word towards one group: cos(word, mean(positive) - mean(negative)), in [-1, 1]; 0 is no lean.

    Args:
        words: (m, d) unit-length embeddings. positive, negative: (p, d), (q, d) embeddings of words for the two groups.
    """
    direction = np.asarray(positive).mean(axis=0) - np.asarray(negative).mean(axis=0)
    return np.asarray(words) @ (direction / np.linalg.norm(direction))


def alignment(image_differences: Any, text_differences: Any, *, repeats: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Do images and texts put an attribute in the same direction? Cosine concept by concept, against a shuffled null.

    Args:
        image_differences, text_differences: (c, d), for each concept the difference between the two groups.
        repeats: shuffles of the concepts, the null of "the two modalities agree no better than across concepts".

    Returns:
        cosines: (c,) of matching concepts; shuffled: (repeats,) mean cosines after shuffling; random_sd: what random
        directions would scatter, 1 / sqrt(d).
    """
    a, b = (np.asarray(x, float) for x in (image_differences, text_differences))
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"need two (c, d) arrays of one shape, got {a.shape} and {b.shape}")
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    rng, cosine = np.random.default_rng(seed), a @ b.T  # (c, c)
    rows = np.arange(len(a))
    shuffled = np.array([cosine[rows, rng.permutation(len(a))].mean() for _ in range(repeats)])
    return {"cosines": np.diag(cosine).copy(), "shuffled": shuffled, "random_sd": np.array(1 / np.sqrt(a.shape[1]))}


def disentanglement(importance: Any) -> tuple[float, float]:
    """Disentanglement and completeness of a code (DCI, Eastwood and Williams 2018).

    Args:
        importance: (channels, factors), not negative: how much each channel of the code matters for each factor. Channels
            and factors without any importance are left out.

    Returns:
        (disentanglement, completeness), both in [0, 1]: 1 if each channel moves one factor alone, and if each factor is
        moved by one channel alone. Channels and factors are weighted by their share of the importance.
    """
    importance = np.asarray(importance, float)
    if importance.ndim != 2 or not (importance >= 0).all() or not importance.any():
        raise ValueError("need a (channels, factors) array of importances that are not negative and not all 0")
    scores = []
    for rows in (importance, importance.T):
        total = rows.sum(axis=1)
        share = rows[total > 0] / total[total > 0, None]
        entropy = -(share * np.log(share, where=share > 0, out=np.zeros_like(share))).sum(axis=1) / np.log(rows.shape[1])
        scores.append(float(np.average(1 - entropy, weights=total[total > 0])))
    return scores[0], scores[1]


def matching_rates(images: Any, image_concepts: Any, texts: Any, text_concepts: Any, *, draws: int = 2000, seed: int = 0):
    """Cross-modal matching (experiment 3): is the best match of the same concept?

    Image to text: each image against all texts. Text to image: each text against one image drawn of every concept,
    many times. Ties count as half.

    Args:
        images: (n, d), image_concepts: (n,) integers. texts: (m, d), text_concepts: (m,) integers.

    Returns:
        (image_to_text (n,) in [0, 1], text_to_image (m,) in [0, 1]): how often each finds its concept.
    """
    images, texts = np.asarray(images), np.asarray(texts)
    image_concepts, text_concepts = np.asarray(image_concepts), np.asarray(text_concepts)
    similarity = images @ texts.T  # (n, m)
    image_to_text = _best_is_own(similarity, text_concepts[None], image_concepts[:, None])
    rng = np.random.default_rng(seed)
    concepts = np.unique(image_concepts)
    drawn = np.stack([rng.choice(np.flatnonzero(image_concepts == c), draws) for c in concepts], axis=1)  # (draws, c)
    candidates = similarity[drawn]  # (draws, c, m)
    text_to_image = np.stack(
        [
            _best_is_own(candidates[..., j], concepts[None], np.full((draws, 1), text_concepts[j])).mean()
            for j in range(len(texts))
        ]
    )
    return image_to_text, text_to_image


def _best_is_own(similarity: np.ndarray, concepts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(rows, candidates) -> (rows,): the share of the best candidates (several if tied) that are of the own concept."""
    best = similarity == similarity.max(axis=1, keepdims=True)
    return (best & (concepts == own)).sum(axis=1) / best.sum(axis=1)
