"""Debiasing an edit in closed form (ours): take out of it what would change the protected attributes, to first order."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def orthogonalise(
    direction: torch.Tensor, protected: torch.Tensor, *, std: torch.Tensor, tolerance: float = 1e-4
) -> torch.Tensor:
    """The edit closest to `direction` that leaves every protected score unchanged to first order.

    Moving the styles by alpha d changes the score of attribute j by alpha <r_j, d / std> to first order, where r_j is its
    relevance per standard deviation. With u = d / std and R the rows r_j, the closest u' with R u' = 0 is
    u' = u - R^+ R u. Closest is meant in standard deviations, the unit in which styles compare. R is restricted to the
    channels that the edit moves, so that no other channel starts to move. The result is not scaled up again.

    What it promises ends where the scores bend, and holds for the scores of the encoder that gave the relevance: whether
    the attribute itself stays is for an independent evaluator to say.

    Args:
        direction: (S,) an edit in units of the style, such as from `edit.styleclip.direction`.
        protected: (p, S) relevance of the channels to protected attributes (such as woman - man, or the basis of a bias
            subspace), from `edit.relevance.gradient` and the like. Not the twice normalised published kind: its rows
            have lost the size of the effects that have to cancel.
        std: (S,) of each channel; an edited channel must have one.
        tolerance: attributes whose rows are closer to dependent than this (relative singular value) count once.

    Returns:
        (S,) in units of the style, 0 where `direction` is.

    Raises:
        ValueError: shapes that do not fit, or nothing is left: the edit lies within the span of the protected attributes.
    """
    if direction.ndim != 1 or protected.ndim != 2 or protected.shape[1] != len(direction) or std.shape != direction.shape:
        shapes = f"{tuple(direction.shape)}, {tuple(protected.shape)}, {tuple(std.shape)}"
        raise ValueError(f"need direction (S,), protected (p, S) and std (S,), got {shapes}")
    moved = direction != 0
    if (std[moved] <= 0).any():
        raise ValueError("the edit moves a channel whose std is 0")
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
    return result
