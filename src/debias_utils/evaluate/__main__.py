"""Compute the rows behind the tables on editing: ``python -m debias_utils.evaluate``; ``make tables`` also releases them.

The book reads the released rows, which travel with the package; this computes all of them anew. What an earlier run has finished
is not computed again; a run can be stopped at any moment and started again. With --engine ray, or the address of a Ray cluster,
the same cells are computed by Ray's workers, one for each GPU or core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .. import assets
from ..profiles import PROFILES, load_profile
from . import agreement, full_size, grid, prove, release
from .engine import ENGINES
from .names import EDITORS

TABLES = {  # no sweeps over edits: what computes each, and where it is kept
    "relevance": (agreement.computed, agreement.path_of),  # the ways to a channel's relevance, timed side by side
    "parts": (full_size.computed, full_size.path_of),  # what networks of full size take on this machine
}
RELEASED = ("profile", "seed", "seeds", "editors", "people", "chunk")  # as in the book


def main(arguments: list[str] | None = None) -> None:
    """Compute and keep the rows of some sweeps, and say where they are."""
    names = (*grid.SWEEPS, *TABLES)
    parser = argparse.ArgumentParser(prog="python -m debias_utils.evaluate", description=__doc__)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--profile", default="mini", choices=PROFILES, help="the size of the book (default: mini)")
    parser.add_argument("--seed", type=int, default=0, help="of the people and the samples (default: 0)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="repetitions (default: one for each training)")
    parser.add_argument("--editors", nargs="+", choices=EDITORS, default=EDITORS, help="default: both")
    parser.add_argument("--people", type=int, default=grid.PEOPLE, help=f"who are edited (default: {grid.PEOPLE})")
    parser.add_argument("--chunk", type=int, default=grid.CHUNK, help=f"edits in a cell, about (default: {grid.CHUNK})")
    parser.add_argument("--device", default="auto", help="default: a GPU if there is one")
    parser.add_argument("--engine", default="local", choices=ENGINES, help="where cells are computed (default: this process)")
    parser.add_argument("--address", help="of a Ray cluster, host:port or ray://host:port; implies --engine ray")
    parser.add_argument("--workers", type=int, help="of Ray (default: one for each GPU, or each core)")
    parser.add_argument("--folder", type=Path, help="where rows are kept (default: in the cache)")
    parser.add_argument("--release", action="store_true", help="write all tables into the package, in place of the released ones")
    options = parser.parse_args(arguments)
    for name in options.sweeps:
        if name not in names:
            parser.error(f"unknown sweep {name!r}; choose from {', '.join(names)}")
    if options.release and (options.sweeps or any(getattr(options, name) != parser.get_default(name) for name in RELEASED)):
        parser.error(f"--release writes all tables, as the book reads them: leave out the sweeps and {', '.join(RELEASED)}")
    try:
        _run(options, options.sweeps or names)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")


def _run(options: argparse.Namespace, sweeps: Sequence[str]) -> None:
    parts = load_profile(options.profile, seed=options.seed, device=options.device)
    where = {name: getattr(options, name) for name in ("engine", "address", "workers", "folder")}
    which = {name: getattr(options, name) for name in ("seeds", "editors", "people", "chunk")}
    if options.release:
        assets.check_writable(release.RESULTS)  # not found out after an hour
    size, tables = {name: which.pop(name) for name in ("people", "chunk")}, {}
    for name in sweeps:
        start = time.perf_counter()
        if name in TABLES:
            found = TABLES[name][0](parts)
        else:
            found = grid.computed(parts, {name: grid.cells(parts, name, **size, **which)}, **size, **where, progress=True)
        tables[name] = found
        print(f"{name}: {len(found):,} rows, {time.perf_counter() - start:.0f} s", flush=True)
    if options.release:
        release.write(tables, decided=prove.decided(parts), computed=prove.conditions(tables["table"]))
        print(f"released in {release.RESULTS}", flush=True)
    folder = options.folder or grid.folder_of(parts, **size)
    kept = {TABLES[name][1](parts) if name in TABLES else folder: None for name in sweeps}  # each once, in their order
    print(f"kept in {', '.join(map(str, kept))}", flush=True)


if __name__ == "__main__":
    main()
