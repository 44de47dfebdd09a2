"""StyleCLIP's global directions (Patashnik et al. 2021, section 6): from a text to an edit of the styles.

    delta = text_delta(clip.encode_prompts(["nurse"])[0], clip.encode_prompts(["person"])[0])
    r = relevance(generator, clip.encode_image, styles, statistics, delta[None])[0]     # see `relevance`
    d = direction(r, statistics.std, beta=beta_for(r, channels=10))
    pictures = generator.synthesis(generator.split(edit(styles, d, alpha=4.0)))

Units as published: alpha in [-10, 10] (4.1 by default there) moves the most relevant channel by alpha standard
deviations; a higher beta selects fewer channels. The published beta, [.08, .3], is for relevances of the published kind,
between -1 and 1; for others, and on other generators, choose the number of channels with `beta_for`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..models.stylegan2 import Generator


def text_delta(target: torch.Tensor, neutral: torch.Tensor) -> torch.Tensor:
    """The unit difference between what the edit asks for and what the picture shows: n(target - neutral).

    Args:
        target, neutral: (..., d) text embeddings, each averaged over prompt templates and of length 1 (see
            `Clip.encode_prompts`), or both projected by a bias subspace.

    Raises:
        ValueError: target and neutral coincide, so that no direction is left.
    """
    difference = target - neutral
    length = difference.norm(dim=-1, keepdim=True)
    same = length.squeeze(-1) <= 1e-5 * target.norm(dim=-1)
    if same.any():
        which = "" if same.ndim == 0 else f" (rows {same.nonzero().flatten().tolist()})"
        raise ValueError(f"the target text has the same embedding as the neutral text{which}: there is nothing to edit towards")
    return difference / length


def layer_mask(generator: Generator, *, torgb: bool = False, max_resolution: int | None = None) -> torch.Tensor:
    """Which channels may be edited.

    The paper leaves out the torgb layers and those above 128 x 128 (`SingleChannel.py`), which for 1024 x 1024 pictures
    leaves 5,376 channels of 9,088.

    Args:
        generator: its `layer_names` ("b64.conv0") and `style_sizes` are used.
        torgb: include the layers that turn features into colours.
        max_resolution: leave out layers above it; None keeps all.

    Returns:
        (S,) bool.
    """
    chosen = [
        (torgb or not name.endswith("torgb")) and (max_resolution is None or _resolution(name) <= max_resolution)
        for name in generator.layer_names
    ]
    if not any(chosen):
        lowest = min(_resolution(name) for name in generator.layer_names)
        raise ValueError(f"max_resolution {max_resolution} leaves no layer; the lowest is {lowest}")
    return torch.repeat_interleave(torch.tensor(chosen), torch.tensor(list(generator.style_sizes)))


def beta_for(relevance: torch.Tensor, *, channels: int) -> float:
    """The largest beta that keeps `channels` channels (more if several tie for the last place).

    Args:
        relevance: (S,). channels: at least 1, at most the number of channels with any relevance.
    """
    relevant = int((relevance != 0).sum())
    if not 1 <= channels <= relevant:
        raise ValueError(f"channels must lie between 1 and the {relevant} that have any relevance, got {channels}")
    return float(relevance.abs().topk(channels).values[-1])


def direction(relevance: torch.Tensor, std: torch.Tensor, *, beta: float, channels: torch.Tensor | None = None) -> torch.Tensor:
    """The edit of one text: relevance where |relevance| >= beta, divided by its maximum, times std (`GetBoundary`).

    Args:
        relevance: (S,) relevance of each channel to the text. std: (S,) of each channel.
        beta: the threshold; the higher, the fewer channels.
        channels: (S,) bool, those that may move (`layer_mask`); None is all.

    Returns:
        (S,) in units of the style; the most relevant channel moves by one standard deviation.

    Raises:
        ValueError: beta above every relevance; the message tells which beta keeps how many channels.
    """
    if not torch.isfinite(relevance).all():
        raise ValueError("relevance holds values that are not finite")
    if not beta >= 0:
        raise ValueError(f"beta must be at least 0, got {beta!r}")
    allowed = relevance if channels is None else relevance * channels.to(relevance.device)
    largest = allowed.abs().max()
    if largest == 0:
        raise ValueError("no selected channel has any relevance to this text")
    if beta > largest:
        counts = [k for k in (1, 5, 10, 50, 100) if k <= int((allowed != 0).sum())]
        offers = ", ".join(f"{beta_for(allowed, channels=k):.3g} keeps {k}" for k in counts)
        raise ValueError(f"beta {beta:.3g} is above every relevance, no channel is left to edit; {offers}")
    return torch.where(allowed.abs() >= beta, allowed, 0.0) / largest * std


def edit(
    styles: torch.Tensor,
    direction: torch.Tensor,
    *,
    alpha: float,
    low: torch.Tensor | None = None,
    high: torch.Tensor | None = None,
) -> torch.Tensor:
    """Move styles along an edit: s + alpha d. Differentiable.

    Args:
        styles: (n, S). direction: (S,) from `direction`.
        alpha: strength in published units, see above; negative edits away from the text, 0 changes nothing.
        low, high: (S,) the range seen; an edited channel does not leave it (ours, published edits are not clamped). A
            channel that was outside before stays where it was, or comes closer.

    Returns:
        (n, S).
    """
    edited = styles + alpha * direction
    if low is not None:
        edited = torch.maximum(edited, torch.minimum(low, styles))
    if high is not None:
        edited = torch.minimum(edited, torch.maximum(high, styles))
    return edited


def _resolution(name: str) -> int:
    """Side in pixels of the layer "b64.conv0": 64."""
    return int(name.split(".")[0][1:])
