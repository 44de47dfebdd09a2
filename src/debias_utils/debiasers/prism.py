"""PRISM: a linear map learned from texts alone that pulls one class's groups together; PRISM-mini: a projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from ..debias.subspace import BiasSubspace
from ..errors import check_choice, check_whole
from ..tensors import is_number
from .base import Debiaser, take

STARTS = ("random", "identity")
REGULARISERS = ("none", "l2", "l1", "cos", "gram", "orth", "gramorth")


@dataclass(eq=False)
class PRISMMini(Debiaser):
    """Pictures lose all that the attribute's bare words span, what the words share included: x - B^T B x.

    The words are not centred, so "man" and "woman" take "person" along; `PCASubspace` takes their difference alone. As in the
    release, texts stay: that ranks pictures as projecting both would, and leaves the classes' prior of plain cosines alone.

    Args:
        n_sets: how many of the sets, from the first; the release has one pair, "Man" and "Woman". Sets that name other things
            (occupations) take these out too.
        tolerance: words closer to dependent than this (singular value relative to the largest) count once.
    """

    n_sets: int = 1
    tolerance: float = 1e-3

    NAME: ClassVar = "PRISM-mini"
    SOURCE: ClassVar = "Molahasani et al., ICCV 2025 (arXiv 2507.08979), orthogonal projection"
    NEEDS: ClassVar = ("sets",)
    TOWERS: ClassVar = ("image",)
    STATE: ClassVar = ("basis",)

    def fit(self, **data: Any) -> PRISMMini:
        """See `Debiaser.fit`. The rank is `len(basis_)`."""
        basis = BiasSubspace.span(word_rows(data, self.n_sets, method=self.NAME), tolerance=self.tolerance).basis
        return self._fitted(basis.shape[1], basis=basis)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return x - x @ state["basis"].T @ state["basis"]


@dataclass(eq=False)
class PRISM(Debiaser):
    """Both towers go through one learned W (d, d), fitted on texts: same class, other group close; other class, same group apart.

    The result compares with nothing but itself: W starts at random, so neither plain embeddings nor ImageNet's or Flickr's texts
    fit it, and the classes in the texts are the ones that it was made for. `start="identity"` stays near to CLIP's space (ours).
    The paper's negatives share the group; the release's for Waterbirds name none. Ours are the paper's, out of the grid of
    `group_queries`. The release does not normalise texts after W, which lets their lengths decide some predictions; we do.

    Args:
        learning_rate: of Adam; the release: 0.1 for Waterbirds, 0.01 for CelebA.
        n_samples: how many (negative pair, positive pair); the release: 500 and 100, one pass.
        batch_size: the release: 3.
        epochs: passes over the samples; the release: 1.
        margin: how close negatives may be, as a cosine.
        regulariser: one of `REGULARISERS`; the release has them and uses "none".
        strength: the regulariser's factor.
        start: W before training, "random" (uniform in +-1 / sqrt(d), as the release) or "identity".
        seed: of the start and the samples.
    """

    learning_rate: float = 0.01
    n_samples: int = 500
    batch_size: int = 3
    epochs: int = 1
    margin: float = 0.5
    regulariser: str = "none"
    strength: float = 1e-3
    start: str = "random"
    seed: int = 0

    NAME: ClassVar = "PRISM"
    SOURCE: ClassVar = "Molahasani et al., ICCV 2025 (arXiv 2507.08979), latent debiasing loss"
    NEEDS: ClassVar = ("group_queries",)
    TOWERS: ClassVar = ("text", "image")
    TRAINED: ClassVar = True
    STATE: ClassVar = ("weight",)

    def fit(self, **data: Any) -> PRISM:
        """See `Debiaser.fit`. A ``ValueError`` also for fewer than 2 queries or groups, which leave no negatives or positives."""
        (grid,) = take(data, needs=self.NEEDS, method=self.NAME)
        check_choice("start", self.start, STARTS)
        rng, width = np.random.default_rng(self.seed), grid.shape[2]
        weight = np.eye(width) if self.start == "identity" else rng.uniform(-1, 1, (width, width)) / np.sqrt(width)
        samples = draw_samples(grid, check_whole("n_samples", self.n_samples), rng)
        batches = np.split(samples, np.arange(check_whole("batch_size", self.batch_size), len(samples), self.batch_size))
        trained = train(
            weight,
            batches * check_whole("epochs", self.epochs),
            learning_rate=self.learning_rate,
            margin=self.margin,
            regulariser=self.regulariser,
            strength=self.strength,
        )
        return self._fitted(width, weight=trained)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return x @ state["weight"].T


def word_rows(data: dict[str, Any], n_sets: int, *, method: str) -> np.ndarray:
    """The texts of the first `n_sets` sets, (m, d), unit rows."""
    (sets,) = take(data, needs=("sets",), method=method)
    if not sets:
        raise ValueError(f"{method} needs at least one set of texts that differ in the attribute alone, got none")
    return np.concatenate(sets[: check_whole("n_sets", n_sets)])


def draw_samples(grid: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 4, d): two texts of other classes and one group, then two of one class and other groups, out of a grid (q, a, d).

    Raises:
        ValueError: fewer than two classes or groups.
    """
    classes, groups = grid.shape[:2]
    if classes < 2 or groups < 2:
        raise ValueError(f"PRISM needs at least 2 queries in the wording of at least 2 groups, got {classes} and {groups}")
    one, group = rng.integers(classes, size=n), rng.integers(groups, size=n)
    other = (one + rng.integers(1, classes, size=n)) % classes
    another = (group + rng.integers(1, groups, size=n)) % groups
    return np.stack([grid[one, group], grid[other, group], grid[one, group], grid[one, another]], axis=1)


