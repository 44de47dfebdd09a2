"""Text-based debiasing: find the subspace that a protected attribute spans among texts, and take it out of a text.

Sources: Bolukbasi et al. 2016 (pairs of words, PCA, projection); Manzini et al. 2019 (sets of any size); Tanjim et al. 2024,
section 3.3 (the same for CLIP texts, gender and race together). None of them publishes how many components a CLIP text
needs, nor where in StyleCLIP the projection goes: both are arguments here, and their defaults are our choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import check_choice
from ..tensors import at_least_float32, check_finite, floats, is_number, like, numbers_of

PLACES = ("difference", "target")
_NOISE = 1e-6  # of the embeddings' length: below it, a difference between float32 embeddings is rounding
_NOTHING = 1e-5  # of a vector's length: what is left below it is rounding too


@dataclass(frozen=True, eq=False)
class BiasSubspace:
    """The directions in which texts differ when nothing but a protected attribute changes.

    Made by `fit` (out of words), `span` (out of known directions) or `join` (out of two subspaces).

    Attributes:
        basis: (r, d) float64, orthonormal rows; r = 0 is allowed and removes nothing.
        explained: (rank,) shares of the variance of *all* components, largest first, summing to 1: those of the basis are
            the first r. None where no variance was measured (after `span` and `join`).
    """

    basis: np.ndarray
    explained: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "basis", numbers_of("basis", self.basis))
        if self.basis.ndim != 2 or not np.allclose(self.basis @ self.basis.T, np.eye(len(self.basis)), atol=1e-6):
            raise ValueError("the rows of a basis must have length 1 and be orthogonal; `BiasSubspace.span` makes them so")

    @classmethod
    def fit(cls, sets: Iterable[Any], *, n_components: int | float) -> BiasSubspace:
        """Centre each definitional set at its own mean, stack the residuals, and take their principal components.

        Args:
            sets: arrays or tensors (m_i, d), m_i >= 2: embeddings of texts that differ in the attribute alone, such as
                (woman, man) or (light, tan, brown, dark). Sets of several sizes can be mixed.
            n_components: how many components to keep, from 0 to the rank, which is at most sum_i (m_i - 1); or a share of
                the variance in (0, 1): the fewest components that explain at least so much.

        Raises:
            ValueError: no sets, wrong shapes, NaN, texts that are all alike, n_components beyond the rank.
        """
        tensors = [floats(f"set {i}", s) for i, s in enumerate(sets)]
        for i, tensor in enumerate(tensors):
            if tensor.ndim != 2 or len(tensor) < 2 or tensor.shape[1] != tensors[0].shape[-1]:
                shape = tuple(tensor.shape)
                raise ValueError(f"each set needs at least 2 embeddings of one length d, (m, d); set {i} is {shape}")
            check_finite(f"set {i}", tensor)
        if not tensors:
            raise ValueError("need at least one definitional set")
        embeddings = [numbers_of("sets", tensor) for tensor in tensors]
        residuals = np.concatenate([x - x.mean(axis=0) for x in embeddings])  # (sum m_i, d); PCA's own mean is 0
        _, singular, components = np.linalg.svd(residuals, full_matrices=False)
        scale = max(np.linalg.norm(x, axis=1).max() for x in embeddings)
        noise = max(_NOISE, *(torch.finfo(tensor.dtype).eps for tensor in tensors))  # half precision rounds more coarsely
        rank = int((singular > noise * scale).sum())
        if rank == 0:
            raise ValueError("the embeddings within every set are the same: no direction tells them apart")
        variance = singular[:rank] ** 2
        explained = variance / variance.sum()
        return cls(components[: _count(n_components, explained)], explained)

    @classmethod
    def span(cls, directions: Any, *, tolerance: float = 1e-3) -> BiasSubspace:
        """The subspace of given directions, (k, d), of any length and at any angle to each other but none of length 0.

        SVD of the unit vectors decides the rank: singular values up to `tolerance` of the largest are not counted, so that
        two almost parallel directions make one. At the default (our choice) that is an angle of 0.11 degrees, and of
        neither of the two is more than a thousandth left.

        Raises:
            ValueError: wrong shape, NaN, a direction of length 0, a tolerance that is not in [0, 1).
        """
        tensor = floats("directions", directions)
        if tensor.ndim != 2:
            raise ValueError(f"need directions (k, d), got shape {tuple(tensor.shape)}")
        if not (is_number(tolerance) and 0 <= tolerance < 1):
            raise ValueError(f"tolerance must lie in [0, 1), got {tolerance!r}")
        check_finite("directions", tensor)
        x = numbers_of("directions", tensor)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        if not length.all():
            raise ValueError(f"directions of length 0 span nothing: rows {np.flatnonzero(length == 0).tolist()}")
        _, singular, rows = np.linalg.svd(x / length, full_matrices=False)
        return cls(rows[: int((singular > tolerance * singular.max(initial=0.0)).sum())])

    def join(self, other: BiasSubspace, *, tolerance: float = 1e-3) -> BiasSubspace:
        """Both subspaces together, as one orthonormal basis.

        Gender and race components are not orthogonal to each other: subtracting both corrections removes what they share
        twice, and one after the other leaves a rest of the first. See `span` for the tolerance.

        Raises:
            ValueError: the subspaces live in spaces of different dimension, or `other` is none.
        """
        if not isinstance(other, BiasSubspace):
            raise ValueError(f"can join another BiasSubspace only, got {type(other).__name__}; `BiasSubspace.span` makes one")
        if self.basis.shape[1] != other.basis.shape[1]:
            raise ValueError(f"subspaces of {self.basis.shape[1]} and {other.basis.shape[1]} dimensions cannot be joined")
        return BiasSubspace.span(np.concatenate([self.basis, other.basis]), tolerance=tolerance)

    def project_out(self, x: Any, *, normalize: bool = True, skip_first: int = 0) -> Any:
        """Take the subspace out: t' = t - B^T B t, then t' / |t'|. Differentiable in x.

        Args:
            x: (d,), (n, d) or (b, t, d), array or tensor.
            normalize: back to length 1, for pooled embeddings. For token states, (b, 77, 768) before a diffusion model's
                cross-attention, pass False: it expects them at the scale of the final LayerNorm. Build that subspace out
                of token states too; one of pooled, projected embeddings lives in another space of the same size.
            skip_first: leave the first tokens of a (b, t, d) x as they are. The start token does not depend on the text,
                so that 1 is sensible there (our choice); tokens behind the end of the text do, and must be projected.

        Returns:
            Shape, dtype, device and kind of x (whole numbers become float64); half precision is computed in float32.

        Raises:
            ValueError: wrong shape, NaN, or nothing left to normalise, of a zero vector or of one inside the subspace (says of
                which rows).
        """
        tensor = floats("x", x)
        d = self.basis.shape[1]
        if tensor.ndim not in (1, 2, 3) or tensor.shape[-1] != d:
            raise ValueError(f"need x as (d,), (n, d) or (b, t, d) with d = {d}, got shape {tuple(tensor.shape)}")
        whole = isinstance(skip_first, (int, np.integer)) and not isinstance(skip_first, bool)
        if not whole or (skip_first and (tensor.ndim != 3 or not 0 < skip_first <= tensor.shape[1])):
            raise ValueError(f"skip_first is for tokens (b, t, d), from 0 to t; got {skip_first!r} for {tuple(tensor.shape)}")
        check_finite("x", tensor)
        kept, work = tensor[:, :skip_first] if skip_first else None, tensor[:, skip_first:] if skip_first else tensor
        work = at_least_float32(work)  # a basis in half precision is not orthonormal
        basis = torch.tensor(self.basis, dtype=work.dtype, device=work.device)
        work = work / _extreme(work) if normalize else work
        left = work - work @ basis.T @ basis
        if normalize:
            _refuse((work == 0).all(dim=-1), "x is a zero vector, which leaves nothing to normalise; normalize=False keeps it")
            left = _unit(left, compared_to=work, error="the subspace leaves nothing of the text")
        left = left.to(tensor.dtype)
        return like(x, left if kept is None else torch.cat([kept, left], dim=1))


def debias_delta(target: Any, neutral: Any, subspace: BiasSubspace, *, where: str = "difference") -> Any:
    """The direction from a neutral text to a target text for StyleCLIP, with the subspace taken out: length 1.

    Not published (Tanjim et al. 2024 speak of "the text embedding"), so `where` is our choice. "difference" projects
    target - neutral. Projection is linear: that is the difference of both projected texts, the result is orthogonal to
    the subspace, and how the neutral text was worded plays no part inside it. "target" projects and renormalises the target
    alone. Whatever attribute the neutral text carries then stays in the difference with its sign turned round: if
    "a person" leans towards men, every edit is pushed towards women.

    Args:
        target: (d,) or (n, d) embeddings, array or tensor; neutral: (d,), or one for each target.
        subspace: what to take out.
        where: "difference" or "target".

    Returns:
        Shape, dtype and kind of `target`, each of length 1.

    Raises:
        ValueError: unknown `where`, NaN, a target that coincides with the neutral text, or nothing left of a difference.
    """
    check_choice("where", where, PLACES)
    given, b = floats("target", target), floats("neutral", neutral)
    a = at_least_float32(given)
    if a.ndim not in (1, 2) or b.ndim > a.ndim or a.shape[-1:] != b.shape[-1:] or b.shape[:-1] not in ((), a.shape[:-1]):
        raise ValueError(f"need target (d,) or (n, d) and neutral of the same d, got {tuple(a.shape)} and {tuple(b.shape)}")
    check_finite("target", a)
    check_finite("neutral", b)
    b = b.to(a)
    _unit(a - b, compared_to=a, error="target and neutral text have the same embedding: there is no direction to edit along")
    if where == "difference":
        return like(target, subspace.project_out(a - b).to(given.dtype))
    left = "without the subspace the target is the neutral text: nothing is left of the difference"
    return like(target, _unit(subspace.project_out(a) - b, compared_to=a, error=left).to(given.dtype))


def printed_projection(x: Any, vectors: Any) -> Any:
    """The formula as Tanjim et al. 2024 print it: t' = t - sum_k g_k (t . g_k) / |g_k|. Not what you want.

    It is right only if all g_k have length 1 and are orthogonal to each other: the divisor of one vector is |g_k|^2, and
    vectors at an angle remove what they share more than once. Use `BiasSubspace.project_out`; this is here to show by how
    much it matters.

    Args:
        x: (d,) or (n, d), array or tensor. vectors: (k, d), none of length 0.

    Returns:
        Shape, dtype and kind of x, not renormalised.

    Raises:
        ValueError: wrong shape, NaN, a vector of length 0.
    """
    given = floats("x", x)
    tensor = at_least_float32(given)
    g = floats("vectors", vectors).to(tensor)
    if g.ndim != 2 or tensor.ndim not in (1, 2) or tensor.shape[-1] != g.shape[1]:
        raise ValueError(f"need x (d,) or (n, d) and vectors (k, d), got {tuple(tensor.shape)} and {tuple(g.shape)}")
    check_finite("x", tensor)
    check_finite("vectors", g)
    _refuse((g == 0).all(dim=1), "vectors of length 0 have no direction")
    return like(x, (tensor - (tensor @ g.T / g.norm(dim=1)) @ g).to(given.dtype))


def _count(n_components: int | float, explained: np.ndarray) -> int:
    rank = len(explained)
    if isinstance(n_components, (int, np.integer)) and not isinstance(n_components, bool) and 0 <= n_components <= rank:
        return int(n_components)
    if isinstance(n_components, (float, np.floating)) and 0.0 < n_components < 1.0:
        return min(int(np.searchsorted(explained.cumsum(), n_components)) + 1, rank)
    raise ValueError(
        f"n_components must be a whole number from 0 to {rank}, the rank of these sets, or a share of the variance "
        f"between 0 and 1; got {n_components!r}"
    )


def _unit(x: torch.Tensor, *, compared_to: torch.Tensor, error: str) -> torch.Tensor:
    """Rows of x (..., d) at length 1; those that are mere rounding beside the rows of `compared_to` raise `error`."""
    scale = _extreme(compared_to)
    x, compared_to = x / scale, compared_to / scale
    length = x.norm(dim=-1, keepdim=True)
    _refuse((length <= _NOTHING * compared_to.norm(dim=-1, keepdim=True))[..., 0], error)
    return x / length


def _extreme(x: torch.Tensor) -> torch.Tensor:
    """(..., 1) the largest value of rows (..., d) whose squares could not be added up, 1 for all others."""
    largest, limits = x.detach().abs().amax(dim=-1, keepdim=True), torch.finfo(x.dtype)
    extreme = (largest > limits.max**0.5 / x.shape[-1]) | ((largest > 0) & (largest < limits.tiny**0.5 / limits.eps))
    return torch.where(extreme, largest, 1)


def _refuse(rows: torch.Tensor, error: str) -> None:
    """Raise `error` if any of the rows (...) is lost, and say which."""
    if rows.any():
        lost = [tuple(row) if len(row) > 1 else row[0] for row in rows.nonzero().tolist() if row]
        raise ValueError(error + (f" ({len(lost)} of {rows.numel()} rows, the first: {lost[:5]})" if lost else ""))
