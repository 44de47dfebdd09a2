"""StyleCLIP's global directions (Patashnik et al. 2021, section 6): from a text to an edit of the styles.

    delta = text_delta(clip.encode_prompts(["nurse"])[0], clip.encode_prompts(["person"])[0])
    r = relevance(generator, clip.encode_image, styles, statistics, delta[None])[0]     # see `relevance`
    d = direction(r, statistics.std, beta=beta_for(r, channels=10))
    pictures = generator.synthesis(generator.split(edit(styles, d, alpha=4.0)))

Units as published: alpha in [-10, 10] (4.1 by default there) moves the most relevant channel by alpha standard
deviations; a higher beta selects fewer channels. The published beta, [.08, .3], is for relevances of the published kind,
between -1 and 1; for others, and on other generators, choose the number of channels with `beta_for`.

Tensors or arrays go in, and the same kind comes out, of the dtype that went in: half precision is computed in float32, whole
numbers become float64. Each function raises one ValueError that says how many values are NaN or infinite, and where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..arrays import array, booleans, numbers
from ..errors import check_whole
from ..tensors import at_least_float32, check_finite, floats, is_number, like

if TYPE_CHECKING:
    from ..models.stylegan2 import Generator


def text_delta(target: Any, neutral: Any) -> Any:
    """The unit difference between what the edit asks for and what the picture shows: n(target - neutral).

    Args:
        target, neutral: (..., d) text embeddings, each averaged over prompt templates and of length 1 (see
            `Clip.encode_prompts`), or both projected by a bias subspace. One of them may stand for all of the other.

    Returns:
        (..., d), the kind of `target`.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity; target and neutral coincide, so that no direction is left.
    """
    a = floats("target", target)
    b = floats("neutral", neutral).to(a.device)
    _check_broadcast("neutral", b, "target", a)
    check_finite("target", a)
    check_finite("neutral", b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = at_least_float32(a), at_least_float32(b)
    difference = a - b
    length = difference.norm(dim=-1, keepdim=True)
    same = length.squeeze(-1) <= 1e-5 * a.norm(dim=-1)
    if same.any():
        which = "" if same.ndim == 0 else f" (rows {same.nonzero().squeeze(1).tolist()})"
        raise ValueError(f"the target text has the same embedding as the neutral text{which}: there is nothing to edit towards")
    return like(target, (difference / length).to(dtype))


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

    Raises:
        ValueError: max_resolution is no number, or below the lowest layer.
    """
    if not (max_resolution is None or is_number(max_resolution)):
        raise ValueError(f"max_resolution must be a number of pixels or None, got {max_resolution!r}")
    chosen = [
        (torgb or not name.endswith("torgb")) and (max_resolution is None or _resolution(name) <= max_resolution)
        for name in generator.layer_names
    ]
    if not any(chosen):
        lowest = min(_resolution(name) for name in generator.layer_names)
        raise ValueError(f"max_resolution {max_resolution} leaves no layer; the lowest is {lowest}")
    return torch.repeat_interleave(torch.tensor(chosen), torch.tensor(list(generator.style_sizes)))


def beta_for(relevance: Any, *, channels: int) -> float:
    """The largest beta that keeps `channels` channels (more if several tie for the last place).

    Args:
        relevance: (S,) of one text. channels: at least 1, at most the number of channels with any relevance.

    Raises:
        ValueError: relevances of several texts, NaN or infinity; channels out of range.
    """
    relevance = at_least_float32(_one_text(relevance))
    relevant = int((relevance != 0).sum())
    check_whole("channels", channels)
    if channels > relevant:
        raise ValueError(f"channels must lie between 1 and the {relevant} that have any relevance, got {channels}")
    return float(relevance.abs().topk(channels).values[-1])


def direction(relevance: Any, std: Any, *, beta: float, channels: Any = None) -> Any:
    """The edit of one text: relevance where |relevance| >= beta, divided by its maximum, times std (`GetBoundary`).

    Args:
        relevance: (S,) relevance of each channel to the text: of several texts, (t, S), each row has a maximum and a beta of
            its own, so call it for each. std: (S,) of each channel, not negative.
        beta: the threshold; the higher, the fewer channels.
        channels: (S,) bool, those that may move (`layer_mask`); None is all.

    Returns:
        (S,) in units of the style, the kind of `relevance`; the most relevant channel moves by one standard deviation.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity; beta above every relevance; the message tells which beta keeps how
            many channels.
    """
    given = _one_text(relevance)
    if not is_number(beta) or not beta >= 0:
        raise ValueError(f"beta must be at least 0, got {beta!r}")
    allowed = at_least_float32(given)
    if channels is not None:
        allowed = allowed * check_channels(channels, given).to(given.device)
    largest = allowed.abs().max()
    if largest == 0:
        raise ValueError("no selected channel has any relevance to this text")
    if beta > largest:
        counts = [k for k in (1, 5, 10, 50, 100) if k <= int((allowed != 0).sum())]
        offers = ", ".join(f"{beta_for(allowed, channels=k):.3g} keeps {k}" for k in counts)
        raise ValueError(f"beta {beta:.3g} is above every relevance, no channel is left to edit; {offers}")
    deviation = _channelwise("std", std, given)
    if not (deviation >= 0).all():
        raise ValueError(f"std must not be negative, got {float(deviation.min()):.3g}")
    result = torch.where(allowed.abs() >= beta, allowed, 0.0) / largest * deviation
    return like(relevance, result.to(torch.promote_types(given.dtype, deviation.dtype)))


