"""Gradient-based debiasing (Tanjim et al. 2024, section 3.3, Fig. 5 right): correct a biased edit in its latent, by Adam.

The decoder is an argument: StyleGAN2's styles, the text condition c_T of InstructPix2Pix, or anything differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..errors import check_choice, check_unit_interval, check_whole
from ..tensors import at_least_float32, floats, is_number

Decode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Result:
    """The best latent of each image, and how it was found.

    Attributes:
        latent: (n, ...) the latents with the lowest total loss that were met, the start included.
        loss: (n,) their total loss. best_step: (n,) steps that were taken to get there, 0 for the start.
        traces: {loss: (steps + 1, n)}, each loss without its weight, and "total", the weighted sum; row 0 is the start.
            NaN after an image was stopped, and where a loss leaves an image out (`Loss.absent`). Losses that are switched off
            have no trace.
    """

    latent: torch.Tensor
    loss: np.ndarray
    best_step: np.ndarray
    traces: dict[str, np.ndarray]


class NonFiniteLossError(FloatingPointError):
    """A loss, the pictures or the gradient became NaN or infinite.

    An exception and not a warning, because whoever ignores it would compare images that were debiased with images that were
    not; nothing is lost by it, since it carries what was reached.

    Attributes:
        result: the `Result` up to here; images that had not begun have their start and a loss of NaN.
        source: what was not finite. step: after how many steps. rows: of which images.
    """

    def __init__(self, result: Result, *, source: str, step: int, rows: list[int]):
        super().__init__(f"{source}: NaN or infinity after {step} steps in images {rows}; the best so far are in `.result`")
        self.result, self.source, self.step, self.rows = result, source, step, rows


def debias_latent(
    latent: torch.Tensor,
    decode: Decode,
    losses: Mapping[str, LossFunction],
    *,
    betas: Mapping[str, float],
    steps: int = 100,
    lr: float = 0.1,
    warmup: float = 0.05,
    decay: float = 0.25,
    scale: Any = 1.0,
    bounds: tuple[Any, Any] | None = None,
    max_gradient: float | None = None,
    patience: int | None = 20,
    tolerance: float = 1e-4,
    chunk_size: int = 16,
    progress: bool = True,
) -> Result:
    """Minimise sum_l betas[l] losses[l](decode(latent)) for each image, and return the best point that was met.

    What is differentiated is the sum over the images of their own losses, and Adam works coordinate by coordinate: in exact
    arithmetic a batch gives what the images would give one at a time, and in float64 it does so to 1e-6. In float32 it does not:
    networks round otherwise in batches of another size, Adam divides each gradient by its own size, so that a gradient of
    nothing but rounding steps as far as any other, and the paths part. Measured on the mini parts, in chunks of 1, 3, 4 and 5
    against all (16 or 8 edits at once):

    - StyleGAN2's styles, 20 steps: latents differ by up to 0.15 deviations (an edit's largest difference is .003 in the median),
      pictures by up to .07 (.0005 in the mean), losses by up to .008 (.0007 in the mean, of .65);
    - the same, 100 steps: up to 2.2 deviations (.3), .34 (.004) and .012 (.002, of .53);
    - c_T of InstructPix2Pix, 20 steps: up to 0.14 deviations (.014), .66 (.013) and .05 (.007, of .83).

    So single pictures depend on `chunk_size` and on who is in the chunk, and means over many hardly.
    Nothing is random: the same call gives the same numbers. Equation 5, with 100 steps for StyleGAN2's styles and
    50 for c_T. Weights, learning rate and its schedule are not published: lr, warm-up and decay default to those of
    StyleCLIP's optimiser (Patashnik et al. 2021; its first step, of rate 0, left out); the rest is our choice.

    Pictures are clamped to [0, 1] before any loss sees them, since that is how they are looked at. Where the decoder
    overshoots, the gradient passes only if it leads back into the range (a projected gradient): a plain clamp would let such
    pixels never return.

    Args:
        latent: (n, ...) the start, tensor or array, such as the styles of the biased edit, or those of the text-debiased one.
            Half precision becomes float32; whole numbers in lists and arrays, but not in tensors, become float64.
        decode: (latent (m, ...), index (m,)) -> (m, 3, h, w) pictures, nominally in [0, 1]; index, int64 on the CPU, tells
            which rows of the batch they are, for what the decoder needs of each image beside the latent.
        losses: {name: loss(images, index) -> (m,)}, see `debias_utils.debias.losses`.
        betas: {name: weight >= 0}; a loss without a weight, or with 0, is switched off and never computed.
        steps: Adam steps. lr: about the largest step of a coordinate, in units of `scale`.
        warmup, decay: shares of the steps, in [0, 1], over which the rate rises linearly and falls as a cosine.
        scale: number or array that broadcasts to `latent`: the unit of each coordinate, such as its standard deviation over
            samples; 0 keeps a coordinate as it is.
        bounds: (low, high), numbers or arrays that broadcast to `latent`: each step is clamped to them.
        max_gradient: largest norm of an image's gradient with respect to latent / scale; None does not clip.
        patience: an image is stopped, and no longer computed, when its total loss fell by no more than `tolerance` over so
            many steps; None lets all images take all steps.
        chunk_size: images that are decoded at a time, all steps before the next chunk: bounds the memory. Not without effect
            on the result in float32, see above; to compare runs, keep it, and the images of a chunk.
        progress: show a bar of steps.

    Raises:
        ValueError: an unknown or negative beta, all betas 0, latents, a scale or bounds that are not finite, latents outside
            the bounds, shapes that do not fit, numbers of another type, a decoder whose pictures are not in [0, 1] or have no
            gradient.
        NonFiniteLossError: NaN or infinity on the way; carries the result so far.
    """
    for name, count in (("steps", steps), ("chunk_size", chunk_size), ("patience", 1 if patience is None else patience)):
        check_whole(name, count)
    for name, value in (("warmup", warmup), ("decay", decay)):
        if not is_number(value):
            raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
        check_unit_interval(name, value)
    for name, value in (("lr", lr), ("max_gradient", 1.0 if max_gradient is None else max_gradient)):
        if not (is_number(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value!r}")
    if not (is_number(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be at least 0, got {tolerance!r}")
    start = _check_latent(latent)
    weights = _check_betas(betas, losses, len(start))
    unit = _broadcast("scale", scale, start)
    bad = ~((unit >= 0) & unit.isfinite())
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(f"scale must be finite and not negative; spread over the latents, the first that is not is at {where}")
    if bounds is not None and not (isinstance(bounds, (tuple, list)) and len(bounds) == 2):
        raise ValueError(f"bounds must be a pair (low, high) or None, got {type(bounds).__name__}")
    low, high = (_broadcast("bounds", b, start) for b in bounds or (-math.inf, math.inf))
    for bound in (low, high):
        if bound.isnan().any():
            where = bound.isnan().nonzero()[0].tolist()
            raise ValueError(f"bounds hold {int(bound.isnan().sum())} NaN, spread over the latents, the first at {where}")
    outside = ~((low <= start) & (start <= high)).flatten(1).all(dim=1)
    if outside.any():
        raise ValueError(f"the start lies outside the bounds in rows {outside.nonzero()[:, 0].tolist()}: clamp it first")

    n = len(start)
    traces = {name: np.full((steps + 1, n), np.nan) for name in (*weights, "total")}
    result = Result(start.clone(), np.full(n, np.nan), np.zeros(n, int), traces)
    absent = {name: list(getattr(losses[name], "absent", ())) for name in weights}
    chunks = torch.arange(n).split(chunk_size)
    with tqdm(total=len(chunks) * steps, desc="debiasing", unit="step", leave=False, disable=not progress) as bar:
        for done, index in enumerate(chunks, start=1):
            origin, sigma, floor, ceiling = (tensor[index] for tensor in (start, unit, low, high))
            x = torch.zeros_like(origin)  # latent = origin + sigma * x
            x_floor, x_ceiling = (((b - origin) / sigma).nan_to_num(nan=0.0) for b in (floor, ceiling))  # 0 / 0: x stays 0
            optimizer = torch.optim.Adam([x], lr=lr)
            active = torch.arange(len(index))
            for step in range(steps + 1):
                rows = index[active]
                point = (origin + sigma * x).clamp(floor, ceiling)[active].requires_grad_(step < steps)
                with torch.set_grad_enabled(step < steps):
                    values = _evaluate(point, rows, decode, losses, weights, check_range=step == 0)
                    gradient = sigma[active] * _gradient(values["total"], point) if step < steps else torch.zeros_like(point)
                values["gradient"] = gradient.flatten(1).norm(dim=1)
                _record(result, point.detach(), rows, values, step, absent)
                if max_gradient is not None:
                    gradient *= (max_gradient / values["gradient"]).clamp(max=1).view(-1, *[1] * (x.ndim - 1))
                x.grad = torch.zeros_like(x)
                x.grad[active] = gradient
                if patience is not None and step >= patience:
                    total = traces["total"][: step + 1, rows.numpy()]  # (step + 1, m)
                    fell = total[:-patience].min(axis=0) - total.min(axis=0)
                    active = active[fell > tolerance]
                if step == steps or not len(active):
                    break
                optimizer.param_groups[0]["lr"] = lr * _rate(step, steps, warmup, decay)
                optimizer.step()  # images that were stopped drift on, and nobody looks at them again
                x.clamp_(x_floor, x_ceiling)
                bar.update()
            bar.update(done * steps - bar.n)
    return result


class _ClampPictures(torch.autograd.Function):
    """Clamp to [0, 1]; backwards, the gradient of a descent passes beyond the range only if it leads back."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor) -> torch.Tensor:
        clamped = images.nan_to_num().clamp(0, 1)
        ctx.save_for_backward((images - clamped).sign())
        return clamped

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (side,), (gradient,) = ctx.saved_tensors, gradients
        return gradient.masked_fill(gradient * side < 0, 0)


