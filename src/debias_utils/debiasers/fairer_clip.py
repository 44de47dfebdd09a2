"""FairerCLIP: random features of both towers, and the direction on which classes differ and groups do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh

from ..errors import check_whole
from ..tensors import is_number
from .base import Debiaser, take
from .spd import sample

_ENERGY = 0.95  # of the squared eigenvalues that the kept columns must hold, as the release
_FOR_WIDTH = 2000
_AT_ONCE = 8192
_PARTS = ("frequencies", "phases", "directions")
_ALL = 0.999999999  # from this tau on, the release keeps no column


class Features(NamedTuple):
    """A random map of rows (n, d) to (n, m) whose dot products approximate a Gaussian kernel: sqrt(2 / m) cos(x W^T + b)."""

    frequencies: np.ndarray  # W (m, d)
    phases: np.ndarray  # b (m,)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows x (n, d) to (n, m)."""
        return np.sqrt(2 / len(self.phases)) * np.cos(x @ self.frequencies.T + self.phases)

    @classmethod
    def draw(cls, x: np.ndarray, n_features: int, rng: np.random.Generator) -> Features:
        """W from N(0, 1 / `squared_width`), of at most 2,000 rows (ours), and b uniform on the circle."""
        some = x if len(x) <= _FOR_WIDTH else x[rng.choice(len(x), _FOR_WIDTH, replace=False)]
        scale = 1 / np.sqrt(squared_width(some))
        return cls(scale * rng.standard_normal((n_features, x.shape[1])), rng.uniform(0, 2 * np.pi, n_features))


class Side(NamedTuple):
    """A tower's settings: gamma (ridge), tau (how much the groups count, in [0, 1)), tau_z (the other tower, in [0, 1))."""

    gamma: float
    tau: float
    tau_z: float


class Encoder(NamedTuple):
    """A tower's encoder: z(x) = features(x) @ directions, (n, k)."""

    features: Features
    directions: np.ndarray  # (m, k), times sqrt(n)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows x (n, d) to (n, k)."""
        return self.features(x) @ self.directions


@dataclass(eq=False)
class FairerCLIP(Debiaser):
    """Both towers go into one or a few dimensions in which the task's classes differ and the groups do not.

    What it can stand in for: zero-shot classification into the queries it was fitted on, and ranking of pictures for them.
    What it cannot: CLIP. The result is padded with zeros to the old width, but holds k numbers (one for two classes, so that
    every cosine is 1 or -1 and a ranking is all ties); other texts (ImageNet's, Flickr's, an explicit query) and generation have
    no place in it, for the texts' encoder has seen as many texts as there are classes.

    Groups are made independent of the encodings over all rows (demographic parity). Where class and group go together in the rows
    that it is fitted on, that writes the group into each class the other way round; balanced rows do not.

    Groups may be true or predicted ones (the release takes CLIP's own zero-shot guess, and true ones in the test alone). The
    release fits on a balanced part of the rows, whose choice no source describes; here all rows count. Its Gaussian kernel
    without random features is `fair_directions` on the kernel's matrix.

    Args:
        n_features: how many random features; the published configurations: 1000 to 4000.
        gamma_image, gamma_text, tau_image, tau_text, tau_z_image, tau_z_text: see `Side`; the defaults are CelebA's, ViT-L/14.
        iterations: of the two towers' turns; CelebA: 1 with labels, 3 without.
        n_components: k; None: one less than there are queries (published: 1, for two). Columns past 95 % of the energy are 0.
        max_rows: the encoders are fitted on at most so many pictures, at least one of each group (ours).
        seed: of the random features and the rows.
    """

    n_features: int = 1000
    gamma_image: float = 3e-5
    gamma_text: float = 3e-4
    tau_image: float = 0.7
    tau_text: float = 0.1
    tau_z_image: float = 0.3
    tau_z_text: float = 0.1
    iterations: int = 1
    n_components: int | None = None
    max_rows: int = 10_000
    seed: int = 0

    NAME: ClassVar = "FairerCLIP"
    SOURCE: ClassVar = "Dehdashtian et al., ICLR 2024, with labels; release human-analysis/FairerCLIP"
    NEEDS: ClassVar[tuple[str, ...]] = ("images", "groups", "targets", "queries")
    TOWERS: ClassVar = ("text", "image")
    STATE: ClassVar = tuple(f"{tower}_{part}" for tower in ("image", "text") for part in _PARTS)

    def fit(self, **data: Any) -> FairerCLIP:
        """See `Debiaser.fit`. `targets` are rows of `queries`: whole numbers from 0; other labels are a ``ValueError``."""
        images, groups, targets, queries = take(data, needs=self.NEEDS, method=self.NAME)
        if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= len(queries):
            raise ValueError(
                f"targets must be rows of the {len(queries)} queries, whole numbers from 0, got {np.unique(targets)[:5]}"
            )
        return self._solve(images, groups, targets, queries, refresh=False)

    def _solve(self, images: np.ndarray, groups: np.ndarray, labels: np.ndarray, queries: np.ndarray, *, refresh: bool) -> Any:
        rng, width = np.random.default_rng(self.seed), images.shape[1]
        check_whole("n_features", self.n_features)
        limit = min(width, self.n_features)
        k = max(1, min(len(queries) - 1, limit)) if self.n_components is None else self.n_components
        rows = sample(groups, check_whole("max_rows", self.max_rows), rng)
        encoders = alternate(
            images[rows],
            queries,
            labels[rows],
            groups[rows],
            image=Side(self.gamma_image, self.tau_image, self.tau_z_image),
            text=Side(self.gamma_text, self.tau_text, self.tau_z_text),
            iterations=self.iterations,
            n_components=check_whole("n_components", k, at_most=limit, limit="the width or n_features: "),
            draw=lambda name, x: Features.draw(x, self.n_features, rng),
            refresh=refresh,
        )
        state: dict[str, np.ndarray] = {}
        for tower, encoder in zip(("image", "text"), encoders, strict=True):
            parts = (*encoder.features, encoder.directions)
            state |= {f"{tower}_{part}": x for part, x in zip(_PARTS, parts, strict=True)}
        return self._fitted(width, **state)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        w, b, u = (state[f"{tower}_{part}"] for part in _PARTS)
        scale = float(np.sqrt(2 / len(b)))
        encoded = torch.cat([scale * torch.cos(part @ w.T + b) @ u for part in x.split(_AT_ONCE)])  # (n, k)
        return torch.nn.functional.pad(encoded, (0, x.shape[1] - encoded.shape[1]))


