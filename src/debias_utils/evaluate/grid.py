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
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from .. import __version__, assets
from ..errors import check_choice, check_positive
from ..toonville.occupations import OCCUPATIONS
from . import cells as _cells
from .engine import sweep
from .instruct_study import GUIDANCE
from .judge import ATTRIBUTES
from .names import BEFORE, EDITORS, GRADIENT, GRADIENT_TEXT, INSTRUCT, ORACLE, ORTHOGONAL, STYLECLIP, TEXT
from .study import ALPHA, BETAS

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
VARIANT_PEOPLE = {STYLECLIP: 6, INSTRUCT: 4}  # of variants of the gradient-based method
FASTER: dict[str, dict[str, Any]] = {STYLECLIP: {}, INSTRUCT: {"steps": 6, "lr": 0.1}}  # than the study's own, to save time
CHUNK = 120  # edits in a cell, about
_NO_ROW = {  # code that changes no row: what it sets stands in the cells, or it only looks at rows
    f"evaluate/{name}.py"
    for name in ("__main__", "compare", "engine", "grid", "instruments", "on_ray", "plan", "table", "tradeoff")
}

Cell = dict[str, Any]
LOSSES = {" + ".join(names): {n: BETAS[n] for n in names} for size in (1, 2) for names in combinations(BETAS, size)}


