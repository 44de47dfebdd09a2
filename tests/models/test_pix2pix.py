import copy

import numpy as np
import pytest
import torch

from debias_utils.debias.subspace import BiasSubspace
from debias_utils.models.pix2pix import PARTS, Pix2Pix


@pytest.fixture(scope="module")
def official(instruct_files):
    folder = instruct_files
    return Pix2Pix.load(folder / "pipeline"), {k: torch.from_numpy(v) for k, v in np.load(folder / "reference.npz").items()}


def parts(model):
    return {name: getattr(model, name) for name in PARTS}


def pipeline(model):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    made = StableDiffusionInstructPix2PixPipeline(
        **parts(model), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def test_every_part_agrees_with_the_official_pipeline(official):
    model, reference = official
    close = {"atol": 1e-5, "rtol": 0}
    picture = reference["input_image_uint8"].permute(2, 0, 1)[None] / 255
    assert torch.equal(model.tokenize(["make the face smile"]), reference["prompt_ids"])
    assert torch.allclose(model.encode_text(["make the face smile"]), reference["prompt_embeds"], **close)
    assert torch.allclose(model.encode_text([""]), reference["uncond_embeds"], **close)
    assert torch.allclose(model.encode_image(picture), reference["image_latents_mode"], **close)
    noisy, image = reference["unet_input_t501"].split(4, dim=1)
    noise = model.predict_noise(noisy, image, torch.tensor(501), reference["prompt_embeds"])
    assert torch.allclose(noise, reference["unet_output_t501"], **close)
    decoded = model.decode(reference["image_latents_mode"] * model.vae.config.scaling_factor)  # as the reference did
    assert torch.allclose(2 * decoded - 1, reference["vae_decode_of_mode"], **close)


def test_a_saved_folder_loads_unchanged(pix2pix, people16, tmp_path):
    pipeline(pix2pix).save_pretrained(tmp_path / "mini")
    model = Pix2Pix.load(tmp_path / "mini")
    assert torch.equal(model.encode_text(["make the man"]), pix2pix.encode_text(["make the man"]))
    assert torch.equal(model.encode_image(people16), pix2pix.encode_image(people16))
    assert all(torch.equal(a, b) for a, b in zip(model.unet.parameters(), pix2pix.unet.parameters(), strict=True))
    assert type(model.scheduler) is type(pix2pix.scheduler)
    assert (model.device.type, model.dtype, model.factor, model.width) == ("cpu", torch.float32, 2, 16)
    assert Pix2Pix.load(tmp_path / "mini", dtype=torch.bfloat16).dtype == torch.bfloat16
    (tmp_path / "mini" / "vae").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"mini is no InstructPix2Pix pipeline as diffusers saves it: vae missing"):
        Pix2Pix.load(tmp_path / "mini")


def test_a_text_to_image_unet_is_refused_by_name(pix2pix):
    from diffusers import UNet2DConditionModel

    made = {**pix2pix.unet.config, "in_channels": 4}
    with pytest.raises(
        ValueError, match=r"the UNet of here has 4 input channels; .* 8: 4 for the noisy latent and 4 for the image lat"
    ):
        Pix2Pix(**{**parts(pix2pix), "unet": UNet2DConditionModel.from_config(made)}, name="here")
    wide = UNet2DConditionModel.from_config({**pix2pix.unet.config, "cross_attention_dim": 8})
    with pytest.raises(ValueError, match="reads tokens of length 8, but its text encoder writes 16"):
        Pix2Pix(**{**parts(pix2pix), "unet": wide})
    with pytest.raises(ValueError, match="'/no/such/folder' is neither a folder nor a hub name"):
        Pix2Pix.load("/no/such/folder")


def test_it_is_frozen_and_gradients_reach_latents_and_condition(pix2pix):
    assert not any(p.requires_grad for p in pix2pix.parameters())
    assert not any(module.training for module in pix2pix.modules())
    latents, condition = torch.randn(1, 4, 8, 8, requires_grad=True), pix2pix.encode_text(["make"]).requires_grad_()
    noise = pix2pix.predict_noise(latents, torch.randn(1, 4, 8, 8), torch.tensor(300), condition)
    (pix2pix.decode(noise) ** 2).sum().backward()
    assert latents.grad.norm() > 0
    assert condition.grad.flatten(1).norm() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_inside_is_not_precision_outside(pix2pix, people16, dtype):
    model = copy.deepcopy(pix2pix).to(dtype)
    outside = torch.promote_types(dtype, torch.float32)
    text, latents = model.encode_text(["make the man"]), model.encode_image(people16)
    noise = model.predict_noise(latents[:1], latents[:1], torch.tensor(300), text)
    assert {x.dtype for x in (text, latents, noise, model.decode(latents))} == {outside}
    assert torch.allclose(text.float(), pix2pix.encode_text(["make the man"]), atol=0.05)
    assert torch.allclose(latents.float(), pix2pix.encode_image(people16), atol=0.05)


