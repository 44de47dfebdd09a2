import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Numbers made by official implementations; each folder's README.md says how, and under which licence."""
    return FIXTURES


@pytest.fixture(scope="session")
def open_clip_files(tmp_path_factory) -> Path:
    """Config, state dict (.pt), texts and outputs of a tiny official open_clip model."""
    import numpy as np
    import torch

    folder = tmp_path_factory.mktemp("official") / "open_clip"
    shutil.copytree(FIXTURES / "open_clip", folder)
    packed = np.load(folder / "state_dict.npz")
    torch.save({name: torch.from_numpy(value) for name, value in packed.items()}, folder / "tiny_clip_state_dict.pt")
    return folder


@pytest.fixture(scope="session")
def instruct_files(tmp_path_factory) -> Path:
    """A tiny InstructPix2Pix as diffusers saves it (`pipeline/`), and what the official pipeline makes of it."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("official") / "instruct_pix2pix"
    shutil.copytree(FIXTURES / "instruct_pix2pix", folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7001)  # all but a few tensors are as PyTorch draws them
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "pipeline" / "unet"))
    assert not unet.load_state_dict(load_file(folder / "unet_changed.safetensors"), strict=False).unexpected_keys
    unet.save_pretrained(folder / "pipeline" / "unet")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def clip():
    from debias_utils.models.clip import Clip

    return Clip.load("toonville-rn-rho0.9-seed0")


@pytest.fixture(scope="session")
def vit():
    from debias_utils.models.clip import Clip

    return Clip.load("toonville-vit-rho0.9-seed0")


@pytest.fixture(scope="session")
def world():
    """56 balanced people with their pictures (n, 3, 64, 64) in [0, 1]."""
    from debias_utils import toonville

    people = toonville.add_stereotype(toonville.balanced(1, seed=5)).head(56)
    return people, toonville.to_tensor(toonville.render(people))


def tiny_parts(*, channels=(8, 16), image_size=16, seed=0):
    """Seeded components of InstructPix2Pix with random weights: {"unet": ..., ...}, pictures of (image_size, image_size)."""
    import torch
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    # CLIP's byte-level BPE with merges for a few words; all others are read letter by letter
    merges = [
        ("m", "a"),
        ("ma", "k"),
        ("mak", "e</w>"),
        ("t", "h"),
        ("th", "e</w>"),
        ("ma", "n</w>"),
        ("w", "o"),
        ("wo", "man</w>"),
    ]
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate([*words, *specials])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextConfig(
            vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            bos_token_id=len(vocab) - 2, eos_token_id=len(vocab) - 1, pad_token_id=len(vocab) - 1,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=image_size // 2, in_channels=8, out_channels=4, block_out_channels=channels, layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4, attention_head_dim=4, cross_attention_dim=16,
        )  # fmt: skip
        vae = AutoencoderKL(
            sample_size=image_size, latent_channels=4, block_out_channels=channels, layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
        scheduler = EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
        )
        return {
            "unet": unet,
            "vae": vae,
            "text_encoder": CLIPTextModel(text),
            "tokenizer": CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77),
            "scheduler": scheduler,
        }


@pytest.fixture(scope="session")
def pix2pix():
    """A tiny InstructPix2Pix with random weights for 16 x 16 pictures; do not alter it."""
    from debias_utils.models.pix2pix import Pix2Pix

    return Pix2Pix(**tiny_parts())


@pytest.fixture(scope="session")
def people16():
    """Three smooth random pictures, (3, 3, 16, 16) in [0, 1]."""
    import torch

    noise = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(16, 16), mode="bilinear")
