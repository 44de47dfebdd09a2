"""The rows behind the book's tables on editing: every method, every occupation, the same people.

Each row is one edited picture. The rows of one CLIP are computed once, by ``python -m debias_utils.evaluate``, and read from
the cache afterwards; what decides them (settings, weights, code) is part of the file's name, so that no stale row is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .. import assets
from ..errors import check_choice
from .judge import judge
from .study import ALPHA, BETAS, CHANNELS, PROTECTED, STEPS, StyleClipStudy, likeness

if TYPE_CHECKING:
    from ..profiles import Profile
    from .instruct_study import InstructStudy

BEFORE, TEXT, GRADIENT, GRADIENT_TEXT = "Before", "Text-based", "Gradient-based", "Gradient-based, from text"
ORTHOGONAL, ORACLE = "Orthogonal", "Oracle"
METHODS = (BEFORE, TEXT, GRADIENT, GRADIENT_TEXT, ORTHOGONAL, ORACLE)
REMOVED = {  # after Fig. 7 of the paper: what is taken out of the text
    f"{TEXT}: gender": ("gender",),
    f"{TEXT}: skin": ("skin",),
    f"{TEXT}: gender, skin and age": ("gender", "skin", "age"),
}
RHOS = (0.9, 0.0)  # the biased CLIP, and the control
PEOPLE = 40
ALPHAS = (1.0, 2.0, ALPHA, 6.0)  # of the curves over the strength
CURVE_PEOPLE, VARIANT_PEOPLE = 8, 3  # whom the gradient-based method edits at other strengths, and in its variants
ORTHOGONAL_CHANNELS = 96  # a few channels cannot be orthogonal to nearly as many protected directions and still be the edit
VARIANTS: dict[str, dict[str, Any]] = {  # of the gradient-based method: after Fig. 8 of the paper, and what it leaves open
    "CLIP alone": {"betas": {"clip": BETAS["clip"]}},
    "CLIP + identity": {"betas": {**BETAS, "perceptual": 0.0}},
    "CLIP + perceptual": {"betas": {**BETAS, "identity": 0.0}},
    **{
        f"{name} x {factor:g}": {"betas": {**BETAS, name: factor * BETAS[name]}}
        for name in ("identity", "perceptual")
        for factor in (0.3, 3.0)
    },
    **{f"rate {lr:g}": {"lr": lr} for lr in (0.03, 0.3)},
    **{f"{steps} steps": {"steps": steps} for steps in (5, 60)},
}
SETTINGS = {
    "alpha": ALPHA, "alphas": ALPHAS, "betas": BETAS, "channels": CHANNELS, "curve_people": CURVE_PEOPLE, "people": PEOPLE,
    "orthogonal_channels": ORTHOGONAL_CHANNELS, "protected": PROTECTED, "removed": REMOVED, "steps": STEPS,
    "variants": VARIANTS, "variant_people": VARIANT_PEOPLE,
}  # fmt: skip


def rows(parts: Profile, *, rho: float = 0.9, training_seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """All edits with one CLIP: computed and kept if no run has done so before, which takes minutes.

    Args:
        parts: the profile. rho, training_seed: which CLIP guides the edits. progress: show bars.

    Returns:
        A row for each edited picture: all columns of `judge.judge`, and rho, training, method and alpha. Methods
        are `METHODS`, `REMOVED` and, for some people of the first training, "Gradient-based: " with each of `VARIANTS`. With
        rho = 0, which has no bias to take out, only "Before" and the oracle.

    Raises:
        OSError: the cache folder cannot be written.
    """
    path = path_of(parts, f"edits-rho{rho:g}-training{training_seed}", SETTINGS)
    return assets.cached_table(path, lambda: compute(parts, rho=rho, training_seed=training_seed, progress=progress))


def path_of(parts: Profile, name: str, settings: dict[str, Any]) -> Path:
    """Where a table is kept: the file's name holds a hash of the settings, the seed, the weights and the code."""
    decided = [parts.name, parts.seed, name, settings, torch.__version__, assets.manifest()]
    digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode())
    package = Path(__file__).parents[1]
    for source in sorted(package.rglob("*.py")):
        if source.relative_to(package).parts[0] not in ("show", "discover"):  # they change no row
            digest.update(source.read_bytes())
    return assets.cache_dir() / "tables" / f"{parts.name}-{name}-{digest.hexdigest()[:16]}.parquet"


