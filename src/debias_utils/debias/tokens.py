"""Biased prompts for generation (Chuang et al. 2023): one projection for all the tokens that a diffusion model reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensors import check_finite, floats, is_number, numbers_of


def token_projection(positive_pairs: Any, *, strength: float) -> np.ndarray:
    """P = (strength M + I)^-1, with M the mean over pairs of (z_i - z_j)(z_i - z_j)^T: pairs come together, nothing is removed.

    The variant for generation: without the projection P0 that the discriminative one begins with, and so symmetric. The authors
    take as z the text encoder's last hidden state after its final LayerNorm, at the first end token, at length 1, of "A photo of
    a male {job}." and "A photo of a female {job}.", and apply P as `tokens @ P.T` to all tokens of the prompt, (b, t, d), the
    start and the padding too, which are neither normalised before nor after; the unconditional tokens stay.

    Args:
        positive_pairs: (n, 2, d), array or tensor, taken as they are. strength: lambda, at least 0; 500 is published.

    Returns:
        (d, d) float64.

    Raises:
        ValueError: wrong shape, NaN, or no such strength.
    """
    given = floats("positive_pairs", positive_pairs)
    if given.ndim != 3 or given.shape[1] != 2 or not given.numel():
        raise ValueError(f"positive_pairs must be (n, 2, d), n of at least 1, got shape {tuple(given.shape)}")
    check_finite("positive_pairs", given)
    if not (is_number(strength) and strength >= 0):
        raise ValueError(f"strength must be a number of at least 0, got {strength!r}")
    pairs = numbers_of("positive_pairs", given)
    gaps = pairs[:, 0] - pairs[:, 1]
    return np.linalg.inv(strength * gaps.T @ gaps / len(gaps) + np.eye(gaps.shape[1]))