def contrastive_loss(weight: torch.Tensor, samples: torch.Tensor, *, margin: float = 0.5) -> torch.Tensor:
    """mean(1 - cos(positives)) + mean(max(cos(negatives) - margin, 0)) of W's outputs; a scalar, differentiable.

    Args:
        weight: (d, d), rows @ weight^T. samples: (n, 4, d), negative, negative, positive, positive. margin: a cosine.
    """
    rows = F.normalize(F.normalize(samples, dim=-1) @ weight.T, dim=-1)
    negative, positive = ((rows[:, i] * rows[:, i + 1]).sum(dim=-1) for i in (0, 2))
    return (1 - positive).mean() + (negative - margin).clamp(min=0).mean()


def regularisation(weight: torch.Tensor, samples: torch.Tensor, kind: str) -> torch.Tensor:
    """One of the release's regularisers, without its factor; a scalar, differentiable.

    "l2", "l1" and "cos" hold each of the two negatives to what it was (mean square, mean absolute change, 1 - cosine, summed over
    the two), "gram" all their dot products with each other (mean square), "orth" W^T W to the identity (mean square), "gramorth"
    is the sum of the last two, "none" 0.

    Args:
        weight: (d, d), rows @ weight^T. samples: (n, 4, d), of which the first two count.
    """
    check_choice("regulariser", kind, REGULARISERS)
    before = F.normalize(samples[:, :2], dim=-1).transpose(0, 1)  # (2, n, d)
    after = before @ weight.T
    if kind == "l2":
        return 2 * (after - before).square().mean()
    if kind == "l1":
        return 2 * (after - before).abs().mean()
    if kind == "cos":
        return 2 * (1 - F.cosine_similarity(after, before, dim=-1)).mean()
    loss = torch.zeros((), dtype=weight.dtype)
    if kind.startswith("gram"):
        old, new = before.flatten(0, 1), after.flatten(0, 1)
        loss = loss + (new @ new.T - old @ old.T).square().mean()
    if kind.endswith("orth"):
        loss = loss + (weight.T @ weight - torch.eye(len(weight), dtype=weight.dtype)).square().mean()
    return loss


def train(
    weight: Any,
    batches: list[np.ndarray],
    *,
    learning_rate: float,
    margin: float = 0.5,
    regulariser: str = "none",
    strength: float = 1e-3,
) -> np.ndarray:
    """W (d, d) after one step of Adam for each batch (n, 4, d), in order; in weight's precision.

    Raises:
        ValueError: a rate, margin or strength that is no number, an unknown regulariser.
    """
    for name, value in (("learning_rate", learning_rate), ("margin", margin), ("strength", strength)):
        if not is_number(value) or (name == "learning_rate" and value <= 0):
            raise ValueError(f"{name} must be a {'positive ' if name == 'learning_rate' else ''}number, got {value!r}")
    check_choice("regulariser", regulariser, REGULARISERS)
    w = torch.tensor(np.asarray(weight), requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=learning_rate)
    for batch in batches:
        samples = torch.as_tensor(batch).to(w.dtype)
        loss = contrastive_loss(w, samples, margin=margin) + strength * regularisation(w, samples, regulariser)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    result: np.ndarray = w.detach().numpy()
    return result
