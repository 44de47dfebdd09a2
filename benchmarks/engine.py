"""What the sweep engine costs beside a bare loop over the same cells, both in this process, in one run: ``make bench``.

The loop computes the cells and concatenates their rows; the engine also writes, locks, checks and reads back. The repeats are
interleaved, so that whatever else the machine does hits both; the ratio is taken within each pair, and its median printed. The
same with cells that cost nothing says how long the engine takes for each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from debias_utils import assets
from debias_utils.evaluate.engine import Cell, sweep

ROWS, COLUMNS = 120, 28  # as many as a cell of Table 1 has


def compute(cell: Cell) -> pd.DataFrame:
    """Rows that depend on all of the work."""
    picture = torch.rand(512, 512, generator=torch.Generator().manual_seed(cell["seed"]))
    for _ in range(cell["rounds"]):
        picture = (picture @ picture).softmax(dim=1)
    rng = np.random.default_rng(cell["seed"])
    return pd.DataFrame(rng.random((ROWS, COLUMNS)), columns=[f"c{i}" for i in range(COLUMNS)]).assign(work=picture.sum().item())


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Print the median ratio with its quartiles, and the milliseconds for a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="of work in a cell, about")
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    trial = {"seed": 0, "rounds": 50}
    compute(trial)  # warms up
    busy = max(round(50 * options.seconds / timed(lambda: compute(trial))), 1)
    numbers, kept = count(), assets.cache_dir()
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as scratch:  # on the disk where the tables lie; /tmp may be memory

        def engine(cells: list[Cell]) -> pd.DataFrame:
            folder = Path(scratch) / str(next(numbers))
            return sweep(cells, compute, folder=folder, description={"version": 1}, progress=False)

        def loop(cells: list[Cell]) -> pd.DataFrame:
            return pd.concat([compute(cell) for cell in cells], ignore_index=True)

        def pairs(cells: list[Cell], repeats: int) -> np.ndarray:
            """(2, repeats) seconds of the engine and of the loop; who begins changes each time."""
            ours, bare = (lambda: engine(cells)), (lambda: loop(cells))
            orders = ((timed(ours), timed(bare)) if i % 2 else (timed(bare), timed(ours))[::-1] for i in range(repeats))
            return np.array(list(orders)).T

        free, real = ([{"seed": seed, "rounds": rounds} for seed in range(options.cells)] for rounds in (0, busy))
        pd.testing.assert_frame_equal(engine(free), loop(free), check_exact=True)  # warms up as well
        idle, nothing = pairs(free, 21)
        ours, bare = pairs(real, options.repeats)
    low, middle, high = np.quantile(ours / bare, [0.25, 0.5, 0.75])
    print(f"{options.cells} cells of {np.median(bare) / options.cells:.2f} s, {torch.get_num_threads()} threads")
    print(f"ratio {middle:.4f} (quartiles {low:.4f} to {high:.4f}, {options.repeats} interleaved repeats)")
    print(f"the engine takes {1000 * np.median(idle - nothing) / options.cells:.1f} ms for a cell of {ROWS} rows")


if __name__ == "__main__":
    main()
