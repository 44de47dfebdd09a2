"""What the tests of the engine compute, where other processes find it: `python sweep_cells.py FOLDER COUNT SECONDS ENGINE`."""

import os
import secrets
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from debias_utils.evaluate.engine import sweep

TOKEN = secrets.token_hex(32)  # of Ray, which reads it once for a process
DESCRIPTION = {"version": 1, "weights": "abc"}


def grid(folder, count, *, seconds=0.0):
    """Cells that leave a line in a log, beside the folder, whenever they are computed."""
    return [
        {"training": i, "alpha": None if i % 3 else 0.1 * i, "seconds": seconds, "log": f"{folder}.log"} for i in range(count)
    ]


def rows(cell):
    with open(cell["log"], "a") as log:
        log.write(f"{cell['training']}\n")
    time.sleep(cell["seconds"])
    rng = np.random.default_rng(cell["training"])
    n = 5 + cell["training"]
    table = {
        "training": cell["training"],
        "alpha": cell["alpha"],
        "shift": rng.random(n, dtype=np.float32),
        "score": rng.random(n),
    }
    return pd.DataFrame({**table, "label": rng.choice(["woman", "man", "Ärztin"], n), "flip": rng.random(n) < 0.5})


def computed(folder):
    """Which cells were computed, in that order, by all runs together."""
    log = Path(f"{folder}.log")
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def torch_rows(cell):
    """The last bits of the sum depend on the number of threads."""
    import torch

    many = torch.rand(3_000_000, generator=torch.Generator().manual_seed(cell["training"]))
    return rows(cell).assign(total=many.sum().item(), threads=torch.get_num_threads())


def gpu_rows(cell):
    """The GPUs that this process may use, and when it did."""
    begin = time.monotonic()
    return rows(cell).assign(gpus=os.environ.get("CUDA_VISIBLE_DEVICES"), begin=begin, end=time.monotonic())


def hangs_once(cell):
    """The first time, the cell of training 1 leaves the number of its process, and waits to be killed."""
    left = Path(f"{cell['log']}.pid")
    if cell["training"] == 1 and not left.exists():
        left.with_suffix(".new").write_text(str(os.getpid()))
        left.with_suffix(".new").rename(left)
        time.sleep(120)
    return rows(cell)


def fails(cell):
    if cell["training"] == 2:
        raise LookupError("no weights")
    return rows(cell)


if __name__ == "__main__":
    place, total, pause, which = sys.argv[1:]
    todo = grid(place, int(total), seconds=float(pause))
    sweep(todo, rows, folder=Path(place), description=DESCRIPTION, engine=which, workers=2 if which == "ray" else None)
