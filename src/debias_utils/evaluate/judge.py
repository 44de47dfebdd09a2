"""One tidy row for every edited picture: what moved, who flipped, and whether the occupation can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..arrays import array, booleans, labels
from ..errors import check_choice, check_probabilities
from ..metrics import attribute_shift
from ..toonville.occupations import OCCUPATIONS
from ..toonville.people import GENDERS

if TYPE_CHECKING:
    from ..models.attributes import AttributeClassifier
    from ..models.clip import Clip

ATTRIBUTES = ("gender", "skin", "age")
Judge = Callable[[torch.Tensor], dict[str, torch.Tensor]]


@torch.no_grad()
def read(judge: Judge, images: torch.Tensor, *, batch_size: int = 256) -> dict[str, np.ndarray]:
    """What a judge makes of pictures: (n, 3, h, w) in [0, 1] -> {attribute: (n, classes) probabilities}."""
    parts = [judge(part) for part in images.split(batch_size)]
    return {name: array(torch.cat([part[name] for part in parts])) for name in parts[0]}


@torch.no_grad()
def judge(
    originals: torch.Tensor,
    edited: torch.Tensor,
    occupations: Sequence[str],
    *,
    attributes: AttributeClassifier,
    identity: Callable[[torch.Tensor], torch.Tensor] | None = None,
    perceptual: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    clip: Clip | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Compare edited pictures with the originals (Tanjim et al. 2024, section 4).

    Args:
        originals: (n, 3, h, w) pictures in [0, 1]. For a generator its own drawings of the people, before the edit: the
            error of the inversion is then no shift.
        edited: (k, n, 3, h, w) the same people, edited for each of k occupations.
        occupations: (k,) names, out of the classes of `attributes`.
        attributes: the judge.
        identity: pictures -> (n, d) embeddings of length 1. perceptual: two times pictures -> (n,) distances. clip: whose texts
            and pictures are compared. Each adds its column; all three are losses of gradient-based debiasing.
        batch_size: pictures at a time.

    Returns:
        k * n rows, occupations outermost: occupation, person (row of the originals); for gender, skin and age the labels
        `gender_before`, `gender_after`, whether they differ, `gender_flip`, and the printed RMSE `gender_shift`, in
        [0, sqrt(2)]; `occupation_score`, the judge's probability of the occupation that was asked for, in [0, 1]; `identity`,
        the cosine to the original in [-1, 1]; `perceptual`, the distance to it, at least 0; `clip_score`, the cosine of picture
        and occupation in [-1, 1].

    Raises:
        ValueError: shapes that do not fit, an unknown occupation, a judge whose answers are no probabilities (NaN, logits).
    """
    if edited.ndim != 5 or edited.shape[1:] != originals.shape or len(edited) != len(occupations):
        raise ValueError(
            f"need originals (n, 3, h, w), edited (k, n, 3, h, w) and k occupations, got {tuple(originals.shape)}, "
            f"{tuple(edited.shape)} and {len(occupations)}"
        )
    for name in occupations:
        check_choice("occupation", name, attributes.classes["occupation"])
    k, n = edited.shape[:2]
    before, after = (read(attributes, x, batch_size=batch_size) for x in (originals, edited.flatten(0, 1)))
    for name in (*ATTRIBUTES, "occupation"):
        for answers in (before, after):
            check_probabilities(f"the judge's answers about {name}", answers[name])
    columns: dict[str, Any] = {
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
    rows = torch.arange(k * n).split(batch_size)
    batches = [(originals[i % n], edited.flatten(0, 1)[i]) for i in rows]
    if identity is not None:
        same = torch.cat([identity(part) for part in originals.split(batch_size)])  # (n, d)
        cosines = [(same[i % n] * identity(images)).sum(dim=1) for i, (_, images) in zip(rows, batches, strict=True)]
        columns["identity"] = torch.cat(cosines).cpu().numpy()
    if perceptual is not None:
        columns["perceptual"] = torch.cat([perceptual(original, after) for original, after in batches]).cpu().numpy()
    if clip is not None:
        texts = clip.encode_prompts(list(occupations)).repeat_interleave(n, dim=0).split(batch_size)  # (k * n, d)
        scores = [(clip.encode_image(images) * text).sum(dim=1) for (_, images), text in zip(batches, texts, strict=True)]
        columns["clip_score"] = torch.cat(scores).cpu().numpy()
    return pd.DataFrame(columns)


def flips(rows: pd.DataFrame) -> tuple[float, float]:
    """Shares of gender flips in the rows of `judge`.

    Returns:
        (towards, away): towards the occupation's coding among those who do not fit it, away from it among those who do; NaN
        where there are none.

    Raises:
        ValueError: something missing, an occupation without coding, an unknown gender.
    """
    jobs, job = labels("occupation", rows["occupation"])
    genders, before = labels("gender_before", rows["gender_before"])
    for name in jobs:
        check_choice("occupation", name, OCCUPATIONS)
    for name in genders:
        check_choice("gender", name, GENDERS)
    flip = booleans("gender_flip", rows["gender_flip"])
    coded = np.array([OCCUPATIONS[name].gender for name in jobs], dtype=object)[job]
    fits = np.array(genders, dtype=object)[before] == coded
    towards, away = (float(flip[part].mean()) if part.any() else float("nan") for part in (~fits, fits))
    return towards, away
