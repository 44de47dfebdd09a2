"""SPD: project out what linear probes find, one after another, and put a neutral row's part back in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from ..errors import check_choice, check_whole
from ..tensors import is_number
from .base import Debiaser
from .sfid import fit_forest, towers, unsure

COUNTS = ("directions", "rounds")
_NOISE = 1e-6  # of a probe's largest singular value: smaller ones are rounding; a softmax over c classes has rank c - 1


@dataclass(eq=False)
class SPD(Debiaser):
    """Iterative nullspace projection on U (r, d), with the mean of unsure rows put back: x - (x - x_low) U^T U.

    The paper leaves open, and we choose, each with its other choice: whether r counts directions or rounds, what "unsure" is, and
    the probe (logistic regression). The stack of the rounds is made orthonormal by an SVD with a tolerance, for a
    softmax over c classes has rank c - 1 and plain QR would add a direction of chance. Each tower has its own probes; without
    `texts`, texts stay. Rows are normalised after, which lets a little of the attribute back: its part is constant before.

    Args:
        n: r, how many directions, or rounds; the paper: 5.
        count: "directions" (the probes' strongest first, until there are n) or "rounds" (each gives up to c - 1 directions).
        threshold: of the forest, as in `sfid.SFID`; the paper: 0.7.
        rule: what unsure is, "threshold" or "share" (of the held-out rows): see `sfid.unsure`.
        at_least: as in `sfid.SFID`.
        reinject: whether to put the unsure rows' part back; without, it is iterative nullspace projection.
        penalty: strength of the probes' L2 penalty (ours).
        validation: as in `sfid.SFID`.
        n_trees: as there.
        rows_per_tree: as there.
        rows_per_probe: each probe is fitted on at most so many rows, drawn anew for each (ours).
        seed: of the forest and the draws.
    """

    n: int = 5
    count: str = "directions"
    threshold: float = 0.7
    rule: str = "threshold"
    at_least: float = 0.01
    reinject: bool = True
    penalty: float = 1.0
    validation: float = 0.2
    n_trees: int = 100
    rows_per_tree: int = 5000
    rows_per_probe: int = 20_000
    seed: int = 0

    NAME: ClassVar = "SPD"
    SOURCE: ClassVar = "Zhao et al., CVPR 2026 (arXiv 2511.18123); Ravfogel et al. 2020 (iterative nullspace projection)"
    NEEDS: ClassVar = ("images", "groups")
    OPTIONAL: ClassVar = ("texts", "text_groups")
    TOWERS: ClassVar = ("text", "image")
    TRAINED: ClassVar = True
    STATE: ClassVar = ("image_basis", "image_centre", "text_basis", "text_centre")

    def fit(self, **data: Any) -> SPD:
        """See `Debiaser.fit`. A ``ValueError`` also as in `SFID.fit`, or if the probes would leave nothing."""
        state: dict[str, np.ndarray] = {}
        for tower, rows, labels in towers(data, method=self.NAME):
            width = rows.shape[1]
            state |= {"text_basis": np.empty((0, width)), "text_centre": np.zeros(width)} if not state else {}
            centre = np.zeros(width)
            if self.reinject:
                forest, held_out = fit_forest(rows, labels, self.validation, self.n_trees, self.rows_per_tree, self.seed)
                probabilities = forest.predict_proba(rows[held_out])
                low = unsure(probabilities, threshold=self.threshold, rule=self.rule, at_least=self.at_least)
                centre = rows[held_out][low].mean(axis=0)
            basis = probe_directions(
                rows, labels, self.n, count=self.count, penalty=self.penalty, max_rows=self.rows_per_probe, seed=self.seed
            )
            state |= {f"{tower}_basis": basis, f"{tower}_centre": centre}
        return self._fitted(width, **state)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        basis = state[f"{tower}_basis"]
        return x - (x - state[f"{tower}_centre"]) @ basis.T @ basis


def probe_directions(
    features: np.ndarray,
    labels: np.ndarray,
    n: int,
    *,
    count: str = "directions",
    penalty: float = 1.0,
    max_rows: int = 20_000,
    seed: int = 0,
) -> np.ndarray:
    """Iterative nullspace projection: orthonormal rows (r, d) that span what probes, each fitted on what is left, use.

    Args:
        features: (n, d). labels: (n,). n, count, penalty, max_rows and seed: see `SPD`.

    Returns:
        (r, d); fewer than asked for if a probe's weights vanish.

    Raises:
        ValueError: n below 1, or as many directions as there are dimensions, which would leave nothing.
    """
    check_choice("count", count, COUNTS)
    width = features.shape[1]
    check_whole("n", n, at_most=width - 1, limit="d - 1 = ")
    check_whole("max_rows", max_rows)
    if not (is_number(penalty) and penalty > 0):
        raise ValueError(f"penalty must be a positive number, got {penalty!r}")
    rng = np.random.default_rng(seed)
    basis = np.empty((0, width))
    for _ in range(n):
        left = n - len(basis) if count == "directions" else width
        if left == 0:
            break
        rows = sample(labels, max_rows, rng)
        x = features[rows]
        probe = LogisticRegression(C=1 / penalty, max_iter=1000).fit(x - x @ basis.T @ basis, labels[rows])
        _, size, found = np.linalg.svd(probe.coef_ - probe.coef_ @ basis.T @ basis, full_matrices=False)
        rank = int((size > max(_NOISE * size[0], 1e-12)).sum())
        basis = np.linalg.qr(np.concatenate([basis, found[: min(rank, left)]]).T)[0].T  # independent rows: no direction of chance
        if len(basis) >= width:
            raise ValueError(f"{n} rounds of {len(np.unique(labels))} classes find all {width} dimensions: nothing would be left")
        if rank == 0:
            break
    return basis


def sample(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of at most n rows, drawn without replacement, with at least one of each class; all rows in order if n suffices."""
    if len(labels) <= n:
        return np.arange(len(labels))
    order = rng.permutation(len(labels))
    first = np.unique(labels[order], return_index=True)[1]
    return np.sort(np.concatenate([order[first], np.delete(order, first)[: max(n - len(first), 0)]]))