def compute(parts: Profile, *, rho: float, training_seed: int, people: int = PEOPLE, progress: bool = True) -> pd.DataFrame:
    """The rows of one CLIP, computed now; see `rows`."""
    from tqdm import tqdm

    study = StyleClipStudy(parts, rho=rho, training_seed=training_seed, people=people)
    blocks = [oracle(study, seed=training_seed).assign(method=ORACLE, alpha=np.nan)]
    edits = edited(study, progress=progress)
    for method, alpha, styles in tqdm(edits, desc=f"edits, rho {rho:g}, training {training_seed}", disable=not progress):
        blocks.append(study.judge(styles, more=True).assign(method=method, alpha=alpha))
    return pd.concat(blocks, ignore_index=True).assign(rho=rho, training=training_seed)


def edited(study: StyleClipStudy, *, progress: bool = True) -> Iterator[tuple[str, float, torch.Tensor]]:
    """(method, strength, styles (14, people, S)) of every condition of the table."""
    if study.rho == 0:
        for alpha in ALPHAS:
            yield BEFORE, alpha, study.edit(study.deltas, alpha=alpha)
        return
    subspace, first = study.subspace(*PROTECTED), study.training_seed == study.parts.training_seeds[0]
    debiased, texts = study.debiased(subspace), {GRADIENT: study.texts, GRADIENT_TEXT: study.debiased_texts(subspace)}
    more = study.directions(study.relevance(study.deltas), channels=ORTHOGONAL_CHANNELS)
    orthogonal = study.orthogonal(more, subspace)
    for alpha in ALPHAS:
        starts = {GRADIENT: study.edit(study.deltas, alpha=alpha), GRADIENT_TEXT: study.edit(debiased, alpha=alpha)}
        yield BEFORE, alpha, starts[GRADIENT]
        yield TEXT, alpha, starts[GRADIENT_TEXT]
        yield ORTHOGONAL, alpha, study.apply(orthogonal, alpha=alpha)
        people = len(study.people) if alpha == ALPHA else CURVE_PEOPLE if first else 0
        for method, start in starts.items() if people else ():
            yield method, alpha, _debias(study, start[:, :people], texts[method], progress=progress)
    for name, attributes in REMOVED.items():
        yield name, ALPHA, study.edit(study.debiased(study.subspace(*attributes)))
    few = study.edit(study.deltas)[:, :VARIANT_PEOPLE]
    for name, options in VARIANTS.items() if first else ():
        yield f"{GRADIENT}: {name}", ALPHA, _debias(study, few, study.texts, progress=progress, **options)


def _debias(study: StyleClipStudy, start: torch.Tensor, texts: torch.Tensor, **options: Any) -> torch.Tensor:
    return study.gradient_based(start, texts, **options).latent.unflatten(0, start.shape[:2])


def oracle(study: StyleClipStudy | InstructStudy, *, seed: int = 0) -> pd.DataFrame:
    """The rows of a perfect editor: everyone drawn in the clothes of each occupation."""
    parts = study.parts
    after = torch.stack([parts.dressed(study.people, job, seed=seed) for job in study.jobs])
    also = likeness(parts, study.clip)
    return judge(parts.portraits(study.people), after, study.jobs, attributes=parts.attributes, **also)


def summary(table: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """Means over the occupations of each person: (method, training, person) -> measures, the unit of all intervals."""
    for measure in measures:
        check_choice("measure", measure, table.columns)
    return table.groupby(["method", "training", "person"], sort=False)[measures].mean()