def edit(styles: Any, direction: Any, *, alpha: float, low: Any = None, high: Any = None) -> Any:
    """Move styles along an edit: s + alpha d. Differentiable.

    Args:
        styles: (n, S). direction: (S,) from `direction`.
        alpha: strength in published units, see above; negative edits away from the text, 0 changes nothing.
        low, high: (S,) or numbers, the range seen, which may be infinite; an edited channel does not leave it (ours, published
            edits are not clamped). A channel that was outside before stays where it was, or comes closer.

    Returns:
        (n, S), the kind of `styles`.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity; low above high.
    """
    given = floats("styles", styles)
    if given.ndim != 2:
        raise ValueError(f"need styles (n, S), got shape {tuple(given.shape)}")
    check_finite("styles", given)
    way = _channelwise("direction", direction, given[0] if len(given) else given.new_zeros(given.shape[1]))
    if not (is_number(alpha) or (isinstance(alpha, torch.Tensor) and alpha.ndim == 0 and bool(alpha.isfinite()))):
        raise ValueError(f"alpha must be a finite number, got {alpha!r}")
    bounds = [_bound(name, bound, given) for name, bound in (("low", low), ("high", high))]
    if low is not None and high is not None and (bounds[0] > bounds[1]).any():
        raise ValueError(f"low must not be above high, as in {int((bounds[0] > bounds[1]).sum())} channels")
    start = at_least_float32(given)
    edited = start + alpha * way
    if low is not None:
        edited = torch.maximum(edited, torch.minimum(bounds[0], start))
    if high is not None:
        edited = torch.minimum(edited, torch.maximum(bounds[1], start))
    return like(styles, edited.to(torch.promote_types(given.dtype, way.dtype)))


def check_channels(channels: Any, of: torch.Tensor) -> torch.Tensor:
    """The bool mask as a tensor (S,); ``ValueError`` unless it is one, as long as the last dimension of `of`."""
    mask = array(channels)
    if mask.dtype.kind in "fO":
        numbers("channels", mask)  # says how many are missing
    if mask.dtype.kind == "O":
        mask = booleans("channels", mask)
    if mask.dtype.kind != "b" or mask.shape != of.shape[-1:]:
        dtype = getattr(channels, "dtype", mask.dtype)
        raise ValueError(f"channels must be (S,) bool with S = {of.shape[-1]}, got {mask.shape} {dtype}")
    return torch.tensor(mask)


def _one_text(relevance: Any) -> torch.Tensor:
    found = floats("relevance", relevance)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"need the relevance (S,) of one text, got shape {tuple(found.shape)}; of several, take one at a time")
    check_finite("relevance", found)
    return found


def _channelwise(name: str, x: Any, of: torch.Tensor) -> torch.Tensor:
    """X as finite numbers, one for each channel of `of` (S,), on its device."""
    found = floats(name, x)
    if found.shape != of.shape:
        raise ValueError(f"need {name} (S,) with S = {len(of)}, got shape {tuple(found.shape)}")
    check_finite(name, found)
    return found.to(of.device)


def _bound(name: str, bound: Any, styles: torch.Tensor) -> torch.Tensor:
    found = floats(name, -torch.inf if bound is None else bound).to(styles.device)
    if found.shape not in ((), styles.shape[1:], styles.shape):
        raise ValueError(f"need {name} (S,) with S = {styles.shape[1]}, got shape {tuple(found.shape)}")
    if found.isnan().any():
        raise ValueError(f"{name} holds {int(found.isnan().sum())} NaN, the first at {found.isnan().nonzero()[0].tolist()}")
    return found.to(styles.dtype)


def _check_broadcast(name: str, x: torch.Tensor, of: str, y: torch.Tensor) -> None:
    """Both (..., d) of one d, with leading dimensions that go together."""
    try:
        fits = bool(x.ndim and y.ndim) and x.shape[-1] == y.shape[-1] and bool(torch.broadcast_shapes(x.shape, y.shape))
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"need {of} and {name} (..., d) that fit together, got {tuple(y.shape)} and {tuple(x.shape)}")


def _resolution(name: str) -> int:
    """Side in pixels of the layer "b64.conv0": 64."""
    return int(name.split(".")[0][1:])
