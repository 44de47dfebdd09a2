"""Every scheduler of diffusers is refused with a true sentence, or samples what is known to be right."""

import inspect
import re
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    IPNDMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from debias_utils.edit.sampler import GRADIENTS, Sampler
from debias_utils.edit.schedulers import DETERMINISTIC, check_runs, ddim

ALL = [
    name
    for name, kind in inspect.getmembers(diffusers, inspect.isclass)
    if issubclass(kind, diffusers.SchedulerMixin) and kind is not diffusers.SchedulerMixin
]
WITH_NOISE = (
    "DDPMScheduler", "DDPMParallelScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler", "TCDScheduler", "SASolverScheduler", "CogVideoXDDIMScheduler",
)  # fmt: skip
NO_SAMPLE = ("EulerAncestralDiscreteScheduler", "PNDMScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
DISTILLED = ("LCMScheduler", "TCDScheduler")  # for UNets that jump: an exact one does not, but where there is one picture alone
TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
REQUIRED = {  # what has no default
    "AmusedScheduler": {"mask_token_id": 1},
    "VQDiffusionScheduler": {"num_vec_classes": 4},
    "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0},
}


def make(name, **more):
    kind = getattr(diffusers, name)
    options = {**TRAINING, **more} if name != "UnCLIPScheduler" else more
    known = inspect.signature(kind).parameters
    return kind(**REQUIRED.get(name, {}), **{key: value for key, value in options.items() if key in known})


class Exact:
    """The parts of an editor that knows its latents: normal with this mean and deviation. They are its pictures."""

    dtype = torch.float32

    def __init__(self, scheduler, mean, deviation, *, size=32):
        self.scheduler, self.mean, self.deviation, self.size = scheduler, mean, deviation, size
        self.vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4))

    def encode_image(self, images):
        return torch.zeros(len(images), 4, self.size, self.size)

    def encode_text(self, texts):
        return torch.zeros(len(texts), 77, 8)

    def decode(self, latents):
        return latents

    def predict_noise(self, z, image, t, condition):
        total = self.scheduler.alphas_cumprod.double().numpy()
        a = float(np.interp(float(t), np.arange(len(total)), total))
        noise = (1 - a) ** 0.5 * (z - a**0.5 * self.mean) / (a * self.deviation**2 + 1 - a)
        clean = (z - (1 - a) ** 0.5 * noise) / a**0.5
        v = a**0.5 * noise - (1 - a) ** 0.5 * clean
        return {"epsilon": noise, "v_prediction": v, "sample": clean}[self.scheduler.config.get("prediction_type", "epsilon")]


def draw(scheduler, *, mean, deviation, steps, n=2):
    """(n, 4, 32, 32)."""
    sampler = Sampler(Exact(scheduler, mean, deviation), torch.zeros(n, 3, 8, 8), steps=steps, scheduler=scheduler)
    return sampler(torch.zeros(n, 77, 8), torch.arange(n))