def test_batches_do_not_matter(pix2pix, people16):
    texts = ["make", "the man", "a woman"]
    assert torch.allclose(pix2pix.encode_text(texts), pix2pix.encode_text(texts, batch_size=1), atol=1e-5)
    assert torch.allclose(pix2pix.encode_image(people16), pix2pix.encode_image(people16, batch_size=1), atol=1e-5)


def test_words_are_read_where_the_unet_reads_them(pix2pix):
    """The state at the first end token is a row of the condition itself, and the one that the text encoder pools."""
    ids = pix2pix.tokenize(["the man"])
    end = ids[0].tolist().index(pix2pix.tokenizer.eos_token_id)
    state = pix2pix.encode_prompts(["man"], templates=["the {}"])
    assert torch.equal(state, pix2pix.encode_text(["the man"])[:, end])
    assert torch.allclose(state, pix2pix.text_encoder(ids).pooler_output, atol=1e-6)
    assert not torch.allclose(state, pix2pix.encode_text(["the man"])[:, end + 1], atol=1e-3)  # padding, which sees it
    mean = pix2pix.encode_prompts(["man", "woman"], templates=["the {}", "make {}"])
    each = [pix2pix.encode_prompts(["man", "woman"], templates=[t]) for t in ("the {}", "make {}")]
    assert torch.allclose(mean, sum(each) / 2, atol=1e-5)


def test_words_and_templates_may_come_from_generators(pix2pix, clip):
    for model in (pix2pix, clip):
        words, templates = ["man", "woman"], ["the {}", "make {}", "{{}} {:}"]
        found = model.encode_prompts((w for w in words), templates=(t for t in templates))
        assert torch.equal(found, model.encode_prompts(words, templates=templates))
    with pytest.raises(ValueError, match=r"must have one {}, and nothing else in braces"):
        pix2pix.encode_prompts(words, templates=["the {:.2}"])


def test_a_subspace_of_token_states_is_taken_out_of_all_tokens(pix2pix):
    subspace = BiasSubspace.fit([pix2pix.encode_prompts(["woman", "man"])], n_components=1)
    condition = pix2pix.encode_text(["make the man a woman", "the man"])
    projected = subspace.project_out(condition, normalize=False, skip_first=1)
    basis = torch.tensor(subspace.basis, dtype=torch.float32)
    assert torch.equal(projected[:, 0], condition[:, 0])
    assert (projected[:, 1:] @ basis.T).abs().max() < 1e-5
    assert (condition[:, 1:] @ basis.T).abs().max() > 0.1
    pythagoras = projected[:, 1:].norm(dim=-1) ** 2 + (condition[:, 1:] @ basis.T)[..., 0] ** 2
    assert torch.allclose(pythagoras, condition[:, 1:].norm(dim=-1) ** 2, rtol=1e-4)  # nothing was normalised
    man, woman = (subspace.project_out(s, normalize=False) for s in pix2pix.encode_prompts(["man", "woman"]))
    assert (man - woman).norm() < 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode_text("make"), r"write \['make'\]"),
        (lambda m: m.encode_text(["make " * 75 + "the man"]), "has 79 tokens, of which 77 fit; 'the man' would be cut"),
        (lambda m: m.encode_prompts(["man"], templates=["the"]), r"template 'the' has no \{\}"),
        (lambda m: m.encode_image(torch.rand(1, 3, 15, 16)), "multiples of 2, got 15 x 16; near: 16 x 16"),
        (lambda m: m.encode_image(torch.rand(1, 3, 16, 16) * 255), r"must lie in \[0, 1\]"),
        (lambda m: m.encode_image(torch.full((1, 3, 16, 16), torch.nan)), r"got values from nan"),
        (lambda m: m.encode_image(torch.rand(1, 1, 16, 16)), r"got \(1, 1, 16, 16\)"),
        (lambda m: m.encode_image(torch.rand(1, 3, 16, 16), batch_size=0), "batch_size must be"),
    ],
)
def test_bad_input(pix2pix, call, message):
    with pytest.raises(ValueError, match=message):
        call(pix2pix)


def test_a_text_that_just_fits_is_whole(pix2pix):
    ids = pix2pix.tokenize(["make " * 75])
    assert ids.shape == (1, 77)
    assert (ids == pix2pix.tokenizer.eos_token_id).sum() == 1
