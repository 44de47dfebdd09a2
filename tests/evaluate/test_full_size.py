import pandas as pd
import pytest
import torch

from debias_utils import load_profile
from debias_utils.evaluate import full_size
from debias_utils.evaluate.plan import GENERATOR, JUDGE, PARTS, UNET


def test_full_size_is_as_published():
    """StyleGAN2's own number is not published; 74 billion products of the convolutions follow from the sizes."""
    costs = full_size.counted()
    found = {name: cost.forward / 2e9 for name, cost in costs.items()}  # products and sums as one
    assert found["CLIP"] == pytest.approx(4.4, abs=0.1)  # Radford et al. 2021, as counted by open_clip
    assert found[JUDGE] == pytest.approx(3.7, abs=0.1)  # He et al. 2016: 3.6 without the shortcuts
    assert found["perceptual"] == pytest.approx(15.3 * (256 / 224) ** 2, rel=0.02)  # Simonyan and Zisserman 2015
    layers, channels = 0, full_size.CHANNELS
    for i, c in enumerate(channels):
        layers += (4 * 2**i) ** 2 * (9 * c * c + 3 * c) + (9 * (2 * 2**i) ** 2 * channels[i - 1] * c if i else 0)
    assert found[GENERATOR] == pytest.approx(layers / 1e9, rel=0.02)
    assert 380 < found[UNET] < 420
    for name, cost in costs.items():
        assert 1.9 < cost.gradient / cost.forward < 2.2, name


def test_parts_are_timed_where_they_are():
    threads = torch.get_num_threads()
    found = full_size.measure("cpu", only=("CLIP", JUDGE), progress=False).set_index("part")
    assert list(found.index) == [full_size.PRODUCT, "CLIP", JUDGE]
    assert (found["gradient"].iloc[1:] > found["forward"].iloc[1:]).all()
    assert (found["forward"] > 0).all()
    assert (found["machine"] == full_size.machine("cpu")).all()
    assert torch.get_num_threads() == threads


def test_every_part_is_built_with_what_it_takes():
    """The large ones too, on the meta device: the shapes that come out."""
    shapes = {part: tuple(run(*inputs).shape) for part, (run, inputs) in built("meta")}
    assert shapes[UNET] == (2, 4, 64, 64)
    assert shapes["VAE decoder"] == (2, 3, 512, 512)
    assert shapes["VAE encoder"] == (2, 4, 64, 64)
    assert shapes["CLIP"] == shapes["identity"] == (2, 512)
    assert set(shapes) == set(PARTS) - {GENERATOR}


def built(device):
    return [(part, build()) for part, build in full_size.networks(device, pictures=2).items() if part != GENERATOR]


def test_times_are_read_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path))
    parts = load_profile("mini", device="cpu")
    kept = pd.DataFrame({"part": [*PARTS], "forward": 1.0})
    full_size.path_of(parts).parent.mkdir()
    kept.to_parquet(full_size.path_of(parts))
    pd.testing.assert_frame_equal(full_size.timed(parts), kept)
