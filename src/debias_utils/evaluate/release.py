"""The rows behind the book's tables, as they are shipped: results that travel with the package.

    results/index.json            which tables there are, their checksums, and under what they were computed
    results/table-1a2b3c4d.parquet, ...

A table is read only if its file is whole and if it stands under the code and the weights at hand: because these computed it, or
because a sample was computed again and was the same, see `prove`.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from filelock import FileLock

from .. import __version__, assets
from ..errors import check_choice

if TYPE_CHECKING:
    from ..profiles import Profile

RESULTS = Path(str(files("debias_utils"))) / "results"
INDEX, FORMAT = "index.json", 1
LOCK = ".lock"  # hidden: no part of the package
OWN = re.compile(r"[a-z]+-[0-9a-f]{8}\.parquet")  # what a release calls its tables
AGAIN = "run `make tables`, which computes all of them anew"
IDENTITY = ("editor", "rho", "seed", "method", "variant", "options")  # of a row: what its cell says of all its rows


class ReleaseError(ValueError):
    """The released tables cannot be used; says why and what to do."""


def read_index(folder: Path = RESULTS) -> dict[str, Any]:
    """The index of a release.

    Returns:
        tables: {name: {file, rows, sha256}}. decided: what decides the rows. computed: date (of the release), machine, libraries.
        stands: {kind: record of a sample that was the same under other code or weights}, see `prove`.

    Raises:
        ReleaseError: it is missing, damaged or of another version.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text("utf-8"))
        problem = None if index["format"] == FORMAT else f"has format {index['format']!r}, not {FORMAT}"
        if problem is None and index["decided"]["version"] != __version__:
            problem = f"is of version {index['decided']['version']!r} of debias_utils, not {__version__!r}"
        complete = {"tables", "decided", "computed", "stands"} <= index.keys()
        if problem is None and not (complete and index["sha256"] == digest(index)):
            problem = "was altered"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error!r})"
    if problem:
        raise ReleaseError(f"{path} {problem}; reinstall the package, or {AGAIN}")
    return index


def read(name: str, *, folder: Path = RESULTS) -> pd.DataFrame:
    """A released table, after its file was checked: "table", "curves", "ablations", "relevance" or "parts".

    Whether it stands under the code at hand is for `prove.ensure` to say.

    Raises:
        ReleaseError: as `read_index`; the file is missing, cut, altered or of another release.
    """
    tables = read_index(folder)["tables"]
    check_choice("released table", name, tables)
    return _read(folder, name, tables[name]["file"], tables[name]["sha256"]).copy()


@lru_cache(maxsize=8)
def _read(folder: Path, name: str, file: str, sha256: str) -> pd.DataFrame:
    path = folder / file
    if not path.is_file():
        raise ReleaseError(f"{path} is missing; reinstall the package, or {AGAIN}")
    table = assets.read_table(path, {b"table": name.encode()}) if assets.sha256_of(path) == sha256 else None
    if table is None:
        raise ReleaseError(f"{path} was altered or cut short; reinstall the package, or {AGAIN}")
    return table.to_pandas()


def holds(parts: Profile) -> bool:
    """Are the released tables of this profile and seed?"""
    return (parts.name, parts.seed) == ("mini", 0)


def select(rows: pd.DataFrame, cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame | None:
    """Of the rows of a released sweep those of some cells, in their order; None unless all of them are there.

    Args:
        rows: of `read`. cells: of `grid.cells`, of one sweep, in the order in which the release was computed.
    """
    wanted: Counter[tuple[Any, ...]] = Counter()
    for cell in cells:
        for job in cell["occupations"]:
            wanted[(*_identity(cell), job)] += len(cell["strengths"]) * len(cell.get("who", range(cell["people"])))
    chosen = {(cell["editor"], cell["seed"]) for cell in cells}
    kept = rows[[pair in chosen for pair in zip(rows["editor"], rows["seed"], strict=True)]]
    kept = kept[kept["occupation"].isin({job for cell in cells for job in cell["occupations"]})]
    there = Counter(kept[[*IDENTITY, "occupation"]].itertuples(index=False, name=None))
    return kept.reset_index(drop=True) if there == wanted else None


def of_cell(rows: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    """Of the rows of a released sweep those of one cell, which may name some of its people ("who")."""
    same = rows["occupation"].isin(cell["occupations"]) & rows["person"].isin(cell.get("who", range(cell["people"])))
    for name, value in zip(IDENTITY, _identity(cell), strict=True):
        same &= rows[name] == value
    return rows[same & (rows["strength"].isin(cell["strengths"]) | rows["strength"].isna())]


def _identity(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(cell[name] for name in IDENTITY[:-1]), json.dumps(cell["options"], sort_keys=True))


def write(
    tables: Mapping[str, pd.DataFrame], *, decided: Mapping[str, Any], computed: Mapping[str, Any], folder: Path = RESULTS
) -> None:
    """Write a release, whole or not at all: the old one stays until the index names the new files.

    Args:
        tables: {name: table}. decided: of `provenance.description`. computed: what else is to be known, such as the machine.

    Raises:
        OSError: the folder is read-only or full. ValueError: a table without rows.
    """
    for name, table in tables.items():
        if table.empty:
            raise ValueError(f"the table {name!r} has no rows")
    listed: dict[str, dict[str, Any]] = {}
    assets.check_writable(folder)
    with FileLock(folder / LOCK):
        try:
            for name, table in tables.items():
                rows = pa.Table.from_pandas(table, preserve_index=False)
                file = f"{name}-{uuid.uuid4().hex[:8]}.parquet"
                assets.write_table(folder / file, rows, {b"table": name.encode()})
                listed[name] = {"file": file, "rows": len(table), "sha256": assets.sha256_of(folder / file)}
            today = datetime.now(timezone.utc).date().isoformat()
            index = {"format": FORMAT, "tables": listed, "decided": dict(decided), "computed": {"date": today, **computed}}
            _write_index({**index, "stands": {}}, folder)
        finally:  # what the index does not name: of the release before, or of this one if it failed
            named = _named(folder)
            for path in folder.iterdir():
                if named and OWN.fullmatch(path.name) and path.name not in named:
                    path.unlink()


def record(kind: str, proof: Mapping[str, Any], *, tables: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write down under what some tables stand, unless there is another release by now.

    Args:
        kind: such as "rows". proof: see `prove.ensure`. tables: of the index that was proven.

    Raises:
        OSError: the folder is read-only or full.
    """
    assets.check_writable(folder)
    with FileLock(folder / LOCK):
        index = read_index(folder)
        if index["tables"] == tables:
            _write_index({**index, "stands": {**index["stands"], kind: dict(proof)}}, folder)


def _named(folder: Path) -> set[str]:
    """Files of the release that is there."""
    try:
        return {entry["file"] for entry in read_index(folder)["tables"].values()}
    except ReleaseError:
        return set()


def _write_index(index: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write the index with its checksum."""
    text = json.dumps({**index, "sha256": digest(index)}, indent=1) + "\n"
    assets.write_whole(folder / INDEX, lambda file: file.write(text.encode()))


def digest(index: Mapping[str, Any]) -> str:
    """The checksum of an index or a record, without the one that it carries."""
    content = {name: value for name, value in index.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
