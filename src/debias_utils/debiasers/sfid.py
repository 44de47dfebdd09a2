"""SFID: overwrite the coordinates that tell the attribute with their mean over pictures that a forest is unsure of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from ..errors import check_choice, check_unit_interval, check_whole
from ..tensors import is_number
from .base import Debiaser, take

UNSURE = ("threshold", "share")


@dataclass(eq=False)
class SFID(Debiaser):
    """A random forest tells the attribute; its most important coordinates are set to what rows that it is unsure of have.

    What is removed is coordinates: in a rotated space, others go, and what is spread over all coordinates stays. Each tower has
    its own forest; without `texts`, texts stay. Both are fitted on unit rows. The release fits the texts' on rows that are not
    (nine times as long, for CLIP) and writes those values into unit rows: in a plain cosine ranking, all texts then find much
    the same pictures, `impute` on raw rows shows it. It ranks by a softmax over texts, in which the texts' values cancel.
    The release's generation fills in means of a group that it draws by chance for each text, which builds the balance in: that
    is not offered here.

    Args:
        n_coordinates: how many coordinates to overwrite; or a share of all in (0, 1). The paper: 50 of 512, advising 50 to 100.
        threshold: rows whose largest class probability is below it count as unsure; the paper: 0.7, captioning 0.9.
        at_least: where fewer than this share of the rows are unsure, the least sure ones up to this share count (ours; the
            release gives NaN). 0 raises a ``ValueError`` if there are none.
        validation: share of the rows that the forest is not fitted on and whose probabilities count (the release has
            FairFace's own halves).
        n_trees: how many trees.
        rows_per_tree: each tree draws at most so many rows (our choice; the release draws as many as there are).
        seed: of the split and the forest.
    """

    n_coordinates: int | float = 50 / 512
    threshold: float = 0.7
    at_least: float = 0.01
    validation: float = 0.2
    n_trees: int = 100
    rows_per_tree: int = 5000
    seed: int = 0

    NAME: ClassVar = "SFID"
    SOURCE: ClassVar = "Jung et al., NeurIPS 2024 (arXiv 2410.07593), section 4; release HoinJung/Unified-Debiaisng-VLM-SFID"
    NEEDS: ClassVar = ("images", "groups")
    OPTIONAL: ClassVar = ("texts", "text_groups")
    TOWERS: ClassVar = ("text", "image")
    STATE: ClassVar = ("image_coordinates", "image_values", "text_coordinates", "text_values")

    def fit(self, **data: Any) -> SFID:
        """See `Debiaser.fit`. A ``ValueError`` also for a class with fewer than 2 rows."""
        state = {"text_coordinates": np.empty(0, dtype=np.int64), "text_values": np.empty(0)}
        width = 0
        for tower, rows, labels in towers(data, method=self.NAME):
            width = rows.shape[1]
            forest, held_out = fit_forest(rows, labels, self.validation, self.n_trees, self.rows_per_tree, self.seed)
            chosen = important_coordinates(forest.feature_importances_, count(self.n_coordinates, width))
            sure = forest.predict_proba(rows[held_out])
            low = rows[held_out][unsure(sure, threshold=self.threshold, at_least=self.at_least)]
            state |= {f"{tower}_coordinates": chosen, f"{tower}_values": low.mean(axis=0)[chosen]}
        return self._fitted(width, **state)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        values = state[f"{tower}_values"].expand(len(x), -1)
        return x.index_copy(1, state[f"{tower}_coordinates"], values)


def towers(data: dict[str, Any], *, method: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(tower, unit rows (n, d), labels (n,)) of the pictures and, if they are given, of the texts.

    Raises:
        ValueError: see `base.take`; texts without their groups, or the other way round.
    """
    names = ["images", "groups"]
    if data.get("texts") is not None or data.get("text_groups") is not None:
        names += ["texts", "text_groups"]
    found = take(data, needs=tuple(names), method=method)
    yield "image", found[0], found[1]
    if len(found) == 4:
        yield "text", found[2], found[3]


def fit_forest(
    rows: np.ndarray, labels: np.ndarray, validation: float, n_trees: int, rows_per_tree: int, seed: int
) -> tuple[RandomForestClassifier, np.ndarray]:
    """A forest fitted on a part of the rows, stratified by class, and the numbers of the others.

    Raises:
        ValueError: a class with fewer than 2 rows, or a validation share that leaves a class out of either part.
    """
    check_whole("rows_per_tree", rows_per_tree)
    classes, members = np.unique(labels, return_counts=True)
    if members.min() < 2:
        rare = classes[members.argmin()].item()
        raise ValueError(f"a forest needs at least 2 rows of each class, to fit on and to check on; {rare!r} has 1")
    if not (is_number(validation) and len(classes) <= round(validation * len(rows)) <= len(rows) - len(classes)):
        raise ValueError(
            f"validation must be a share of the {len(rows)} rows that leaves each class in both parts, got {validation!r}"
        )
    fitted, held_out = train_test_split(np.arange(len(rows)), test_size=validation, stratify=labels, random_state=seed)
    per_tree = rows_per_tree if rows_per_tree < len(fitted) else None
    forest = RandomForestClassifier(check_whole("n_trees", n_trees), max_samples=per_tree, random_state=seed)
    return forest.fit(rows[fitted].astype(np.float32), labels[fitted]), np.sort(held_out)


def count(n_coordinates: int | float, width: int) -> int:
    """How many of `width` coordinates a number or a share in (0, 1) means, at least 1."""
    if is_number(n_coordinates) and 0 < n_coordinates < 1:
        return max(1, round(n_coordinates * width))
    return check_whole("n_coordinates", n_coordinates, at_most=width, limit="d = ")


def important_coordinates(importances: Any, n: int) -> np.ndarray:
    """The n coordinates of largest importance, (n,), the most important last."""
    found: np.ndarray = np.argsort(np.asarray(importances))[-n:]
    return found


def unsure(probabilities: Any, *, threshold: float, rule: str = "threshold", at_least: float = 0.0) -> np.ndarray:
    """Which rows a classifier is unsure of, (n,) of bool.

    Args:
        probabilities: (n, c) of the classes.
        threshold: in [0, 1], see `rule`.
        rule: "threshold": the largest probability is below `threshold`; "share": the least sure rows, this share of all.
        at_least: if these are fewer than this share of all rows, the least sure ones up to this share.

    Raises:
        ValueError: no row is unsure, which is certain for two classes and a threshold of up to 0.5, as in the release's README.
    """
    check_choice("rule", rule, UNSURE)
    check_unit_interval("threshold", threshold)
    check_unit_interval("at_least", at_least)
    sure = np.asarray(probabilities).max(axis=1)
    rank = np.argsort(np.argsort(sure, kind="stable"))
    mask = sure < threshold if rule == "threshold" else rank < round(threshold * len(sure))
    mask = mask | (rank < np.ceil(at_least * len(sure)))
    if not mask.any():
        raise ValueError(
            f"no row is unsure at threshold {threshold}: the least sure has a largest probability of {sure.min():.3g}"
        )
    return np.asarray(mask)


def impute(x: Any, coordinates: Any, values: Any) -> np.ndarray:
    """The rows x, (n, d), with some coordinates, (m,), overwritten by the same values, (m,), in each row; not normalised."""
    result = np.array(x)
    result[:, coordinates] = values
    return result
