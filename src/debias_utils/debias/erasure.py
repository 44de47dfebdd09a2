"""LEACE: the smallest affine change after which no linear classifier finds a concept (Belrose et al. 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import check_choice
from ..tensors import is_number
from .projections import doubles

ERASERS = ("leace", "orth")


def leace(
    features: Any,
    concepts: Any,
    *,
    affine: bool = True,
    shrinkage: bool = True,
    method: str = "leace",
    svd_tol: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """P (d, d) and a bias (d,), float64; the erased row is ``bias + P @ (x - bias)``.

    P = I - W^+ u u^T W with W = S_xx^(-1/2) and u the left singular vectors of W S_xz. "orth" takes W = I: P is then symmetric,
    and does more damage for the same promise. The bias is the mean of the features, or 0 if not `affine` (which moves the
    mean). The promise, P S_xz = 0, holds for these rows, as they are: not for others, and not once rows are made unit again.

    Our own few lines and not the library `concept-erasure`, which drops rare classes in silence and takes labels of many classes
    for one number; the tests hold its numbers.

    Args:
        features: (n, d). concepts: (n, k) numbers to be erased: one-hot columns for k classes (rank k - 1 is erased), or one
            column of 0 and 1 for two classes.
        shrinkage: of the covariance towards a multiple of the identity (Bodnar et al. 2014), which changes P but not the promise.
        svd_tol: singular values of W S_xz up to this are left in, as in the library (absolute, .01): with one-hot columns, a
            class of fewer than 1 row in 10,000 is then kept. The paper erases all: 1e-6 does.

    Raises:
        ValueError: wrong shapes, NaN, fewer than 2 rows, labels (n,) of more than two values (make them one-hot: as one
            number, only one direction would go), concepts that never change, an unknown method, a negative tolerance.
    """
    check_choice("method", method, ERASERS)
    if not (is_number(svd_tol) and svd_tol >= 0):
        raise ValueError(f"svd_tol must be a number from 0, got {svd_tol!r}")
    x, z = (doubles(name, value) for name, value in (("features", features), ("concepts", concepts)))
    if z.ndim == 1:
        if (n_values := len(np.unique(z))) > 2:
            raise ValueError(f"concepts of {n_values} values must be one-hot columns (n, k), got shape {z.shape}")
        z = z[:, None]
    if x.ndim != 2 or z.ndim != 2 or len(x) != len(z) or len(x) < 2 or not (x.size and z.size):
        raise ValueError(f"need features (n, d) and concepts (n, k), n of at least 2, got {x.shape} and {z.shape}")
    mean, z = x.mean(axis=0), z - z.mean(axis=0)
    if not z.any():
        raise ValueError("concepts are the same in every row: there is nothing to erase")
    x = x - mean
    cross = x.T @ z / (len(x) - 1)
    root, whitener = np.eye(x.shape[1]), np.eye(x.shape[1])
    if method == "leace":
        covariance = shrunk_covariance(x.T @ x / len(x), len(x)) if shrinkage else x.T @ x / (len(x) - 1)
        values, vectors = np.linalg.eigh(covariance)
        counted = values > values[-1] * len(values) * np.finfo(float).eps
        size, vectors = np.sqrt(values[counted]), vectors[:, counted]
        root, whitener = vectors * size @ vectors.T, vectors / size @ vectors.T
    u, singular, _ = np.linalg.svd(whitener @ cross, full_matrices=False)
    u = u[:, singular > svd_tol]
    return np.eye(x.shape[1]) - root @ u @ (u.T @ whitener), mean if affine else np.zeros_like(mean)


def shrunk_covariance(covariance: Any, n: int) -> np.ndarray:
    """The covariance S as a S + (1 - a) tr(S) / d I, with the a in [0, 1] that is best for n rows (Bodnar et al. 2014)."""
    s = doubles("covariance", covariance)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not s.size:
        raise ValueError(f"covariance must be (d, d), got shape {s.shape}")
    d, trace = len(s), float(np.trace(s))
    spread = (s**2).sum() - trace**2 / d  # 0 if S is a multiple of the identity already
    a = 1 - trace**2 / n / spread if spread > np.finfo(float).eps * trace**2 else 1.0
    a = min(max(a, 0.0), 1.0)
    shrunk: np.ndarray = a * s + (1 - a) * trace / d * np.eye(d)
    return shrunk