@pytest.mark.parametrize("name", ALL)
def test_every_scheduler_is_refused_or_samples_what_is_right(name):
    made = make(name)
    if name not in DETERMINISTIC + WITH_NOISE:
        with pytest.raises(ValueError, match=name) as refused:
            draw(made, mean=0.3, deviation=0.5, steps=20)
        for attribute in re.findall(r"has no (\w+)", str(refused.value)):
            assert not hasattr(made, attribute)
        told = re.search("must be told (.*), which", str(refused.value))
        assert told is None or set(told[1].split(" and ")) <= set(inspect.signature(made.step).parameters)
        assert "choose" in str(refused.value) or "such as DDIMScheduler" in str(refused.value)
        return
    for steps in (4, 20):
        assert (draw(made, mean=-0.7, deviation=1e-6, steps=steps) + 0.7).abs().max() < 0.35  # some leave a noise of 0.06
    if name not in DISTILLED:
        found = draw(made, mean=0.3, deviation=0.5, steps=100)
        assert float(found.mean()) == pytest.approx(0.3, abs=0.03)
        assert float(found.std()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", [*DETERMINISTIC, *WITH_NOISE])
def test_what_else_a_unet_may_predict(name, prediction):
    made = make(name, prediction_type=prediction)
    if prediction == "sample" and name in NO_SAMPLE:
        with pytest.raises(ValueError, match=rf"{name} cannot run 20 steps: .*sample"):
            draw(made, mean=0.3, deviation=0.02, steps=20)
        return
    assert float(draw(made, mean=0.3, deviation=0.02, steps=20).mean()) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("way", GRADIENTS[:2])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_subclasses_are_what_they_are_derived_from(name, way):
    class Mine(getattr(diffusers, name)):
        pass

    made = Mine.from_config(make(name, skip_prk_steps=True).config)
    assert check_runs(made, steps=4, channels=4, gradient=way)


def test_a_subclass_that_draws_noise_of_its_own_is_refused_and_leaves_the_random_state_alone():
    class Noisy(DDIMScheduler):
        def step(self, *inputs, **options):
            stepped = super().step(*inputs, **options)
            stepped.prev_sample = stepped.prev_sample + 1e-3 * torch.randn(1)
            return stepped

    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="Noisy cannot run 4 steps: they draw noise that no seed fixes; choose"):
        check_runs(Noisy(clip_sample=False), steps=4, channels=4)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_scheduler_that_ends_elsewhere_is_refused():
    class Still(DDIMScheduler):
        def step(self, told, t, z, **options):
            return SimpleNamespace(prev_sample=z)

    with pytest.raises(
        ValueError, match=r"do not lead to the picture: where a UNet knows that it is -0.5, they end at 0.9[0-9]+; choose"
    ):
        check_runs(Still(clip_sample=False), steps=4, channels=4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_pndm_with_runge_kutta_steps(steps):
    made = PNDMScheduler(skip_prk_steps=False)
    if steps < 4:
        with pytest.raises(
            ValueError, match=rf"PNDMScheduler with skip_prk_steps=False needs at least 4 steps, got {steps}; set it"
        ):
            check_runs(made, steps=steps, channels=4)
    assert check_runs(PNDMScheduler(skip_prk_steps=True) if steps < 4 else made, steps=steps, channels=4)


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_noise_levels_and_predictions_of_flow_matching_are_refused(name):
    for prediction in ("epsilon", "flow_prediction"):
        made = make(name, use_flow_sigmas=True, prediction_type=prediction)
        with pytest.raises(ValueError, match=f"{name} with use_flow_sigmas=True takes the noise levels of flow matching"):
            check_runs(made, steps=4, channels=4)
    with pytest.raises(ValueError, match=r"unknown prediction_type of .* 'flow_prediction'; choose one of: 'epsilon', 'v_pred"):
        check_runs(make(name, prediction_type="flow_prediction"), steps=4, channels=4)


def test_options_that_a_scheduler_only_carries_along_decide_nothing():
    """A config keeps what it does not know: the clamp of a DDIM, say, that Euler never applies."""
    clamped = EulerDiscreteScheduler.from_config(DDIMScheduler(clip_sample=True).config)
    stochastic = DDIMScheduler.from_config(
        DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++").config, clip_sample=False
    )
    flow = DDIMScheduler.from_config(UniPCMultistepScheduler(use_flow_sigmas=True).config, clip_sample=False)
    prk = LMSDiscreteScheduler.from_config(PNDMScheduler(skip_prk_steps=False).config)
    for made in (clamped, stochastic, flow, prk):
        assert check_runs(made, steps=3, channels=4, gradient="full")


def test_a_ddim_is_made_of_a_training_schedule_or_not_at_all():
    lms = LMSDiscreteScheduler(beta_end=0.012, beta_schedule="scaled_linear")
    assert torch.allclose(ddim(lms).alphas_cumprod, lms.alphas_cumprod)
    with pytest.raises(ValueError, match="got IPNDMScheduler, which has no alphas_cumprod"):
        ddim(IPNDMScheduler())
    for name in ("CogVideoXDDIMScheduler", "UnCLIPScheduler"):  # DDIM's own formula would give other levels of noise
        with pytest.raises(ValueError, match=f"{name} has a training schedule that no DDIMScheduler can be given"):
            ddim(make(name))