def _evaluate(
    point: torch.Tensor,
    rows: torch.Tensor,
    decode: Decode,
    losses: Mapping[str, LossFunction],
    weights: Mapping[str, float],
    *,
    check_range: bool,
) -> dict[str, torch.Tensor]:
    """(m, ...) latents -> {"pictures": (m,) their means, each loss: (m,), "total": (m,)}."""
    images = decode(point, rows)
    if not isinstance(images, torch.Tensor):
        raise ValueError(f"decode must return pictures as a tensor, got {type(images).__name__}")
    if images.ndim != 4 or images.shape[:2] != (len(rows), 3):
        raise ValueError(f"decode must return ({len(rows)}, 3, h, w) pictures for {len(rows)} latents, got {tuple(images.shape)}")
    values = {"pictures": images.detach().flatten(1).mean(dim=1, dtype=torch.promote_types(images.dtype, torch.float32))}
    if check_range:
        beyond = float(((images.detach() - 0.5).abs() > 1).float().mean())
        if beyond > 0.01:  # a few pixels may overshoot; [-1, 1] or 0..255 is a mistake that clamping would hide
            raise ValueError(f"decode must return pictures in [0, 1], but {beyond:.0%} of the values lie beyond [-0.5, 1.5]")
    images = _ClampPictures.apply(images)  # NaN, which some networks refuse, is found in the means: no extra wait
    for name in weights:
        found = losses[name](images, rows)
        if not isinstance(found, torch.Tensor) or found.shape != (len(rows),):
            got = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"loss {name!r} must return one value for each of {len(rows)} pictures, got {got}")
        values[name] = at_least_float32(found)
    values["total"] = torch.stack([beta * values[name] for name, beta in weights.items()]).sum(dim=0)
    return values


