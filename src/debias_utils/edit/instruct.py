"""Editing pictures with an instruction: InstructPix2Pix (Brooks et al. 2023), every person with every instruction.

    model = Pix2Pix.load(folder)
    before = edit(model, people, ["make this person a nurse", "make this person a plumber"], seed=1)   # (n, 2, 3, h, w)

The noise of a person depends on the seed and the person alone, so that what differs between two edits is due to the text:
compare `before` with the edit by a debiased condition. For debiasing by gradient, see `sampler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..errors import check_whole
from ..models.pix2pix import Pix2Pix
from ..tensors import check_finite, floats
from .sampler import Sampler


@torch.no_grad()
def edit(
    model: Pix2Pix,
    images: torch.Tensor,
    instructions: Sequence[str] | torch.Tensor,
    *,
    steps: int = 20,
    guidance: tuple[float, float] | None = (7.5, 1.5),
    negative: str = "",
    seed: int = 0,
    people: Sequence[int] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    scheduler: Any = None,
    chunk_size: int = 8,
    progress: bool = True,
) -> torch.Tensor:
    """Edit n pictures by m instructions.

    Args:
        model: the parts. images: (n, 3, h, w) in [0, 1], sides multiples of `model.factor`.
        instructions: m texts, or conditions, tensor or array: (m, 77, d) as `model.encode_text` makes them, debiased or not, or
            (n, m, 77, d), one for each pair. The branches without text are left as they are.
        steps, guidance, negative, seed, people, generator, scheduler: see `Sampler`.
        chunk_size: pictures that are drawn at a time, each with three branches of the UNet: bounds the memory. In
            float32 it moves the pictures by rounding, up to 3e-6 on the mini editor.
        progress: show a bar of calls of the UNet.

    Returns:
        (n, m, 3, h, w) in [0, 1], float32, where `images` are.

    Raises:
        ValueError: as `Sampler` and `Pix2Pix.encode_text`; conditions that are of another shape or not finite.
    """
    check_whole("chunk_size", chunk_size)
    given = isinstance(instructions, torch.Tensor) or (isinstance(instructions, np.ndarray) and instructions.dtype.kind == "f")
    conditions = floats("instructions", instructions) if given else model.encode_text(instructions)  # type: ignore[arg-type]
    n, tokens, shape = len(images), (model.tokenizer.model_max_length, model.width), tuple(conditions.shape)
    check_finite("instructions", conditions)
    if conditions.ndim == 3:
        conditions = conditions.expand(n, *conditions.shape)
    if conditions.ndim != 4 or len(conditions) != n or conditions.shape[2:] != tokens or not conditions.shape[1]:
        raise ValueError(
            f"need texts, or finite conditions (m, {tokens[0]}, {tokens[1]}) for all pictures or (n, m, ...) for each of {n}, "
            f"got {shape}"
        )
    m = conditions.shape[1]
    rows = torch.arange(n).repeat_interleave(m)
    options: dict[str, Any] = {"steps": steps, "guidance": guidance, "negative": negative, "scheduler": scheduler}
    sampler = Sampler(model, images, rows=rows, seed=seed, people=people, generator=generator, **options)
    chunks, edited = torch.arange(n * m).split(chunk_size), []
    with tqdm(total=len(chunks) * sampler.calls, desc="editing", unit="call", leave=False, disable=not progress) as bar:
        for index in chunks:
            pictures = sampler(conditions[rows[index], index % m], index, on_call=bar.update)
            edited.append(pictures.clamp(0, 1).to(images.device))
    return torch.cat(edited).unflatten(0, (n, m))
