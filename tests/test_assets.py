import json
import os
import shutil

import numpy as np
import pytest

from debias_utils import assets
from debias_utils.toonville import card

NAME = "toonville-rn-rho0.9-seed0"


@pytest.fixture
def weights(tmp_path):
    """A copy of one packaged model that a test may damage."""
    root = tmp_path / "weights"
    shutil.copytree(assets.WEIGHTS / NAME, root / NAME)
    shutil.copy(assets.WEIGHTS / "toonville-bpe.txt.gz", root)
    listed = {file: digest for file, digest in assets.manifest().items() if file.startswith(NAME)}
    (root / "manifest.json").write_text(json.dumps(listed))
    return root


def test_every_packaged_file_is_whole_and_small():
    for file, digest in assets.manifest().items():
        assert assets.verify(assets.WEIGHTS / file, digest).stat().st_size <= 10e6


def test_packaged_model_is_checked(weights):
    assert assets.packaged_model(NAME, root=weights) == weights / NAME


def test_a_model_in_folders_is_checked_whole(weights):
    (weights / "editor" / "unet").mkdir(parents=True)
    (weights / "editor" / "unet" / "config.json").write_text("{}")
    card.write_manifest(weights)
    assert assets.packaged_model("editor", root=weights) == weights / "editor"
    (weights / "editor" / "unet" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"unet/config.json .*altered"):
        assets.packaged_model("editor", root=weights)


def test_truncated(weights):
    file = weights / NAME / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"open_clip_model.safetensors has \d+ bytes .* altered or cut short"):
        assets.packaged_model(NAME, root=weights)


def test_altered(weights):
    file = weights / NAME / "open_clip_config.json"
    file.write_text(file.read_text().replace("64", "65", 1))
    with pytest.raises(ValueError, match=r"open_clip_config.json .*altered"):
        assets.packaged_model(NAME, root=weights)


def test_missing(weights):
    (weights / NAME / "open_clip_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"open_clip_model\.safetensors is missing"):
        assets.packaged_model(NAME, root=weights)


def test_unknown_model_names_the_choices():
    with pytest.raises(ValueError, match=f"unknown model 'clippy'; choose one of: .*{NAME}"):
        assets.packaged_model("clippy")


def test_arrays_are_read_back_or_refused(tmp_path):
    path, array = tmp_path / "deep" / "a.npy", np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert assets.read_array(path, shape=(2, 3), dtype=np.uint8) is None
    assets.write_array(path, array)
    assert np.array_equal(assets.read_array(path, shape=(2, 3), dtype=np.uint8), array)
    assert assets.read_array(path, shape=(3, 2), dtype=np.uint8) is None
    assert assets.read_array(path, shape=(2, 3), dtype=np.float32) is None
    path.write_bytes(path.read_bytes()[:-2])
    assert assets.read_array(path, shape=(2, 3), dtype=np.uint8) is None


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"No space left on device.*set DEBIAS_UTILS_CACHE to another") as error:
        assets.write_array(tmp_path / "cache" / "a.npy", np.zeros(3))
    assert str(tmp_path / "cache") in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_that_cannot_be_a_folder(tmp_path, monkeypatch):
    from debias_utils import toonville

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="cannot write to the cache folder"):
        toonville.pictures(toonville.sample(1), progress=False)
