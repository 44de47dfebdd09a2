"""What our sampling loop costs beside the pipeline's own call, same steps and precision, in one run: ``make bench``.

Both edit the same pictures from the same noise; their pictures are compared. The repeats are interleaved, so that whatever else
the machine does hits both; the ratio is taken within each pair, and its median printed. Weights are random: they cost as much.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from debias_utils.edit.instruct import edit
from debias_utils.edit.sampler import ddim, person_generator
from debias_utils.models.pix2pix import PARTS, Pix2Pix

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from conftest import tiny_parts


def main() -> None:
    """Print both times, and the median of their ratio with its quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="a pipeline as diffusers saves it; default: random weights for 32 x 32 pictures")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    parts = tiny_parts(channels=(32, 64), image_size=options.size)
    model = Pix2Pix.load(options.folder, device=options.device) if options.folder else Pix2Pix(**parts).to(options.device)
    scheduler = ddim(model.scheduler)
    pipeline = StableDiffusionInstructPix2PixPipeline(
        **{**{part: getattr(model, part) for part in PARTS}, "scheduler": scheduler},
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    n, text = options.people, "make the man a woman"
    images = torch.rand(n, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))

    def ours() -> torch.Tensor:
        return edit(model, images, [text], steps=options.steps, scheduler=scheduler, chunk_size=n, progress=False)[:, 0]

    def theirs() -> torch.Tensor:
        generators = [person_generator(0, i) for i in range(n)]
        call = {"num_inference_steps": options.steps, "generator": generators, "output_type": "pt"}
        return pipeline([text] * n, image=images, **call).images.to(images)

    def timed(draw) -> float:
        begin = time.perf_counter()
        draw()
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    apart = float((ours() - theirs()).abs().max())  # warms up as well
    pairs = [(timed(ours), timed(theirs)) if i % 2 else (timed(theirs), timed(ours))[::-1] for i in range(options.repeats)]
    mine, other = np.array(pairs).T
    low, middle, high = np.quantile(mine / other, [0.25, 0.5, 0.75])
    print(f"{n} people, {options.steps} steps, {model.dtype}, {options.device}, {torch.get_num_threads()} threads")
    print(f"pictures differ by at most {apart:.1e}")
    print(f"ours {1000 * np.median(mine):.1f} ms, the pipeline's own call {1000 * np.median(other):.1f} ms")
    print(f"ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {options.repeats} interleaved repeats)")


if __name__ == "__main__":
    main()