@dataclass(eq=False)
class FairerCLIPUnlabelled(FairerCLIP):
    """`FairerCLIP` on CLIP's own guesses: of the class by the queries, of the group by the sets' texts, averaged by position.

    The classes are guessed anew by the encoders before each iteration but the first; the groups are not.
    """

    iterations: int = 3

    NAME: ClassVar = "FairerCLIP without labels"
    SOURCE: ClassVar = "Dehdashtian et al., ICLR 2024, without labels; release human-analysis/FairerCLIP"
    NEEDS: ClassVar = ("images", "queries", "sets")

    def fit(self, **data: Any) -> FairerCLIPUnlabelled:
        """See `Debiaser.fit`. A ``ValueError`` also for sets of several sizes, or if all guesses are the same."""
        images, queries, sets = take(data, needs=self.NEEDS, method=self.NAME)
        if len({len(one) for one in sets}) != 1:
            raise ValueError(f"sets must be of one size, a text for each group, got sizes {sorted({len(one) for one in sets})}")
        guesses = {"classes": closest(images, queries), "groups": closest(images, np.mean(sets, axis=0))}
        for name, guess in guesses.items():
            if len(np.unique(guess)) < 2:
                raise ValueError(f"the texts guess one of the {name} for all {len(images)} pictures: {guess[0]}")
        return self._solve(images, guesses["groups"], guesses["classes"], queries, refresh=True)


def squared_width(x: np.ndarray) -> float:
    """Half the median of the squared distances between the rows x (n, d) that are not 0.

    Raises:
        ValueError: all rows are the same.
    """
    length = np.square(x).sum(axis=1)
    squared = (length[:, None] + length - 2 * x @ x.T)[np.triu_indices(len(x), 1)]
    squared = squared[squared > 1e-12 * length.max()]  # what is smaller is 0 up to rounding
    if not len(squared):
        raise ValueError("all rows are the same: a Gaussian kernel has no width")
    return float(np.median(squared)) / 2


