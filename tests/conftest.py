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


@pytest.fixture(scope="session")
def pix2pix():
    """A tiny InstructPix2Pix with random weights for 16 x 16 pictures; do not alter it."""
    from tiny_editor import tiny_parts

    from debias_utils.models.pix2pix import Pix2Pix

    return Pix2Pix(**tiny_parts())


@pytest.fixture(scope="session")
def people16():
    """Three smooth random pictures, (3, 3, 16, 16) in [0, 1]."""
    import torch

    noise = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(16, 16), mode="bilinear")
