"""What CLIP's projection debiasers compute, as functions of arrays: maps (d, d), applied as ``x @ map.T``, and bases.

Sources: Chuang et al. 2023 (biased prompts), Lian et al. 2026 (closed form), Adila et al. 2024 (RoboShot). Two of their released
codes take a QR or a truncated SVD of as many directions as there are prompts; where prompts depend on each other, some of
these directions are made of rounding. Everything here decides the rank first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .. import arrays
from ..errors import check_choice
from ..tensors import at_least_float32, check_finite, floats, is_number, like
from .subspace import BiasSubspace

FACTORS = ("closed form", "printed problem", "fixed", "full")
SPANS = ("differences", "prototypes")
KEPT = (3 - 5**0.5) / 2  # .382, the share of a small leakage that the closed form keeps
_NOISE = 1e-6  # of the embeddings' length: below it, a difference between float32 embeddings is rounding


def calibrated_projection(spurious: Any, positive_pairs: Any, *, strength: float, tolerance: float = 1e-3) -> np.ndarray:
    """P = P0 (strength M + I)^-1, which minimises |P - P0|^2 + strength * mean |P z_i - P z_j|^2.

    P0 takes out the span of the spurious prompts, without centring; M is the mean of (z_i - z_j)(z_i - z_j)^T over the pairs.
    P is neither symmetric nor idempotent: apply it once.

    Args:
        spurious: (m, d) embeddings of prompts that name the attribute, of any length. positive_pairs: (n, 2, d) embeddings of
            prompts that should become alike, as they are: their length counts, so make them unit. n may be 0.
        strength: the paper's lambda, 1000 there; from 0, which gives P0.
        tolerance: prompts closer to dependent than this count once, see `BiasSubspace.span`.

    Returns:
        (d, d) float64.

    Raises:
        ValueError: wrong shapes, two widths, NaN, a spurious prompt of length 0, a negative strength.
    """
    basis = BiasSubspace.span(spurious, tolerance=tolerance).basis
    stretched = _stretched(positive_pairs, strength, width=basis.shape[1])
    kept = np.eye(basis.shape[1]) - basis.T @ basis
    return np.linalg.solve(stretched, kept).T  # both are symmetric


def token_projection(positive_pairs: Any, *, strength: float) -> np.ndarray:
    """P = (strength M + I)^-1, with M the mean over pairs of (z_i - z_j)(z_i - z_j)^T: pairs come together, nothing is removed.

    The variant for generation: without the projection P0 that the discriminative one begins with, and so symmetric. The authors
    take as z the text encoder's last hidden state after its final LayerNorm, at the first end token, at length 1, of "A photo of
    a male {job}." and "A photo of a female {job}.", and apply P as `tokens @ P.T` to all tokens of the prompt, (b, t, d), the
    start and the padding too, which are neither normalised before nor after; the unconditional tokens stay.

    Arguments and errors as `calibrated_projection`; the paper's strength is 500. Returns (d, d) float64.
    """
    stretched = _stretched(positive_pairs, strength)
    return np.linalg.inv(stretched)


def _stretched(pairs: Any, strength: float, *, width: int | None = None) -> np.ndarray:
    z = doubles("positive_pairs", pairs)
    if z.ndim != 3 or z.shape[1] != 2 or (width is not None and z.shape[2] != width):
        raise ValueError(f"positive_pairs must be (n, 2, d){f' with d = {width}' if width else ''}, got shape {z.shape}")
    if not (is_number(strength) and strength >= 0):
        raise ValueError(f"strength must be a number of at least 0, got {strength!r}")
    difference = z[:, 0] - z[:, 1]
    return float(strength) * difference.T @ difference / max(len(z), 1) + np.eye(z.shape[2])


def group_prototypes(sets: Iterable[Any]) -> np.ndarray:
    """One unit row for each group, (a, d) float64: the mean of its prompts' unit embeddings, at length 1.

    Args:
        sets: for each group, (m_i, d) embeddings of its prompts; a prompt that stands twice counts twice.

    Raises:
        ValueError: no sets, wrong shapes, NaN, a row of zeros, or prompts that cancel.
    """
    rows = [doubles(f"set {i}", one) for i, one in enumerate(sets)]
    if not rows or any(x.ndim != 2 or not x.size or x.shape[1] != rows[0].shape[-1] for x in rows):
        raise ValueError(f"need for each group embeddings (m, d) of one width, got shapes {[x.shape for x in rows]}")
    return np.stack([_unit(f"the mean of set {i}", _unit(f"set {i}", x).mean(axis=0)) for i, x in enumerate(rows)])


def prototype_basis(prototypes: Any, *, span: str = "differences") -> np.ndarray:
    """Orthonormal columns (d, r) of the span of a_i = p_i - p_1 over groups, or of the prototypes themselves.

    r is at most a - 1, or a; fewer where groups depend on each other, 0 where all are the same. Which group comes first does not
    matter. Singular values up to 1e-6 max(d, rows) of the largest (the released code's rule) or 1e-6 (rounding) are not counted.

    Args:
        prototypes: (a, d), from `group_prototypes`. span: "differences" (Lian et al.) or "prototypes" (what the
            projections before them remove, which takes out what the groups share as well).

    Raises:
        ValueError: wrong shape, NaN, an unknown span.
    """
    check_choice("span", span, SPANS)
    p = doubles("prototypes", prototypes)
    if p.ndim != 2 or not p.size:
        raise ValueError(f"prototypes must be (a, d), got shape {p.shape}")
    rows = torch.from_numpy(p[1:] - p[:1] if span == "differences" else p)
    basis, counted = row_basis(rows)
    return basis[counted].T.numpy()


def row_basis(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal rows (..., r, d) of rows (..., m, d), and which of them count, (..., r), by the rule of `prototype_basis`."""
    _, singular, basis = torch.linalg.svd(rows, full_matrices=False)
    least = 1e-6 * max(rows.shape[-2:]) * singular.amax(dim=-1, keepdim=True) if singular.shape[-1] else singular
    return basis, (singular > least) & (singular > _NOISE)


def soft_projection(embeddings: Any, basis: Any, *, factor: str = "closed form") -> Any:
    """Turn unit embeddings e = par + orth, par inside a span, to u = alpha n(par) + sqrt(1 - alpha^2) n(orth).

    Of four rules for alpha, which never exceeds |par|:
    - "closed form": (E - |orth| sqrt(E^2 - |par|^2)) / (E^2 + |orth|^2), E = |par| + (1 - |orth|) / |par|, as the paper prints
      and its code computes. It keeps 38 % of a small component, never less. It is where alpha / |par| meets
      V / (1 - |orth|), V = 1 - <u, e>.
    - "printed problem": where alpha meets V, the minimum of the problem as the paper prints it: nearly 0.
    - "fixed": u = n(e - .618 par), the closed form's limit.
    - "full": alpha = 0, the projection.

    Args:
        embeddings: (n, d) or (d,), array or tensor; made unit first, since the formulas hold for unit rows only (rows of
            length 2 would leave with more of the attribute than they had). basis: (d, r) orthonormal columns; r may be 0.

    Returns:
        Unit rows; shape, kind and dtype of `embeddings`. A row wholly inside the span has nowhere to turn and stays.

    Raises:
        ValueError: wrong shapes, NaN, columns that are not orthonormal, a row of zeros, an unknown factor, or
            nothing left of a row for "full".
    """
    check_choice("factor", factor, FACTORS)
    given = floats("embeddings", embeddings)
    e = at_least_float32(given)
    columns = floats("basis", basis).to(e)
    if e.ndim not in (1, 2) or columns.ndim != 2 or len(columns) != e.shape[-1]:
        raise ValueError(f"need embeddings (n, d) and a basis (d, r), got {tuple(e.shape)} and {tuple(columns.shape)}")
    check_finite("embeddings", e)
    check_finite("basis", columns)
    if not torch.allclose(columns.T @ columns, torch.eye(columns.shape[1]).to(columns), atol=1e-4):
        raise ValueError("the columns of basis must have length 1 and be orthogonal; `prototype_basis` makes them so")
    length = e.norm(dim=-1, keepdim=True)
    if not (length > 0).all():
        raise ValueError("embeddings hold a row of zeros, which has no direction")
    e = e / length
    return like(embeddings, soften(e, e @ columns @ columns.T, factor=factor).to(given.dtype))


def soften(e: torch.Tensor, parallel: torch.Tensor, *, factor: str) -> torch.Tensor:
    """`soft_projection` of unit rows e (..., d) whose components in the span are known. Differentiable."""
    p2 = torch.linalg.vecdot(parallel, parallel)[..., None]
    o = (e - parallel).norm(dim=-1, keepdim=True)
    inside = o <= _NOISE
    if factor == "full" and inside.any():
        count, first = int(inside.sum()), inside.flatten().nonzero()[0].item()
        raise ValueError(f"nothing is left of {count} of {inside.numel()} rows, the first {first}: they lie within the span")
    if factor == "fixed":
        u = e - (1 - KEPT) * parallel
        return u / u.norm(dim=-1, keepdim=True)
    # 1 - o = p^2 / (1 + o) for unit rows: no difference of nearly equal numbers is left, and no division by p.
    if factor == "closed form":
        c = 1 + 1 / (1 + o)  # E / p
        kept = (c - o * (c.square() - 1).sqrt()) / (p2 * c.square() + o.square())
    elif factor == "printed problem":
        p = p2.clamp(min=torch.finfo(p2.dtype).tiny).sqrt()
        kept = p / (1 + p) / (1 + (1 - 2 * p2 / (1 + p)).clamp(min=0).sqrt())
    else:
        kept = torch.zeros_like(p2)
    rest = (1 - kept.square() * p2).clamp(min=0).sqrt() / o.clamp(min=_NOISE)
    kept, rest = (torch.where(inside, 1, scale) for scale in (kept, rest))
    return torch.addcmul(rest * e, kept - rest, parallel)  # kept par + rest (e - par), with fewer copies of 100,000 rows


def insight_map(reject: Iterable[Any], accept: Iterable[Any] = (), *, sequence: bool = False) -> np.ndarray:
    """RoboShot's map (d, d): the image loses its components along harmful insights, then doubles those along helpful ones.

    An insight is a difference of two texts, such as (water, land). The code makes each set of insights orthonormal first:
    M = (I + Pt)(I - Ps), Ps and Pt projections onto the spans. The paper's algorithm takes the insights one after
    the other as they are: the product of I - v v^T, then of I + v v^T, over unit v; the order then matters, and the last insight
    alone is gone for sure. Both normalise between steps, which changes lengths only: normalise the result.

    Args:
        reject, accept: for each insight (m_i, d) embeddings of its texts, m_i >= 2: the first minus each of the others.
            They count as they are; the release takes texts that are not unit.
        sequence: as the paper's algorithm. False: as its code, with the rank decided first (see `BiasSubspace.span`).

    Raises:
        ValueError: no insight at all, wrong shapes, NaN, or texts of an insight that are the same.
    """
    harmful, helpful = _insights("reject", reject), _insights("accept", accept)
    found = [v for v in (harmful, helpful) if len(v)]
    if not found or len({v.shape[1] for v in found}) > 1:
        raise ValueError(f"need insights of one width, at least one, got {[v.shape[1] for v in found]}")
    result = np.eye(found[0].shape[1])
    for v, sign in ((harmful, -1), (helpful, 1)):
        if sequence:
            for one in v:
                result += sign * np.outer(one, one @ result)
        elif len(v):
            basis = BiasSubspace.span(v).basis
            result += sign * basis.T @ (basis @ result)
    return result


def _insights(name: str, sets: Iterable[Any]) -> np.ndarray:
    """Unit differences (m, d)."""
    found = []
    for i, one in enumerate(sets):
        x = doubles(f"{name} {i}", one)
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"an insight needs at least 2 texts, (m, d); {name} {i} is {x.shape}")
        difference = x[:1] - x[1:]
        size = np.linalg.norm(difference, axis=1, keepdims=True)
        if not (size > _NOISE * np.linalg.norm(x, axis=1).max()).all():
            raise ValueError(f"two texts of {name} {i} have the same embedding: no direction tells them apart")
        found.append(difference / size)
    if len({x.shape[1] for x in found}) > 1:
        raise ValueError(f"the insights of {name} must have one width, got {sorted({x.shape[1] for x in found})}")
    return np.concatenate(found) if found else np.empty((0, 0))


def doubles(name: str, x: Any) -> np.ndarray:
    """Finite numbers as float64; ``ValueError`` if anything is missing or infinite."""
    return arrays.floats(name, x).astype(float, copy=False)


def _unit(name: str, x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    if not (length > _NOISE).all():
        raise ValueError(f"{name} has a row of length 0, which has no direction")
    return x / length
