"""How much cheaper gradients are than StyleCLIP's finite differences, and how well both agree, in one run: ``make bench``.

All style channels of the mini generator and one text, on the same pictures. Finite differences reuse every layer below
the changed one (`edit.relevance.finite_difference`); a loop that draws every picture from the bottom would be slower still.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from debias_utils import load_profile
from debias_utils.edit.relevance import channel_statistics, finite_difference, gradient
from debias_utils.edit.styleclip import text_delta
from debias_utils.evaluate import agreement


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
        deltas = text_delta(clip.encode_prompts(["nurse"]), clip.encode_prompts(["person"])[0])
    live = statistics.std > 0

    def timed(compute):
        begin = time.perf_counter()
        compute().cpu()  # a GPU has finished
        return time.perf_counter() - begin

    timed(lambda: gradient(*common, styles, statistics, deltas))  # warm up
    one = timed(lambda: gradient(*common, styles, statistics, deltas))
    probed = timed(lambda: gradient(*common, styles, statistics, deltas, probes=16))
    every = timed(lambda: finite_difference(*common, styles, statistics))
    some = timed(lambda: finite_difference(*common, styles, statistics, channels=live))
    print(f"{len(styles)} pictures, {torch.get_num_threads()} threads, {len(live)} channels, {int(live.sum())} live")
    print(f"one gradient, one text            {one:7.2f} s")
    print(f"the same with 16 probes           {probed:7.2f} s  {probed / one:5.0f} times")
    print(f"finite differences, all channels  {every:7.2f} s  {every / one:5.0f} times")
    print(f"finite differences, live channels {some:7.2f} s  {some / one:5.0f} times")

    measured = agreement.compute(parts, pictures=options.pictures, many=agreement.MANY)

    def spearman(*pair: str, **over: bool) -> str:
        found = agreement.spearman(measured, *pair, **over)
        return f"median {np.median(found):.3f} (least {found.min():.3f})"

    print("Spearman over the live channels, 14 texts; in the second line each element counts once:")
    print(f"1 sigma and 5 sigma, published               {spearman(agreement.ONE, agreement.PUBLISHED)}")
    for one, other in (
        (agreement.GRADIENT, agreement.ONE),
        (agreement.PROBES, agreement.PUBLISHED),
        (agreement.GRADIENT, agreement.FIVE),
        (agreement.GRADIENT, agreement.PUBLISHED),
    ):
        print(f"{one} and {other:<32} {spearman(one, other)}\n{'':45}{spearman(one, other, each_once=True)}")
    for copies in agreement.COPIES:
        for items in (False, True):
            print(f"with {copies} channels for each {'element' if items else 'trait'}:")
            for one, other in ((agreement.GRADIENT, agreement.ONE), (agreement.PROBES, agreement.PUBLISHED)):
                pair = (agreement.shared(way, copies, items=items) for way in (one, other))
                print(f"  {one} and {other:<30} {spearman(*pair)}")


if __name__ == "__main__":
    main()
