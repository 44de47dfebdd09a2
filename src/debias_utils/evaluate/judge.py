"""One tidy row for every edited picture: what moved, who flipped, and whether the occupation can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..errors import check_choice
from ..metrics import attribute_shift

if TYPE_CHECKING:
    from ..models.attributes import AttributeClassifier

ATTRIBUTES = ("gender", "skin", "age")


@torch.no_grad()
def judge(
    originals: torch.Tensor,
    edited: torch.Tensor,
    occupations: Sequence[str],
    *,
    attributes: AttributeClassifier,
    identity: Callable[[torch.Tensor], torch.Tensor] | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Compare edited pictures with the originals (Tanjim et al. 2024, section 4).

    Args:
        originals: (n, 3, h, w) pictures in [0, 1]. For a generator its own drawings of the people, before the edit: the
            error of the inversion is then no shift.
        edited: (k, n, 3, h, w) the same people, edited for each of k occupations.
        occupations: (k,) names, out of the classes of `attributes`.
        attributes: the judge. identity: pictures -> (n, d) embeddings of length 1; adds the column of that name.
        batch_size: pictures at a time.

    Returns:
        k * n rows, occupations outermost: occupation, person (row of the originals); for gender, skin and age the labels
        `gender_before`, `gender_after`, whether they differ, `gender_flip`, and the printed RMSE `gender_shift`, in
        [0, sqrt(2)]; `occupation_score`, the judge's probability of the occupation that was asked for, in [0, 1]; identity,
        the cosine in [-1, 1].

    Raises:
        ValueError: shapes that do not fit, an unknown occupation.
    """
    if edited.ndim != 5 or edited.shape[1:] != originals.shape or len(edited) != len(occupations):
        raise ValueError(
            f"need originals (n, 3, h, w), edited (k, n, 3, h, w) and k occupations, got {tuple(originals.shape)}, "
            f"{tuple(edited.shape)} and {len(occupations)}"
        )
    for name in occupations:
        check_choice("occupation", name, attributes.classes["occupation"])
    k, n = edited.shape[:2]
    before, after = (_probabilities(x, attributes, batch_size) for x in (originals, edited.flatten(0, 1)))
    columns: dict[str, object] = {
        "occupation": np.repeat(np.asarray(occupations, dtype=object), n),
        "person": np.tile(np.arange(n), k),
    }
    for name in ATTRIBUTES:
        labels = np.asarray(attributes.classes[name], dtype=object)
        columns[f"{name}_before"] = was = np.tile(labels[before[name].argmax(axis=1)], k)
        columns[f"{name}_after"] = now = labels[after[name].argmax(axis=1)]
        columns[f"{name}_flip"] = was != now
        columns[f"{name}_shift"] = np.asarray(attribute_shift(np.tile(before[name], (k, 1)), after[name]))
    asked = np.repeat([attributes.classes["occupation"].index(name) for name in occupations], n)
    columns["occupation_score"] = after["occupation"][np.arange(k * n), asked]
    if identity is not None:
        embedded = [torch.cat([identity(part) for part in x.split(batch_size)]) for x in (originals, edited.flatten(0, 1))]
        columns["identity"] = (embedded[0].repeat(k, 1) * embedded[1]).sum(dim=1).cpu().numpy()
    return pd.DataFrame(columns)


def _probabilities(images: torch.Tensor, attributes: AttributeClassifier, batch_size: int) -> dict[str, np.ndarray]:
    """{attribute: (n, classes)} of the judge."""
    parts = [attributes(part) for part in images.split(batch_size)]
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in attributes.classes}
