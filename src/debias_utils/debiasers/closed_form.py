"""Turn both towers towards fairness in closed form (Lian et al. 2026), and beside it what it is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..debias.projections import FACTORS, group_prototypes, prototype_basis, row_basis, soften
from ..errors import check_choice
from ..tensors import check_finite, floats
from .base import Debiaser, take, unit

_BLOCK = 4096  # texts whose spans are found at once


@dataclass(eq=False)
class FullProjection(Debiaser):
    """Both towers lose the span in which group prompts differ: the baseline that is as free as the closed form, and stronger.

    A prototype is the mean of a group's wordings of one query (see `group_prototypes`), here averaged over all queries: one span
    for every text and picture, as the code of Lian et al. has it. Averaging over the queries that are then ranked is
    transductive: fit on others to avoid it.

    Args:
        span: "differences" between the groups, or "prototypes", which takes out what groups share as well.
    """

    span: str = "differences"

    NAME: ClassVar[str] = "full projection"
    SOURCE: ClassVar[str] = "the comparison of Lian et al. 2026 with alpha = 0"
    NEEDS: ClassVar = ("group_queries",)
    TOWERS: ClassVar = ("text", "image")
    STATE: ClassVar = ("basis",)

    def fit(self, **data: Any) -> Any:
        """See `Debiaser.fit`. A ``ValueError`` also if the groups' texts are all the same. `rank` is the width of the span."""
        check_choice("factor", self._factor, FACTORS)
        (queries,) = take(data, needs=self.NEEDS, method=self.NAME)
        if queries.shape[1] < 2:
            raise ValueError(f"group_queries must hold at least two classes for each query, got {queries.shape[1]}")
        basis = prototype_basis(group_prototypes(queries.transpose(1, 0, 2)), span=self.span).T  # (r, d)
        if not len(basis):
            raise ValueError("the groups' texts have the same embeddings: no direction tells the groups apart")
        return self._fitted(basis.shape[1], basis=basis)

    @property
    def rank(self) -> int:
        """The dimensions of the span: at most one less than there are groups; fewer if their texts depend on each other."""
        return len(self.state["basis"])

    @property
    def _factor(self) -> str:
        return "full"

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return soften(x, x @ state["basis"].T @ state["basis"], factor=self._factor)


@dataclass(eq=False)
class ClosedForm(FullProjection):
    """Both towers turn towards the groups' middle by a fixed rule, which keeps 38 % of a small component: see `soft_projection`.

    Args:
        span: see `FullProjection`.
        factor: "closed form" (as printed and coded), "printed problem" (the minimum of the printed problem), "fixed" or "full".
    """

    factor: str = "closed form"

    NAME: ClassVar[str] = "closed form"
    SOURCE: ClassVar[str] = "Lian et al. 2026 (CVPR), the code's shared prototypes"

    @property
    def _factor(self) -> str:
        return self.factor


@dataclass(eq=False)
class ClosedFormPerQuery(ClosedForm):
    """The closed form with each query's own prototypes, as the paper has it: a text needs its own `group_queries`, (n, a, d).

    Pictures that are ranked for one query take that query's, (1, a, d); without them they take the span of all queries of `fit`,
    as `rank` does.
    """

    NAME: ClassVar[str] = "closed form per query"
    SOURCE: ClassVar[str] = "Lian et al. 2026 (CVPR), the paper's prototypes of each prompt"
    PER_QUERY: ClassVar = True

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        given = data.get("group_queries")
        if given is None and tower == "image":
            return super()._apply(tower, x, state)
        if given is None:
            raise ValueError(f"{self.NAME} needs group_queries of the texts, (n, a, d)")
        queries = floats("group_queries", given).to(x)
        rows = (1, len(x)) if tower == "image" else (len(x),)
        if queries.ndim != 3 or queries.shape[0] not in rows or queries.shape[1] < 2 or queries.shape[2] != x.shape[1]:
            wanted = f"({' or '.join(map(str, rows))}, at least 2, {x.shape[1]})"
            raise ValueError(f"group_queries must be {wanted}, one for each row, got shape {tuple(queries.shape)}")
        if len(queries) == 1:
            basis = self._bases(queries)[0]
            return soften(x, x @ basis.T @ basis, factor=self._factor)
        parallel = []
        for rows, own in zip(x.split(_BLOCK), queries.split(_BLOCK), strict=True):
            bases = self._bases(own)
            parallel.append(torch.einsum("nrd,nr->nd", bases, torch.einsum("nrd,nd->nr", bases, rows)))
        return soften(x, torch.cat(parallel), factor=self._factor)

    def _bases(self, queries: torch.Tensor) -> torch.Tensor:
        """(n, r, d) orthonormal rows, or 0 where a query's groups have fewer directions."""
        check_finite("group_queries", queries)
        p = unit(queries)
        basis, counted = row_basis(p[:, 1:] - p[:, :1] if self.span == "differences" else p)
        return basis * counted[..., None]
