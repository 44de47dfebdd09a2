"""BEND-VLM: each query loses its own attribute directions, then moves to where each group's nearest pictures are as similar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ..debias.bend import attribute_directions, equalised, span_basis
from ..errors import check_choice, check_whole
from .base import Debiaser, take, unit
from .prism import word_rows

STEPS = ("both", "project", "equalise")


@dataclass(eq=False)
class BendVLM(Debiaser):
    """Labelled reference pictures are needed whenever a text is transformed: they are kept, in float32, and saved.

    Compare it with methods that have the same labels alone. It is meant for neutral queries, and knows no others: "a photo of a
    woman" loses its woman as any query does. The second step undoes some of the first (the result is equally similar to the
    groups' pictures, no longer orthogonal to the words). Pictures stay.

    Args:
        steps: "both", or one of them alone, "project" or "equalise".
        n_neighbors: of each class, how many reference pictures count; fewer where a class has fewer. The paper: 100 for gender,
            10 for race.
        n_sets: of `sets`, from the first, how many are the spurious prompts; the release has one, "a photo of a {value} person".
            Without `sets`, the wordings' differences alone are taken out.
        tolerance: singular values of the directions up to this count as 0. The release counts them all, and removes random
            directions with them wherever there are three values or more.
    """

    steps: str = "both"
    n_neighbors: int = 100
    n_sets: int = 1
    tolerance: float = 1e-3

    NAME: ClassVar = "BEND-VLM"
    SOURCE: ClassVar = "Gerych et al., NeurIPS 2024 (arXiv 2411.04420), both steps; release waltergerych/bend_vlm"
    NEEDS: ClassVar = ("images", "groups")
    OPTIONAL: ClassVar = ("sets",)
    TOWERS: ClassVar = ("text",)
    PER_QUERY: ClassVar = True
    STATE: ClassVar = ("reference", "classes", "spurious")

    def fit(self, **data: Any) -> BendVLM:
        """See `Debiaser.fit`. `images` and `groups` are the reference set."""
        images, groups = take(data, needs=self.NEEDS, method=self.NAME)
        check_choice("steps", self.steps, STEPS)
        check_whole("n_neighbors", self.n_neighbors)
        spurious = np.empty((0, images.shape[1]))
        if data.get("sets") is not None:
            spurious = word_rows(data, self.n_sets, method=self.NAME)
            if spurious.shape[1] != images.shape[1]:
                raise ValueError(f"embeddings must have one width, got sets {spurious.shape[1]} and images {images.shape[1]}")
        classes = np.unique(groups, return_inverse=True)[1]
        return self._fitted(images.shape[1], reference=images.astype(np.float32), classes=classes, spurious=spurious)

    def transform_text(self, x: Any, **data: Any) -> Any:
        """See `Debiaser.transform_text`.

        Args:
            x: (n, d) queries, or one, (d,).
            data: `group_queries`, (n, a, d), or (a, d) for one: each query with each of the attribute's a classes in the wording;
                a method with steps "equalise" does not need them.

        Raises:
            ValueError: also wordings that are missing, or not one grid for each query.
        """
        return self._transform("text", x, **data)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        if self.steps != "equalise":
            x = self._project(x, state["spurious"], **data)
        if self.steps != "project":
            x = equalised(x, state["reference"], state["classes"], self.n_neighbors)
        return x

    def _project(self, x: torch.Tensor, spurious: torch.Tensor, **data: Any) -> torch.Tensor:
        given = data.get("group_queries")
        if given is not None and np.ndim(given) == 2 and len(x) == 1:
            given = given[None]
        (wordings,) = take({"group_queries": given}, needs=("group_queries",), method=self.NAME)
        if len(wordings) != len(x) or wordings.shape[2] != x.shape[1]:
            raise ValueError(f"need group_queries (n, a, d) for x {tuple(x.shape)}, got {wordings.shape}")
        rows = []
        for query, of in zip(x, torch.from_numpy(wordings), strict=True):
            basis = span_basis(attribute_directions(of, spurious), tolerance=self.tolerance).to(x)
            rows.append(query - query @ basis.T @ basis)
        return unit(torch.stack(rows))
