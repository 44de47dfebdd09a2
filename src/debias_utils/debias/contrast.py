"""Contrast of items that belong together against all others: StableRep's loss, in place of Abdelmagid et al.'s (2024).

They describe their counterfactual loss as "similar to StableRep"; its equation is not published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..arrays import labels as codes_of
from ..tensors import at_least_float32, check_finite, floats, is_number


def multi_positive_loss(features: Any, labels: Any, *, temperature: float) -> torch.Tensor:
    """mean_i -sum_j p_ij log q_ij, with q_i = softmax over j != i of f_i . f_j / temperature, f at length 1.

    p_i is even over the siblings of item i: those of the same label, itself left out. An item without siblings adds 0 to the sum
    but counts in the mean, and it is a negative for all others. The least that m identical siblings each can reach is ln(m - 1).

    Args:
        features: (n, d), of any length but 0; array or tensor, differentiable. labels: (n,) words or numbers.
        temperature: above 0.

    Returns:
        A scalar tensor, in the precision of the features, at least float32.

    Raises:
        ValueError: wrong shapes, NaN, a row of zeros, fewer than two items, a missing label, no temperature above 0, or no item
            that has a sibling: the loss would be 0 without a gradient.
    """
    x = at_least_float32(floats("features", features))
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features must be (n, d) with n of at least 2, got shape {tuple(x.shape)}")
    check_finite("features", x)
    if not (is_number(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a number above 0, got {temperature!r}")
    if not (x.detach().abs().amax(dim=1) > 0).all():
        raise ValueError(f"features of length 0 have no direction: rows {(x == 0).all(dim=1).nonzero().flatten().tolist()[:5]}")
    _, codes = codes_of("labels", labels)
    if len(codes) != len(x):
        raise ValueError(f"need one label for each row of features: {len(codes)} and {len(x)}")
    alike = codes[:, None] == codes
    np.fill_diagonal(alike, False)
    if not alike.any():
        raise ValueError("no item has another of its label: there is nothing to pull together")
    positive = torch.from_numpy(alike).to(x)
    f = F.normalize(x, dim=1)
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    log_q = F.log_softmax((f @ f.T / temperature).masked_fill(itself, -torch.inf), dim=1).masked_fill(itself, 0.0)
    return -(positive / positive.sum(dim=1, keepdim=True).clamp(min=1) * log_q).sum(dim=1).mean()
