"""The one description of what the book computes: a grid of cells, for chapters, papermill and the command alike.

A cell is some occupations, some people and one method: a chunk of work that needs no other, see `cells.compute`. There are three
sweeps over the grid:

"table"      Table 1 of Tanjim et al. 2024: every method at the editor's own strength, and the control, whose rho is 0.
"curves"     the same methods at other strengths.
"ablations"  after Fig. 7 and 8 of the paper, and what it leaves open: losses, weights, rate, steps, subspace.

Seeds are repetitions: for StyleCLIP another training of the CLIP and other people, for InstructPix2Pix other people and noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import assets
from ..errors import check_choice, check_whole
from ..toonville.occupations import OCCUPATIONS
from . import cells as _cells
from .instruct_study import GUIDANCE, LAST, RATE, SAMPLER_STEPS
from .instruct_study import STEPS as INSTRUCT_STEPS
from .judge import ATTRIBUTES
from .names import BEFORE, EDITORS, GRADIENT, GRADIENT_TEXT, INSTRUCT, ORACLE, ORTHOGONAL, STYLECLIP, TEXT
from .provenance import description
from .study import ALPHA, BETAS, CHANNELS, PROTECTED, REGRESSION, STEPS

if TYPE_CHECKING:
    from ..profiles import Profile

SWEEPS = ("table", "curves", "ablations")
METHODS = {
    STYLECLIP: (BEFORE, TEXT, GRADIENT, GRADIENT_TEXT, ORTHOGONAL, ORACLE),
    INSTRUCT: (BEFORE, TEXT, GRADIENT, GRADIENT_TEXT, ORACLE),
}
BIASED, CONTROL = 0.9, 0.0  # rho of the editors
STRENGTH = {STYLECLIP: ALPHA, INSTRUCT: GUIDANCE[0]}  # alpha, and the scale of the text
STRENGTHS = {STYLECLIP: (1.0, 2.0, ALPHA, 6.0), INSTRUCT: (1.0, 3.0, GUIDANCE[0], 10.0)}
PEOPLE, CURVE_PEOPLE = 40, 16  # in the table, and where a curve is slow
VARIANT_PEOPLE = {STYLECLIP: 12, INSTRUCT: 6}  # of variants of the gradient-based method
TEXT_PEOPLE = 12  # of variants of the text-based method, with InstructPix2Pix; with StyleCLIP everyone
PAPERS_STEPS = "the paper's steps"  # a variant
PUBLISHED_STEPS = {STYLECLIP: 100, INSTRUCT: INSTRUCT_STEPS}  # of Adam, by the paper
CHUNK = 120  # edits in a cell, about
ORTHOGONAL_CHANNELS = 600  # a few channels cannot be orthogonal to nearly as many protected directions and still be the edit
OPTIMISER: dict[str, dict[str, Any]] = {  # fewer steps than published, to save time: see the ablations
    STYLECLIP: {"betas": BETAS, "steps": STEPS, "lr": 0.1},
    INSTRUCT: {"betas": BETAS, "steps": 6, "lr": 0.1, "k": LAST},
}
SUBSPACE: dict[str, Any] = {"attributes": list(PROTECTED), "n_components": 0.9}

Cell = dict[str, Any]
LOSSES = {" + ".join(names): {n: BETAS[n] for n in names} for size in (1, 2) for names in combinations(BETAS, size)}


def settings(editor: str, method: str) -> dict[str, Any]:
    """All that a method is set to, as a cell's options; variants change some of it."""
    if method == ORACLE:
        return {}
    found: dict[str, Any] = {"channels": CHANNELS, "relevance": REGRESSION}
    if editor == INSTRUCT:
        found = {"image_scale": GUIDANCE[1], "sampler_steps": SAMPLER_STEPS}
    if method in (TEXT, GRADIENT_TEXT, ORTHOGONAL):
        found |= SUBSPACE
    if method in (TEXT, GRADIENT_TEXT):
        found |= {"target": False} if editor == STYLECLIP else {"skip_first": 1}
    if method in (GRADIENT, GRADIENT_TEXT):
        found |= OPTIMISER[editor]
    return found | ({"channels": ORTHOGONAL_CHANNELS} if method == ORTHOGONAL else {})


