"""The loop, its guidance, and the ways of a gradient through it, on tiny parts with random weights."""

import copy
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

from debias_utils.debias.gradient import debias_latent
from debias_utils.edit.sampler import DETERMINISTIC, GRADIENTS, Sampler, ddim, detached_coefficients, person_generator

ALL = torch.arange(3)
TEXTS = ["make the man a woman", "make", "the woman"]


@pytest.fixture(scope="module")
def condition(pix2pix):
    return pix2pix.encode_text(TEXTS)


@pytest.fixture(scope="module")
def precise(pix2pix):
    return copy.deepcopy(pix2pix).double()


def scheduler(name, pix2pix, **extra):
    plain = {"DDIMScheduler": "clip_sample", "DDIMParallelScheduler": "clip_sample"}.get(name)
    extra |= {plain: False} if plain else {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    if name == "DPMSolverSinglestepScheduler":
        extra["lower_order_final"] = True
    return getattr(diffusers, name).from_config(pix2pix.scheduler.config, set_alpha_to_one=False, **extra)


def gradient(sampler, condition, index=ALL, *, weight=1.0):
    """Pictures, and the gradient of a sum of squares."""
    leaf = condition.clone().requires_grad_()
    pictures = sampler(leaf, index)
    return pictures.detach(), torch.autograd.grad(weight * pictures.square().sum(), leaf)[0]


def by_hand(model, images, conditions, *, guidance=(7.5, 1.5), each=lambda noise, i: noise, detach=False):
    """Pictures, and those of each call's estimate of the clean latent; one condition a step.

    DDIM as in Song et al. 2021, equation 12 with sigma 0, and equation 1 of the guidance: no scheduler, no batches of branches.
    """
    s_text, s_image = guidance
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2  # Stable Diffusion's training
    total = (1 - beta).cumprod(0).to(conditions[0])
    spacing = 1000 // len(conditions)
    z = torch.stack([torch.randn(4, 8, 8, generator=person_generator(0, i)) for i in range(len(images))]).to(conditions[0])
    picture, empty, estimates = model.encode_image(images), model.encode_text([""]).expand_as(conditions[0]), []
    for i, condition in enumerate(conditions):
        t = (len(conditions) - 1 - i) * spacing + 1
        seen = z.detach() if detach else z
        both, image, none = (
            model.predict_noise(seen, c_i, torch.tensor(t), c_t)
            for c_i, c_t in ((picture, condition), (picture, empty), (torch.zeros_like(picture), empty))
        )
        noise = each(none + s_image * (image - none) + s_text * (both - image), i)
        before, after = total[t], total[t - spacing] if t >= spacing else total[0]
        clean = (z - (1 - before).sqrt() * noise) / before.sqrt()
        z = after.sqrt() * clean + (1 - after).sqrt() * noise
        estimates.append(model.decode(clean))
    return model.decode(z), estimates


@pytest.mark.parametrize("guidance", [(7.5, 1.5), (1.0, 1.5), (3.0, 0.5), (-2.0, 0.0), (0.0, 0.0)])
def test_it_is_equation_1_for_any_scales(precise, people16, condition, guidance):
    """Among them those under which diffusers drops a branch without a word."""
    sampler = Sampler(precise, people16.double(), steps=2, guidance=guidance)
    expected, _ = by_hand(precise, people16.double(), [condition.double()] * 2, guidance=guidance)
    assert torch.allclose(sampler(condition.double(), ALL), expected, atol=1e-5)  # diffusers' constants are float32


def test_at_scales_of_1_the_formula_is_the_conditional_branch(precise, people16, condition):
    formula, alone, other = (
        Sampler(precise, people16, steps=2, guidance=guidance)(condition.double(), ALL) for guidance in ((1, 1), None, (1, 1.5))
    )
    assert torch.allclose(formula, alone, atol=1e-9)
    assert not torch.allclose(other, alone, atol=1e-3)  # and not where s_I differs from 1, where diffusers drops it as well


def test_noise_belongs_to_the_person(pix2pix, people16, condition):
    whole = Sampler(pix2pix, people16, steps=2)
    assert torch.equal(whole.noise[1], torch.randn(4, 8, 8, generator=person_generator(0, 1)))
    subset = Sampler(pix2pix, people16[1:], steps=2, people=[1, 2])
    assert torch.allclose(subset(condition[1:], ALL[:2]), whole(condition, ALL)[1:], atol=1e-5)
    assert not torch.equal(Sampler(pix2pix, people16, seed=1).noise, whole.noise)
    assert len({float(noise.sum()) for noise in whole.noise}) == 3
    half = Sampler(copy.deepcopy(pix2pix).half(), people16)
    assert torch.equal(half.noise, whole.noise)  # in every precision


@pytest.mark.parametrize("name", [*DETERMINISTIC, None])
def test_rows_do_not_depend_on_each_other_nor_on_what_was_drawn_before(pix2pix, people16, condition, name):
    """With Euler-ancestral (None) too, whose noise belongs to the person. PNDM keeps a history, which is new in each call."""
    kind = copy.deepcopy(pix2pix.scheduler) if name is None else scheduler(name, pix2pix)
    before = vars(copy.deepcopy(kind))
    sampler = Sampler(pix2pix, people16, rows=[2, 0, 2], steps=3, scheduler=kind)
    whole = sampler(condition, ALL)
    assert torch.equal(sampler(condition, ALL), whole)
    for row in (2, 0):
        alone = sampler(condition[row : row + 1], torch.tensor([row]))
        assert torch.allclose(alone[0], whole[row], atol=1e-4)
    same_person = sampler(condition[[0, 0]], torch.tensor([0, 2]))
    assert torch.allclose(same_person[0], same_person[1], atol=1e-6)
    assert str(vars(kind)) == str(before)  # the scheduler given was not touched
    assert str(vars(sampler.scheduler)) == str(before)  # nor does ours hold on to what it was shown


def test_each_call_is_told(pix2pix, people16, condition):
    told = []
    sampler = Sampler(pix2pix, people16, steps=3, scheduler=scheduler("PNDMScheduler", pix2pix))
    sampler(condition, ALL, on_call=lambda: told.append(1))
    assert len(told) == sampler.calls == 4


def test_ddim_is_configured_as_published(pix2pix):
    made = ddim(pix2pix.scheduler)
    assert (made.config.clip_sample, made.config.set_alpha_to_one, made.config.beta_end) == (False, False, 0.012)
    own = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    assert ddim(own).config == own.config
    assert ddim(own) is not own


@pytest.mark.parametrize(
    "name",
    [
        "UniPCMultistepScheduler",
        "LMSDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
    ],
)
def test_schedulers_that_draw_no_noise_are_taken_for_gradients_and_in_chunks(pix2pix, people16, condition, name):
    made = scheduler(name, pix2pix)
    assert Sampler(pix2pix, people16, steps=3, scheduler=made, gradient="full").calls >= 3
    one = Sampler(pix2pix, people16, steps=2, scheduler=made, generator=torch.Generator().manual_seed(0))
    assert one(condition[:1], ALL[:1]).isfinite().all()  # one generator for all, and not all of them


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_schedulers_that_draw_no_noise_give_the_same_picture_twice_and_from_one_generator_in_chunks(
    pix2pix, people16, condition, name
):
    options = {"steps": 3, "scheduler": scheduler(name, pix2pix)}
    sampler, state = Sampler(pix2pix, people16, **options), torch.random.get_rng_state()
    once = sampler(condition, ALL)
    torch.manual_seed(1)
    again = Sampler(pix2pix, people16, **options)(condition, ALL)
    torch.random.set_rng_state(state)
    assert torch.equal(once, again)
    assert once.isfinite().all()
    one = Sampler(pix2pix, people16, generator=torch.Generator().manual_seed(0), **options)
    assert torch.allclose(one(condition[:1], ALL[:1]), one(condition, ALL)[:1], atol=1e-4)


def test_a_dpm_solver_draws_noise_if_it_is_told_to(pix2pix, people16):
    made = scheduler("DPMSolverMultistepScheduler", pix2pix, algorithm_type="sde-dpmsolver++")
    with pytest.raises(ValueError, match="with algorithm_type=sde-dpmsolver"):
        Sampler(pix2pix, people16, scheduler=made, gradient="full")
    assert Sampler(pix2pix, people16, scheduler=made, steps=2).calls == 2


def test_a_list_of_generators_gives_each_picture_its_own_noise(pix2pix, people16, condition):
    usual = Sampler(pix2pix, people16, steps=2, seed=4)
    listed = Sampler(pix2pix, people16, steps=2, generator=[person_generator(4, i) for i in range(3)])
    assert torch.equal(usual.noise, listed.noise)
    assert torch.equal(usual(condition, ALL), listed(condition, ALL))


# A UNet that predicts v


def v_parts(precise, **config):
    return DDIMScheduler.from_config(
        precise.scheduler.config, clip_sample=False, set_alpha_to_one=True, prediction_type="v_prediction", **config
    )


def v_by_hand(model, made, images, conditions, *, each=lambda v, i: v, detach=False):
    """DDIM on v by the angle: z' = cos z' ... with x0 = cos z - sin v and noise = sin z + cos v, guided as in equation 1."""
    angles = made.alphas_cumprod.double().sqrt().acos()
    z = torch.stack([torch.randn(4, 8, 8, generator=person_generator(0, i)) for i in range(len(images))]).double()
    picture, empty = model.encode_image(images), model.encode_text([""]).expand_as(conditions[0])
    times = made.timesteps.tolist()
    for i, t in enumerate(times):
        seen, now = z.detach() if detach else z, angles[t]
        then = angles[t - 1000 // len(times)] if t >= 1000 // len(times) else 0 * now
        both, image, none = (
            model.predict_noise(seen, c_i, torch.tensor(t), c_t)
            for c_i, c_t in ((picture, conditions[i]), (picture, empty), (torch.zeros_like(picture), empty))
        )
        v = each(none + 1.5 * (image - none) + 7.5 * (both - image), i)
        z = then.cos() * (now.cos() * z - now.sin() * v) + then.sin() * (now.sin() * z + now.cos() * v)
    return model.decode(z)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_v_prediction_by_hand_and_its_gradients(precise, people16, condition, zero_snr):
    """At zero terminal SNR too: from the last timestep, where nothing of the picture is left."""
    spacing = {"timestep_spacing": "trailing" if zero_snr else "leading", "rescale_betas_zero_snr": zero_snr, "steps_offset": 1}
    images, frozen, made = people16.double(), condition.double(), v_parts(precise, **spacing)
    made.set_timesteps(4)
    assert (made.timesteps[0] == 999) == zero_snr
    c = detached_coefficients(made)
    assert c.isfinite().all()

    def scaled(v, i):
        v.register_hook(lambda g: float(c[i]) * g)
        return v

    for way, how in (("full", {}), ("detached", {"each": scaled, "detach": True})):
        leaf = frozen.clone().requires_grad_()
        expected = v_by_hand(precise, made, images, [leaf] * 4, **how)
        right = torch.autograd.grad(expected.square().sum(), leaf)[0]
        found, slope = gradient(Sampler(precise, images, steps=4, scheduler=made, gradient=way), frozen)
        assert torch.allclose(found, expected.detach(), atol=1e-4)  # diffusers' constants are float32
        assert (slope - right).norm() < 1e-3 * right.norm()


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_detached_coefficients_of_v_give_every_call_the_same_say(pix2pix, kind, zero_snr):
    """By the scheduler's own path from each prediction to the end, found by autograd."""
    options = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_snr, "timestep_spacing": "trailing"}
    made = scheduler(kind, pix2pix, **options)
    made.set_timesteps(50)
    leaves = torch.zeros(50, 1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    latents = torch.ones(1, 4, 1, 1, dtype=torch.float64)
    for leaf, t in zip(leaves, made.timesteps, strict=True):
        made.scale_model_input(latents, t)
        latents = made.step(leaf, t, latents).prev_sample
    path = torch.autograd.grad(latents.sum(), leaves)[0].flatten(1).sum(dim=1).abs()
    found = detached_coefficients(made)
    say = (path * found)[:-2]
    assert float(found.prod()) == pytest.approx(1)
    assert say.max() < 1.3 * say.min()
    epsilon = copy.deepcopy(made)
    epsilon.register_to_config(prediction_type="epsilon")
    if zero_snr:
        with pytest.raises(ValueError, match="tells nothing of the picture at timestep 999"):
            detached_coefficients(epsilon)
    else:
        wrong = (path * detached_coefficients(epsilon))[:-2]
        assert wrong.max() > 5 * wrong.min()


# The ways of a gradient


def test_all_ways_but_one_draw_the_same_pictures(pix2pix, people16, condition):
    samplers = {way: Sampler(pix2pix, people16, steps=4, gradient=way, k=2) for way in GRADIENTS}
    pictures = {way: gradient(sampler, condition)[0] for way, sampler in samplers.items()}
    assert torch.equal(pictures["full"], pictures["last-k"])
    assert torch.equal(pictures["full"], pictures["detached"])
    assert not torch.allclose(pictures["full"], pictures["one-step"], atol=1e-3)
    plain = Sampler(pix2pix, people16, steps=4)
    with torch.no_grad():  # one batch of three branches, rounded otherwise
        assert torch.allclose(plain(condition, ALL), pictures["full"], atol=1e-5)
        assert torch.allclose(samplers["one-step"](condition, ALL), pictures["one-step"], atol=1e-5)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_last_k_calls_are_everything_when_k_is_all_of_them(pix2pix, people16, condition, name):
    options = {"steps": 3, "scheduler": scheduler(name, pix2pix)}
    full = Sampler(pix2pix, people16, gradient="full", **options)
    last = Sampler(pix2pix, people16, gradient="last-k", k=full.calls, **options)
    assert full.calls == {"PNDMScheduler": 4, "HeunDiscreteScheduler": 5, "KDPM2DiscreteScheduler": 5}.get(name, 3)
    assert torch.equal(gradient(full, condition)[1], gradient(last, condition)[1])
    fewer = Sampler(pix2pix, people16, gradient="last-k", k=full.calls - 1, **options)
    assert not torch.allclose(gradient(full, condition)[1], gradient(fewer, condition)[1])


@pytest.mark.parametrize(
    ("name", "guidance"), [*((name, (7.5, 1.5)) for name in DETERMINISTIC), ("DDIMScheduler", None), ("PNDMScheduler", None)]
)
def test_the_full_gradient_agrees_with_finite_differences(precise, people16, condition, name, guidance):
    options = {"steps": 3, "scheduler": scheduler(name, precise), "guidance": guidance}
    sampler, c = Sampler(precise, people16.double(), gradient="full", **options), condition.double()
    found = gradient(sampler, c)[1]
    single = name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler")  # their steps are computed in float32
    step, tolerance = (1e-3, 0.02) if single else (1e-4, 1e-5)
    directions = torch.randn(2, *c.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        for way in directions:
            up, down = (sampler(c + h * way, ALL).square().sum() for h in (step, -step))
            assert float((found * way).sum()) == pytest.approx(float((up - down) / (2 * step)), rel=tolerance)


def test_each_way_is_the_gradient_of_what_it_says(precise, people16, condition):
    """Against loops of two steps by hand, where it is plain which condition is the leaf and what is detached."""
    images, frozen = people16.double(), condition.double()
    ddim_made = ddim(precise.scheduler)
    ddim_made.set_timesteps(2)
    coefficients = detached_coefficients(ddim_made)

    def scaled(noise, i):
        noise.register_hook(lambda g: float(coefficients[i]) * g)
        return noise

    def reference(make):
        leaf = frozen.clone().requires_grad_()
        return torch.autograd.grad(make(leaf).square().sum(), leaf)[0]

    expected = {
        ("full", 1): reference(lambda c: by_hand(precise, images, [c, c])[0]),
        ("last-k", 2): reference(lambda c: by_hand(precise, images, [c, c])[0]),
        ("last-k", 1): reference(lambda c: by_hand(precise, images, [frozen, c])[0]),
        ("one-step", 2): reference(lambda c: by_hand(precise, images, [c, c])[1][0]),
        ("one-step", 1): reference(lambda c: by_hand(precise, images, [frozen, c])[1][1]),
        ("detached", 1): reference(lambda c: by_hand(precise, images, [c, c], each=scaled, detach=True)[0]),
    }
    for (way, k), right in expected.items():
        found = gradient(Sampler(precise, images, steps=2, gradient=way, k=k), frozen)[1]
        assert (found - right).norm() < 1e-5 * right.norm(), (way, k)
    assert len({round(float(right.norm()), 6) for right in expected.values()}) == 5  # the first two alone are the same


@pytest.mark.parametrize("steps", [2, 20])
def test_detached_coefficients_have_the_product_1_and_the_published_ratios(pix2pix, steps):
    made = ddim(pix2pix.scheduler)
    made.set_timesteps(steps)
    found = detached_coefficients(made)
    assert float(found.prod()) == pytest.approx(1)
    raw = [float((a * (1 - a)) ** 0.5 / (1 - alpha)) for a, alpha in zip(made.alphas_cumprod, made.alphas, strict=True)]
    raw = np.array([raw[t] for t in made.timesteps])
    assert (found / found[0]).numpy() == pytest.approx(raw / raw[0], rel=1e-4)  # alpha is close to 1 and float32


def test_detached_coefficients_give_every_call_the_same_say(pix2pix):
    """DDIM's path weighs e_t by the step in sigma = sqrt((1 - abar) / abar), most where the noise is greatest."""
    made = ddim(pix2pix.scheduler)
    made.set_timesteps(50)
    sigma = ((1 - made.alphas_cumprod) / made.alphas_cumprod).sqrt()[made.timesteps].double()
    path = sigma[:-2] - sigma[1:-1]
    say = path * detached_coefficients(made)[:-2]
    assert path[0] > 20 * path[-1]
    assert say.max() < 1.3 * say.min()


def unet_calls(sampler, condition):
    """(rows, is it recorded) of each call of the UNet on the way forward."""
    calls = []
    hook = sampler.model.unet.register_forward_hook(lambda m, args, out: calls.append((len(out[0]), out[0].requires_grad)))
    pictures = sampler(condition, torch.arange(len(condition)))
    hook.remove()
    return calls, pictures


def test_what_does_not_depend_on_the_condition_is_not_recorded(pix2pix, people16, condition):
    text, others = (3, True), (6, False)
    expected = {
        "full": [text, others, text, (6, True), text, (6, True)],
        "last-k": [(3, False), others, text, others, text, (6, True)],
        "one-step": [(3, False), others, text, others],
        "detached": [text, others] * 3,
        None: [(9, False)] * 3,
    }
    for way, right in expected.items():
        sampler = Sampler(pix2pix, people16, steps=3, gradient=way, k=2)
        assert unet_calls(sampler, condition.clone().requires_grad_(way is not None))[0] == right, way


def test_nothing_but_the_inputs_of_a_call_is_kept(pix2pix, people16, condition):
    def kept(run):
        """Numbers in tensors that the graph holds on to, each once."""
        found = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda x: found.setdefault(x.data_ptr(), x), lambda x: x):
            result = run()
        return sum(x.numel() for x in found.values()), result

    leaf = condition.clone().requires_grad_()
    z = torch.randn(3, 4, 8, 8)
    one_call, _ = kept(lambda: pix2pix.predict_noise(z, z, torch.tensor(1), leaf))
    for way in GRADIENTS:
        sampler = Sampler(pix2pix, people16, steps=8, gradient=way, k=4)
        all_calls, pictures = kept(lambda s=sampler: s(leaf, ALL))
        assert pictures.requires_grad
        assert all_calls < 0.2 * one_call


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", GRADIENTS)
def test_half_precision_gives_the_gradient_of_a_float32_leaf_even_if_it_is_tiny(pix2pix, people16, condition, dtype, way):
    half, options = copy.deepcopy(pix2pix).to(dtype), {"steps": 3, "gradient": way, "k": 2}
    pictures, right = gradient(Sampler(pix2pix, people16, **options), condition)
    rough, found = gradient(Sampler(half, people16, **options), condition, weight=1e-8)
    assert rough.dtype == found.dtype == torch.float32
    assert (rough - pictures).abs().max() < (0.01 if dtype == torch.float16 else 0.1)
    cosine = torch.cosine_similarity(found.flatten(1) * 1e8, right.flatten(1), dim=1)
    assert cosine.min() > (0.99 if dtype == torch.float16 else 0.9)
    assert float(found.norm() * 1e8 / right.norm()) == pytest.approx(1, abs=0.02 if dtype == torch.float16 else 0.1)


def test_a_leaf_keeps_no_hook_and_rows_without_gradient_no_nan(pix2pix, people16, condition):
    half, leaf = copy.deepcopy(pix2pix).half(), condition.clone().requires_grad_()
    pictures = Sampler(half, people16, steps=2, gradient="full")(leaf, ALL)
    pictures[0].sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad[1:].abs().max() == 0
    leaf.grad = None
    leaf.sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


@pytest.mark.parametrize("way", GRADIENTS)
def test_it_is_a_decoder_for_the_one_optimiser(pix2pix, people16, condition, way):
    """Two people with one instruction and one of them with another: the condition is found whose pictures are a known edit."""
    rows, start = [0, 1, 1], condition[[0, 0, 1]]
    sampler = Sampler(pix2pix, people16[:2], rows=rows, steps=3, gradient=way, k=2)
    with torch.no_grad():
        goal = sampler(condition[[2, 2, 2]], ALL).clamp(0, 1)
    loss = {"goal": lambda images, index: 100 * (images - goal[index]).square().mean(dim=(1, 2, 3))}
    result = debias_latent(start, sampler, loss, betas={"goal": 1}, steps=8, lr=0.1, chunk_size=2, progress=False)
    assert (result.loss < 0.7 * result.traces["total"][0]).all()
    assert result.latent.shape == start.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 1001}, "steps must be at most 1000, as many as in training, got 1001"),
        ({"guidance": (math.inf, 1)}, r"two finite scales, of text and of image, or None; got \(inf, 1\)"),
        ({"guidance": (1.0,)}, r"got \(1.0,\)"),
        ({"gradient": "half"}, "unknown gradient 'half'; choose one of: 'full', 'last-k', 'one-step', 'detached'"),
        ({"gradient": "last-k", "k": 4, "steps": 3}, "k must lie between 1 and 3, the calls of the UNet in 3 steps, got 4"),
        ({"gradient": "one-step", "k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"rows": [0, 3]}, r"positions among the 3 pictures, got \[0, 3\]"),
        ({"people": [1, 2]}, r"3 whole numbers from 0, one for each picture, got \[1, 2\]"),
        ({"people": [-1, 0, 1]}, r"got \[-1, 0, 1\]"),
        ({"scheduler": DDIMInverseScheduler()}, "DDIMInverseScheduler goes from a picture to noise.*choose .*'DDIMScheduler'"),
        ({"steps": 2.0}, "steps must be a whole number of at least 1, got 2.0, a float"),
        ({"steps": True}, "got True"),
        ({"guidance": 7.5}, "two finite scales, of text and of image, or None; got 7.5"),
        ({"guidance": "75"}, "got '75'"),
        ({"guidance": (7.5, math.nan)}, r"got \(7.5, nan\)"),
        ({"scheduler": "ddim"}, "an object of diffusers that starts from noise.*; got 'ddim'"),
        ({"scheduler": DDIMScheduler}, "an object of diffusers.*DDIMScheduler'>"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler()}, "starts from noise.*; got FlowMatchEulerDiscreteScheduler"),
        ({"people": [0.2, 0.9, 1.0]}, r"people must be a list of whole numbers, got \[0.2, 0.9, 1.0\]"),
        ({"people": 3}, "people must be a list of whole numbers, got 3"),
        ({"people": [0, 1, 2], "generator": torch.Generator()}, "people and generator exclude each other"),
        ({"rows": [0.5, 1.0]}, "rows must be a list of whole numbers"),
        ({"rows": [True, False, True]}, "rows must be a list of whole numbers"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"negative": ["ugly"]}, r"negative must be one text, got \['ugly'\]"),
        ({"generator": [torch.Generator()] * 2}, "one torch.Generator, or a list of 3"),
        ({"generator": 7}, "one torch.Generator, or a list of 3, one for each picture; got 7"),
        ({"k": 1.0, "gradient": "last-k"}, "k must be a whole number of at least 1, got 1.0, a float"),
        (
            {"scheduler": DDIMScheduler(clip_sample=False, timestep_spacing="trailing", rescale_betas_zero_snr=True)},
            "DDIMScheduler cannot run 20 steps: at timestep 999 they leave NaN or infinity; .* must predict v",
        ),
        (
            {"scheduler": DDIMScheduler(clip_sample=False, prediction_type="sample"), "gradient": "detached"},
            "unknown prediction_type for 'detached' 'sample'; choose one of: 'epsilon', 'v_prediction'",
        ),
        ({"scheduler": "own", "gradient": "full"}, "'EulerAncestralDiscreteScheduler'; choose one of: 'DDIMScheduler', 'PNDM"),
        ({"scheduler": DDIMScheduler(), "gradient": "full"}, "DDIMScheduler with clip_sample=True clamps the latents"),
        ({"scheduler": DDIMScheduler(clip_sample=False, thresholding=True), "gradient": "full"}, "with thresholding=True"),
        ({"scheduler": diffusers.UniPCMultistepScheduler(), "gradient": "one-step"}, "UniPC.* no estimate of the clean latent"),
        ({"scheduler": PNDMScheduler(), "gradient": "one-step"}, "no estimate of the clean latent for 'one-step'; choose DDIM"),
    ],
)
def test_bad_options(pix2pix, people16, options, message):
    assert len(people16) == 3
    if options.get("scheduler") == "own":
        options = {**options, "scheduler": pix2pix.scheduler}
    with pytest.raises(ValueError, match=message):
        Sampler(pix2pix, people16, **options)


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"]
)
@pytest.mark.parametrize("way", [None, "detached", "full"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_predicted_noise_at_zero_terminal_snr_is_refused_whatever_the_scheduler_writes_for_0(
    pix2pix, people16, name, way, spacing
):
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": spacing, "clip_sample": False}
    kind = getattr(diffusers, name).from_config(pix2pix.scheduler.config, prediction_type="epsilon", **options)
    with pytest.raises(ValueError, match=r"must predict v|noise tells nothing of the picture"):
        Sampler(pix2pix, people16, steps=4, scheduler=kind, gradient=way)
    kind = getattr(diffusers, name).from_config(pix2pix.scheduler.config, prediction_type="v_prediction", **options)
    assert Sampler(pix2pix, people16, steps=4, scheduler=kind, gradient=way).calls >= 4


def test_bad_calls(pix2pix, people16, condition):
    sampler = Sampler(pix2pix, people16, steps=1)
    for call, message in [
        (lambda: Sampler(pix2pix, people16[:0]), "at least one picture"),
        (lambda: Sampler(pix2pix, None), "need pictures as a float tensor .* got NoneType"),
        (lambda: sampler(condition[:2], ALL), r"need conditions \(3, 77, 16\) of floats for these rows, got \(2, 77, 16\)"),
        (lambda: sampler(condition[:, :5], ALL), r"got \(3, 5, 16\)"),
        (lambda: sampler(condition, ALL + 1), r"rows run from 0 to 2, got \[1, 2, 3\]"),
        (lambda: sampler(condition, [0, 1, 1.5]), "index must be a list of whole numbers"),
        (lambda: sampler(condition.numpy(), ALL), "as a tensor of floats for these rows, got ndarray"),
        (lambda: sampler(condition.where(ALL[:, None, None] != 1, math.nan), ALL), r"condition holds 1232 NaN .* at \[1, 0, 0\]"),
        (lambda: ddim("ddim"), "an object of diffusers.*; got 'ddim'"),
        (lambda: person_generator(0, 0.5), "person must be a whole number of at least 0, got 0.5"),
        (lambda: sampler(condition.clone().requires_grad_(), ALL), "draws pictures only; for a gradient, make it with one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("way", GRADIENTS)
def test_without_checkpoints_the_gradient_is_the_same(pix2pix, people16, condition, way):
    twice, once = (Sampler(pix2pix, people16, steps=3, gradient=way, k=2, checkpoint=checkpoint) for checkpoint in (True, False))
    for a, b in zip(gradient(twice, condition), gradient(once, condition), strict=True):
        assert torch.equal(a, b)


def test_a_gradient_asked_for_again_is_the_same_with_two_calls_less(pix2pix, people16, condition, monkeypatch):
    """The first call's branches without text are known by then, whichever of the rows are asked for."""
    told, predict = [], pix2pix.predict_noise
    monkeypatch.setattr(pix2pix, "predict_noise", lambda *inputs: told.append(len(inputs[0])) or predict(*inputs))
    sampler = Sampler(pix2pix, people16, steps=3, gradient="one-step", k=2, checkpoint=False)
    first, again = gradient(sampler, condition), gradient(sampler, condition)
    assert told == [3, 6, 3, 6, 3, 3, 6]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = 1.1 * condition[[2, 0]]
    fresh = Sampler(pix2pix, people16, steps=3, gradient="one-step", k=2)
    for a, b in zip(gradient(sampler, other, ALL[[2, 0]]), gradient(fresh, other, ALL[[2, 0]]), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
