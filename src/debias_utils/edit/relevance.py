"""How much each style channel of a generator moves a picture towards a text (Patashnik et al. 2021, section 6).

Relevance is what StyleCLIP's global directions are made of. Four ways to it, on flat styles (n, S):

- `finite_difference`, the published procedure: push one channel at a time, look at the pictures. S x 2 x n pictures.
- `gradient`, ours: one backward pass per text gives all channels at once. Right where the response is smooth over the
  range of the data; it hardly sees what few samples show, such as a hat: where the hat is off, a little hat is nothing.
- `expected_gradient`, ours: the same gradients, taken on the way from sample to sample. Sees the hat come and go, needs
  more samples.
- `regression`, ours: no gradient at all. Which channels are high where the picture fits the text? Includes whatever comes
  along with them.

All give the change of <picture embedding, direction> per standard deviation of a channel, so they compare directly. Only
the published default of `finite_difference`, and `gradient` with `probes`, divide each channel's effect by its size.

Styles, features and directions may be arrays; what comes back are tensors, at least float32. Each function raises one
ValueError that says how many values are NaN or infinite, and where, of what it is given and of what `encode` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ..errors import check_choice, check_whole
from ..tensors import at_least_float32, check_finite, floats, is_number
from .styleclip import check_channels

if TYPE_CHECKING:
    from ..models.stylegan2 import Generator

Encoder = Callable[[torch.Tensor], torch.Tensor]  # pictures (n, 3, h, w) in [0, 1] -> (n, d), of length 1 for CLIP


@dataclass(frozen=True)
class ChannelStatistics:
    """What each style channel does over many samples: four (S,) tensors, in units of the style, all finite."""

    mean: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __post_init__(self) -> None:
        for name in ("mean", "std", "low", "high"):
            values = floats(name, getattr(self, name))
            if values.ndim != 1 or len(values) != len(self.mean):
                raise ValueError(f"statistics need (S,) values each, but {name} is {tuple(values.shape)}")
            check_finite(f"{name} of the statistics", values)
            object.__setattr__(self, name, values)

    def ends(self, step: float, *, clamp: bool, around: torch.Tensor | None = None) -> torch.Tensor:
        """`step` standard deviations above and below the mean, or above and below `around` (..., S): (2, ..., S).

        With `clamp` not beyond the range seen.
        """
        if not (is_number(step) and step > 0):
            raise ValueError(f"step must be a positive number of standard deviations, got {step!r}")
        centre = self.mean if around is None else floats("around", around)
        if centre.shape[-1:] != self.mean.shape:
            raise ValueError(f"around must be (..., S) with S = {len(self.mean)}, got shape {tuple(centre.shape)}")
        check_finite("around", centre)
        ends = torch.stack([centre + step * self.std, centre - step * self.std])
        return torch.clamp(ends, self.low, self.high) if clamp else ends


def channel_statistics(styles: Any) -> ChannelStatistics:
    """Mean, standard deviation and range of each channel.

    Args:
        styles: (n, S) flat styles of many samples. StyleCLIP takes 100,000 at truncation 0.7 (layers 0 to 7).

    Raises:
        ValueError: fewer than two samples, or values that are not finite.
    """
    styles = at_least_float32(_check_styles(styles, at_least=2))
    low, high = torch.aminmax(styles, dim=0)
    return ChannelStatistics(styles.mean(dim=0), styles.std(dim=0, correction=0), low, high)


def relevance(
    generator: Generator,
    encode: Encoder,
    styles: torch.Tensor,
    statistics: ChannelStatistics,
    directions: torch.Tensor,
    *,
    method: str = "gradient",
    **options: Any,
) -> torch.Tensor:
    """Relevance of every channel to every text, by `method`: "finite-difference" (published), "gradient", "expected-gradient".

    Args:
        directions: (t, d) unit text differences, see `debias_utils.edit.styleclip.text_delta`.
        generator, encode, styles, statistics, options: as in the function of that name.

    Returns:
        (t, S).
    """
    by_gradient: dict[str, Callable[..., torch.Tensor]] = {"gradient": gradient, "expected-gradient": expected_gradient}
    check_choice("method", method, ("finite-difference", *by_gradient))
    if method == "finite-difference":
        directions = _check_directions(directions)
        table = finite_difference(generator, encode, styles, statistics, **options)
        return _check_width(directions, table).to(table) @ table.T
    return by_gradient[method](generator, encode, styles, statistics, directions, **options)


@torch.no_grad()
def finite_difference(
    generator: Generator,
    encode: Encoder,
    styles: torch.Tensor,
    statistics: ChannelStatistics,
    *,
    step: float = 5.0,
    around: str = "mean",
    clamp: bool = False,
    normalize: bool = True,
    channels: torch.Tensor | None = None,
    batch_size: int = 64,
) -> torch.Tensor:
    """The direction in which each channel moves the embedding, as StyleCLIP measures it (`SingleChannel.py`).

    A channel is set to its mean in all pictures, then to `step` standard deviations above and below it. The difference
    of the two embeddings is normalised for each picture, averaged over pictures, and normalised again. The layers below
    the changed one are computed once for all channels of a layer.

    The official code never resets a visited channel (it copies a list of views), so its later channels are measured on
    ever more average pictures. Here every channel is measured on the same pictures.

    Args:
        generator: its `split`, `states` and `synthesis` are used.
        encode: pictures (n, 3, h, w) in [0, 1] -> (n, d) embeddings, used as they come (of length 1 for CLIP).
        styles: (n, S) flat styles of the pictures to measure on; the paper takes 100.
        step: in standard deviations; 5 in the official code.
        around: "mean", as published, or "sample": each picture's own value of the channel (ours), the plain mean of Tanjim et
            al. 2024, section 3.1. Where an element is on in few pictures, the mean is a value that no picture has.
        clamp: stay in the range seen (ours): for elements that are rarely on, 5 deviations lead far out of the data.
        normalize: the published double normalisation, which discards how large the effect is. Without it, the mean
            difference divided by 2 `step`, per standard deviation; around the samples `gradient` is its limit as the
            step shrinks. A clamped step counts as a whole one: what a channel cannot do, it does not get credit for.
        channels: (S,) bool, those to measure (see `styleclip.layer_mask`); the others get 0. None is all. Where some
            never change, ``statistics.std > 0`` saves their time.
        batch_size: pictures at a time (at least 2); what enters each layer is kept for half as many.

    Returns:
        (S, d); relevance to a unit text difference is the product with it. 0 for a channel that changes nothing.
    """
    styles = _check_styles(styles, statistics=statistics)
    check_whole("batch_size", batch_size)
    check_choice("around", around, ("mean", "sample"))
    channels = torch.ones(styles.shape[1], dtype=torch.bool) if channels is None else check_channels(channels, styles)
    if not channels.any():
        raise ValueError(f"channels must be (S,) bool and select at least one, got {tuple(channels.shape)} all False")
    pictures_at_once = min(len(styles), max(1, batch_size // 2))
    channels_at_once = max(1, batch_size // (2 * pictures_at_once))
    table: torch.Tensor | None = None
    for part in styles.split(pictures_at_once):
        layers = generator.split(part)
        states = generator.states(layers)
        centre = part if around == "sample" else statistics.mean.expand_as(part)
        ends = statistics.ends(step, clamp=clamp, around=centre).to(styles)  # (2, m, S)
        first = 0  # of this layer's channels, among all
        for index, layer in enumerate(layers):
            here = channels[first : first + layer.shape[1]].nonzero().squeeze(1).to(styles.device)
            for chosen in here.split(channels_at_once) if len(here) else ():
                copies = 2 * len(chosen)
                changed = _set_one_channel(layer, chosen, ends[:, :, first + chosen].mT)  # (2, k, m, c)
                batch = [_repeat(other, copies) for other in layers]
                batch[index] = changed.flatten(0, 2)
                state = tuple(_repeat(x, copies) for x in states[index])
                pictures = generator.synthesis(batch, start=index, state=state)
                embeddings = _embed(encode, pictures)
                above, below = at_least_float32(embeddings).unflatten(0, (2, len(chosen), len(part)))
                rounding = torch.finfo(embeddings.dtype).eps
                difference = _unit_or_zero(above - below, rounding) if normalize else (above - below) / (2 * step)  # (k, m, d)
                if table is None:
                    table = difference.new_zeros(styles.shape[1], difference.shape[-1])
                table[first + chosen] += difference.sum(dim=1)
            first += layer.shape[1]
    assert table is not None  # at least one picture and one channel
    return F.normalize(table, dim=1) if normalize else table / len(styles)


def gradient(
    generator: Generator,
    encode: Encoder,
    styles: torch.Tensor,
    statistics: ChannelStatistics,
    directions: torch.Tensor,
    *,
    probes: int = 0,
    seed: int = 0,
    batch_size: int = 64,
) -> torch.Tensor:
    """Relevance of all channels from one backward pass per text (ours): mean d<embedding, direction>/ds, times std.

    The limit of ``finite_difference(around="sample", normalize=False)`` for small steps, at a tiny part of its cost; with
    `probes`, an estimate of that of ``finite_difference(around="sample")``, with the published normalisation. That divides by
    the size of a channel's effect on the embedding, which one direction does not tell; more directions at random estimate
    it, for each picture.

    Args:
        styles: (n, S) where the gradients are taken and averaged.
        directions: (t, d) unit text differences, or protected directions.
        probes: 0, or how many more backward passes estimate the length of each picture's derivative, by which it is divided
            before the mean is taken; 16 give it within about 18 %, d exactly. To compare with the published relevance.
        seed: of the probes.
        generator, encode, statistics: as in `finite_difference`. batch_size: pictures at a time; t + probes gradients are kept of
            each.

    Returns:
        (t, S): change of <embedding, direction> per standard deviation of each channel; with probes, an estimate
        of the cosine of the direction with the channel's own.
    """
    styles, directions = _check_styles(styles, statistics=statistics), _check_directions(directions)
    check_whole("batch_size", batch_size)
    check_whole("probes", probes, at_least=0)
    check_whole("seed", seed, at_least=0)
    if not probes:
        parts = _gradients(generator, encode, styles, directions, batch_size)  # (t, m, S) each
        return torch.stack([slopes.sum(dim=1) for slopes in parts]).sum(dim=0) * statistics.std / len(styles)
    t, d = directions.shape[0], directions.shape[-1]
    if not 1 <= probes <= d:
        raise ValueError(f"probes must lie between 0 and the {d} dimensions of the embedding, got {probes}")
    drawn = torch.randn(d, probes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probe = torch.linalg.qr(drawn).Q.T.to(directions.dtype).to(directions.device) * (d / probes) ** 0.5  # orthogonal rows
    total = at_least_float32(styles).new_zeros(t + probes, styles.shape[1])
    for slopes in _gradients(generator, encode, styles, torch.cat([directions, probe]), batch_size):
        size = slopes[t:].norm(dim=0)  # (m, S)
        seen = size * statistics.std > 10 * torch.finfo(size.dtype).eps  # as in `_unit_or_zero`
        total += torch.where(seen, slopes / size, 0.0).sum(dim=1)
    size = total[t:].norm(dim=0)  # (S,)
    return torch.where(size * statistics.std > 0, total[:t] / size, 0.0)


def expected_gradient(
    generator: Generator,
    encode: Encoder,
    styles: torch.Tensor,
    statistics: ChannelStatistics,
    directions: torch.Tensor,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> torch.Tensor:
    """Relevance from gradients on the straight ways between samples, weighted by how far each channel goes (ours).

    r_c = E[(b_c - a_c)^2 df/ds_c(a + u (b - a))] / E[(b_c - a_c)^2] x std_c, over pairs of samples a, b, u uniform in
    [0, 1] and f = <embedding, direction>. A pair in which an element appears weighs most for its channel, wherever on the
    way it does. These are integrated gradients (Sundararajan et al. 2017) from sample to sample, as in expected gradients
    (Erion et al. 2021), which add up to f(b) - f(a): r_c is the part of ``cov(s_c, f) / std_c``, the `regression`, that channel
    c brings about itself, without what only goes along with it.

    Args:
        styles: (n, S); every sample is the start of one way and the end of another. An element must be on in some.
        seed: of the pairs and of u.
        generator, encode, statistics, directions, batch_size: as in `gradient`, at the same cost per sample.

    Returns:
        (t, S): change of <embedding, direction> per standard deviation of each channel.
    """
    styles, directions = _check_styles(styles, at_least=2, statistics=statistics), _check_directions(directions)
    check_whole("batch_size", batch_size)
    check_whole("seed", seed, at_least=0)
    n, random = len(styles), torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=random).to(styles.device)
    start, end = styles[order], styles[order.roll(1)]
    u = ((torch.randperm(n, generator=random) + torch.rand(n, generator=random)) / n).to(styles)  # one in each n-th of [0, 1]
    weight = at_least_float32(end - start).square()  # (n, S)
    on_the_way = start + u[:, None] * (end - start)
    parts = _gradients(generator, encode, on_the_way, directions, batch_size)  # (t, m, S) each
    weighted = [(slopes * w).sum(dim=1) for slopes, w in zip(parts, weight.split(batch_size), strict=True)]
    total = torch.stack(weighted).sum(dim=0)
    return torch.where(weight.sum(dim=0) > 0, total / weight.sum(dim=0), 0.0) * statistics.std


def regression(styles: Any, features: Any, directions: Any) -> torch.Tensor:
    """Relevance from samples alone (ours): cov(s_c, <f(G(s)), direction>) / std_c, over the samples.

    The slope of the score on each channel by itself, per standard deviation. Channels that go together share the
    credit, so `styleclip.direction` of this is how styles differ, on average, between pictures with high and low score:
    that serves a generator whose single channels mean little, and brings along whatever comes with the text.

    Args:
        styles: (n, S). features: (n, d) embeddings of their pictures. directions: (t, d) unit text differences.

    Returns:
        (t, S); 0 for a channel that never changes.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, fewer than two samples.
    """
    styles = at_least_float32(_check_styles(styles, at_least=2))
    features, directions = at_least_float32(floats("features", features)), _check_directions(directions, at_least=0)
    if features.ndim != 2:
        raise ValueError(f"need features (n, d), got shape {tuple(features.shape)}")
    if len(features) != len(styles):
        raise ValueError(f"need the embedding of every sample, got {len(styles)} styles and {len(features)} features")
    check_finite("features", features)
    centred = styles - styles.mean(dim=0)
    scores = (features - features.mean(dim=0)) @ _check_width(directions, features).to(features).T  # (n, t)
    scores = scores.to(centred)
    std = styles.std(dim=0, correction=0)
    return torch.where(std > 0, (scores.T @ centred) / (len(styles) * std), 0.0)


def _gradients(
    generator: Generator, encode: Encoder, styles: torch.Tensor, directions: torch.Tensor, batch_size: int
) -> Iterator[torch.Tensor]:
    """Gradients of <embedding, direction> with respect to the styles, a batch of m pictures at a time: (t, m, S)."""
    for part in styles.detach().split(batch_size):
        with torch.enable_grad():
            part = part.requires_grad_(True)
            embeddings = at_least_float32(_embed(encode, generator.synthesis(generator.split(part))))
            if not embeddings.requires_grad:
                raise ValueError(
                    "no gradient reaches the styles: does encode or the generator run under torch.no_grad or detach?"
                )
            along = _check_width(directions, embeddings).to(embeddings)
            scores = (embeddings @ along.T).sum(dim=0)  # (t,); samples do not mix, so each keeps its own gradient
            keep = [True] * (len(scores) - 1) + [False]
            slopes = [torch.autograd.grad(s, part, retain_graph=k)[0] for s, k in zip(scores, keep, strict=True)]
        found = at_least_float32(torch.stack(slopes))
        check_finite("the gradient of the embedding by the styles, (directions, pictures, channels),", found)
        yield found


def _to_unit_range(pictures: torch.Tensor) -> torch.Tensor:
    return ((pictures + 1) / 2).clamp(0, 1)


def _set_one_channel(layer: torch.Tensor, chosen: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Styles (m, c) of one layer -> (v, k, m, c): channel chosen[k] of sample i set to values[v, k, i], the rest as it was."""
    mask = F.one_hot(chosen, layer.shape[1]).bool()
    return torch.where(mask[None, :, None, :], values[..., None], layer)


