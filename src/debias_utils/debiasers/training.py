"""What the trained debiasers share: seeded layers, the order of the rows, and the two losses of an adversary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from ..errors import check_choice
from .base import classes

FOOLING = ("uniform", "cross-entropy")


def check_positive(**settings: Any) -> None:
    """Raise ``ValueError`` unless each is one finite number above 0."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a number above 0, got {value!r}")


def batches(n: int, size: int, *, epochs: int, seed: int, name: str) -> Iterator[tuple[int, torch.Tensor]]:
    """(epoch, row numbers) of batches of at most `size` of n rows, in a new order each epoch, with a progress bar."""
    generator = torch.Generator().manual_seed(seed)
    with tqdm(total=epochs * -(-n // size), desc=name, unit="step", leave=False) as bar:
        for epoch in range(epochs):
            for rows in torch.randperm(n, generator=generator).split(size):
                yield epoch, rows
                bar.update()


def linear(n_in: int, n_out: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (n_out, n_in) and bias (n_out,), uniform up to 1 / sqrt(n_in), as PyTorch's layers start."""
    weight, bias = ((2 * torch.rand(shape, generator=generator) - 1) * n_in**-0.5 for shape in ((n_out, n_in), (n_out,)))
    return weight, bias


def perceptron(sizes: Sequence[int], seed: int, device: str | torch.device) -> torch.nn.Sequential:
    """Linear layers of these sizes with ReLU in between, seeded; sizes (d, 32, k) take (n, d) to logits (n, k)."""
    generator, layers = torch.Generator().manual_seed(seed), list[torch.nn.Module]()
    for n_in, n_out in pairwise(sizes):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out)
        with torch.no_grad():
            for parameter, value in zip((layer.weight, layer.bias), linear(n_in, n_out, generator), strict=True):
                parameter.copy_(value)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).to(device)


def weighted_classes(groups: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (n,) as whole numbers from 0, and the weight (k,) of each class that makes all of them count alike."""
    _, codes = classes("groups", groups, at_least=1)
    counts = np.bincount(codes)
    return torch.from_numpy(codes), torch.from_numpy(len(codes) / (len(counts) * counts)).float()


def adversary_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What the adversary minimises: cross-entropy of logits (n, k) with labels (n,), each class weighted by weights (k,)."""
    return F.cross_entropy(logits, labels, weight=weights)


def fooling_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, *, against: str) -> torch.Tensor:
    """What a debiaser minimises against an adversary's logits (n, k).

    Args:
        logits: (n, k). labels: (n,). weights: (k,) of the classes.
        against: "cross-entropy", as published: minus the adversary's loss, which has no lower bound and is best served by an
            adversary that is confidently wrong, and so still knows. "uniform" (ours): the cross-entropy of even odds with what it
            says, which is smallest, ln k, where it knows nothing.
    """
    check_choice("against", against, FOOLING)
    if against == "cross-entropy":
        return -adversary_loss(logits, labels, weights)
    return -F.log_softmax(logits, dim=1).mean()