def fair_directions(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, other: np.ndarray | None, *, side: Side, n_components: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The leading generalised eigenvectors of Q u = lambda C u, of length 1, by a symmetric solver.

    Q = B_y / |B_y| + tau_z / (1 - tau_z) B_z / |B_z| - tau / (1 - tau) B_s / |B_s| with B_y = (R^T Y)(R^T Y)^T of the centred
    features R and targets Y, B_s of the groups, B_z of the other tower; C = R^T R + n gamma I. |.|: largest eigenvalue.

    Args:
        features: (n, m), from `Features` or a kernel's matrix (n, n). targets, groups: (n, k) and (n, l), such as one-hot.
        other: (n, o) features of the other tower's encodings; or None.
        side: gamma, tau and tau_z.
        n_components: how many columns, from 1 to m.

    Returns:
        (m, n_components) eigenvectors, the largest entry of each positive; the eigenvalues, largest first; and how many columns
        stay, the others are 0. As the release: all stay for tau = 0, none for tau >= 0.999999999, else the first that hold
        95 % of the squared positive eigenvalues.

    Raises:
        ValueError: tau or tau_z outside [0, 1], gamma not above 0, targets or groups that are the same in each row.
    """
    for name in ("tau", "tau_z"):
        if not (is_number(getattr(side, name)) and 0 <= getattr(side, name) <= 1):
            raise ValueError(f"{name} must lie in [0, 1], got {getattr(side, name)!r}")
    if not (is_number(side.gamma) and side.gamma > 0):
        raise ValueError(f"gamma must be a positive number, got {side.gamma!r}")
    check_whole("n_components", n_components, at_most=features.shape[1], limit="features: ")
    if side.tau >= _ALL:
        return np.zeros((features.shape[1], n_components)), np.zeros(n_components), 0
    centred = features - features.mean(axis=0)
    terms = [(1.0, targets, "targets"), (-side.tau / (1 - side.tau), groups, "groups")]
    if other is not None and side.tau_z > 0:
        terms.append((side.tau_z / (1 - side.tau_z), other, "other"))
    q = np.zeros((features.shape[1],) * 2)
    for weight, values, name in terms:
        factor = centred.T @ (values - values.mean(axis=0))  # (m, k)
        size = np.linalg.eigvalsh(factor.T @ factor)[-1]  # |B|
        if size <= 1e-24:
            raise ValueError(f"{name} do not vary with the features: they are the same in each row, or independent")
        q += weight / size * factor @ factor.T
    c = centred.T @ centred + len(features) * side.gamma * np.eye(len(q))
    values, vectors = eigh(q, c, subset_by_index=[len(q) - n_components, len(q) - 1])
    values, vectors = values[::-1], vectors[:, ::-1] / np.linalg.norm(vectors[:, ::-1], axis=0)
    vectors *= np.sign(vectors[abs(vectors).argmax(axis=0), np.arange(n_components)])  # a sign is arbitrary: always the same one
    kept = n_components
    if side.tau > 0:
        energy = np.cumsum(np.where(values > 0, values, 0) ** 2)
        kept = int((energy < _ENERGY * energy[-1]).sum()) + 1
    vectors[:, kept:] = 0
    return vectors, values, kept


def alternate(
    images: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    image: Side,
    text: Side,
    iterations: int,
    n_components: int,
    draw: Callable[[str, np.ndarray], Features],
    refresh: bool = False,
) -> tuple[Encoder, Encoder]:
    """Solve for the pictures' encoder, then for the texts' and the pictures' in turn, each given what the other one says.

    Args:
        images: (n, d). queries: (q, d) one text for each class. labels: (n,) rows of `queries`. groups: (n,) any labels.
        image, text: each tower's settings.
        iterations: how often both are solved for after the first time, at least 1.
        n_components: columns of the encoders.
        draw: gives the random features for "image", "text", "image other" and "text other", out of the rows (n, .) that they are
            for; asked once for each, as the release draws them once.
        refresh: take the labels anew before each iteration but the first, from the encodings' cosines to the classes' encodings.
            Where all pictures would get one label, the ones before stay (ours).

    Returns:
        (pictures' encoder, texts' encoder). The sign is such that most encodings agree with the other tower's; with more than
        one column (which nobody published) the best rotation onto the other tower's is taken instead (ours).
    """
    check_whole("iterations", iterations)
    maps: dict[str, Features] = {}

    def mapped(name: str, x: np.ndarray) -> np.ndarray:
        if name not in maps:
            maps[name] = draw(name, x)
        return maps[name](x)

    def solve(name: str, features: np.ndarray, other: np.ndarray | None, side: Side) -> np.ndarray:
        seen = None if other is None else mapped(f"{name} other", other)
        found, _, kept = fair_directions(features, one_hot(labels), one_hot(groups), seen, side=side, n_components=n_components)
        if kept == 0:
            raise ValueError(f"no direction is kept at tau {side.tau}: choose a smaller tau for the {name} tower")
        found = np.sqrt(len(features)) * found
        return found if other is None else found @ agreement(features @ found, other)

    seen = mapped("image", images)
    by_image, by_text = solve("image", seen, None, image), np.empty(0)
    for i in range(iterations):
        encoded = seen @ by_image
        if refresh and i:
            anew = closest(encoded, maps["text"](queries) @ by_text)
            labels = anew if len(np.unique(anew)) > 1 else labels
        shown = mapped("text", queries[labels])
        by_text = solve("text", shown, encoded, text)
        by_image = solve("image", seen, shown @ by_text, image)
    return Encoder(maps["image"], by_image), Encoder(maps["text"], by_text)


def agreement(encoded: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(k, k) that turns one tower's encodings (n, k) to the other's: a sign for one column, by majority; else a rotation."""
    if encoded.shape[1] == 1:
        return np.array([[-1.0 if (encoded * other < 0).mean() > 0.5 else 1.0]])
    left, _, right = np.linalg.svd(encoded.T @ other)
    rotation: np.ndarray = left @ right
    return rotation


def closest(x: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The row of `texts` (q, d) of largest cosine for each row of x (n, d); rows of zeros have the cosine 0."""
    found: np.ndarray = (x @ (texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-12)).T).argmax(axis=1)
    return found


def one_hot(labels: np.ndarray) -> np.ndarray:
    """(n, c) of 0 and 1, by sorted class."""
    return (labels[:, None] == np.unique(labels)).astype(float)