def _gradient_variants(editor: str) -> dict[str, dict[str, Any]]:
    """Of the gradient-based method: Fig. 8's combinations of losses, and the settings that are not published."""
    few = {STYLECLIP: 5, INSTRUCT: 3}[editor]
    papers = {"steps": PUBLISHED_STEPS[editor], **({"lr": RATE} if editor == INSTRUCT else {})}
    return {
        **{name: {"betas": betas} for name, betas in LOSSES.items()},
        **{f"{name} x {x:g}": {"betas": {**BETAS, name: x * BETAS[name]}} for name in BETAS for x in (0.3, 3.0)},
        **{f"rate {lr:g}": {"lr": lr} for lr in (0.03, 0.3)},
        f"{few} steps": {"steps": few},
        PAPERS_STEPS: papers,
    }


def _text_variants(editor: str) -> dict[str, dict[str, Any]]:
    """Of the text-based method: Fig. 7's subspaces, the number of components K, and where the projection is applied."""
    return {
        "gender": {"attributes": ["gender"]},
        "skin": {"attributes": ["skin"]},
        "gender, skin and age": {"attributes": list(ATTRIBUTES)},
        "K = 1": {"n_components": 1},
        "98 % of variance": {"n_components": 0.98},
        **({"target alone": {"target": True}} if editor == STYLECLIP else {"start token too": {"skip_first": 0}}),
    }


