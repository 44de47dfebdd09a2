import json

import numpy as np
import open_clip
import pytest
import torch

from debias_utils.models.clip import Clip


def test_embeddings_are_unit_length_and_batching_changes_nothing(clip, world):
    _, images = world
    whole = clip.encode_image(images)
    assert whole.shape == (len(images), clip.embed_dim)
    assert torch.allclose(whole.norm(dim=1), torch.ones(len(images)), atol=1e-6)
    assert torch.allclose(whole, clip.encode_image(images, batch_size=5), atol=1e-5)
    texts = ["a nurse", "a plumber", "an old man"]
    assert torch.allclose(clip.encode_text(texts), clip.encode_text(texts, batch_size=1), atol=1e-5)


def test_gradient_reaches_the_pictures_and_not_the_weights(clip, world):
    images = world[1][:2].clone().requires_grad_(True)
    (clip.encode_image(images) @ clip.encode_text(["a nurse"]).T).sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())


def test_gradient_agrees_with_finite_differences(clip, world):
    net = Clip.load(clip.name).double()
    image, text = world[1][:1].double().clamp(0.1, 0.9).requires_grad_(True), clip.encode_text(["a nurse"])[0].double()

    def score(x):
        return torch.nn.functional.normalize(net.model.encode_image(net.preprocess(x)), dim=-1)[0] @ text

    score(image).backward()
    direction = torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 1e-9  # small enough to cross next to no kink of a ReLU
    slope = (score(image + step * direction) - score(image - step * direction)) / (2 * step)
    assert slope.item() == pytest.approx((image.grad * direction).sum().item(), rel=1e-4)


def test_autocast_stays_close_and_finite(clip, world):
    exact = clip.encode_image(world[1][:8])
    with torch.autocast("cpu", torch.bfloat16):
        half = clip.encode_image(world[1][:8])
        text = clip.encode_text(["a nurse"])
    assert half.dtype == text.dtype == torch.float32
    assert (half * exact).sum(dim=1).min() > 0.98


def test_any_size_is_resized(clip):
    big = torch.rand(2, 3, 150, 90)
    assert clip.preprocess(big).shape == (2, 3, clip.image_size, clip.image_size)


def test_prompts_are_the_normalised_mean_over_templates(clip):
    templates = ("a photo of a {}", "{}")
    each = torch.stack([clip.encode_text([t.format("nurse")])[0] for t in templates])
    expected = torch.nn.functional.normalize(each.mean(dim=0), dim=0)
    assert torch.allclose(clip.encode_prompts(["nurse"], templates=templates)[0], expected, atol=1e-6)


