"""Which schedulers of diffusers the sampler can use: those whose steps lead from noise to a picture along a training schedule."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import torch

from ..errors import check_choice, check_whole

DETERMINISTIC = (  # whose steps draw no noise, as diffusers calls them without options; the DPM solvers unless "sde" is set
    "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
    "DEISMultistepScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler", "DDIMParallelScheduler",
)  # fmt: skip
NO_SIGNAL = 2**-24  # what diffusers' Euler, UniPC and DPM solvers write for abar = 0, at zero terminal SNR
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def ddim(scheduler: Any) -> Any:
    """A copy of a DDIM; of another scheduler its training schedule, and everything else as Stable Diffusion publishes it.

    A plain `DDIMScheduler.from_config` would silently clamp the latents to [-1, 1] and end at another step.
    """
    from diffusers import DDIMScheduler

    if isinstance(check_scheduler(scheduler), DDIMScheduler):
        return copy.deepcopy(scheduler)
    published = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}
    made = DDIMScheduler.from_config(scheduler.config, **published)
    ours, theirs = made.alphas_cumprod, scheduler.alphas_cumprod.to(made.alphas_cumprod)
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, atol=1e-5):
        raise ValueError(f"{type(scheduler).__name__} has a training schedule that no DDIMScheduler can be given by its config")
    return made


def detached_coefficients(scheduler: Any) -> torch.Tensor:
    """What "detached" multiplies dL/de_t with, one for each timestep of a scheduler whose timesteps are set; their product is 1.

    Of a UNet that predicts the noise: sqrt(abar_t) sqrt(1 - abar_t) / (1 - alpha_t), divided by the geometric mean; alpha_t and
    its running product abar_t are those of training (Shen et al. 2024, as in their code). It evens out the steps: the
    scheduler's path alone weighs e_t by the step in sqrt((1 - abar) / abar), so that the noisiest calls would drown the others.

    Of one that predicts v, by the same principle (ours, they do not treat it): in terms of the angle with cos^2 = abar, a
    deterministic step turns by the difference of the angles and adds its sine times v, so that v_t is weighed by the step in
    the angle; the coefficient is one over it. It is finite at zero terminal SNR too.

    Raises:
        ValueError: a UNet that predicts the sample: the picture is the last call's alone, the other paths are 0. A noise that is
            predicted at zero signal, abar_t = 0. A scheduler without a training schedule.
    """
    kind = scheduler.config.get("prediction_type", "epsilon")
    check_choice("prediction_type for 'detached'", kind, ("epsilon", "v_prediction"))
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{type(scheduler).__name__} has no training schedule (alphas_cumprod), which 'detached' needs")
    t = scheduler.timesteps.cpu().long()
    total = scheduler.alphas_cumprod.cpu().double()
    if kind == "v_prediction":
        angle = total.where(total > NO_SIGNAL, 0).sqrt().acos()
        logs = -angle.diff(prepend=angle.new_zeros(1))[t].log()
    else:
        total, beta = total[t], scheduler.betas.cpu().double()[t]
        silent = t[total <= NO_SIGNAL]
        if len(silent):
            raise ValueError(f"the noise tells nothing of the picture at timestep {int(silent[0])}, where no signal is left")
        logs = (total * (1 - total)).log() / 2 - beta.log()
    return (logs - logs.mean()).exp()


def check_runs(scheduler: Any, *, steps: int, channels: int, gradient: str | None = None) -> bool:
    """Whether its steps draw no noise, for a scheduler that leads from noise to a picture in so many steps.

    It is tried on a single pixel with so many latent channels. gradient: as of `Sampler`.

    Raises:
        ValueError: any other scheduler, with why, or one that no gradient of this way can pass.
    """
    name, config = type(check_scheduler(scheduler)).__name__, scheduler.config
    check_whole("steps", steps)
    if steps > config.num_train_timesteps:
        raise ValueError(f"steps must be at most {config.num_train_timesteps}, as many as in training, got {steps}")
    _check_direction(scheduler)
    known = any(kind.__name__ in DETERMINISTIC for kind in type(scheduler).__mro__)
    fixed = known and not str(_option(scheduler, "algorithm_type")).startswith("sde")
    if not fixed and "generator" not in inspect.signature(scheduler.step).parameters:
        raise ValueError(
            f"the step of {name} takes no generator, and it is none of those known to draw no noise; choose {DETERMINISTIC}"
        )
    if _option(scheduler, "skip_prk_steps") is False and steps < 4:
        raise ValueError(f"{name} with skip_prk_steps=False needs at least 4 steps, got {steps}; set it to True")
    if gradient is not None:
        if not fixed:
            shown = f"{name} with algorithm_type={config.algorithm_type}" if known else name
            check_choice("scheduler for a gradient (without noise in its steps)", shown, DETERMINISTIC)
        for clamp in ("clip_sample", "thresholding"):
            if _option(scheduler, clamp):
                raise ValueError(f"{name} with {clamp}=True clamps the latents in each step and stops gradients: set it to False")
    last = _try(scheduler, steps, channels, {} if fixed else {"generator": torch.Generator()}, detached=gradient == "detached")
    if gradient == "one-step" and getattr(last, "pred_original_sample", None) is None:
        raise ValueError(f"the step of {name} makes no estimate of the clean latent for 'one-step'; choose DDIM")
    if _option(scheduler, "rescale_betas_zero_snr") and config.get("prediction_type", "epsilon") == "epsilon":
        raise ValueError(
            f"{name} with rescale_betas_zero_snr=True leaves no signal in the noisiest step, where predicted noise tells "
            "nothing of the picture: at zero terminal SNR a UNet must predict v, got prediction_type='epsilon'"
        )
    return fixed


def check_scheduler(scheduler: Any) -> Any:
    """The scheduler; ``ValueError`` unless it is one of diffusers, with a training schedule."""
    needs = ("config", "set_timesteps", "scale_model_input", "step", "init_noise_sigma", "alphas_cumprod")
    lacks = [name for name in needs if not hasattr(scheduler, name)]
    if isinstance(scheduler, type) or lacks:
        plain = isinstance(scheduler, (str, type)) or scheduler is None
        got = repr(scheduler) if plain else f"{type(scheduler).__name__}, which has no {' and no '.join(lacks)}"
        raise ValueError(
            "scheduler must be an object of diffusers that starts from noise and has the training schedule (alphas_cumprod) of a "
            f"UNet that predicts noise, such as DDIMScheduler(...) or model.scheduler; got {got}"
        )
    return scheduler


def _option(scheduler: Any, name: str) -> Any:
    """An option that this kind of scheduler has, else None: its config also keeps those of the one whose config it was given."""
    kinds = type(scheduler).__mro__
    return scheduler.config.get(name) if any(name in inspect.signature(kind).parameters for kind in kinds[:-1]) else None


def _check_direction(scheduler: Any) -> None:
    """Raise ``ValueError`` unless its steps lead from noise to a picture, and take what the sampler can tell them."""
    name = type(scheduler).__name__
    if any("Inverse" in kind.__name__ for kind in type(scheduler).__mro__):
        raise ValueError(f"{name} goes from a picture to noise, and the sampler from noise to a picture; choose {DETERMINISTIC}")
    if _option(scheduler, "use_flow_sigmas"):
        raise ValueError(
            f"{name} with use_flow_sigmas=True takes the noise levels of flow matching, which are not those of the training "
            "schedule: set it to False"
        )
    check_choice(f"prediction_type of {name}", scheduler.config.get("prediction_type", "epsilon"), PREDICTIONS)
    more = list(inspect.signature(scheduler.step).parameters.values())[3:]  # after what the UNet says, the timestep, the latents
    unknown = [p.name for p in more if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    unknown += [p.name for p in more if p.name == "prev_timestep"]  # by default t - 1, whatever the number of steps
    if unknown:
        told = " and ".join(unknown)
        raise ValueError(f"the step of {name} must be told {told}, which the sampler does not do; choose {DETERMINISTIC}")


def _try(scheduler: Any, steps: int, channels: int, options: dict[str, Any], *, detached: bool) -> Any:
    """The last of all steps on a pixel, with a UNet that knows it: what fails or ends elsewhere there does so everywhere."""
    name, clean, state = type(scheduler).__name__, torch.tensor(-0.5), torch.random.get_rng_state()
    try:
        scheduler = copy.deepcopy(scheduler)
        scheduler.set_timesteps(steps)
        if detached:
            detached_coefficients(scheduler)
        (signal, spread), start = _levels(scheduler, scheduler.timesteps[0]), torch.ones(1, channels, 1, 1)
        latents = (signal * clean + spread * start) / scheduler.scale_model_input(start, scheduler.timesteps[0])
        for t in scheduler.timesteps:
            stepped = scheduler.step(_exact(scheduler, scheduler.scale_model_input(latents, t), t, clean), t, latents, **options)
            latents = stepped.prev_sample
            if not latents.isfinite().all():
                hint = "; at zero terminal SNR a UNet must predict v" if _option(scheduler, "rescale_betas_zero_snr") else ""
                raise ValueError(f"at timestep {float(t):g} they leave NaN or infinity{hint}")
        if not torch.equal(state, torch.random.get_rng_state()):
            torch.random.set_rng_state(state)
            raise ValueError(f"they draw noise that no seed fixes; choose {DETERMINISTIC}")
        end = float(latents.flatten()[0])
        if abs(end - float(clean)) > 0.5:  # the last step may leave some noise: of a deviation near 0.1
            raise ValueError(
                f"they do not lead to the picture: where a UNet knows that it is {float(clean):g}, they end at {end:.3g}; "
                f"choose {DETERMINISTIC}"
            )
    # what a scheduler of diffusers raises for options that its steps cannot bear: each has its own, none a common one
    except (NotImplementedError, AttributeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} cannot run {steps} steps: {error}") from error
    return stepped


def _levels(scheduler: Any, t: torch.Tensor) -> tuple[float, float]:
    """What a noisy latent of training holds at timestep t: (of the latent, of noise); some schedulers ask between two."""
    total = scheduler.alphas_cumprod.cpu().double().numpy()
    at = float(np.interp(float(t), np.arange(len(total)), total))
    return at**0.5, (1 - at) ** 0.5


def _exact(scheduler: Any, z: torch.Tensor, t: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """What a UNet would say of z that knows the clean latent: the noise, v, or the latent itself."""
    signal, spread = _levels(scheduler, t)
    noise = (z - signal * clean) / spread
    said = {"epsilon": noise, "v_prediction": signal * noise - spread * clean, "sample": clean.expand_as(z)}
    return said[scheduler.config.get("prediction_type", "epsilon")]
