"""Project biased prompts out of text embeddings, and calibrate: Chuang et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch

from ..debias.projections import calibrated_projection, token_projection
from ..debias.subspace import BiasSubspace
from ..errors import check_choice
from .base import Debiaser, take

VARIANTS = ("calibrated", "orthogonal", "generative")


@dataclass(eq=False)
class BiasedPrompts(Debiaser):
    """Texts lose the span of prompts that name the attribute; queries that differ in nothing else are drawn together.

    The span is not centred: what the prompts share, such as "a person", goes as well, so the sets should hold short prompts.

    Args:
        variant: "calibrated", P0 (strength M + I)^-1; "orthogonal", P0 alone, out of the sets alone; or "generative",
            (strength M + I)^-1 alone, out of the group queries alone: the map that the paper gives to a diffusion model's tokens.
        strength: the paper's lambda, 1000 for retrieval (500 for generation). Pairs are all two groups of a query.
        tolerance: prompts closer to dependent than this count once, see `BiasSubspace.span`; `rank` tells how many are left. The
            released code takes as many directions as prompts, so that some of them can be made of rounding.
    """

    variant: str = "calibrated"
    strength: float = 1000.0
    tolerance: float = 1e-3

    NAME: ClassVar = "biased prompts"
    SOURCE: ClassVar = "Chuang et al. 2023; its code for the wording of prompts"
    NEEDS: ClassVar = ("sets", "group_queries")
    TOWERS: ClassVar = ("text",)
    STATE: ClassVar = ("map", "basis")

    def fit(self, **data: Any) -> BiasedPrompts:
        """See `Debiaser.fit`; "orthogonal" needs no group queries, "generative" no sets.

        A ``ValueError`` also if the prompts span all dimensions.
        """
        check_choice("variant", self.variant, VARIANTS)
        needs = {"calibrated": self.NEEDS, "orthogonal": self.NEEDS[:1], "generative": self.NEEDS[1:]}[self.variant]
        found = dict(zip(needs, take(data, needs=needs, method=self.NAME), strict=True))
        pairs = _pairs(found["group_queries"]) if "group_queries" in found else None
        if "sets" not in found:
            projection = token_projection(pairs, strength=self.strength)
            return self._fitted(len(projection), map=projection, basis=np.empty((0, len(projection))))
        if not found["sets"]:
            raise ValueError(f"{self.NAME} needs at least one set of prompts")
        spurious = np.concatenate(found["sets"])
        basis = BiasSubspace.span(spurious, tolerance=self.tolerance).basis
        if len(basis) == basis.shape[1]:
            raise ValueError(f"the prompts span all {len(basis)} dimensions: nothing would be left")
        pairs, strength = (np.empty((0, 2, basis.shape[1])), 0.0) if pairs is None else (pairs, self.strength)
        projection = calibrated_projection(spurious, pairs, strength=strength, tolerance=self.tolerance)
        return self._fitted(basis.shape[1], map=projection, basis=basis)

    @property
    def rank(self) -> int:
        """How many directions are projected out."""
        return len(self.state["basis"])

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return x @ state["map"].T


def _pairs(group_queries: np.ndarray) -> np.ndarray:
    """(q, a, d) to all pairs of groups within each query, (q a (a - 1) / 2, 2, d)."""
    a = group_queries.shape[1]
    if a < 2:
        raise ValueError(f"group_queries must hold at least two classes for each query, got {a}")
    return np.concatenate([group_queries[:, [i, j]] for i, j in combinations(range(a), 2)])