def _gradient(total: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    gradient = torch.autograd.grad(total.sum(), point, allow_unused=True)[0] if total.requires_grad else None
    if gradient is None:
        raise ValueError("no gradient reaches the latent: does decode or a loss run under torch.no_grad or detach?")
    return gradient


def _record(
    result: Result,
    point: torch.Tensor,
    rows: torch.Tensor,
    values: dict[str, torch.Tensor],
    step: int,
    absent: Mapping[str, list[int]],
) -> None:
    """Write a step into the result, keep the images that are better than ever, and refuse what is not finite."""
    columns = torch.stack([value.detach().to(point) for value in values.values()])
    table = dict(zip(values, columns.cpu().double().numpy(), strict=True))  # the one transfer of a step
    at = rows.numpy()  # NumPy would take a tensor of one row for a number
    for name, trace in result.traces.items():
        trace[step, at] = np.where(np.isfinite(table["pictures"]), table[name], np.nan)
        trace[step, absent.get(name, [])] = np.nan
    total = result.traces["total"][step, at]
    better = np.isfinite(total) & ~(total >= result.loss[at])  # at the start, the loss is NaN
    result.loss[at[better]], result.best_step[at[better]] = total[better], step
    result.latent[at[better]] = point[better]
    for name, value in table.items():
        if not np.isfinite(value).all():
            source = name if name in ("pictures", "gradient") else f"loss {name!r}"
            raise NonFiniteLossError(result, source=source, step=step, rows=at[~np.isfinite(value)].tolist())


def _rate(step: int, steps: int, warmup: float, decay: float) -> float:
    """Share of the learning rate at a step (0 to steps - 1), StyleCLIP's schedule without its first step of rate 0."""
    t = (step + 1) / (steps + 1)
    rise = min(1.0, t / warmup) if warmup else 1.0
    fall = min(1.0, (1 - t) / decay) if decay else 1.0
    return rise * (0.5 - 0.5 * math.cos(math.pi * fall))


def _check_latent(latent: Any) -> torch.Tensor:
    given = floats("latent", latent).detach()
    if given.ndim < 2 or len(given) == 0 or (isinstance(latent, torch.Tensor) and not latent.is_floating_point()):
        dtype = getattr(latent, "dtype", given.dtype)
        raise ValueError(f"need at least one latent, (n, ...) floats, got {tuple(given.shape)} {dtype}")
    broken = ~given.isfinite()
    if broken.any():
        rows = broken.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        raise ValueError(f"latent holds NaN or infinity in rows {rows}, {int(broken.sum())} of {given.numel()} values")
    return at_least_float32(given)  # Adam's steps would be lost in half precision


def _check_betas(betas: Mapping[str, float], losses: Mapping[str, LossFunction], n: int) -> dict[str, float]:
    """The weights of the losses that are switched on."""
    for title, table in (("losses", losses), ("betas", betas)):
        if not isinstance(table, Mapping):
            raise ValueError(f"{title} must be a dictionary by the names of the losses, got {type(table).__name__}")
    for name in losses:
        if name in ("pictures", "total", "gradient"):
            raise ValueError(f"a loss cannot be called {name!r}: that name is taken")
    for name, beta in betas.items():
        check_choice("loss in betas", name, losses)
        if not (is_number(beta) and beta >= 0):
            raise ValueError(f"beta of {name!r} must be finite and not negative, got {beta!r}")
    weights = {name: float(beta) for name, beta in betas.items() if beta > 0}
    if not weights:
        raise ValueError(f"every loss is switched off, betas are {dict(betas)}: nothing to minimise")
    for name in weights:
        rows = getattr(losses[name], "rows", None)
        if rows not in (None, n):
            raise ValueError(f"loss {name!r} was made for {rows} rows, but there are {n} latents")
    return weights


def _broadcast(name: str, value: Any, latent: torch.Tensor) -> torch.Tensor:
    value = floats(name, value).detach().to(latent.dtype).to(latent.device)
    try:
        return value.broadcast_to(latent.shape)
    except RuntimeError:
        raise ValueError(f"{name} of shape {tuple(value.shape)} does not broadcast to latents {tuple(latent.shape)}") from None