def _repeat(x: torch.Tensor | None, copies: int) -> torch.Tensor | None:
    """(m, ...) -> (copies * m, ...); the first layers have no picture yet: None."""
    return None if x is None else x.expand(copies, *x.shape).flatten(0, 1)


def _unit_or_zero(x: torch.Tensor, rounding: float) -> torch.Tensor:
    """Normalise the last dimension; a difference of nothing but rounding (of unit embeddings) has no direction: 0."""
    length = x.norm(dim=-1, keepdim=True)
    return torch.where(length > 10 * rounding, x / length, 0.0)


def _embed(encode: Encoder, pictures: torch.Tensor) -> torch.Tensor:
    embeddings = encode(_to_unit_range(pictures))
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2 or len(embeddings) != len(pictures):
        got = tuple(embeddings.shape) if hasattr(embeddings, "shape") else type(embeddings).__name__
        raise ValueError(f"encode must return a tensor ({len(pictures)}, d) for {len(pictures)} pictures, got {got}")
    check_finite("what encode returned", embeddings)
    return embeddings


def _check_styles(styles: Any, *, at_least: int = 1, statistics: ChannelStatistics | None = None) -> torch.Tensor:
    styles = floats("styles", styles)
    if styles.ndim != 2 or len(styles) < at_least:
        raise ValueError(f"need flat styles (n, S) of at least {at_least} samples, got shape {tuple(styles.shape)}")
    check_finite("styles", styles)
    if statistics is not None and len(statistics.std) != styles.shape[1]:
        raise ValueError(f"statistics of {len(statistics.std)} channels do not fit styles of {styles.shape[1]}")
    return styles


def _check_directions(directions: Any, *, at_least: int = 1) -> torch.Tensor:
    directions = at_least_float32(floats("directions", directions))
    if directions.ndim != 2 or len(directions) < at_least:
        raise ValueError(f"need directions (t, d), got shape {tuple(directions.shape)}")
    check_finite("directions", directions)
    return directions


def _check_width(directions: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    if directions.shape[1] != embeddings.shape[1]:
        raise ValueError(f"directions of length {directions.shape[1]} do not fit embeddings of length {embeddings.shape[1]}")
    return directions
