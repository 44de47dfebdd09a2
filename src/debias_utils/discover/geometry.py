"""Where bias lies in the joint space: modality gap, alignment, matching (Zhang's experiments 1-3, seed 003)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import floats, labels
from ..errors import check_whole


def modality_gap(images: Any, texts: Any) -> float:
    """Distance between the mean image and the mean text embedding (Liang et al. 2022); 0 would mean no gap, at most 2.

    Args:
        images, texts: (n, d) and (m, d) unit-length embeddings.

    Raises:
        ValueError: NaN, infinity, none at all, shapes that do not fit.
    """
    images, texts = _embeddings(images=images, texts=texts)
    return float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0)))


def lean(words: Any, positive: Any, negative: Any) -> np.ndarray:
    """Lean of each word towards one group: cos(word, mean(positive) - mean(negative)), in [-1, 1]; 0 is no lean.

    Args:
        words: (m, d) unit-length embeddings. positive, negative: (p, d), (q, d) embeddings of words for the two groups.

    Raises:
        ValueError: NaN, infinity, none at all, shapes that do not fit, two groups of words with one mean: no direction.
    """
    words, positive, negative = _embeddings(words=words, positive=positive, negative=negative)
    a, b = positive.mean(axis=0), negative.mean(axis=0)
    direction = a - b
    length = np.linalg.norm(direction)
    if length <= 4 * np.finfo(direction.dtype).eps * (np.linalg.norm(a) + np.linalg.norm(b)):  # what rounding leaves
        raise ValueError("positive and negative have the same mean embedding: there is no direction to lean in")
    return words @ (direction / length)


def alignment(image_differences: Any, text_differences: Any, *, repeats: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Do images and texts put an attribute in the same direction? Cosine concept by concept, against a shuffled null.

    Args:
        image_differences, text_differences: (c, d), for each concept the difference between the two groups.
        repeats: shuffles of the concepts, the null of "the two modalities agree no better than across concepts".

    Returns:
        cosines: (c,) of matching concepts; shuffled: (repeats,) mean cosines after shuffling; random_sd: what random
        directions would scatter, 1 / sqrt(d).

    Raises:
        ValueError: NaN, infinity, shapes that do not fit, a concept without any difference.
    """
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    given = {"image_differences": image_differences, "text_differences": text_differences}
    a, b = (floats(name, x).astype(float) for name, x in given.items())
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"need two (c, d) arrays of one shape, got {a.shape} and {b.shape}")
    for name, x in zip(given, (a, b), strict=True):
        if not (none := x.any(axis=1)).all():
            raise ValueError(f"{name}: {(~none).sum()} concepts have no difference, the first in row {none.argmin()}")
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    rng, cosine = np.random.default_rng(seed), a @ b.T  # (c, c)
    rows = np.arange(len(a))
    shuffled = np.array([cosine[rows, rng.permutation(len(a))].mean() for _ in range(repeats)])
    return {"cosines": np.diag(cosine).copy(), "shuffled": shuffled, "random_sd": np.array(1 / np.sqrt(a.shape[1]))}


def disentanglement(importance: Any) -> tuple[float, float]:
    """Disentanglement and completeness of a code (DCI, Eastwood and Williams 2018).

    Args:
        importance: (channels, factors), not negative: how much each channel of the code matters for each factor. Channels
            and factors without any importance are left out, of the base of the logarithm too: they change nothing.

    Returns:
        (disentanglement, completeness), both in [0, 1]: 1 if each channel moves one factor alone, and if each factor is
        moved by one channel alone; so the first is 1 if there is one factor, the second if there is one channel. Channels and
        factors are weighted by their share of the importance.

    Raises:
        ValueError: NaN, infinity, negative importances, none above 0, another shape.
    """
    importance = floats("importances", importance).astype(float)
    if importance.ndim != 2 or not (importance >= 0).all() or not importance.any():
        raise ValueError("need a (channels, factors) array of importances that are not negative and not all 0")
    importance = importance[importance.any(axis=1)][:, importance.any(axis=0)]
    importance = importance / importance.max()  # else the sum of large ones could be infinite
    scores = []
    for rows in (importance, importance.T):
        total = rows.sum(axis=1)
        share = rows / total[:, None]
        entropy = -(share * np.log(share, where=share > 0, out=np.zeros_like(share))).sum(axis=1)
        pure = 1 - entropy / np.log(rows.shape[1]) if rows.shape[1] > 1 else np.ones(len(rows))
        scores.append(float(np.average(pure, weights=total)))
    return scores[0], scores[1]


def matching_rates(images: Any, image_concepts: Any, texts: Any, text_concepts: Any, *, draws: int = 2000, seed: int = 0):
    """Cross-modal matching (experiment 3): is the best match of the same concept?

    Image to text: each image against all texts. Text to image: each text against one image drawn of every concept,
    many times. Ties count as half.

    Args:
        images: (n, d), image_concepts: (n,) labels. texts: (m, d), text_concepts: (m,) labels. What has no counterpart of its
            concept finds none: 0.

    Returns:
        (image_to_text (n,) in [0, 1], text_to_image (m,) in [0, 1]): how often each finds its concept.

    Raises:
        ValueError: something missing, shapes that do not fit.
    """
    check_whole("draws", draws)
    check_whole("seed", seed, at_least=0)
    images, texts = _embeddings(images=images, texts=texts)
    names, image_concepts = labels("image_concepts", image_concepts)
    text_names, text_codes = labels("text_concepts", text_concepts)
    if (len(images), len(texts)) != (len(image_concepts), len(text_codes)):
        need = f"need a concept for each of {len(images)} images and {len(texts)} texts"
        raise ValueError(f"{need}, got {len(image_concepts)} and {len(text_codes)}")
    place = {name: i for i, name in enumerate(names)}
    text_concepts = np.array([place.get(name, -1) for name in text_names])[text_codes]
    similarity = images @ texts.T  # (n, m)
    image_to_text = _best_is_own(similarity, text_concepts[None], image_concepts[:, None])
    rng = np.random.default_rng(seed)
    concepts = np.arange(len(names))
    drawn = np.stack([rng.choice(np.flatnonzero(image_concepts == c), draws) for c in concepts], axis=1)  # (draws, c)
    candidates = similarity[drawn]  # (draws, c, m)
    text_to_image = np.stack(
        [
            _best_is_own(candidates[..., j], concepts[None], np.full((draws, 1), text_concepts[j])).mean()
            for j in range(len(texts))
        ]
    )
    return image_to_text, text_to_image


def _embeddings(**given: Any) -> list[np.ndarray]:
    """Each (n, d), with one d and no NaN."""
    found = {name: floats(name, x) for name, x in given.items()}
    shapes = [x.shape for x in found.values()]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
        raise ValueError(f"{', '.join(found)} must be (n, d) with one d and not empty, got {', '.join(map(str, shapes))}")
    return list(found.values())


def _best_is_own(similarity: np.ndarray, concepts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(rows, candidates) -> (rows,): the share of the best candidates (several if tied) that are of the own concept."""
    best = similarity == similarity.max(axis=1, keepdims=True)
    return (best & (concepts == own)).sum(axis=1) / best.sum(axis=1)
