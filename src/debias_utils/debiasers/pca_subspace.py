"""Project out the subspace that the attribute's words span: Bolukbasi et al. 2016, for CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..debias.subspace import BiasSubspace
from .base import Debiaser, take


@dataclass(eq=False)
class PCASubspace(Debiaser):
    """Both towers lose the principal components of texts that differ in the attribute alone (Tanjim et al. 2024, section 3.3).

    Args:
        n_components: how many components, or the share of the variance in (0, 1) that they must explain.
    """

    n_components: int | float = 1

    NAME: ClassVar = "PCA subspace"
    SOURCE: ClassVar = "Bolukbasi et al. 2016; Tanjim et al. 2024, section 3.3"
    NEEDS: ClassVar = ("sets",)
    TOWERS: ClassVar = ("text", "image")
    STATE: ClassVar = ("basis",)

    def fit(self, **data: Any) -> PCASubspace:
        """See `Debiaser.fit`. A ``ValueError`` also for components beyond the rank."""
        (sets,) = take(data, needs=self.NEEDS, method=self.NAME)
        basis = BiasSubspace.fit(sets, n_components=self.n_components).basis  # (r, d)
        return self._fitted(basis.shape[1], basis=basis)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return x - x @ state["basis"].T @ state["basis"]
