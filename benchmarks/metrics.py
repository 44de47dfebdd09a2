"""Ranking metrics of a pool that does not fit into memory, against a table walked row by row; ratios in one run.

Scores of 100 prompts come block by block, for 1 and for 10 million images: MaxSkew@k, MinSkew@k and NDKL@k of all prompts. Time
and the peak of the memory that NumPy and Python ask for, which must not grow. Drawing the scores is not timed. Times are of the
processor, so that what else runs counts little.

Alternatives take the prompts one at a time, on all scores of a prompt at once. They run on few prompts, scaled to all:

- ``rows``: as the public reference (oxai/debias-vision-lang) at its default of the whole set: a sorted data frame is walked row
  by row. Walked are the first rows of the ranking only, scaled to all; sorting is timed whole.
- ``first rows``: the same code asked for the first k alone: `nlargest`, then k rows. The work that we do, and the same values.
- ``heap``: the leanest plain Python that we know: item by item into a heap of k.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from debias_utils.metrics import RunningTop, max_skew_at_k, min_skew_at_k, ndkl

PROMPTS, GROUPS, BLOCK = 100, 7, 65_536


def blocks(images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores (prompts, b) and groups (b,), the same ones every time."""
    rng = np.random.default_rng(0)
    for start in range(0, images, BLOCK):
        count = min(BLOCK, images - start)
        yield rng.random((PROMPTS, count), dtype=np.float32), rng.integers(0, GROUPS, count, dtype=np.int8)


def streamed(images: int, k: int) -> tuple[float, np.ndarray]:
    """Seconds, and (3, prompts) values."""
    top, seconds = RunningTop(k), 0.0
    for scores, groups in blocks(images):
        begin = time.process_time()
        top.add(scores, groups)
        seconds += time.process_time() - begin
    begin = time.process_time()
    found = np.stack([max_skew_at_k(top, None, k), min_skew_at_k(top, None, k), ndkl(top, None, k=k)])
    return seconds + time.process_time() - begin, found


def walk(ranked: Iterable[int], pool: np.ndarray, k: int) -> tuple[float, float, float]:
    """MaxSkew, MinSkew and NDKL down a ranking of k items, with running counts."""
    found, total, z = [0] * GROUPS, 0.0, 0.0
    for i, label in enumerate(ranked, 1):
        found[label] += 1
        total += sum(c / i * math.log(c / i / q) for c, q in zip(found, pool, strict=True) if c) / math.log2(i + 1)
        z += 1 / math.log2(i + 1)
    skews = [math.log(max(c, 1) / k / q) for c, q in zip(found, pool, strict=True)]
    return max(skews), min(skews), total / z


def rows_of(table: pd.DataFrame) -> Iterator[int]:
    """Labels of a data frame, row by row."""
    return (int(row["label"]) for _, row in table.iterrows())


def pool_of(labels: pd.Series) -> np.ndarray:
    """Shares of the groups, counted one by one as the reference does."""
    return np.array([(labels == group).sum() / len(labels) for group in range(GROUPS)])


def first_rows(scores: np.ndarray, groups: np.ndarray, k: int) -> tuple[float, float, float]:
    """The reference's way to the first k."""
    table = pd.DataFrame({"score": scores, "label": groups})
    return walk(rows_of(table.nlargest(k, "score")), pool_of(table["label"]), k)


def heap(scores: np.ndarray, groups: np.ndarray, k: int) -> tuple[float, float, float]:
    """Item by item."""
    held: list[tuple[float, int, int]] = []  # of tied ones the first stay
    counts = [0] * GROUPS
    for i, (score, label) in enumerate(zip(scores.tolist(), groups.tolist(), strict=True)):
        counts[label] += 1
        if len(held) < k:
            heapq.heappush(held, (score, -i, label))
        elif score > held[0][0]:
            heapq.heapreplace(held, (score, -i, label))
    return walk([label for _, _, label in sorted(held, reverse=True)], np.array(counts) / len(scores), k)


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds, and what came out."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def main() -> None:
    """Print times, memory and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--walked", type=int, default=20_000, help="rows of the whole set that are walked, and scaled to all")
    options = parser.parse_args()
    images, k = options.images, options.k
    print(f"{PROMPTS} prompts, {GROUPS} groups, k = {k}, scores in blocks of {BLOCK} images")
    for size in (images // 10, images):
        tracemalloc.start()
        streamed(size, k)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        fast, found = streamed(size, k)
        print(f"streamed, {size:>10,} images: {fast:6.2f} s, peak {peak / 1e6:.0f} MB, the drawn block among it")

    scores, groups = (np.concatenate(x) for x in zip(*((s[0], g) for s, g in blocks(images)), strict=True))  # of one prompt
    for name, loop in (("first rows", first_rows), ("heap", heap)):
        slow, values = timed(lambda loop=loop: loop(scores, groups, k))
        difference = np.abs(np.array(values) - found[:, 0]).max()
        print(f"    {name}: {slow * PROMPTS:9.0f} s, {slow * PROMPTS / fast:6.0f} x   largest difference {difference:.1e}")
    sort, table = timed(lambda: pd.DataFrame({"score": scores, "label": groups}).sort_values("score", ascending=False))
    pool = np.bincount(groups) / images
    some, _ = timed(lambda: walk(rows_of(table.head(options.walked)), pool, options.walked))
    slow = (sort + some * images / options.walked) * PROMPTS
    print(f"    rows: {slow:9.0f} s, {slow / fast:6.0f} x   of the whole set, {options.walked} rows of which were walked")


if __name__ == "__main__":
    main()
