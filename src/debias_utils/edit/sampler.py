"""The loop of InstructPix2Pix that gradients can pass through: from a text condition c_T and a fixed noise to pictures.

Dual classifier-free guidance (Brooks et al. 2023; Tanjim et al. 2024, equation 1), with guidance scales s_T and s_I:

    e = e(0, 0) + s_I (e(c_I, 0) - e(0, 0)) + s_T (e(c_I, c_T) - e(c_I, 0))

The noise never changes, so that the pictures are a function of c_T alone. Tanjim et al. 2024 do not publish how they send a
gradient through the sampler; these are the ways, `GRADIENTS`. All but "one-step" draw the same pictures.

"full"      the exact gradient, through every call of the UNet.
"last-k"    through the last k calls alone: what came before is taken for given. k = 1 is DRaFT-1 (Clark et al. 2024); k = all
            calls is "full", exactly.
"one-step"  the k-th last call ends the sampling: its estimate of the clean latent is decoded, and the gradient goes through that
            one call (as in ReFL, Xu et al. 2023). The cheapest, with blurred pictures where k is large.
"detached"  through every call, but into c_T only: the UNet's latent input is detached, while the scheduler's own, linear path
            from each e_t to the picture is kept, and dL/de_t is scaled by `detached_coefficients` (Shen et al. 2024; for a UNet
            that predicts v, by their counterpart).

e stands for whatever the UNet predicts: the scales of equation 1 add up to 1, so that guiding v is guiding the noise.

Only e(c_I, c_T) depends on c_T. Where a call's latents carry no gradient ("detached", "one-step", the first recorded call of
the others), the other two branches therefore run without one. Of each call that is recorded, nothing but its input stays in
memory (checkpointing), and the branch with c_T is a call of its own: the peak is one call of the UNet, of twice the pictures in
"full" and "last-k" and once in the others, or the decoder if that is larger. The price is a second forward call of each, which
small models need not pay: `checkpoint`. In the first call, the branches without c_T see nothing but the noise: they are computed
once, where gradients are asked for again and again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from ..errors import check_choice, check_whole
from ..models.pictures import check_pictures
from ..tensors import check_finite, is_number
from .schedulers import DETERMINISTIC as DETERMINISTIC
from .schedulers import check_runs, ddim, detached_coefficients

if TYPE_CHECKING:
    from ..models.pix2pix import Pix2Pix

GRADIENTS = ("full", "last-k", "one-step", "detached")


class Sampler:
    """Called as sampler(condition (m, 77, d), index (m,)) -> (m, 3, h, w): the decoder that `debias_latent` asks for.

    Pictures are nominally in [0, 1] and not clamped, at least float32 whatever the model's precision. Rows do not depend on each
    other, but for the networks' rounding, which is another in batches of another size: in float32, on the mini editor and with 20
    steps, pictures drawn one at a time differ by up to 3e-6 from those of a batch (in `debias_latent` that adds up, see there).
    The starting noise of person i is drawn from (seed, people[i]), on the CPU in float32: it is the same in every batch, chunk,
    precision and on every device.

    Args:
        model: the parts. images: (n, 3, h, w) in [0, 1], the people; encoded here, once.
        rows: (r,) which picture each row of the batch edits, such as every person once for each instruction; default (0..n-1).
        steps: of the scheduler; diffusers' default is 100, ours is less for the sake of time.
        guidance: (s_T, s_I), the formula is computed for any finite scales. None asks for e(c_I, c_T) alone, a third of the
            work; diffusers does that silently whenever s_T <= 1 or s_I < 1. (Formula and shortcut agree at s_T = s_I = 1.)
        negative: the text in place of the empty one in the two branches without c_T.
        seed, people: what the noise is drawn from; people, (n,) whole numbers, default (0..n-1), keep their noise in a subset.
        generator: instead of (seed, people), as the pipeline does: one draws the starting noise for all pictures at once, a list
            of n gives each picture its own.
        scheduler: an object of diffusers, such as `model.scheduler`, which the pipeline was saved with; never altered. Default:
            the model's own if it is DDIM (Song et al. 2021), else a DDIM with its training schedule, see `ddim`. It may draw
            noise in its steps if no gradient is asked for.
        gradient: one of `GRADIENTS`; None draws pictures only. k: for "last-k" and "one-step", a call counted from the end.
        checkpoint: keep but the inputs of each recorded call, and compute it twice. Otherwise memory grows with the calls that
            are recorded. The gradient is the same.

    Where gradients are asked for, the first call's branches without text are kept for every picture, two latents each: later
    calls reuse them, also those of an earlier batch of another size, whose last bits may differ (by 3e-6 in a picture).

    Attributes:
        calls: calls of the UNet for a picture, each with three branches. noise: (n, 4, h', w'), the start of each person.
        image_latents: (n, 4, h', w'). unconditional: (1, 77, d), the condition of the branches without c_T.

    Raises:
        ValueError: pictures as in `Pix2Pix.encode_image`; unknown choices; numbers out of range or of another type; a scheduler
            that draws noise for which no seed can be set, that no gradient can pass, or whose steps fail, are not finite, or do
            not lead from noise to a picture along a training schedule; see `schedulers.check_runs`.
    """

    def __init__(
        self,
        model: Pix2Pix,
        images: torch.Tensor,
        *,
        rows: Any = None,
        steps: int = 20,
        guidance: tuple[float, float] | None = (7.5, 1.5),
        negative: str = "",
        seed: int = 0,
        people: Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        scheduler: Any = None,
        gradient: str | None = None,
        k: int = 1,
        checkpoint: bool = True,
    ):
        check_pictures(images)
        self.model, self.guidance, self.gradient, self.steps, n = model, guidance, gradient, steps, len(images)
        self.checkpoint = checkpoint
        self.scheduler = ddim(model.scheduler) if scheduler is None else copy.deepcopy(scheduler)
        if n == 0:
            raise ValueError("need at least one picture")
        if gradient is not None:
            check_choice("gradient", gradient, GRADIENTS)
        self._fixed = check_runs(self.scheduler, steps=steps, channels=model.vae.config.latent_channels, gradient=gradient)
        self.calls = len(self._start_scheduler().timesteps)
        pair = isinstance(guidance, (Sequence, np.ndarray)) and len(guidance) == 2 and all(map(is_number, guidance))
        if guidance is not None and not pair:
            raise ValueError(f"guidance must be two finite scales, of text and of image, or None; got {guidance!r}")
        check_whole("k", k)
        if gradient in ("last-k", "one-step") and k > self.calls:
            raise ValueError(f"k must lie between 1 and {self.calls}, the calls of the UNet in {steps} steps, got {k}")
        self._first = self.calls - k if gradient in ("last-k", "one-step") else 0  # call that is recorded
        self.rows = torch.arange(n) if rows is None else _whole_numbers("rows", rows)
        if not bool(((self.rows >= 0) & (self.rows < n)).all()):
            raise ValueError(f"rows must be (r,) positions among the {n} pictures, got {self.rows.tolist()}")
        if generator is not None and people is not None:
            raise ValueError("people and generator exclude each other: the noise comes from (seed, people) or from generator")
        check_whole("seed", seed, at_least=0)
        whole = _whole_numbers("people", range(n) if people is None else people).tolist()
        if len(whole) != n or min(whole) < 0:
            raise ValueError(f"people must be {n} whole numbers from 0, one for each picture, got {whole}")
        if not isinstance(negative, str):
            raise ValueError(f"negative must be one text, got {negative!r}")
        self.image_latents = model.encode_image(images)  # (n, 4, h', w')
        self.unconditional = model.encode_text([negative])  # (1, 77, d)
        shape = self.image_latents.shape[1:]
        if isinstance(generator, torch.Generator):
            noise = torch.randn((n, *shape), generator=generator, device=generator.device)
            self._generators: list[torch.Generator] | torch.Generator = generator.clone_state()
        else:
            each: Any = [person_generator(seed, person) for person in whole] if generator is None else generator
            listed = isinstance(each, (list, tuple)) and len(each) == n
            if not listed or not all(isinstance(g, torch.Generator) for g in each):
                raise ValueError(
                    f"generator must be one torch.Generator, or a list of {n}, one for each picture; got {generator!r}"
                )
            noise = torch.stack([torch.randn(shape, generator=g, device=g.device).cpu() for g in each])
            self._generators = [g.clone_state() for g in each]
        self.noise = noise.to(self.image_latents)  # (n, 4, h', w')
        self._untold: dict[int, torch.Tensor] = {}  # (2, 4, h', w') of pictures: the first call's branches without c_T

    def __call__(self, condition: torch.Tensor, index: torch.Tensor, *, on_call: Callable[[], Any] | None = None) -> torch.Tensor:
        """Draw the rows index (m,) with their conditions c_T, (m, 77, d); `on_call` is told of each call of the UNet.

        Raises:
            ValueError: a condition of another shape or not finite, rows that do not exist, a gradient that was not asked for when
                the sampler was made.
        """
        index = _whole_numbers("index", index)
        rows = self._check_call(condition, index)
        model, scheduler = self.model, self._start_scheduler()
        condition = condition.to(self.noise.device, torch.promote_types(condition.dtype, torch.float32))
        record = torch.is_grad_enabled() and condition.requires_grad
        unscale: list[torch.Tensor] = []
        if record and model.dtype == torch.float16:
            condition = condition.clone()  # a hook on the leaf itself would stay
            condition.register_hook(lambda gradient: gradient * unscale[-1])
        branches = self._branches(condition, self.image_latents[rows], split=record)
        options = self._noise_options(index, rows)
        coefficients = detached_coefficients(scheduler) if self.gradient == "detached" else None
        latents = self.noise[rows] * scheduler.init_noise_sigma
        for call, t in enumerate(scheduler.timesteps):
            with torch.set_grad_enabled(record and call >= self._first):
                z = scheduler.scale_model_input(latents if coefficients is None else latents.detach(), t)
                noise = self._guided(z, t, branches, keep=rows if record and call == 0 else None)
                if coefficients is not None and noise.requires_grad:
                    noise.register_hook(lambda gradient, c=float(coefficients[call]): c * gradient)
                stepped = scheduler.step(noise, t, latents, **options)
                latents = stepped.prev_sample
            if on_call is not None:
                on_call()
            if self.gradient == "one-step" and call == self._first:
                latents = stepped.pred_original_sample
                break
        pictures = self._call(model.decode, latents)
        if record and model.dtype == torch.float16:
            pictures.register_hook(lambda gradient: _to_unit(gradient, unscale))
        return pictures

    def _branches(self, text: torch.Tensor, image: torch.Tensor, *, split: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of (condition, image latents) for one call: (text, image), (no text, image), (no text, no image).

        One batch of all three, as in the pipeline; two where a gradient needs the first alone.
        """
        if self.guidance is None:
            return [(text, image)]
        no_text, no_image = self.unconditional.to(text).expand_as(text), torch.zeros_like(image)
        others = torch.cat([no_text, no_text]), torch.cat([image, no_image])
        if split:
            return [(text, image), others]
        return [(torch.cat([text, others[0]]), torch.cat([image, others[1]]))]

    def _guided(
        self, z: torch.Tensor, t: torch.Tensor, branches: list[tuple[torch.Tensor, torch.Tensor]], *, keep: Any = None
    ) -> torch.Tensor:
        """keep: the pictures (m,), if z is their starting noise: what needs no text is then the same in every step of Adam."""
        noises: list[torch.Tensor] = []
        for i, (condition, image) in enumerate(branches):
            if i and keep is not None and all(row in self._untold for row in keep.tolist()):
                noises += torch.stack([self._untold[row] for row in keep.tolist()]).unbind(1)
                continue
            copies = len(condition) // len(z)
            noises += self._call(self.model.predict_noise, torch.cat([z] * copies), image, t, condition).chunk(copies)
            if i and keep is not None:
                self._untold.update(zip(keep.tolist(), torch.stack(noises[-2:], dim=1), strict=True))
        if self.guidance is None:
            return noises[0]
        text, image, nothing = noises
        return nothing + self.guidance[0] * (text - image) + self.guidance[1] * (image - nothing)

    def _call(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """function(*inputs), where only the inputs are kept for the gradient, if there is one and we may compute twice."""
        if not (self.checkpoint and torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
            return function(*inputs)
        output: torch.Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return output

    def _start_scheduler(self) -> Any:
        """A scheduler at its first step: some keep what they were shown, gradients included."""
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(self.steps)
        return scheduler

    def _noise_options(self, index: torch.Tensor, rows: torch.Tensor) -> dict[str, Any]:
        """Generators for schedulers that draw noise at each step, from where the starting noise left them."""
        if self._fixed:
            return {}
        if isinstance(self._generators, list):
            return {"generator": [self._generators[row].clone_state() for row in rows]}
        if len(index) != len(self.rows):
            raise ValueError(
                f"with one generator for all, {type(self.scheduler).__name__} draws other noise for {len(index)} rows than for "
                f"all {len(self.rows)}: draw all at once, or use seed and people"
            )
        return {"generator": self._generators.clone_state()}

    def _check_call(self, condition: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The pictures that the rows edit, (m,) on the CPU."""
        shape = (len(index), *self.unconditional.shape[1:])
        if not isinstance(condition, torch.Tensor):
            raise ValueError(f"need conditions {shape} as a tensor of floats for these rows, got {type(condition).__name__}")
        if condition.shape != shape or not condition.is_floating_point():
            raise ValueError(f"need conditions {shape} of floats for these rows, got {tuple(condition.shape)} {condition.dtype}")
        check_finite("condition", condition.detach())
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self.rows):
            raise ValueError(f"rows run from 0 to {len(self.rows) - 1}, got {index.tolist()}")
        if torch.is_grad_enabled() and condition.requires_grad and self.gradient is None:
            raise ValueError(f"this sampler draws pictures only; for a gradient, make it with one of gradient={GRADIENTS}")
        return self.rows[index]


def person_generator(seed: int, person: int) -> torch.Generator:
    """Where the noise of a person comes from: a list of these makes the pipeline draw what `Sampler` draws."""
    check_whole("seed", seed, at_least=0)
    check_whole("person", person, at_least=0)
    state = np.random.SeedSequence((int(seed), int(person))).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _whole_numbers(name: str, values: Any) -> torch.Tensor:
    """(m,) whole numbers as int64 on the CPU; positions that are fractions or a mask would be cut to others."""
    found = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be a list of whole numbers, got {values!r}")
    return torch.from_numpy(found.astype(np.int64))


def _to_unit(gradient: torch.Tensor, scales: list[torch.Tensor]) -> torch.Tensor:
    """Each picture's gradient at maximum 1, for half precision underflows on the way back; what it was divided by is noted."""
    scale = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    scales.append(scale[..., 0])
    return gradient / scale
