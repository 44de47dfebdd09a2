"""BEND-VLM's two steps on arrays: a query loses its own attribute directions, then comes as close to each group's pictures."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch

from ..errors import check_whole, holds
from ..tensors import at_least_float32, check_finite, floats, like

_NOISE = 1e-6  # of length 1: below it, a difference between means of float32 embeddings is rounding


def attribute_directions(group_queries: Any, spurious: Any = None) -> Any:
    """What spans a query's attribute: spurious prompts, and half the differences of its wordings, (m + a (a - 1) / 2, d).

    Args:
        group_queries: (a, d) embeddings of the query with each of the attribute's a classes put into the wording.
        spurious: (m, d) embeddings of prompts that name the attribute alone, "a photo of a {value} person"; or None.

    Returns:
        The kind of `group_queries`. Of a + a (a - 1) / 2 rows, 2 a - 1 are independent: see `span_basis`.
    """
    wordings = floats("group_queries", group_queries)
    rows = [(wordings[i] - wordings[j]) / 2 for i, j in combinations(range(len(wordings)), 2)]
    start = [] if spurious is None else list(floats("spurious", spurious).to(wordings))
    return like(group_queries, torch.stack(start + rows) if start + rows else wordings[:0])


def span_basis(rows: Any, *, tolerance: float = 1e-3) -> Any:
    """Orthonormal rows (r, d) that span the rows (k, d), by an SVD: singular values up to `tolerance` count as 0.

    The release takes as many components as there are rows: for races, 28 of rank 13, so 15 random directions go too.
    """
    x = at_least_float32(floats("rows", rows))
    _, size, basis = torch.linalg.svd(x, full_matrices=False)
    return like(rows, basis[size > tolerance])


def equalise(query: Any, reference: Any, classes: Any, *, n_neighbors: int) -> Any:
    """The unit vector closest to a query that is as similar, on average, to each class's nearest reference pictures.

    With y_k the mean of the `n_neighbors` unit rows of class k that are most similar to the query q, and C the rows y_k - y_0:
    e = n(q - C^+ C q), the closed form of what Gerych et al. 2024 (BEND-VLM, step 2) solve by iteration.

    Args:
        query: (d,) or (n, d), of any length.
        reference: (m, d) labelled pictures, normalised here.
        classes: (m,) their classes.
        n_neighbors: how many of each class; a class that has fewer counts with all it has. The paper: 100 gender, 10 race.

    Returns:
        The shape, kind and dtype of `query`, of length 1.

    Raises:
        ValueError: shapes that do not fit, NaN, rows of zeros, fewer than two classes, or a query of which C leaves nothing.
    """
    given, rows = floats("query", query), floats("reference", reference)
    labels = np.asarray(classes)
    if given.ndim not in (1, 2) or rows.ndim != 2 or given.shape[-1] != rows.shape[1] or labels.shape != (len(rows),):
        shapes = f"{tuple(given.shape)}, {tuple(rows.shape)} and {labels.shape}"
        raise ValueError(f"need query (d,) or (n, d), reference (m, d) and classes (m,), got {shapes}")
    check_finite("query", given)
    check_finite("reference", rows)
    if len(np.unique(labels)) < 2:
        raise ValueError(f"need reference pictures of at least two classes, got {np.unique(labels).tolist()}")
    codes = torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(rows.device)
    kind = torch.promote_types(torch.promote_types(given.dtype, rows.dtype), torch.float32)
    queries = _unit("query", torch.atleast_2d(given.to(kind)))
    found = equalised(queries, _unit("reference", rows.to(kind)), codes, check_whole("n_neighbors", n_neighbors))
    return like(query, _unit("result", found).reshape(given.shape).to(given.dtype))


def equalised(queries: torch.Tensor, reference: torch.Tensor, codes: torch.Tensor, n_neighbors: int) -> torch.Tensor:
    """`equalise` without its checks, for unit rows (n, d) and (m, d) and codes (m,) from 0; (n, d), not normalised."""
    similarity = queries @ reference.T  # (n, m)
    members = [(codes == code).nonzero()[:, 0] for code in range(int(codes.max()) + 1)]
    nearest = [of[similarity[:, of].topk(min(n_neighbors, len(of)), dim=1).indices] for of in members]  # each (n, k)
    results = []
    for i, query in enumerate(queries):
        means = torch.stack([reference[rows[i]].mean(dim=0) for rows in nearest])
        basis = span_basis(means[1:] - means[0], tolerance=_NOISE)
        results.append(query - query @ basis.T @ basis)
    return torch.stack(results)


def _unit(name: str, x: torch.Tensor) -> torch.Tensor:
    length = x.norm(dim=1, keepdim=True)
    if not (length > 1e-6).all():
        raise ValueError(f"{name} {holds(name)} rows of length 0, which have no direction")
    return x / length
