import copy
import json

import numpy as np
import pytest
import torch

from debias_utils.debias.subspace import BiasSubspace
from debias_utils.edit.instruct import edit
from debias_utils.edit.sampler import ddim, person_generator
from debias_utils.models.pix2pix import PARTS, Pix2Pix

TEXTS = ["make the man a woman", "make"]
RUNS = ("euler_ancestral", "ddim", "pndm", "ddim_negative", "ddim_g3_ig1.2", "ddim_no_cfg")


@pytest.fixture(scope="module")
def official(instruct_files):
    folder = instruct_files
    reference = {name: torch.from_numpy(value) for name, value in np.load(folder / "reference.npz").items()}
    return Pix2Pix.load(folder / "pipeline"), reference, json.loads((folder / "meta.json").read_text())


@pytest.mark.parametrize("run", RUNS)
def test_every_official_run_is_reproduced(official, run):
    import diffusers

    model, reference, meta = official
    made = meta["schedulers"][run]
    scales = (made["guidance_scale"], made["image_guidance_scale"])
    latents = []
    hook = model.vae.post_quant_conv.register_forward_pre_hook(lambda module, args: latents.append(args[0]))
    edited = edit(
        model,
        reference["input_image_uint8"].permute(2, 0, 1)[None] / 255,
        [meta["prompt"]],
        steps=meta["steps"],
        guidance=None if scales[0] <= 1 else scales,  # diffusers decides that without a word
        negative=made["negative_prompt"] or "",
        generator=torch.Generator().manual_seed(meta["seed"]),
        scheduler=getattr(diffusers, made["cls"]).from_config(made["config"]),
        progress=False,
    )
    hook.remove()
    found = latents[0] * model.vae.config.scaling_factor
    assert (found - reference[f"{run}/latents"]).abs().max() < 2e-4
    assert (edited[0, 0].permute(1, 2, 0) - reference[f"{run}/images"][0]).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["euler-ancestral", "ddim"])
def test_people_by_instructions_are_what_the_pipeline_draws_one_by_one(pix2pix, people16, name):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    scheduler = copy.deepcopy(pix2pix.scheduler) if name == "euler-ancestral" else ddim(pix2pix.scheduler)
    parts = {**{part: getattr(pix2pix, part) for part in PARTS}, "scheduler": scheduler}
    pipeline = StableDiffusionInstructPix2PixPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    edited = edit(pix2pix, people16, TEXTS, steps=3, seed=5, scheduler=scheduler, progress=False)
    assert edited.shape == (3, 2, 3, 16, 16)
    for i in range(3):
        for j, text in enumerate(TEXTS):
            options = {"num_inference_steps": 3, "generator": person_generator(5, i), "output_type": "pt"}
            picture = pipeline(text, image=people16[i : i + 1], **options).images
            assert torch.allclose(edited[i, j], picture[0], atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_chunks_and_batches_do_not_matter(pix2pix, people16, own):
    options = {"steps": 2, "scheduler": pix2pix.scheduler if own else None, "progress": False}
    whole = edit(pix2pix, people16, TEXTS, **options)
    for chunk_size in (1, 4):
        assert torch.allclose(edit(pix2pix, people16, TEXTS, chunk_size=chunk_size, **options), whole, atol=1e-5)
    alone = edit(pix2pix, people16[2:], TEXTS[1:], people=[2], **options)
    assert torch.allclose(alone[0, 0], whole[2, 1], atol=1e-5)
    assert torch.equal(edit(pix2pix, people16, TEXTS, **options), whole)
    assert not torch.allclose(edit(pix2pix, people16, TEXTS, seed=1, **options), whole, atol=1e-2)


def test_conditions_take_the_place_of_texts(pix2pix, people16):
    conditions, options = pix2pix.encode_text(TEXTS), {"steps": 2, "progress": False}
    from_texts = edit(pix2pix, people16, TEXTS, **options)
    assert torch.equal(edit(pix2pix, people16, conditions, **options), from_texts)
    assert torch.equal(edit(pix2pix, people16, conditions.numpy(), **options), from_texts)
    pairs = conditions.expand(3, 2, 77, 16).clone()
    pairs[1, 0] = conditions[1]
    each = edit(pix2pix, people16, pairs, **options)
    assert torch.allclose(each[1, 0], from_texts[1, 1], atol=1e-6)
    assert torch.equal(each[[0, 2]], from_texts[[0, 2]])


def test_a_debiased_condition_brings_the_edits_closer_and_not_together(pix2pix, people16):
    """Without the direction that tells them apart at the end token, "man" and "woman" still differ at others."""
    subspace = BiasSubspace.fit([pix2pix.encode_prompts(["woman", "man"], templates=["{}"])], n_components=1)
    conditions = pix2pix.encode_text(["man", "woman"])
    options = {"steps": 2, "progress": False}
    before, after = (
        edit(pix2pix, people16, c, **options)
        for c in (conditions, subspace.project_out(conditions, normalize=False, skip_first=1))
    )
    assert not torch.equal(before, after)
    apart = [float((x[:, 0] - x[:, 1]).abs().mean()) for x in (before, after)]
    assert 0 < apart[1] < apart[0]


def test_pictures_are_in_range_and_stay_where_they_were(pix2pix, people16):
    edited = edit(pix2pix, people16, TEXTS, steps=1, guidance=(50.0, 1.5), progress=False)
    assert (edited.min(), edited.max()) == (0, 1)
    assert not edited.requires_grad
    assert edited.dtype == torch.float32


def test_the_bar_counts_calls_of_the_unet(pix2pix, people16, capsys):
    edit(pix2pix, people16, TEXTS, steps=2, chunk_size=4)
    assert "/4" in capsys.readouterr().err
    edit(pix2pix, people16, TEXTS, steps=2, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instructions": "make"}, r"write \['make'\]"),
        ({"instructions": torch.zeros(2, 5, 16)}, r"finite conditions \(m, 77, 16\) .* each of 3, got \(2, 5, 16\)"),
        ({"instructions": torch.zeros(2, 1, 77, 16)}, r"got \(2, 1, 77, 16\)"),
        ({"instructions": torch.full((1, 77, 16), torch.nan)}, "instructions hold 1232 NaN or infinite values of 1232"),
        ({"instructions": torch.zeros(0, 77, 16)}, "finite conditions"),
        ({"chunk_size": 2.0}, "chunk_size must be a whole number of at least 1, got 2.0"),
        ({"guidance": 7.5}, "two finite scales"),
        ({"chunk_size": 0}, "chunk_size must be"),
        ({"images": torch.rand(1, 3, 17, 16)}, "multiples of 2, got 17 x 16"),
        ({"images": torch.rand(1, 3, 16, 16) * 2 - 1}, r"must lie in \[0, 1\]"),
        ({"images": torch.rand(3, 16, 16)}, r"got \(3, 16, 16\)"),
        (
            {"generator": torch.Generator(), "scheduler": "own", "chunk_size": 4},
            "other noise for 4 rows than for all 6: draw all at",
        ),
    ],
)
def test_bad_input(pix2pix, people16, options, message):
    options = {"images": people16, "instructions": TEXTS, "steps": 1, "progress": False, **options}
    if options.get("scheduler") == "own":
        options["scheduler"] = pix2pix.scheduler
    with pytest.raises(ValueError, match=message):
        edit(pix2pix, options.pop("images"), options.pop("instructions"), **options)