def cells(
    parts: Profile,
    sweep: str,
    *,
    editors: Sequence[str] = EDITORS,
    seeds: Sequence[int] | None = None,
    occupations: Sequence[str] | None = None,
    people: int = PEOPLE,
    chunk: int = CHUNK,
) -> list[Cell]:
    """The cells of a sweep.

    Args:
        parts: the profile. sweep: one of `SWEEPS`. editors: of `EDITORS`. seeds: default, those of the profile's trainings;
            slow parts take the first.
        occupations: default, all. people: how many are edited; slow parts take the first of them. chunk: edits in a cell, at
            least one occupation.

    Returns:
        Dictionaries of plain values: editor, rho, seed, method, variant ("" for the method itself), strengths, people (the
        first of `of`), of, occupations, options (all settings).

    Raises:
        ValueError: unknown choices; nobody, or no occupation; names the choices.
    """
    check_choice("sweep", sweep, SWEEPS)
    for editor in editors:
        check_choice("editor", editor, EDITORS)
    seeds = parts.training_seeds if seeds is None else seeds
    for seed in seeds:
        check_choice("seed", seed, parts.training_seeds)
    occupations = list(OCCUPATIONS) if occupations is None else list(occupations)
    for occupation in occupations:
        check_choice("occupation", occupation, OCCUPATIONS)
    check_whole("people", people)
    check_whole("chunk", chunk)
    if not (editors and seeds and occupations):
        raise ValueError(f"need an editor, a seed and an occupation, got {list(editors)}, {list(seeds)} and {occupations}")
    found = []
    for editor in editors:
        for seed in seeds:
            for block in _BLOCKS[sweep](editor, first=seed == seeds[0]):
                m = min(people, block.pop("people", people))
                size = max(1, chunk // (m * len(block["strengths"])))
                for at in range(0, len(occupations), size):
                    own = {"rho": BIASED, "variant": "", "options": settings(editor, block["method"])}
                    cell = {"editor": editor, "seed": seed, **own, **block}
                    found.append({**cell, "people": m, "of": people, "occupations": occupations[at : at + size]})
    return found


def _table(editor: str, *, first: bool) -> Iterator[Cell]:
    for method in METHODS[editor]:
        if method != GRADIENT_TEXT:  # no column of the paper's
            yield {"method": method, "strengths": [STRENGTH[editor]]}
    yield {"method": BEFORE, "strengths": [STRENGTH[editor]], "rho": CONTROL}


def _curves(editor: str, *, first: bool) -> Iterator[Cell]:
    others = [strength for strength in STRENGTHS[editor] if strength != STRENGTH[editor]]
    for method in METHODS[editor]:
        block = {"method": method, "strengths": others}
        if method in (GRADIENT, GRADIENT_TEXT):
            if first:  # from the text-debiased edit: of InstructPix2Pix in no other sweep
                own = list(STRENGTHS[editor]) if (editor, method) == (INSTRUCT, GRADIENT_TEXT) else others
                yield {**block, "strengths": own, "people": CURVE_PEOPLE}
        elif method != ORACLE and (first or editor == STYLECLIP):
            yield block if editor == STYLECLIP else {**block, "people": CURVE_PEOPLE}
    if editor == STYLECLIP:
        yield {"method": BEFORE, "strengths": others, "rho": CONTROL}


def _ablations(editor: str, *, first: bool) -> Iterator[Cell]:
    if editor == STYLECLIP:
        yield {"method": GRADIENT_TEXT, "strengths": [STRENGTH[editor]]}
        for method, channels in ((BEFORE, ORTHOGONAL_CHANNELS), (ORTHOGONAL, CHANNELS)):
            yield _variant(editor, method, f"{channels} channels", {"channels": channels})
    if first or editor == STYLECLIP:
        for name, options in _text_variants(editor).items():
            block = _variant(editor, TEXT, name, options)
            yield block if editor == STYLECLIP else {**block, "people": TEXT_PEOPLE}
    if first:
        for name, options in _gradient_variants(editor).items():
            yield {**_variant(editor, GRADIENT, name, options), "people": VARIANT_PEOPLE[editor]}


def _variant(editor: str, method: str, name: str, options: dict[str, Any]) -> Cell:
    return {
        "method": method, "variant": name, "strengths": [STRENGTH[editor]], "options": settings(editor, method) | options,
    }  # fmt: skip


_BLOCKS = {"table": _table, "curves": _curves, "ablations": _ablations}


def rows(
    parts: Profile,
    *sweeps: str,
    people: int = PEOPLE,
    chunk: int = CHUNK,
    folder: Path | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    **which: Any,
) -> pd.DataFrame:
    """The rows of some sweeps: the released ones where these are asked for, see `prove`; else computed and kept.

    Args:
        parts: the profile. sweeps: of `SWEEPS`. folder: where rows are computed and kept, whatever is released; default, one in
            the cache whose name holds a hash of all that decides them. engine, address, workers, progress: see `engine.sweep`.
            people, chunk, which: see `cells`.

    Returns:
        A row for each edited picture, see `cells.compute`.

    Raises:
        ValueError, RuntimeError, OSError, ConnectionError: see `engine.sweep`, `prove.ensure`.
    """
    wanted = {name: cells(parts, name, people=people, chunk=chunk, **which) for name in sweeps}
    from . import prove, release  # these need the grid

    if wanted and release.holds(parts) and (people, chunk, folder) == (PEOPLE, CHUNK, None):
        found = [release.select(release.read(name), block) for name, block in wanted.items()]
        if all(block is not None for block in found):
            prove.ensure(parts, "rows", progress=progress)
            return pd.concat(found, ignore_index=True)
    options: dict[str, Any] = {"engine": engine, "address": address, "workers": workers, "progress": progress}
    return computed(parts, wanted, people=people, chunk=chunk, folder=folder, **options)


def computed(
    parts: Profile, wanted: Mapping[str, Sequence[Cell]], *, people: int, chunk: int, folder: Path | None, **options: Any
) -> pd.DataFrame:
    """The rows of {sweep: cells}, computed now or by an earlier run into its folder; arguments as `rows`."""
    from .engine import sweep  # loads pyarrow, which listing cells does not need

    decided = description(parts, people=people, chunk=chunk)
    folder = folder_of(parts, people=people, chunk=chunk) if folder is None else folder
    elsewhere = options["engine"] == "ray" or options["address"]
    compute = partial(
        _cells.compute, profile=parts.name, base_seed=parts.seed, code=decided["code"], weights=decided["weights"],
        device="auto" if elsewhere else parts.device,  # Ray's workers have devices of their own
    )  # fmt: skip
    todo = [cell for block in wanted.values() for cell in block]
    name = ", ".join(wanted)
    return sweep(todo, compute, folder=folder, description=decided, finite=_cells.NUMBERS, name=name, **options)


def folder_of(parts: Profile, *, people: int = PEOPLE, chunk: int = CHUNK) -> Path:
    """Where rows are kept by default: the name holds a hash of all that decides them and does not stand in the cells."""
    decided = json.dumps(description(parts, people=people, chunk=chunk), sort_keys=True)
    return assets.cache_dir() / "tables" / f"{parts.name}-{hashlib.sha256(decided.encode()).hexdigest()[:16]}"
