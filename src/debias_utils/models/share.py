"""The same generator with more or fewer channels: equal channels that share the work of one."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .stylegan2 import Generator


def share_work(generator: Generator, work: Sequence[int], copies: int | Sequence[int]) -> Generator:
    """A generator of the same pictures in which the work of the first layer's channels is shared out anew (ours).

    The constant and its kernels are divided by the square root of the number of channels that share. As long as all of
    these have the same style, convolution and demodulation give what they gave; one that moves by itself moves the
    convolution by its share, and the demodulation by somewhat more where the step is large.

    Args:
        work: (C,) which work each channel that enters the first layer does, 0 to w - 1; channels of the same work must be
            equal, but for the generator's own rounding. ``range(C)`` where each does its own.
        copies: how many channels shall share each work, (w,) or one number for all.

    Returns:
        The generator, with sum(copies) channels in its first layer, ordered by work.

    Raises:
        ValueError: work that does not fit the first layer; a work without channel; fewer than one copy.
    """
    channels = generator.style_sizes[0]
    try:
        work = [operator.index(w) for w in work]
        shares = [operator.index(c) for c in (copies if isinstance(copies, Iterable) else [copies])]
    except TypeError as error:
        raise ValueError(f"work and copies must be whole numbers: {error}") from error
    works = sorted(set(work))
    if len(work) != channels or works != list(range(len(works))):
        raise ValueError(f"work must be numbers 0, 1, ... without a gap, one for each of {channels} channels; got {len(work)}")
    shares = shares if isinstance(copies, Iterable) else shares * len(works)
    if len(shares) != len(works) or min(shares) < 1:
        raise ValueError(f"copies must be whole numbers of at least 1, one for each of {len(works)} works, got {copies!r}")
    old = torch.bincount(torch.as_tensor(work))  # (w,)
    new = torch.as_tensor(shares)
    first = torch.as_tensor([work.index(w) for w in works])
    kept = first.repeat_interleave(new)  # (sum(copies),)
    scale = (old / new).sqrt().repeat_interleave(new)
    shared: Any = copy.deepcopy(generator)
    block = shared.synthesis.b4
    layer = block.conv1
    for module, name, dim, factor in (
        (block, "const", 0, scale[:, None, None]), (layer, "weight", 1, scale[:, None, None]),
        (layer.affine, "weight", 0, torch.ones(1)), (layer.affine, "bias", 0, torch.ones(1)),
    ):  # fmt: skip
        weight = getattr(module, name).detach()
        weight = weight.index_select(dim, kept.to(weight.device)) * factor.to(weight)
        setattr(module, name, torch.nn.Parameter(weight, requires_grad=False))
    shared.style_sizes[0] = len(kept)  # the list is the synthesis network's as well
    return shared
