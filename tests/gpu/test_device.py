"""What takes a device computes there what it computes on the CPU, in single precision; on a card, see tools/gpu_check.py.

Without a card both are the CPU: then these tests show that everything is asked of the device, not what a card makes of it.
"""

import copy

import pytest
import torch

from debias_utils.debias.gradient import debias_latent
from debias_utils.debias.subspace import BiasSubspace
from debias_utils.edit import relevance
from debias_utils.edit.instruct import edit
from debias_utils.edit.sampler import GRADIENTS, Sampler
from debias_utils.evaluate import study
from debias_utils.models.pix2pix import Pix2Pix

JOBS = ["nurse", "plumber"]


@pytest.fixture(scope="module")
def people(here):
    return here.portraits(here.sitters(4))


@pytest.fixture(scope="module")
def styles(here):
    return here.sample_styles(6, seed=1)


@pytest.fixture(scope="module")
def tiny(pix2pix, device):
    """A tiny InstructPix2Pix on the device, in single precision."""
    return copy.deepcopy(pix2pix).to(device)


def close(found, expected, device, atol=1e-4):
    assert found.device.type == torch.device(device).type
    torch.testing.assert_close(found.cpu(), expected, atol=atol, rtol=1e-3)
    return True


def test_styles_and_pictures(here, there, styles, people, device):
    assert close(there.sample_styles(6, seed=1), styles, device)
    assert close(there.draw(styles.to(device)), here.draw(styles), device)
    assert close(there.invert(people), here.invert(people), device, atol=1e-3)
    assert close(there.portraits(there.sitters(4)), people, device, atol=0)


def test_gradient_of_the_generator(here, there, styles, device):
    slopes = []
    for parts, s in ((here, styles.clone()), (there, styles.to(device))):
        s.requires_grad_(True)
        slopes.append(torch.autograd.grad(parts.synthesize(s).square().mean(), s)[0])
    assert close(slopes[1] / slopes[0].abs().max(), slopes[0] / slopes[0].abs().max(), device)


@pytest.mark.parametrize("tower", ["rn", "vit"])
def test_clip(here, there, people, device, tower):
    one, other = here.clip(tower=tower), there.clip(tower=tower)
    with torch.no_grad():
        assert close(other.encode_image(people), one.encode_image(people), device)
    assert close(other.encode_prompts(JOBS), one.encode_prompts(JOBS), device)


def test_judge_identity_and_perceptual_distance(here, there, people, device):
    moved = people.to(device)
    for name, expected in here.attributes(people).items():
        assert close(there.attributes(moved)[name], expected, device)
    assert (there.attributes.labels(moved)["gender"] == here.attributes.labels(people)["gender"]).all()
    assert close(there.identity(moved), here.identity(people), device)
    assert close(there.perceptual(moved, moved.flip(0)), here.perceptual(people, people.flip(0)), device)


def test_subspace(here, device):
    words = here.clip().encode_prompts(["man", "woman", "nurse", "plumber"])
    spaces = [BiasSubspace.fit([w[:2]], n_components=1) for w in (words, words.to(device))]
    assert close(spaces[1].project_out(words.to(device)), spaces[0].project_out(words), device, atol=1e-6)


@pytest.mark.parametrize("how", ["gradient", "expected", "differences", "regression"])
def test_relevance(here, there, styles, device, how):
    """Not what divides each channel's effect by its size: of a channel without effect that is rounding."""

    def of(parts):
        s, clip = parts.sample_styles(6, seed=1), parts.clip()
        texts = clip.encode_prompts(JOBS)
        common = (parts.generator, clip.encode_image, s, relevance.channel_statistics(s))
        if how == "differences":
            few = torch.arange(s.shape[1]) < 8
            return texts @ relevance.finite_difference(*common, channels=few, normalize=False).T
        if how == "regression":
            with torch.no_grad():
                return relevance.regression(s, clip.encode_image(parts.draw(s)), texts)
        if how == "expected":
            return relevance.expected_gradient(*common, texts)
        return relevance.gradient(*common, texts)

    expected = of(here)
    assert expected.abs().max() > 0
    assert close(of(there) / expected.abs().max(), expected / expected.abs().max(), device, atol=1e-3)


def test_noise_is_the_same_on_every_device(pix2pix, tiny, people16, device):
    one, other = (Sampler(model, people16, seed=3) for model in (pix2pix, tiny))
    assert close(other.noise, one.noise, device, atol=0)


def test_edited_pictures(pix2pix, tiny, people16, device):
    one, other = (edit(m, x, JOBS, steps=3, progress=False) for m, x in ((pix2pix, people16), (tiny, people16.to(device))))
    assert close(other, one, device, atol=1e-3)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_through_the_sampler(pix2pix, tiny, people16, device, gradient):
    slopes = []
    for model in (pix2pix, tiny):
        sampler = Sampler(model, people16, steps=3, gradient=gradient, k=2 if gradient in ("last-k", "one-step") else 1)
        condition = model.encode_text(["a nurse"]).repeat(3, 1, 1).requires_grad_(True)
        slopes.append(torch.autograd.grad(sampler(condition, torch.arange(3)).square().mean(), condition)[0])
    scale = slopes[0].abs().max()
    assert scale > 0
    assert close(slopes[1] / scale, slopes[0] / scale, device, atol=1e-3)


def test_gradient_in_the_precision_of_the_device(pix2pix, people16, device):
    """Half on a card: no zeros, no infinities, and the direction of single precision."""
    half = torch.float16 if device.startswith("cuda") else torch.bfloat16  # CPUs convolve in bfloat16
    slopes = []
    for model in (pix2pix, copy.deepcopy(pix2pix).to(device, half)):
        sampler = Sampler(model, people16, steps=3, gradient="one-step", k=2)
        condition = pix2pix.encode_text(["a nurse"]).repeat(3, 1, 1).to(model.device).requires_grad_(True)
        slopes.append(torch.autograd.grad(sampler(condition, torch.arange(3)).square().mean(), condition)[0].cpu().flatten())
    assert slopes[1].isfinite().all()
    assert torch.nn.functional.cosine_similarity(*slopes, dim=0) > 0.95


def test_editor_is_loaded_in_the_precision_of_the_device(there, device):
    editor = there.editor()
    assert isinstance(editor, Pix2Pix)
    assert editor.device.type == torch.device(device).type
    assert editor.dtype == (torch.float16 if device.startswith("cuda") else torch.float32)
    assert editor.encode_text(["make this person a nurse"]).dtype == torch.float32


def test_gradient_based_debiasing(here, there, people, device):
    """Adam turns rounding into steps where a gradient is nearly 0: losses are compared, not latents."""
    found = []
    for parts in (here, there):
        originals = people.to(parts.device)
        texts = parts.clip().encode_prompts(["nurse"]).repeat(4, 1)
        losses = study.losses(parts, parts.clip(), texts, originals)
        start = parts.invert(originals)
        found.append(
            debias_latent(start, lambda s, index, p=parts: p.synthesize(s), losses, betas=study.BETAS, steps=2, progress=False)
        )
    assert found[1].latent.device.type == torch.device(device).type
    for name, trace in found[0].traces.items():
        assert found[1].traces[name][0] == pytest.approx(trace[0], abs=1e-3), name
        assert found[1].traces[name] == pytest.approx(trace, abs=2e-2), name
