"""Debiasing an edit in closed form (ours): take out of it what would change the protected attributes, to first order."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..tensors import at_least_float32, check_finite, floats, is_number, like


def orthogonalise(direction: Any, protected: Any, *, std: Any, tolerance: float = 1e-4) -> Any:
    """The edit closest to `direction` that leaves every protected score unchanged to first order.

    Moving the styles by alpha d changes the score of attribute j by alpha <r_j, d / std> to first order, where r_j is its
    relevance per standard deviation. With u = d / std and R the rows r_j, the closest u' with R u' = 0 is
    u' = u - R^+ R u. Closest is meant in standard deviations, the unit in which styles compare. R is restricted to the
    channels that the edit moves, so that no other channel starts to move. The result is not scaled up again.

    What it promises ends where the scores bend, and holds for the scores of the encoder that gave the relevance: whether
    the attribute itself stays is for an independent evaluator to say.

    Args:
        direction: (S,) an edit in units of the style, such as from `edit.styleclip.direction`; tensor or array.
        protected: (p, S) relevance of the channels to protected attributes (such as woman - man, or the basis of a bias
            subspace), from `edit.relevance.gradient` and the like. Not the twice normalised published kind: its rows
            have lost the size of the effects that have to cancel.
        std: (S,) of each channel; an edited channel must have one.
        tolerance: attributes whose rows are closer to dependent than this (relative singular value) count once; in [0, 1).

    Returns:
        (S,) in units of the style, 0 where `direction` is; kind and dtype of `direction`, computed in float32 at least.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, an edit that moves nothing or a channel without a deviation, or
            nothing is left: the edit lies within the span of the protected attributes.
    """
    given = floats("direction", direction)
    like_this, direction = direction, at_least_float32(given)
    protected, std = (floats(name, x).to(direction) for name, x in (("protected", protected), ("std", std)))
    if direction.ndim != 1 or protected.ndim != 2 or protected.shape[1] != len(direction) or std.shape != direction.shape:
        shapes = f"{tuple(direction.shape)}, {tuple(protected.shape)}, {tuple(std.shape)}"
        raise ValueError(f"need direction (S,), protected (p, S) and std (S,), got {shapes}")
    for name, x in (("direction", direction), ("protected", protected), ("std", std)):
        check_finite(name, x)
    if not (is_number(tolerance) and 0 <= tolerance < 1):
        raise ValueError(f"tolerance must lie in [0, 1), got {tolerance!r}")
    moved = direction != 0
    if not moved.any():
        raise ValueError("the edit moves no channel: direction is 0 everywhere")
    flat = moved & (std <= 0)
    if flat.any():
        raise ValueError(
            f"the edit moves {int(flat.sum())} channels whose std is 0 or negative, the first: {int(flat.nonzero()[0])}"
        )
    whitened = direction[moved] / std[moved]  # (k,)
    rows = F.normalize(protected[:, moved], dim=1)  # their scale does not matter to the span
    _, size, basis = torch.linalg.svd(rows, full_matrices=False)
    basis = basis[size > tolerance * size.max()] if len(size) else basis  # (r, k) orthonormal
    left = whitened - basis.T @ (basis @ whitened)
    if left.norm() <= tolerance * whitened.norm():
        raise ValueError(
            f"nothing is left of the edit: its {int(moved.sum())} channels are spanned by {len(basis)} protected directions; "
            "edit more channels (lower beta) or protect fewer attributes"
        )
    result = torch.zeros_like(direction)
    result[moved] = left * std[moved]
    return like(like_this, result.to(given.dtype))
