"""Long sweeps: a grid of independent cells, computed here or by Ray, whose rows outlive a kill, a crash and a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from .. import assets
from ..errors import check_choice, check_whole
from .on_ray import on_ray

ENGINES = ("local", "ray")
DESCRIPTION, LOCK, WRITER = "sweep.json", "writer.lock", "writer.json"  # beside the rows
# What the engine calls its files, finished or not; a description that is finished makes the folder a sweep's
OWN = re.compile(rf"[0-9a-f]{{64}}\.parquet|([0-9a-f]{{64}}\.parquet|sweep\.json|writer\.json|probe){assets.PART.pattern}")
UNKNOWN = "another process"

Cell = Mapping[str, Any]  # strings, numbers, lists and None by name


def sweep(
    cells: Sequence[Cell],
    compute: Callable[[Cell], pd.DataFrame],
    *,
    folder: Path,
    description: Mapping[str, Any],
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    name: str = "sweep",
    finite: Sequence[str] = (),
) -> pd.DataFrame:
    """The rows of all cells: read from the folder where an earlier run has finished them, computed and kept there if not.

    Each finished cell is a Parquet file, written whole or not at all, so that a run may be killed at any moment: the next one
    computes what is missing. A damaged file counts as missing. A complete sweep is read without writing anything.

    Args:
        cells: all different, each a chunk of work; values that JSON has.
        compute: a cell -> its rows, one or more; a function of a module, so that Ray's workers find it. It may keep models
            from one call to the next.
        folder: of this sweep alone. description: what decides the rows but is not in the cells (settings, weights, code), as
            JSON; kept beside the rows, so that no stale ones are read.
        engine: "local", in this process, or "ray". address: of a Ray cluster, ``host:port`` on one of its machines or
            ``ray://host:port`` from elsewhere; implies "ray". Without it, a Ray is started on this machine, and ended.
        workers: how many cells Ray computes at a time, each on a GPU or else an even share of the cores; default: one for each
            GPU, or each core if there is none.
        progress: show a bar, called `name`. finite: columns that must hold finite numbers.

    Returns:
        The rows in the order of the cells. Ray's workers use as many threads as they have cores, unless OMP_NUM_THREADS is set:
        with the same number of threads, the rows of both engines are the same bit for bit.

    Raises:
        ValueError: no cells, equal cells, a cell without rows, columns of `finite` that are absent or not finite, an unknown
            engine or address, a folder with another description or with files of somebody's own; names the cell or what differs.
        RuntimeError: another process is writing to the folder; says which.
        OSError: the folder cannot be written; found out before anything is computed, unless the disk fills up later.
        ConnectionError: no Ray at that address. ImportError: Ray is not installed.
        Exception: what `compute` raises, with the cell in a note. Finished cells stay, whatever is raised.
    """
    engine = engine if address is None else "ray"
    check_choice("engine", engine, ENGINES)
    if workers is not None:
        check_whole("workers", workers)
        if engine != "ray":
            raise ValueError(f"workers={workers!r} needs engine='ray'; the local engine computes one cell at a time")
    if not cells:
        raise ValueError("there are no cells to compute")
    repeated = [text for text, count in Counter(map(_json, cells)).items() if count > 1]
    if repeated:
        raise ValueError(f"the cells must all differ, but there is more than one {', '.join(repeated)}")
    folder, wanted = Path(folder), _json(description)
    described = _described(folder, wanted)
    tables = _all(folder, cells) if described else None
    if tables is None:
        if not described:
            _check_own(folder)  # before a lock is put there
        with _only_writer(folder):
            if not _described(folder, wanted):
                _clear(folder)
                assets.write_whole(folder / DESCRIPTION, lambda file: file.write(wanted.encode()))
            missing = [cell for cell in cells if _read(folder, cell) is None]
            if engine == "ray" and missing:  # not if another process has just finished them
                results = on_ray(missing, compute, address=address, workers=workers)
            else:
                results = ((cell, partial(compute, cell)) for cell in missing)
            done = len(cells) - len(missing)
            bar = tqdm(total=len(cells), initial=done, desc=name, unit="cell", disable=not progress)
            with closing(results), bar:
                for cell, result in results:
                    _keep(folder, cell, result, finite=finite)
                    bar.update()
        tables = [_finished(folder, cell) for cell in cells]
    return pd.concat((table.to_pandas() for table in tables), ignore_index=True)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder. The lock is the operating system's, so that it ends with the process, however that ends."""
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(f"{folder} is being written by {_writer(folder)}; wait until it has finished, or stop it") from None
    except OSError as error:
        raise assets.cannot_write(folder, error) from error
    try:
        writer = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        assets.write_whole(folder / WRITER, lambda file: file.write(writer.encode()))  # and so find out that we can write
        yield
    finally:
        (folder / WRITER).unlink(missing_ok=True)
        lock.release()