def test_checksum_tells_weights_apart(clip):
    assert clip.checksum == Clip.load(clip.name).checksum
    assert clip.checksum != Clip.load("toonville-rn-rho0-seed0").checksum


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.encode_image(torch.full((1, 3, 64, 64), 255.0)), r"must lie in \[0, 1\], got values from 255 to 255"),
        (lambda c: c.encode_image(torch.full((1, 3, 64, 64), -1.0)), "got values from -1"),
        (lambda c: c.encode_image(torch.full((1, 3, 64, 64), float("nan"))), "got values from nan"),
        (lambda c: c.encode_image("face.png"), "float tensor .* got str"),
        (lambda c: c.encode_image(np.zeros((1, 3, 64, 64))), "got ndarray"),
        (lambda c: c.encode_image(None), "got NoneType"),
        (lambda c: c.encode_image(torch.zeros(3, 64, 64)), r"need float pictures \(n, 3, h, w\)"),
        (lambda c: c.encode_image(torch.zeros(1, 64, 64, 3)), "need float pictures"),
        (lambda c: c.encode_image(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), "torch.uint8"),
        (lambda c: c.encode_text([]), "at least one text"),
        (lambda c: c.encode_text("a nurse"), "single text 'a nurse'"),
        (lambda c: c.encode_text([None]), "only texts"),
        (lambda c: c.encode_prompts([]), "at least one text"),
        (lambda c: c.encode_prompts(["nurse"], templates=["a photo"]), "template 'a photo' has no {}"),
        (lambda c: c.encode_prompts(["nurse"], templates=["a {} in {place}"]), "must have one {}, and nothing else in braces"),
        (lambda c: c.encode_prompts(["nurse"], templates=["{} and {}"]), "must have one {}, and nothing else"),
        (lambda c: c.encode_prompts(["nurse"], templates=["a {} {"]), "template 'a {} {' cannot be filled"),
        *[
            (lambda c, t=t: c.encode_prompts(["nurse"], templates=["a {}", t]), "must have one {}, and nothing else in braces")
            for t in ("a {:d}", "a {!r}", "a {:{}}", "a {:.2}", "a {0}")
        ],
        (lambda c: c.encode_prompts(["nurse"], templates=["a {!x}"]), "template 'a {!x}'"),
        (lambda c: c.encode_prompts(["nurse"], templates="a {}"), "single text 'a {}'"),
        (lambda c: c.encode_text(None), "need a list of texts, got None"),
        (lambda c: c.encode_text(["a"], batch_size=0), "batch_size must be"),
        (
            lambda c: c.encode_text(["so " * 40 + "ends this text"]),
            r"longer than the 32 tokens that fit .* 'so .* ends this text' would",
        ),
        (lambda c: c.encode_text(["a nurse", "a " * 30 + "here"]), "; 'here' would be cut"),
        (lambda c: Clip.load("toonville-rn-rho7-seed0"), "unknown model 'toonville-rn-rho7-seed0'; choose one of"),
        (lambda c: Clip.load("RN9000", pretrained="openai"), "unknown open_clip architecture 'RN9000'"),
        (lambda c: Clip.load("RN50", pretrained="nobody"), "unknown pretrained tag of RN50 'nobody'; choose one of: 'openai'"),
    ],
)
def test_bad_input(clip, call, message):
    with pytest.raises(ValueError, match=message):
        call(clip)


def test_official_model_through_the_same_door(open_clip_files):
    folder = open_clip_files
    open_clip.add_model_config(folder / "tiny-clip-fixture.json")
    clip = Clip.load("tiny-clip-fixture", pretrained=str(folder / "tiny_clip_state_dict.pt"))
    official = np.load(folder / "reference.npz")
    features = clip.model.encode_image(torch.from_numpy(official["images"]).float())
    assert np.allclose(features.numpy(), official["gelu/image_features"], atol=2e-5)
    texts = json.loads((folder / "meta.json").read_text())["texts"]
    fits = [i for i, text in enumerate(texts) if len(text) < 100]
    assert len(fits) == len(texts) - 1  # the reference cut the other one to 77 tokens
    found = clip.encode_text([texts[i] for i in fits]).numpy()
    assert np.allclose(found, official["gelu/text_features_normalized"][fits], atol=2e-5)
    raw = torch.from_numpy(official["raw_uint8"]).permute(2, 0, 1)[None].float() / 255
    assert clip.preprocess(raw).shape[1:] == official["gelu/preprocessed"].shape[-3:]
    assert (
        np.abs(clip.preprocess(raw)[0].numpy() - official["gelu/preprocessed"].reshape(clip.preprocess(raw)[0].shape)).mean()
        < 0.02
    )


def test_a_text_that_just_fits_is_whole(clip):
    fits = " ".join(["a"] * 30)  # with start and end 32 tokens
    assert clip.tokenize([fits])[0, -1] == clip.tokenizer.eot_token_id
    with pytest.raises(ValueError, match="; 'here' would be cut"):
        clip.encode_text([fits + " here"])


def test_no_pictures_have_no_embeddings(clip, vit):
    for model in (clip, vit):
        found = model.encode_image(torch.zeros(0, 3, 64, 64))
        assert found.shape == (0, model.embed_dim)
        assert found.dtype == torch.float32


@pytest.mark.parametrize("pretrained", [True, 3, ["openai"]])
def test_pretrained_is_a_tag_or_a_file(pretrained):
    with pytest.raises(ValueError, match="pretrained must be a tag of open_clip or a file of weights, got "):
        Clip.load("RN50", pretrained=pretrained)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_an_empty_file_holds_no_weights(tmp_path, suffix):
    file = tmp_path / f"empty{suffix}"
    file.touch()
    with pytest.raises(ValueError, match="is empty: it holds no weights"):
        Clip.load("ViT-B-32", pretrained=file, quick_gelu=False)
