"""Drop the dimensions that tell most about the attribute: CLIP-clip, Wang et al. 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ..debias.information import ESTIMATORS, kept_dimensions, mutual_information
from ..errors import check_choice
from .base import Debiaser, classes, take


@dataclass(eq=False)
class CLIPClip(Debiaser):
    """Both towers lose the dimensions whose mutual information with the pictures' attribute is highest.

    A dimension is dropped by setting it to 0, which to a cosine is the same. It is a method of one basis: an attribute that is
    spread over all dimensions stays, and a linear probe still finds it.

    Args:
        keep: dimensions to KEEP, as a number or as a share; the authors keep 400 of 512.
        estimator: "histogram", the authors', with `bins` and `sigma`, or "ksg", with `n_neighbors`: see `mutual_information`.
            Classes count as 0, 1, ... in their order.
    """

    keep: int | float = 400 / 512
    estimator: str = "histogram"
    bins: int = 64
    sigma: float = 1.0
    n_neighbors: int = 5

    NAME: ClassVar = "CLIP-clip"
    SOURCE: ClassVar = "Wang et al. 2021, and its code"
    NEEDS: ClassVar = ("images", "groups")
    TOWERS: ClassVar = ("text", "image")
    STATE: ClassVar = ("information", "mask")

    def fit(self, **data: Any) -> CLIPClip:
        """See `Debiaser.fit`. `information_` (d,) tells each dimension's nats, `mask_` (d,) is 1 where it is kept.

        A ``ValueError`` also for a class with one member.
        """
        check_choice("estimator", self.estimator, ESTIMATORS)
        images, groups = take(data, needs=self.NEEDS, method=self.NAME)
        _, codes = classes("groups", groups)
        histogram = {"bins": self.bins, "sigma": self.sigma}
        options = histogram if self.estimator == "histogram" else {"n_neighbors": self.n_neighbors}
        information = mutual_information(images, codes, estimator=self.estimator, **options)
        mask = np.zeros(len(information))
        mask[kept_dimensions(information, self.keep)] = 1
        return self._fitted(len(mask), information=information, mask=mask)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return x * state["mask"]
