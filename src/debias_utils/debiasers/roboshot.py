"""Take harmful insights out of pictures and strengthen helpful ones: RoboShot, Adila et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ..debias.projections import insight_map
from .base import Debiaser, take


@dataclass(eq=False)
class RoboShot(Debiaser):
    """Pictures lose the directions in which `sets` differ, and those in which `helpful_sets` differ are doubled; texts stay.

    Made for a task's zero-shot accuracy, where a language model names insights for each task. It is a debiaser of an attribute if
    the sets are of that attribute. Helpful directions that are not orthogonal to harmful ones bring a part of these back.

    Args:
        sequence: one insight after the other, as the paper's algorithm prints; False as its code, see `debias.insight_map`.
    """

    sequence: bool = False

    NAME: ClassVar = "RoboShot"
    SOURCE: ClassVar = "Adila et al. 2024, and its code"
    NEEDS: ClassVar = ("sets",)
    OPTIONAL: ClassVar = ("helpful_sets",)
    TOWERS: ClassVar = ("image",)
    STATE: ClassVar = ("map",)

    def fit(self, **data: Any) -> RoboShot:
        """See `Debiaser.fit`. The release takes texts that are not unit; here they are, as everywhere on the bench."""
        helpful = data.get("helpful_sets") is not None
        found = take(data, needs=self.NEEDS + (self.OPTIONAL if helpful else ()), method=self.NAME)
        state = insight_map(*found, sequence=self.sequence)
        return self._fitted(len(state), map=state)

    @property
    def rank(self) -> int:
        """How many directions are taken out: the insights less those that depend on others."""
        singular = np.linalg.svd(self.state["map"], compute_uv=False)
        return int((singular < 1e-6).sum())

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return x @ state["map"].T
