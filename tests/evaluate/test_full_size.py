import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from debias_utils import load_profile
from debias_utils.evaluate import full_size, plan, release
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


@pytest.fixture
def clock(monkeypatch):
    """Time that only work takes, whatever else the machine does: one for each layer, and one for a way back."""
    past, grad = [0.0], torch.autograd.grad

    def passes(by, result=None):
        past[0] += by
        return result

    monkeypatch.setattr(plan.time, "perf_counter", lambda: passes(1e-6, past[0]))
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **options: passes(1, grad(*given, **options)))
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: passes(1))
    yield
    hook.remove()


def test_parts_are_timed_where_they_are(monkeypatch, clock):
    monkeypatch.setattr(full_size, "SIDE", 256)
    threads = torch.get_num_threads()
    found = full_size.measure("cpu", only=("CLIP", JUDGE), progress=False).set_index("part")
    assert list(found.index) == [full_size.PRODUCT, "CLIP", JUDGE]
    assert (found["gradient"].iloc[1:] > found["forward"].iloc[1:]).all()
    assert (found["forward"] > 0).all()
    assert found["peak_gb"].isna().all()  # of a card's memory
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


def test_times_are_those_of_this_machine_if_it_was_measured_else_the_released_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path))
    parts = load_profile("mini", device="cpu")
    pd.testing.assert_frame_equal(full_size.timed(parts), release.read("parts"))
    here = pd.DataFrame({"part": [*PARTS], "forward": 1.0})
    monkeypatch.setattr(full_size, "measure", lambda device: here)
    for found in (full_size.computed(parts), full_size.timed(parts)):
        pd.testing.assert_frame_equal(found, here)


def measurement(folder, name="card.json", **changed):
    """A file as tools/gpu_check.py writes it, with sample numbers."""
    parts = [{"part": full_size.PRODUCT, "forward": 0.001, "gradient": None, "peak_gb": None, "pictures": 2}]
    parts += [{"part": part, "forward": 0.01, "gradient": 0.03, "peak_gb": 3.5, "pictures": 2} for part in (GENERATOR, UNET)]
    content = {"card": "A card", "date": "2026-01-02", "commit": "abc", "device": "cuda", "parts": parts, "cells": []} | changed
    (folder / name).write_text(json.dumps(content), "utf-8")
    return content


def test_measurements_of_cards_are_read(tmp_path):
    measurement(tmp_path)
    measurement(tmp_path, "an-older.json", card="Another", date="2025-12-31", device="cuda:1")
    measurement(tmp_path, "skipped.json", date="2026-01-01", parts=[])
    (tmp_path / "README.md").write_text("no measurement")
    found = full_size.gpu_measurements(tmp_path)
    assert list(found.columns) == ["card", "date", "commit", "part", "forward", "gradient", "peak_gb", "pictures", "file"]
    assert found["card"].tolist() == ["Another"] * 3 + ["A card"] * 3
    assert found["part"].tolist() == 2 * [full_size.PRODUCT, GENERATOR, UNET]
    assert found.loc[5, ["forward", "gradient", "peak_gb", "pictures"]].tolist() == [0.01, 0.03, 3.5, 2]
    assert found.loc[3, ["gradient", "peak_gb"]].isna().all()
    assert found.loc[0, "file"] == "an-older.json"


def test_without_a_card_there_are_no_measurements(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        found = full_size.gpu_measurements(folder)
        assert found.empty
        assert found["forward"].dtype == float


def test_the_measurements_of_the_repository_can_be_read():
    folder = Path(__file__).parents[2] / "benchmarks" / "gpu"
    assert folder == full_size.MEASUREMENTS
    assert set(full_size.gpu_measurements()["file"]) <= {path.name for path in folder.glob("*.json")}


PART = {"part": UNET, "forward": 0.01, "gradient": 0.03, "peak_gb": 3.5, "pictures": 2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"card": None}, "'card' is None"),
        ({"commit": ""}, "'commit' is ''"),
        ({"date": 2026}, "'date' is 2026"),
        ({"device": "cpu"}, "its device is 'cpu'"),
        ({"parts": {}}, "'parts' is {}"),
        ({"parts": ["UNet"]}, "part 0 is 'UNet'"),
        ({"parts": [PART | {"part": "Unet"}]}, "part 0 is {'part': 'Unet'"),
        ({"parts": [PART | {"forward": -1}]}, "'forward' of 'UNet' is -1"),
        ({"parts": [PART | {"gradient": None}]}, "'gradient' of 'UNet' is None"),
        ({"parts": [PART | {"peak_gb": float("nan")}]}, "'peak_gb' of 'UNet' is nan"),
        ({"parts": [PART | {"forward": float("inf")}]}, "'forward' of 'UNet' is inf"),
        ({"parts": [PART | {"forward": True}]}, "'forward' of 'UNet' is True"),
        ({"parts": [PART | {"pictures": 1.5}]}, "'pictures' of 'UNet' is 1.5"),
        ({"parts": [PART, PART]}, "a part stands in it twice"),
    ],
)
def test_files_that_are_no_measurements(tmp_path, changed, message):
    measurement(tmp_path, **changed)
    with pytest.raises(ValueError, match=r"card.json is no measurement of a card: " + re.escape(message)):
        full_size.gpu_measurements(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"card": "x"'])
def test_files_that_are_broken(tmp_path, content):
    (tmp_path / "half.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"half.json is no measurement of a card: (no JSON|a list|a NoneType)"):
        full_size.gpu_measurements(tmp_path)


def test_peak_memory_is_what_a_part_adds(monkeypatch):
    """By torch's counters, which count bytes."""
    taken = {
        "reset_peak_memory_stats": None,
        "synchronize": None,
        "memory_allocated": 2 * 10**9,
        "max_memory_allocated": 5 * 10**9,
    }
    for name, value in taken.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    with full_size._peak("cuda:0") as peak:
        pass
    assert peak == [3.0]
    with full_size._peak("cpu") as peak:
        pass
    assert np.isnan(peak).all()
