"""How much faster the ranking metrics are than the definition, item by item; a ratio in one run: ``make bench``.

The loop goes through every prompt and every prefix and counts each group in it, as the public reference implementation
does. It is timed on a few prompts and scaled to all of them; the results are compared to the last digits.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from debias_utils.metrics import max_skew_at_k, ndkl

PROMPTS, IMAGES, GROUPS, K = 319, 10_954, 7, 1000  # debias-vision-lang's prompts, FairFace's validation set


def loop_ndkl(scores: np.ndarray, groups: np.ndarray) -> list[float]:
    """NDKL row by row, prefix by prefix, group by group."""
    labels, counts = np.unique(groups, return_counts=True)
    pool = counts / counts.sum()
    values = []
    for row in scores:
        ranked = groups[np.argsort(-row, kind="stable")]
        total = z = 0.0
        for i in range(1, len(ranked) + 1):
            prefix = ranked[:i]
            divergence = 0.0
            for label, q in zip(labels, pool, strict=True):
                p = np.count_nonzero(prefix == label) / i
                if p > 0:
                    divergence += p * np.log(p / q)
            total += divergence / np.log2(i + 1)
            z += 1 / np.log2(i + 1)
        values.append(total / z)
    return values


def loop_max_skew(scores: np.ndarray, groups: np.ndarray, k: int) -> list[float]:
    """MaxSkew@k row by row, item by item."""
    labels, counts = np.unique(groups, return_counts=True)
    pool = dict(zip(labels.tolist(), counts / counts.sum(), strict=True))
    values = []
    for row in scores:
        ranked = sorted(range(len(row)), key=lambda i, row=row: -row[i])
        found = dict.fromkeys(pool, 0)
        for item in ranked[:k]:
            found[int(groups[item])] += 1
        values.append(max(float(np.log(max(count, 1) / k / pool[label])) for label, count in found.items()))
    return values


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The best of several runs."""
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
    print(f"{PROMPTS} prompts x {IMAGES} images x {GROUPS} groups; the loop runs on {len(few)} prompts and is scaled")
    for name, ours, loop in (
        ("ndkl", lambda s: ndkl(s, groups), lambda s: loop_ndkl(s, groups)),
        (f"max_skew_at_k, k={K}", lambda s: max_skew_at_k(s, groups, K), lambda s: loop_max_skew(s, groups, K)),
    ):
        difference = np.abs(np.asarray(ours(few)) - loop(few)).max()
        fast = seconds(lambda ours=ours: ours(scores), repeats=3)
        slow = seconds(lambda loop=loop: loop(few), repeats=1) * PROMPTS / len(few)
        memory = [peak_megabytes(lambda ours=ours, n=n: ours(scores[:n])) for n in (PROMPTS // 2, PROMPTS)]
        print(f"{name:24} {slow:8.1f} s -> {fast:6.3f} s: {slow / fast:7.0f} x   largest difference {difference:.1e}   ", end="")
        print(f"peak memory {memory[0]:.0f} MB for half of the prompts, {memory[1]:.0f} MB for all")


if __name__ == "__main__":
    main()
