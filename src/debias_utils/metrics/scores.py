"""Scores of prompts for images: whole, or block by block for a pool that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import floats
from ..errors import check_whole
from ..measured import MeasuredArray


def cosine_scores(
    images: Any,
    prompts: Any,
    *,
    normalize_images: bool = True,
    normalize_prompts: bool = True,
    over_prompts: float | None = None,
) -> MeasuredArray:
    """Scores of every prompt for every image: (m, d) prompts x (n, d) images -> (m, n).

    Embeddings of any length are made unit-length. With ``normalize_images=False`` images are not, as in two public
    implementations: the ranking is then not by cosine, and long embeddings win. Half precision is computed, and returned, in
    float32: it holds too few different scores, so that many pictures would tie.

    Args:
        images: (n, d). prompts: (m, d).
        normalize_images, normalize_prompts: whether they are made unit-length first.
        over_prompts: a logit scale, such as 100: the scores are then the logarithm of each image's softmax over the m prompts,
            by which the code of Jung et al. 2024 ranks images. Such a score depends on which other prompts are asked.

    Raises:
        ValueError: no prompt, shapes that do not fit, embeddings that hold NaN or infinity or have length 0.
    """
    images, prompts = (floats(name, x, missing=True) for name, x in (("images", images), ("prompts", prompts)))
    if prompts.ndim != 2 or prompts.size == 0:
        raise ValueError(f"need at least one prompt embedding, (m, d), got shape {prompts.shape}")
    if images.ndim != 2 or images.shape[1] != prompts.shape[1]:
        raise ValueError(f"images (n, d) and prompts (m, d) need one d, got {images.shape} and {prompts.shape}")
    images = unit_rows("images", images, change=normalize_images)
    prompts = unit_rows("prompts", prompts, change=normalize_prompts)
    scores = (prompts @ images.T).view(MeasuredArray)
    scores.conventions = {"normalize_images": bool(normalize_images)}
    if not normalize_prompts:
        scores.conventions["normalize_prompts"] = False
    if over_prompts is not None:
        scale = float(over_prompts)
        if not 0 < scale < np.inf:
            raise ValueError(f"over_prompts must be a logit scale above 0, such as 100, or None, got {over_prompts!r}")
        scores = scores * scale
        scores -= scores.max(axis=0)
        scores -= np.log(np.exp(scores).sum(axis=0))
        scores.conventions["over_prompts"] = scale
    return scores


def score_blocks(images: Any, prompts: Any, *, block: int = 65_536, **options: Any) -> Iterator[MeasuredArray]:
    """Scores (m, b) of a few images at a time, to be given to a metric in place of scores.

    Args:
        images: (n, d), such as a memory-mapped array, of which `block` rows are read at a time; or an iterator of blocks (b, d).
        prompts: (m, d). options: those of `cosine_scores`.

    Raises:
        ValueError: as `cosine_scores`, when the block in question is asked for.
    """
    check_whole("block", block)
    blocks = images if isinstance(images, Iterator) else (images[i : i + block] for i in range(0, len(images), block))
    for rows in blocks:
        yield cosine_scores(rows, prompts, **options)


def unit_rows(name: str, x: np.ndarray, *, change: bool = True) -> np.ndarray:
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
