"""How much cheaper gradients are than StyleCLIP's finite differences, and how well both agree, in one run: ``make bench``.

All style channels of the mini generator and one text, on the same pictures. Finite differences reuse every layer below
the changed one (`edit.relevance.finite_difference`); a loop that draws every picture from the bottom would be slower still.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy.stats import spearmanr

from debias_utils import load_profile
from debias_utils.edit.relevance import channel_statistics, finite_difference, gradient
from debias_utils.edit.styleclip import text_delta
from debias_utils.toonville import OCCUPATIONS


def main() -> None:
    """Print the times, their ratio, and Spearman's rank correlations over the 14 texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16)
    options = parser.parse_args()
    parts = load_profile("mini")
    clip, common = parts.clip(), (parts.generator, parts.clip().encode_image)
    samples = parts.sample_styles(1000, seed=1)
    statistics, styles = channel_statistics(samples), samples[: options.pictures]
    with torch.no_grad():
        deltas = text_delta(clip.encode_prompts(list(OCCUPATIONS)), clip.encode_prompts(["person"])[0])
    live = statistics.std > 0

    def timed(compute):
        begin = time.perf_counter()
        return compute(), time.perf_counter() - begin

    timed(lambda: gradient(*common, styles, statistics, deltas[:1]))  # warm up
    _, one = timed(lambda: gradient(*common, styles, statistics, deltas[:1]))
    published, every = timed(lambda: finite_difference(*common, styles, statistics))
    small, some = timed(
        lambda: finite_difference(*common, styles, statistics, step=1, around="sample", normalize=False, channels=live)
    )
    slopes = gradient(*common, styles, statistics, deltas)
    probed = gradient(*common, styles, statistics, deltas, probes=16)

    def agreement(a, b):
        found = [spearmanr(x[live].cpu(), y[live].cpu()).statistic for x, y in zip(a, b, strict=True)]
        return f"median {np.median(found):.3f} (least {min(found):.3f})"

    print(f"{len(styles)} pictures, {torch.get_num_threads()} threads, {len(live)} channels, {int(live.sum())} live")
    print(f"one gradient, one text            {one:7.2f} s")
    print(f"finite differences, all channels  {every:7.2f} s  {every / one:5.0f} times")
    print(f"finite differences, live channels {some:7.2f} s  {some / one:5.0f} times")
    print("Spearman over the live channels, 14 texts:")
    print(f"  gradient and 1 sigma around the samples    {agreement(slopes, deltas @ small.T)}")
    print(f"  gradient and 5 sigma, published            {agreement(slopes, deltas @ published.T)}")
    print(f"  gradient with probes and 5 sigma, published {agreement(probed, deltas @ published.T)}")
    print(f"  1 sigma and 5 sigma, published             {agreement(deltas @ small.T, deltas @ published.T)}")


if __name__ == "__main__":
    main()
