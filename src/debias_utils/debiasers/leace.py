"""Least-squares concept erasure: Belrose et al. 2023, each tower with its own map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ..debias.erasure import leace
from .base import Debiaser, classes, take


@dataclass(eq=False)
class LEACE(Debiaser):
    """The smallest affine change of labelled rows after which no linear probe finds the attribute, until they are unit again.

    Renormalising, which cosines always do, brings a part back; so measure after it. A map fitted on pictures promises nothing for
    texts: they have one of their own if labelled texts are given, else they stay as they are.

    Args:
        method: "leace", or "orth" for the orthogonal projection, which does more damage. affine: False leaves the mean out.
        shrinkage: of the covariance. svd_tol: see `debias.leace`. The paper erases all, as here; the library's .01 keeps rare
            classes.
    """

    method: str = "leace"
    affine: bool = True
    shrinkage: bool = True
    svd_tol: float = 1e-6

    NAME: ClassVar = "LEACE"
    SOURCE: ClassVar = "Belrose et al. 2023, section 4"
    NEEDS: ClassVar = ("images", "groups")
    OPTIONAL: ClassVar = ("texts", "text_groups")
    TOWERS: ClassVar = ("text", "image")
    STATE: ClassVar = ("image_map", "image_bias", "text_map", "text_bias")

    def fit(self, **data: Any) -> LEACE:
        """See `Debiaser.fit`; texts and text_groups go together. `rank` tells how many directions of each tower are erased.

        A ``ValueError`` also for a class with one member, whose mean is that member.
        """
        with_texts = any(data.get(name) is not None for name in self.OPTIONAL)
        found = take(data, needs=self.NEEDS + (self.OPTIONAL if with_texts else ()), method=self.NAME)
        width = found[0].shape[1]
        maps = {"text_map": np.eye(width), "text_bias": np.zeros(width)}
        for tower, place, name in (("image", 0, "groups"), ("text", 2, "text_groups"))[: len(found) // 2]:
            values, codes = classes(name, found[place + 1])
            maps[f"{tower}_map"], maps[f"{tower}_bias"] = leace(
                found[place],
                np.eye(len(values))[codes],
                affine=self.affine,
                shrinkage=self.shrinkage,
                method=self.method,
                svd_tol=self.svd_tol,
            )
        return self._fitted(width, **maps)

    @property
    def rank(self) -> dict[str, int]:
        """How many directions of each tower are erased: one less than there are classes, 0 for texts that were not given."""
        state = self.state  # the trace of a projection is its rank
        return {tower: round(self.width_ - float(np.trace(state[f"{tower}_map"]))) for tower in ("image", "text")}

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        bias = state[f"{tower}_bias"]
        return bias + (x - bias) @ state[f"{tower}_map"].T