def _gradient_variants(editor: str) -> dict[str, dict[str, Any]]:
    """Of the gradient-based method: Fig. 8's combinations of losses, and the settings that are not published."""
    factors = {f"{name} x {x:g}": {"betas": {**BETAS, name: x * BETAS[name]}} for name in BETAS for x in (0.3, 3.0)}
    steps: dict[str, dict[str, Any]]  # the last is as many as the paper takes
    if editor == STYLECLIP:
        steps = {"5 steps": {"steps": 5}, "100 steps": {"steps": 100}}
    else:
        steps = {"3 steps": {"steps": 3}, "50 steps, rate 0.05": {"steps": 50, "lr": 0.05}}
    return {
        **{name: {"betas": betas} for name, betas in LOSSES.items()},
        **factors,
        **{f"rate {lr:g}": {"lr": lr} for lr in (0.03, 0.3)},
        **steps,
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
        parts: the profile. sweep: one of `SWEEPS`. editors: of `EDITORS`. seeds: default, those of the profile's trainings.
        occupations: default, all. people: how many are edited; slow parts take the first of them. chunk: edits in a cell, at
            least one occupation.

    Returns:
        Dictionaries of plain values: editor, rho, seed, method, variant ("" for the method itself), strengths, people (the
        first of `of`), of, occupations, options (what the variant sets).

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
    check_positive("people", people)
    check_positive("chunk", chunk)
    if not (editors and seeds and occupations):
        raise ValueError(f"need an editor, a seed and an occupation, got {list(editors)}, {list(seeds)} and {occupations}")
    found = []
    for editor in editors:
        for seed in seeds:
            for block in _BLOCKS[sweep](editor, first=seed == parts.training_seeds[0]):
                m = min(people, block.pop("people", people))
                size = max(1, chunk // (m * len(block["strengths"])))
                for at in range(0, len(occupations), size):
                    cell = {"editor": editor, "seed": seed, "rho": BIASED, "variant": "", "options": {}, **block}
                    found.append({**cell, "people": m, "of": people, "occupations": occupations[at : at + size]})
    return found


def _table(editor: str, *, first: bool) -> Iterator[Cell]:
    for method in METHODS[editor]:
        if method != GRADIENT_TEXT:  # no column of the paper's
            yield {"method": method, "strengths": [STRENGTH[editor]], "options": _options(editor, method)}
    yield {"method": BEFORE, "strengths": [STRENGTH[editor]], "rho": CONTROL}


def _curves(editor: str, *, first: bool) -> Iterator[Cell]:
    others = [strength for strength in STRENGTHS[editor] if strength != STRENGTH[editor]]
    for method in METHODS[editor]:
        block = {"method": method, "strengths": others, "options": _options(editor, method)}
        if method in (GRADIENT, GRADIENT_TEXT):
            if first:  # from the text-debiased edit: of InstructPix2Pix in no other sweep
                own = list(STRENGTHS[editor]) if (editor, method) == (INSTRUCT, GRADIENT_TEXT) else others
                yield {**block, "strengths": own, "people": CURVE_PEOPLE}
        elif method != ORACLE and (first or editor == STYLECLIP):
            yield block if editor == STYLECLIP else {**block, "people": CURVE_PEOPLE}
    if editor == STYLECLIP:
        yield {"method": BEFORE, "strengths": others, "rho": CONTROL}


def _ablations(editor: str, *, first: bool) -> Iterator[Cell]:
    own = [STRENGTH[editor]]
    if editor == STYLECLIP:
        yield {"method": GRADIENT_TEXT, "strengths": own, "options": _options(editor, GRADIENT_TEXT)}
    if first or editor == STYLECLIP:
        some = {} if editor == STYLECLIP else {"people": 12}
        for variant, options in _text_variants(editor).items():
            yield {"method": TEXT, "variant": variant, "strengths": own, "options": options, **some}
    for variant, options in _gradient_variants(editor).items() if first else ():
        options = {**_options(editor, GRADIENT), **options}
        yield {
            "method": GRADIENT, "variant": variant, "strengths": own, "options": options, "people": VARIANT_PEOPLE[editor],
        }  # fmt: skip


_BLOCKS = {"table": _table, "curves": _curves, "ablations": _ablations}


def _options(editor: str, method: str) -> dict[str, Any]:
    return dict(FASTER[editor]) if method in (GRADIENT, GRADIENT_TEXT) else {}


def rows(
    parts: Profile,
    *sweeps: str,
    folder: Path | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    **which: Any,
) -> pd.DataFrame:
    """The rows of some sweeps: read where an earlier run has finished them, computed and kept where not.

    Args:
        parts: the profile. sweeps: of `SWEEPS`. folder: where rows are kept; default, one in the cache whose name holds a hash
            of all that decides them. engine, address, workers, progress: see `engine.sweep`. which: see `cells`.

    Returns:
        A row for each edited picture, see `cells.compute`.

    Raises:
        ValueError, RuntimeError, OSError, ConnectionError: see `engine.sweep`.
    """
    wanted = [cell for name in sweeps for cell in cells(parts, name, **which)]
    size = {name: which[name] for name in ("people", "chunk") if name in which}
    decided = description(parts, **size)
    folder = folder_of(parts, **size) if folder is None else folder
    compute = partial(_cells.compute, profile=parts.name, base_seed=parts.seed, device=parts.device)
    options: dict[str, Any] = {
        "engine": engine,
        "address": address,
        "workers": workers,
        "progress": progress,
        "name": ", ".join(sweeps),
    }
    return sweep(wanted, compute, folder=folder, description=decided, finite=_cells.NUMBERS, **options)


def description(parts: Profile, *, people: int = PEOPLE, chunk: int = CHUNK) -> dict[str, Any]:
    """What decides all rows of a folder: kept beside them, and compared before any of them is read."""
    package, code = Path(__file__).parents[1], hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        name = source.relative_to(package).as_posix()
        if name.split("/")[0] not in ("show", "discover") and name not in _NO_ROW:
            code.update(source.read_bytes())
    return {
        "profile": parts.name, "seed": parts.seed, "people": people, "chunk": chunk, "version": __version__,
        "torch": str(torch.__version__), "weights": assets.weights_hash(), "code": code.hexdigest()[:16],
    }  # fmt: skip


def folder_of(parts: Profile, *, people: int = PEOPLE, chunk: int = CHUNK) -> Path:
    """Where rows are kept by default."""
    digest = hashlib.sha256(repr(sorted(description(parts, people=people, chunk=chunk).items())).encode())
    return assets.cache_dir() / "tables" / f"{parts.name}-{digest.hexdigest()[:16]}"
