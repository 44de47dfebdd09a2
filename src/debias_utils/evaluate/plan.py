"""Plan a long sweep before it is run: what its parts cost, counted or measured, and how cells fall on workers."""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..errors import check_choice, check_whole
from .names import EDITORS, GRADIENT, GRADIENT_TEXT, STYLECLIP

if TYPE_CHECKING:
    from ..profiles import Profile

GENERATOR, UNET, DECODER, ENCODER = "StyleGAN2", "UNet", "VAE decoder", "VAE encoder"
LOSSES = ("CLIP", "identity", "perceptual")  # what they look at
JUDGE = "judge"
PARTS = (GENERATOR, UNET, DECODER, ENCODER, *LOSSES, JUDGE)


class Cost(NamedTuple):
    """FLOPs, or seconds, of a call of a part on one picture: alone, and there and back to what went in (not to the weights)."""

    forward: float
    gradient: float


@dataclass(frozen=True)
class Plan:
    """Which worker computes which cell, and when.

    Attributes:
        worker, begin, end: (n,) of the cells. seconds: until the last cell is finished. idle: share of the workers' time in
            which they compute no cell, in [0, 1).
    """

    worker: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    seconds: float
    idle: float


def plan(seconds: Sequence[float], *, workers: int, start: float = 0.0) -> Plan:
    """What a sweep takes if its cells go, in their order, to the first worker that is free, as the engine hands them out.

    Args:
        seconds: (n,) of the cells, at least one. workers: how many. start: seconds before a worker begins (models to load).

    Raises:
        ValueError: no cells, seconds that are negative or not finite, no workers.
    """
    check_whole("workers", workers)
    if not len(seconds) or not all(0 <= s < math.inf for s in [*seconds, start]):
        raise ValueError(f"need cells, and seconds that are finite and not negative, got {list(seconds)[:5]} and start={start!r}")
    free, found = [(float(start), worker) for worker in range(workers)], []
    for s in seconds:
        begin, worker = free[0]
        heapq.heapreplace(free, (begin + float(s), worker))
        found.append((worker, begin, begin + float(s)))
    which, begins, ends = (np.array(column) for column in zip(*found, strict=True))
    total = float(ends.max())
    busy = math.fsum(map(float, seconds)) / (workers * total) if total else 1.0
    return Plan(which, begins, ends, total, max(1 - busy, 0.0))


class _Counter(TorchDispatchMode):
    """torch's FlopCounterMode without its hooks on modules, which refuse a gradient that ends at a module's input."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def flops(run: Callable[[], Any]) -> float:
    """Floating-point operations of a call, a product and a sum being two: of convolutions, products and attention alone.

    Counts by shapes, on any device, the meta device included.
    """
    with _Counter() as counter:
        run()
    return float(counter.total)


def cost(run: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Cost:
    """FLOPs of run(*inputs), for one picture: inputs (n, ...)."""
    return Cost(*(flops(call) / len(inputs[0]) for call in _calls(run, inputs)))


def timing(run: Callable[..., torch.Tensor], *inputs: torch.Tensor, repeats: int = 7, slow: float = math.inf) -> Cost:
    """Seconds of run(*inputs), for one picture: inputs (n, ...). repeats, slow: see `seconds`."""
    return Cost(*(seconds(call, repeats=repeats, slow=slow) / len(inputs[0]) for call in _calls(run, inputs)))


def _calls(run: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """run(*inputs), and the same with the gradient with respect to the inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    return torch.no_grad()(lambda: run(*leaves)), lambda: torch.autograd.grad(run(*leaves).sum(), leaves)


def seconds(run: Callable[[], Any], *, repeats: int = 7, slow: float = math.inf) -> float:
    """The fastest of some calls, after one that does not count: what else the machine does only adds. A GPU is waited for.

    A first call that takes more than `slow` seconds counts, and is the only one.
    """

    def once() -> float:
        begin = time.perf_counter()
        run()
        for card in range(torch.cuda.device_count()):
            torch.cuda.synchronize(card)
        if torch.backends.mps.is_available():
            torch.mps.synchronize()
        return time.perf_counter() - begin

    first = once()
    return first if first > slow else min(once() for _ in range(repeats))


def networks(parts: Profile, *, people: int = 1) -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]]:
    """The parts of a profile, each as a function of one input, and such an input for some people: to be counted or timed."""
    clip, model, portraits = parts.clip(), parts.editor(), parts.portraits(parts.sitters(people))
    text = model.encode_text([parts.instruction("nurse")]).repeat(people, 1, 1)
    latents, one = model.encode_image(portraits), torch.ones((), device=parts.device)
    return {
        GENERATOR: (parts.synthesize, parts.invert(portraits)), DECODER: (model.decode, latents),
        UNET: (lambda condition: model.predict_noise(latents, latents, one, condition), text),
        ENCODER: (lambda x: model.vae.encode(x).latent_dist.mean, portraits),
        "CLIP": (clip.encode_image, portraits), "identity": (parts.identity, portraits),
        "perceptual": (lambda x: torch.cat([m.flatten() for m in parts.perceptual.features(x)]), portraits),
        JUDGE: (lambda x: torch.cat(list(parts.attributes(x).values()), dim=1), portraits),
    }  # fmt: skip


def calls(
    editor: str, method: str, *, steps: int, sampler_steps: int, at: int, checkpoint: bool = True
) -> Counter[tuple[str, str]]:
    """How often the parts are called for one edit that is judged: (part, "forward" or "gradient") -> calls.

    Args:
        editor, method: of `names`; whatever moves only texts or directions costs what the edit costs, and the oracle is drawn as
            an edit is. steps: of Adam. sampler_steps: of the diffusion. at: whose call's estimate the losses see (gradients
            "one-step", see `edit.sampler`): only the branch with the text is recorded and passed backwards.
        checkpoint: what is recorded is computed twice, to save memory.

    Raises:
        ValueError: an unknown editor, a call that the sampler does not make.
    """
    check_choice("editor", editor, EDITORS)
    check_choice("call whose estimate the losses see", at, range(1, sampler_steps + 1))
    draw = {GENERATOR: 1} if editor == STYLECLIP else {UNET: 3 * sampler_steps, DECODER: 1, ENCODER: 1}
    found = Counter({(part, "forward"): n for part, n in {**draw, **dict.fromkeys((*LOSSES, JUDGE), 1)}.items()})
    found["perceptual", "forward"] += 1  # of the original, which the others have seen
    if method in (GRADIENT, GRADIENT_TEXT):
        look = {GENERATOR: 1} if editor == STYLECLIP else {UNET: 3 * at, DECODER: 1}  # the last step only looks
        found.update({(part, "forward"): n for part, n in {**look, **dict.fromkeys(LOSSES, 1)}.items()})
        found.update({(part, "gradient"): steps for part in LOSSES})
        if editor == STYLECLIP:
            found[GENERATOR, "gradient"] += steps
        else:  # the first call's branches without text are computed once
            found.update({(UNET, "forward"): (3 * at - 1) * steps - 2 * (steps - 1)})
            found.update({(part, "gradient"): steps for part in (UNET, DECODER)})
            if checkpoint:
                found.update({(part, "forward"): steps for part in (UNET, DECODER)})
    return found


def work(called: Mapping[tuple[str, str], float], costs: Mapping[str, Cost]) -> dict[str, float]:
    """What each part takes: calls, as `calls` gives them, times what they cost."""
    found: Counter[str] = Counter()
    for (part, way), n in called.items():
        found[part] += n * getattr(costs[part], way)
    return dict(found)
