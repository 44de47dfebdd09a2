"""The rows of one cell of the grid: people edited by one method for some occupations, and judged. Cells share nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from .. import assets
from ..edit.styleclip import text_delta
from ..errors import check_choice
from ..profiles import load_profile
from .instruct_study import InstructStudy
from .judge import ATTRIBUTES, judge
from .names import GRADIENT, GRADIENT_TEXT, ORACLE, ORTHOGONAL, STYLECLIP, TEXT
from .provenance import check_same, code_hash, libraries, machine
from .study import REGRESSION, StyleClipStudy, likeness

NUMBERS = (*(f"{a}_shift" for a in ATTRIBUTES), "occupation_score", "identity", "perceptual", "clip_score")  # all finite

Edited = Iterator[tuple[float, torch.Tensor]]


def compute(
    cell: Mapping[str, Any], *, profile: str, base_seed: int, device: str, code: str | None = None, weights: str | None = None
) -> pd.DataFrame:
    """The rows of a cell.

    Args:
        cell: see `grid.cells`; with "who", a list of some of its people's numbers, for these alone. profile, base_seed,
            device: as `load_profile` takes them. code, weights: what the caller has; None asks for nothing.

    Returns:
        The columns of `judge.judge`, and editor, rho, seed, method, variant, strength (NaN for the oracle), options (all
        settings, as JSON), profile, base_seed, and what computed the row: device, machine, threads, libraries (JSON), code and
        weights (hashes).

    Raises:
        RuntimeError: other code or weights here than the caller has.
    """
    check_same(code=code, weights=weights)
    editor, jobs, strengths = cell["editor"], cell["occupations"], cell["strengths"]
    who = list(cell.get("who", range(cell["people"])))
    whole = _study(profile, base_seed, device, editor, cell["rho"], cell["seed"], cell["of"])
    study, m = whole.only(who), len(who)
    parts = study.parts
    options = {"attributes": parts.attributes, **likeness(parts, study.clip)}
    named = {
        **{name: cell[name] for name in ("editor", "rho", "seed", "method", "variant")},
        "options": json.dumps(cell["options"], sort_keys=True),
        "profile": profile,
        "base_seed": base_seed,
        "device": parts.device,
        "machine": machine(parts.device),
        "threads": torch.get_num_threads(),
        "libraries": json.dumps(libraries(), sort_keys=True),
        "code": code_hash(),
        "weights": assets.weights_hash(),
    }
    if cell["method"] == ORACLE:
        everyone = whole.people.head(cell["people"])
        after = torch.stack([parts.dressed(everyone, job, seed=cell["seed"])[who] for job in jobs])
        rows = judge(parts.portraits(study.people), after, jobs, **options).assign(**named, strength=float("nan"))
        return _numbered(rows, who)
    at = [study.jobs.index(job) for job in jobs]
    edited = (_styleclip if editor == STYLECLIP else _instruct)(study, cell["method"], at, m, strengths, **cell["options"])
    blocks = [judge(study.originals, pictures, jobs, **options).assign(**named, strength=s) for s, pictures in edited]
    return _numbered(pd.concat(blocks, ignore_index=True), who)


def _numbered(rows: pd.DataFrame, who: Sequence[int]) -> pd.DataFrame:
    """Rows in which people have their numbers in the study."""
    return rows.assign(person=np.asarray(who)[rows["person"]])


@lru_cache(maxsize=32)  # all: three sweeps go through them, and one takes some MB
def _study(profile: str, base_seed: int, device: str, editor: str, rho: float, seed: int, people: int) -> Any:
    parts = load_profile(profile, device=device, seed=base_seed)
    if editor == STYLECLIP:
        return StyleClipStudy(parts, rho=rho, training_seed=seed, people=people)
    return InstructStudy(parts, rho=rho, seed=seed, people=people)


def _styleclip(
    study: StyleClipStudy,
    method: str,
    at: list[int],
    people: int,
    strengths: Sequence[float],
    *,
    channels: int,
    relevance: str,
    attributes: Sequence[str] = (),
    n_components: float | int = 0.9,
    target: bool = False,
    **options: Any,
) -> Edited:
    """(strength, pictures) of everyone for some occupations.

    relevance: the way to it. target: take the subspace out of the target text alone, and not out of its difference to the
    neutral one. options: of gradient-based debiasing.
    """
    check_choice("way to relevance", relevance, [REGRESSION])
    deltas, texts = study.deltas, study.texts
    if method in (TEXT, GRADIENT_TEXT):
        space = study.subspace(*attributes, n_components=n_components)
        texts = study.debiased_texts(space)
        deltas = text_delta(texts, study.neutral) if target else study.debiased(space)
    directions = study.directions(study.relevance(deltas), channels=channels)
    if method == ORTHOGONAL:
        directions = study.orthogonal(directions, study.subspace(*attributes, n_components=n_components))
    for strength in strengths:
        styles = study.apply(directions[at], alpha=strength)[:, :people]
        if method in (GRADIENT, GRADIENT_TEXT):
            found = study.gradient_based(styles, texts[at], progress=False, **options)
            styles = found.latent.unflatten(0, styles.shape[:2])
        yield strength, study.parts.draw(styles)


def _instruct(
    study: InstructStudy,
    method: str,
    at: list[int],
    people: int,
    strengths: Sequence[float],
    *,
    image_scale: float,
    sampler_steps: int,
    attributes: Sequence[str] = (),
    n_components: float | int = 0.9,
    skip_first: int = 1,
    **options: Any,
) -> Edited:
    """(strength, pictures) of everyone for some occupations. Conditions are found at the study's strength, and drawn at all."""
    conditions = study.conditions
    if method in (TEXT, GRADIENT_TEXT):
        conditions = study.debiased(study.subspace(*attributes, n_components=n_components), skip_first=skip_first)
    conditions = conditions[at]
    if method in (GRADIENT, GRADIENT_TEXT):
        jobs = [study.jobs[i] for i in at]
        conditions, _ = study.gradient_based(
            conditions, jobs=jobs, people=people, sampler_steps=sampler_steps, progress=False, **options
        )
    for strength in strengths:
        guidance = (strength, image_scale)
        yield strength, study.draw(conditions, people=people, guidance=guidance, steps=sampler_steps, progress=False)
