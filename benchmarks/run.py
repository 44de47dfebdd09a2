"""How much faster the ranking metrics are than loops of the same definition; ratios in one run: ``make bench``.

Three alternatives take the prompts one at a time. ``table`` goes down a sorted data frame row by row, as the public
reference implementation (oxai/debias-vision-lang) does for NDKL. ``lists`` is the leanest plain Python that we know: lists,
one `sorted` for each prompt, running counts. ``numpy`` loops over the prompts alone. They show how much of the ratio is due
to pandas, how much to Python, and how much is left. They run on a few prompts, scaled to all; results are compared.
"""

from __future__ import annotations

import argparse
import math
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from debias_utils.metrics import max_skew_at_k, ndkl

PROMPTS, IMAGES, GROUPS, K = 319, 10_954, 7, 1000  # debias-vision-lang's prompts, FairFace's validation set


def walk_table(row: np.ndarray, groups: np.ndarray, k: int) -> Iterable[int]:
    """Groups of the first k, row by row of a data frame."""
    table = pd.DataFrame({"score": row, "group": groups}).nlargest(k, "score")
    return (int(person["group"]) for _, person in table.iterrows())


def walk_lists(row: np.ndarray, groups: np.ndarray, k: int) -> Iterable[int]:
    """Groups of the first k, item by item of a list."""
    scores, labels = row.tolist(), groups.tolist()
    ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return (labels[item] for item in ranked[:k])


def loop_ndkl(ranked: Iterable[int], pool: dict[int, float]) -> float:
    """NDKL of one ranking: down the ranking with running counts."""
    found = dict.fromkeys(pool, 0)
    total = z = 0.0
    for i, label in enumerate(ranked, 1):
        found[label] += 1
        divergence = sum(c / i * math.log(c / i / pool[g]) for g, c in found.items() if c)
        total += divergence / math.log2(i + 1)
        z += 1 / math.log2(i + 1)
    return total / z


def loop_max_skew(ranked: Iterable[int], pool: dict[int, float], k: int) -> float:
    """MaxSkew@k of one ranking: down its first k with running counts."""
    found = dict.fromkeys(pool, 0)
    for label in ranked:
        found[label] += 1
    return max(math.log(max(c, 1) / k / pool[g]) for g, c in found.items())


def numpy_ndkl(row: np.ndarray, groups: np.ndarray) -> float:
    """NDKL of one ranking without a loop over items."""
    position = np.arange(1, len(row) + 1)
    ranked = groups[np.argsort(-row, kind="stable")]
    share = np.cumsum(ranked[:, None] == np.arange(GROUPS), axis=0) / position[:, None]  # (n, groups)
    log_ratio = np.log(np.maximum(share, 1e-9) / (np.bincount(groups) / len(groups)))
    return np.average((share * log_ratio).sum(axis=1), weights=1 / np.log2(position + 1))


def numpy_max_skew(row: np.ndarray, groups: np.ndarray, k: int) -> float:
    """MaxSkew@k of one ranking without a loop over items."""
    top = groups[np.argsort(-row, kind="stable")[:k]]
    share = np.maximum(np.bincount(top, minlength=GROUPS), 1) / k
    return np.log(share / (np.bincount(groups) / len(groups))).max()


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The best of several runs: what else runs on the machine counts least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_megabytes(work: Callable[[], object]) -> float:
    """Peak of the memory that NumPy and Python ask for."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Print the ratios and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop-prompts", type=int, default=2, help="prompts on which the loop is timed")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((PROMPTS, IMAGES), dtype=np.float32)
    groups = rng.integers(0, GROUPS, IMAGES)
    few = scores[: options.loop_prompts]
    pool = {g: count / IMAGES for g, count in Counter(groups.tolist()).items()}
    print(f"{PROMPTS} prompts x {IMAGES} images x {GROUPS} groups; loops run on {len(few)} prompts and are scaled")
    for name, ours, loops in (
        (
            "ndkl",
            lambda s: ndkl(s, groups),
            {
                "table": lambda row: loop_ndkl(walk_table(row, groups, IMAGES), pool),
                "lists": lambda row: loop_ndkl(walk_lists(row, groups, IMAGES), pool),
                "numpy": lambda row: numpy_ndkl(row, groups),
            },
        ),
        (
            f"max_skew_at_k, k={K}",
            lambda s: max_skew_at_k(s, groups, K),
            {
                "table": lambda row: loop_max_skew(walk_table(row, groups, K), pool, K),
                "lists": lambda row: loop_max_skew(walk_lists(row, groups, K), pool, K),
                "numpy": lambda row: numpy_max_skew(row, groups, K),
            },
        ),
    ):
        fast = seconds(lambda ours=ours: ours(scores), repeats=10)
        memory = [peak_megabytes(lambda ours=ours, n=n: ours(scores[:n])) for n in (PROMPTS // 2, PROMPTS)]
        print(f"{name}: {fast:.3f} s; peak memory {memory[0]:.0f} MB for half of the prompts, {memory[1]:.0f} MB for all")
        for alternative, loop in loops.items():
            difference = np.abs(np.asarray(ours(few)) - [loop(row) for row in few]).max()
            slow = seconds(lambda loop=loop: [loop(row) for row in few], repeats=3) * PROMPTS / len(few)
            print(f"    {alternative}: {slow:6.1f} s, {slow / fast:5.0f} x   largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