def _check_own(folder: Path) -> None:
    """Refuse a folder without a description that holds anything but what a sweep, cut off early, leaves there."""
    if not folder.is_dir():
        return
    others = sorted(path.name for path in folder.iterdir() if not _is_own(path))
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise ValueError(f"{folder} holds files that are not of a sweep ({shown}); choose an empty folder, or that of a sweep")


def _is_own(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    if path.name == LOCK:
        return path.stat().st_size == 0
    if path.name == WRITER:
        return _writer(path.parent) != UNKNOWN
    return bool(OWN.fullmatch(path.name))


def _clear(folder: Path) -> None:
    """Delete the rows of which nobody can say what decided them."""
    _check_own(folder)
    for path in folder.glob("*.parquet"):
        path.unlink()


def _writer(folder: Path) -> str:
    try:
        return "process {pid} on {host}".format(**json.loads((folder / WRITER).read_text()))
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or ended
        return UNKNOWN


def _described(folder: Path, wanted: str) -> bool:
    """Whether the folder has a description; raises unless it is the one that is wanted, as JSON."""
    path, asked = folder / DESCRIPTION, json.loads(wanted)
    try:
        kept = json.loads(path.read_text("utf-8"))
        names = sorted(kept.keys() | asked.keys())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); choose another folder, or delete this one") from error

    def shown(description: dict[str, Any], name: str) -> str:
        return repr(description[name]) if name in description else "absent"

    differing = [
        f"{name}: {there} there, {here} here" for name in names if (there := shown(kept, name)) != (here := shown(asked, name))
    ]
    if differing:
        raise ValueError(
            f"the rows in {folder} were computed otherwise ({'; '.join(differing)}); choose another folder, or delete this one"
        )
    return True


def _keep(folder: Path, cell: Cell, result: Callable[[], pd.DataFrame], *, finite: Sequence[str]) -> None:
    """Write the rows of a cell, if they are what they should be."""
    text = _json(cell)
    try:
        rows = result()
        table = pa.Table.from_pandas(rows, preserve_index=False)
    except Exception as error:
        error.__notes__ = [*getattr(error, "__notes__", ()), f"in the cell {text}"]  # Python 3.10 has no add_note
        raise
    if rows.empty:
        raise ValueError(f"no rows came of the cell {text}")
    absent = [column for column in finite if column not in rows]
    if absent:
        raise ValueError(f"no column {', '.join(map(repr, absent))} came of the cell {text}; there are {list(rows)}")
    for column in finite:
        wrong = int((~np.isfinite(rows[column].to_numpy(dtype=float, na_value=np.nan))).sum())
        if wrong:
            raise ValueError(f"{wrong} of {len(rows)} values of {column!r} are NaN or infinite in the cell {text}")
    assets.write_table(_path(folder, cell), table, _label(cell))


def _all(folder: Path, cells: Sequence[Cell]) -> list[pa.Table] | None:
    """The rows of each cell; None if some are absent or damaged."""
    tables = []
    for cell in cells:
        table = _read(folder, cell)
        if table is None:
            return None
        tables.append(table)
    return tables


def _finished(folder: Path, cell: Cell) -> pa.Table:
    table = _read(folder, cell)
    if table is None:
        raise OSError(f"{_path(folder, cell)} was there and cannot be read back; is the disk healthy?")
    return table


def _read(folder: Path, cell: Cell) -> pa.Table | None:
    """The rows of a cell; None if they are absent or damaged."""
    return assets.read_table(_path(folder, cell), _label(cell))


def _label(cell: Cell) -> dict[bytes, bytes]:
    return {b"cell": _json(cell).encode()}


def _path(folder: Path, cell: Cell) -> Path:
    return folder / f"{hashlib.sha256(_json(cell).encode()).hexdigest()}.parquet"


def _json(mapping: Mapping[str, Any]) -> str:
    """The one way to write a mapping as JSON."""
    try:
        return json.dumps(dict(mapping), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot write {mapping!r} as JSON ({error}); use strings, finite numbers, lists, None") from error
