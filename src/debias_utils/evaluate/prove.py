"""Prove the released tables by computing a sample of them again: ``python -m debias_utils.evaluate.prove``, in ``make book``.

Where code and weights are those that computed the release, a few cells are drawn, others for every `draw` (the commit): some
people, one occupation. Where something that decides rows has changed, every editor, method and variant is computed at least once.
Equal within the tolerance: the rows stand. Different: an error names the cells. Libraries and devices need not be the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .. import assets
from ..profiles import PROFILES, load_profile
from . import agreement, cells, full_size, grid, release
from .names import GRADIENT, GRADIENT_TEXT
from .provenance import code_hash, description, libraries, machine

if TYPE_CHECKING:
    from ..profiles import Profile

Cell = dict[str, Any]
KINDS = ("rows", "relevance", "parts")
CELLS, FEW = 24, 4  # drawn for a build; where a chapter is opened without one
WHO, ELEMENTS = 5, 6  # people of a drawn cell; elements of a drawn way to relevance
EXACT, OPTIMISED = "not optimised", "optimised"
# Of every number of a cell; of the median one where Adam turns the last bits of a few edits into much more. A whole cell is the
# same bit for bit on one machine, but the few people of a sample are another batch: single numbers differ by up to .3
TOLERANCE = {EXACT: 1e-3, OPTIMISED: 0.01}
TOGETHER = 8  # cells of a study that one process computes: building a study takes as long as some cells
KEY = ["occupation", "person", "strength"]
LABELS = [f"{a}_{when}" for a in cells.ATTRIBUTES for when in ("before", "after", "flip")]


class StaleError(release.ReleaseError):
    """Rows that were computed again are not the released ones."""


def ensure(
    parts: Profile, kind: str, *, draw: str | None = None, count: int = FEW, folder: Path = release.RESULTS, progress: bool = True
) -> dict[str, Any]:
    """The record of a sample under the code, libraries and device at hand: read if there is one, else computed now.

    Args:
        kind: one of `KINDS`. draw: what decides the sample, such as a commit; None takes any. count: cells, where nothing has
            changed. folder: of the release.

    Returns:
        draw, every (was something of everything computed?), date, machine, rows (how many), cells (in words), largest
        ({EXACT and OPTIMISED: the largest difference}; for "parts" the ratios of the times), seconds.

    Raises:
        StaleError: rows differ by more than `TOLERANCE`; names the cells. ReleaseError: see `release.read_index`.
    """
    index = release.read_index(folder)
    here = _here(kind)
    changed = {name: value for name, value in here.items() if index["decided"].get(name) != value}
    if index["stands"].get(kind, {}).get("decided") == here:
        changed = {}
    path = _path(index, kind, here)
    kept = _read_record(path)
    if kept and (kept["every"] if changed else draw is None or (draw == kept["draw"] and count <= kept["count"])):
        if changed:
            _write_down(kind, kept, index, folder)
        return kept
    run = {"rows": _prove_rows, "relevance": _prove_relevance, "parts": _prove_parts}[kind]
    start, draw = time.perf_counter(), draw or code_hash()
    found = run(parts, random.Random(f"{draw} {index['sha256']}"), None if changed else count, folder, progress)
    record = {
        "draw": draw, "every": bool(changed), "count": count, "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine("cpu"), "libraries": libraries(), "decided": here, **found,
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    assets.write_whole(path, lambda file: file.write(json.dumps({**record, "sha256": release.digest(record)}, indent=1).encode()))
    if changed:
        _write_down(kind, record, index, folder)
    return record


def _write_down(kind: str, record: Mapping[str, Any], index: Mapping[str, Any], folder: Path) -> None:
    """Under what the rows stand now, beside them, where that can be written."""
    try:
        release.record(kind, record, tables=index["tables"], folder=folder)
    except OSError as error:
        print(f"kept in the cache alone: {error}", file=sys.stderr)


def _here(kind: str) -> dict[str, str]:
    """What decides a table, beside its cells."""
    if kind == "parts":  # times of a machine are what they are
        return {}
    own = {"relevance": hashlib.sha256(Path(agreement.__file__).read_bytes()).hexdigest()[:16]} if kind == "relevance" else {}
    return {"code": code_hash(), "weights": assets.weights_hash(), **own}


def decided(parts: Profile) -> dict[str, Any]:
    """What decides the tables that a release of now would hold."""
    return {**description(parts, people=grid.PEOPLE, chunk=grid.CHUNK), **_here("relevance")}


def conditions(rows: pd.DataFrame) -> dict[str, Any]:
    """What computed rows, beside that: machines and libraries, each once."""
    return {name: " and ".join(sorted(rows[name].unique())) for name in ("machine", "libraries")}


def _path(index: Mapping[str, Any], kind: str, here: Mapping[str, str]) -> Path:
    same = [index["tables"], index["decided"], here, libraries(), machine("cpu"), TOLERANCE]
    key = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]
    return assets.cache_dir() / "proofs" / f"{kind}-{key}.json"


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text("utf-8"))
        return record if record.pop("sha256") == release.digest(record) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def sample(parts: Profile, rng: random.Random, count: int | None) -> list[tuple[str, Cell]]:
    """(sweep, cell) drawn at random: of `count` strata, or of each if None; one occupation and `WHO` people of each.

    A stratum is a sweep, editor, rho, method and variant.
    """
    strata: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for sweep in grid.SWEEPS:
        for cell in grid.cells(parts, sweep):
            strata[(sweep, *(cell[name] for name in ("editor", "rho", "method", "variant")))].append(cell)
    chosen = list(strata) if count is None else rng.sample(list(strata), min(count, len(strata)))
    found = []
    for stratum in chosen:
        cell = rng.choice(strata[stratum])
        who = sorted(rng.sample(range(cell["people"]), min(WHO, cell["people"])))
        found.append((stratum[0], {**cell, "occupations": [rng.choice(cell["occupations"])], "who": who}))
    return found


def _prove_rows(parts: Profile, rng: random.Random, count: int | None, folder: Path, progress: bool) -> dict[str, Any]:
    drawn, rows = sample(parts, rng, count), 0
    largest: dict[str, float] = {}
    wrong: list[str] = []
    released = {sweep: release.read(sweep, folder=folder) for sweep in grid.SWEEPS}
    for sweep, table in released.items():
        if release.select(table, grid.cells(parts, sweep)) is None:
            raise StaleError(f"the grid has other cells of {sweep!r} now than were released; {release.AGAIN}")
    for sweep, cell, found in _computed(parts, drawn, progress):
        kind = OPTIMISED if cell["method"] in (GRADIENT, GRADIENT_TEXT) else EXACT
        difference = compare(found, release.of_cell(released[sweep], cell), optimised=kind == OPTIMISED)
        largest[kind] = max(largest.get(kind, 0.0), difference)
        rows += len(found)
        if not difference <= TOLERANCE[kind]:
            wrong.append(f"{_words(sweep, cell)}: {difference:.2g}")
    if wrong:
        raise StaleError(
            f"{len(wrong)} of {len(drawn)} cells are not what the release says (largest difference, of optimised the median; "
            f"tolerance {TOLERANCE[EXACT]:g} and {TOLERANCE[OPTIMISED]:g}): {'; '.join(wrong)}. If that is meant, {release.AGAIN}"
        )
    return {"rows": rows, "largest": largest, "cells": [_words(sweep, cell) for sweep, cell in drawn]}


def _computed(parts: Profile, drawn: Sequence[tuple[str, Cell]], progress: bool) -> Iterator[tuple[str, Cell, pd.DataFrame]]:
    """Drawn cells with their rows, those of a study after another, by a process for each core.

    On the CPU, as the release: a card's half precision moves rows by more than the tolerance.
    """
    from joblib import Parallel, cpu_count, delayed
    from tqdm import tqdm

    studies: dict[tuple[Any, ...], list[tuple[str, Cell]]] = defaultdict(list)
    for sweep, cell in drawn:
        studies[cell["editor"], cell["rho"], cell["seed"]].append((sweep, cell))
    groups = [block[i : i + TOGETHER] for block in studies.values() for i in range(0, len(block), TOGETHER)]
    groups.sort(key=len, reverse=True)
    jobs = min(cpu_count(), len(groups))
    work = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_rows)(group, parts.name, parts.seed, jobs > 1) for group in groups
    )
    with tqdm(total=len(drawn), desc="computing a sample again", unit="cell", disable=not progress) as bar:
        for group in work:
            bar.update(len(group))
            yield from group


def _rows(group: Sequence[tuple[str, Cell]], profile: str, seed: int, one_thread: bool) -> list[tuple[str, Cell, pd.DataFrame]]:
    if one_thread:
        torch.set_num_threads(1)
    return [(sweep, cell, cells.compute(cell, profile=profile, base_seed=seed, device="cpu")) for sweep, cell in group]


def compare(found: pd.DataFrame, released: pd.DataFrame, *, optimised: bool) -> float:
    """The largest difference of any number, or the median one if the edits were `optimised`.

    Infinite if rows are missing or, where nothing was optimised, if a label differs.
    """
    if not {*KEY, *LABELS, *cells.NUMBERS} <= {*found} & {*released}:
        return float("inf")
    a, b = (table.sort_values(KEY, ignore_index=True) for table in (found, released))
    if len(a) != len(b) or not all(a[name].equals(b[name].astype(a[name].dtype)) for name in KEY):
        return float("inf")
    if not optimised and not all((a[name] == b[name]).all() for name in LABELS):
        return float("inf")
    numbers = list(cells.NUMBERS)
    apart = np.abs(a[numbers].to_numpy(float) - b[numbers].to_numpy(float))  # (edits, numbers)
    return float(np.median(apart) if optimised else apart.max())


def _words(sweep: str, cell: Cell) -> str:
    variant = f" ({cell['variant']})" if cell["variant"] else ""
    where = f"training {cell['seed']}, rho {cell['rho']:g}, {cell['occupations'][0]}, people {cell['who']}"
    return f"{sweep}: {cell['editor']}, {cell['method']}{variant}, {where}"


def _prove_relevance(parts: Profile, rng: random.Random, count: int | None, folder: Path, progress: bool) -> dict[str, Any]:
    released = release.read("relevance", folder=folder)
    ways = agreement.WAYS if count is None else rng.sample(agreement.WAYS, 2)
    only = {*ways, *((way, 1) for way, copies in ways if copies is not None)}
    places = released[(released["way"] == agreement.GRADIENT) & (released["occupation"] == released["occupation"].iloc[0])]
    elements = sorted(rng.sample(range(len(places)), ELEMENTS))
    on_cpu = load_profile(parts.name, device="cpu", seed=parts.seed)
    found = agreement.compute(on_cpu, only=sorted(only, key=str), elements=elements, progress=progress)
    key = ["way", "occupation", "channel"]
    both = found.merge(released, on=key, how="left", suffixes=("", " released"))
    scale = released.groupby("way")["relevance"].transform(lambda x: x.abs().max()).groupby(released["way"]).first()
    apart = (both["relevance"] - both["relevance released"]).abs() / both["way"].map(scale)
    largest = float(apart.max()) if apart.notna().all() else float("inf")
    if not largest <= TOLERANCE[EXACT]:
        worst = both.loc[apart.fillna(np.inf).idxmax(), "way"]
        raise StaleError(
            f"relevance is not what the release says: {worst!r} differs by {largest:.2g} of its largest value "
            f"(tolerance {TOLERANCE[EXACT]:g}). If that is meant, {release.AGAIN}"
        )
    return {"rows": len(found), "largest": {EXACT: largest}, "cells": [f"relevance: {way}" for way in found["way"].unique()]}


def _prove_parts(parts: Profile, rng: random.Random, count: int | None, folder: Path, progress: bool) -> dict[str, Any]:
    """Times of another machine cannot be equal: say how many times as long as released the yardstick and a part take here."""
    released = release.read("parts", folder=folder).set_index("part")["forward"]
    found = full_size.measure(parts.device, only=("CLIP",), progress=progress).set_index("part")["forward"]
    ratios = (found / released).dropna().to_dict()
    return {"rows": len(ratios), "largest": ratios, "cells": [f"parts: {part}" for part in ratios]}


def said(parts: Profile, kind: str, *, folder: Path = release.RESULTS) -> str:
    """A sentence on where a page's rows come from, and what was computed again to prove them; Markdown."""
    what = {"rows": "rows", "relevance": "relevances", "parts": "times"}[kind]
    if not release.holds(parts) or (kind == "parts" and full_size.path_of(parts).is_file()):
        return f"The {what} that this page reads were computed on this machine."
    computed, record = release.read_index(folder)["computed"], ensure(parts, kind, folder=folder)
    origin = f"released {computed['date']}, computed on {computed['machine']}"
    text = f"The {what} that this page reads travel with the book ({origin}). "
    if kind == "parts":
        ratios = ", ".join(f"{part} {ratio:.2f}" for part, ratio in record["largest"].items())
        return (
            text + f"Some were measured again for this build, on {record['machine']}, and took so many times as long: {ratios}."
        )
    text += f"For this build **{record['rows']}** of them, in {len(record['cells'])} cells, were computed again. "
    largest = record["largest"]
    if EXACT in largest:
        text += f"No number differs by more than {largest[EXACT]:.1g} (tolerance {TOLERANCE[EXACT]:g})"
        text += ", except in gradient-based edits. " if OPTIMISED in largest else "."
    if OPTIMISED in largest:
        text += "These depend on rounding, in a few edits by much: of each cell the median number was compared, which differs by "
        text += f"{largest[OPTIMISED]:.1g} at most (tolerance {TOLERANCE[OPTIMISED]:g})."
    return text


def commit() -> str | None:
    """The commit at hand, if this is a repository."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def main(arguments: list[str] | None = None) -> None:
    """Prove all tables of the release, and say what was compared."""
    parser = argparse.ArgumentParser(prog="python -m debias_utils.evaluate.prove", description=__doc__)
    parser.add_argument("--profile", default="mini", choices=PROFILES, help="the size of the book (default: mini)")
    parser.add_argument("--device", default="auto", help="default: a GPU if there is one")
    parser.add_argument("--draw", help="what decides the sample (default: the commit)")
    parser.add_argument("--cells", type=int, default=CELLS, help=f"drawn where nothing has changed (default: {CELLS})")
    options = parser.parse_args(arguments)
    try:
        parts = load_profile(options.profile, device=options.device)
        for kind in KINDS:
            record = ensure(parts, kind, draw=options.draw or commit(), count=options.cells)
            largest = ", ".join(f"{name} {value:.2g}" for name, value in record["largest"].items())
            print(f"{kind}: {record['rows']} computed again in {record['seconds']:.0f} s; {largest}", flush=True)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
