import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
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


def negate_half(path):
    array = np.load(path)
    array[: len(array) // 2] *= -1
    np.save(path, array)


def archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def rename(path):
    other = path.with_name("b.npy")
    assets.write_array(other, np.load(path))
    other.replace(path)


@pytest.mark.parametrize(
    "damage",
    [
        negate_half,
        rename,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"{", b"(", 1)),  # NumPy: SyntaxError, TokenError
        lambda path: path.write_bytes(path.read_bytes().replace(b"'descr'", b"'desc' ", 1)),  # KeyError, ValueError
        lambda path: path.write_bytes(b"PK\x03\x04" + path.read_bytes()),  # BadZipFile
        lambda path: path.write_bytes(b""),
        archive,  # AttributeError
    ],
)
def test_a_cached_array_that_was_damaged_or_altered_is_computed_again(tmp_path, damage):
    path, array = tmp_path / "a.npy", np.arange(12, dtype=np.float32).reshape(4, 3) + 1
    made = []

    def make():
        made.append(1)
        return array

    for _ in range(2):
        assert np.array_equal(assets.cached_array(path, make, shape=(4, 3), dtype=np.float32), array)
    assert np.array_equal(np.load(path), array)  # still a file that NumPy reads
    damage(path)
    assert np.array_equal(assets.cached_array(path, make, shape=(4, 3), dtype=np.float32), array)
    assert len(made) == 2


def test_any_flipped_bit_of_a_cached_array_is_noticed(tmp_path):
    path, rng = tmp_path / "a.npy", np.random.default_rng(0)
    assets.write_array(path, rng.random((5, 3)).astype(np.float32))
    data = path.read_bytes()
    for place in rng.choice(len(data), 60, replace=False):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.integers(8)]) + data[place + 1 :])
        assert assets.read_array(path, shape=(5, 3), dtype=np.float32) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, table: table.rename(columns={"a": "c"}).to_parquet(path),
        lambda path, table: table.assign(a=table["a"] + 1).to_parquet(path),
        lambda path, table: table.head(0).to_parquet(path),
        lambda path, table: path.write_bytes(path.read_bytes()[:-9]),
        lambda path, table: path.write_bytes(b"PAR1PAR1"),
        lambda path, table: assets.write_table(path, pa.Table.from_pandas(table), {b"name": b"other.parquet"}),
    ],
)
def test_a_cached_table_that_was_damaged_or_altered_is_computed_again(tmp_path, damage):
    path, table, made = tmp_path / "a.parquet", pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), []

    def make():
        made.append(1)
        return table

    for _ in range(2):
        pd.testing.assert_frame_equal(assets.cached_table(path, make), pd.read_parquet(path))
    damage(path, table)
    pd.testing.assert_frame_equal(assets.cached_table(path, make), pd.read_parquet(path))
    assert len(made) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64, bool])
def test_arrays_of_any_dtype_come_back(tmp_path, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype).T  # not in one piece
    assets.write_array(tmp_path / "a.npy", array)
    found = assets.read_array(tmp_path / "a.npy", shape=(4, 3), dtype=dtype)
    assert np.array_equal(found, array)
    assert not found.flags.writeable


def test_what_killed_writers_left_is_deleted_and_nothing_else(tmp_path):
    code = "import os, sys; from debias_utils import assets; from pathlib import Path\n"
    code += "assets.write_whole(Path(sys.argv[1]), lambda file: (file.write(b'half'), file.flush(), os._exit(9)))"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npy")], check=False).returncode == 9
    (left,) = tmp_path.glob("*.part")  # the second run deleted what the first had left
    busy = left.with_name(re.sub(r"-\d+-", f"-{os.getpid()}-", left.name))
    mine, elsewhere = tmp_path / "notes.part", left.with_name(re.sub(r"npy\.\w{8}", "npy.00000000", left.name))
    for path in (busy, mine, elsewhere):
        path.write_bytes(b"half")
    assets.write_array(tmp_path / "b.npy", np.zeros(2))
    assert {path.name for path in tmp_path.iterdir()} == {busy.name, mine.name, elsewhere.name, "b.npy"}
    os.utime(elsewhere, (0, 0))
    assets.write_array(tmp_path / "b.npy", np.zeros(2))
    assert not elsewhere.exists()


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    """A write that comes back short, as NumPy reports it: without a number of the error."""

    def short(_):
        raise OSError("1000 requested and 16 written")

    with pytest.raises(OSError, match=r"cannot write to this folder \(1000 requested and 16 written\)") as error:
        assets.write_whole(tmp_path / "a", short)
    assert error.value.errno
    assert "[Errno 0]" not in str(error.value)


def test_a_really_full_disk_is_named(tmp_path, monkeypatch):
    """The system's own device that is always full."""
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(Path("/dev/full"), "wb", buffering=0))
    with pytest.raises(OSError, match=r"\[Errno 28\] cannot write to this folder \(No space left on device\)"):
        assets.write_array(tmp_path / "a.npy", np.zeros(1000))


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(OSError, match=r"a folder stands where a file is to be written; delete it.*a\.npy"):
        assets.cached_array(tmp_path / "a.npy", lambda: np.zeros(2), shape=(2,), dtype=np.float64)


def test_the_cache_is_one_folder_wherever_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", "~/kept")
    assert assets.cache_dir() == tmp_path / "kept"
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", "kept")
    with pytest.raises(ValueError, match=r"DEBIAS_UTILS_CACHE must be an absolute path, got 'kept'; here that would be .*/kept"):
        assets.cache_dir()
    monkeypatch.delenv("DEBIAS_UTILS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert assets.cache_dir().is_relative_to(tmp_path)


def test_without_a_home_the_error_names_the_variable(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user that the system does not know
    monkeypatch.delenv("DEBIAS_UTILS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ValueError, match=r"no home folder is known .* set DEBIAS_UTILS_CACHE to a folder"):
        assets.cache_dir()


@pytest.mark.parametrize("file", ["added_tokens.json", "unet/extra.safetensors", "model.bin"])
def test_files_that_are_not_listed_are_refused(weights, file):
    path = weights / NAME / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ValueError, match=f"holds files that belong to no packaged model: {NAME}/{file}; delete them"):
        assets.packaged_model(NAME, root=weights)


def test_files_of_editors_and_systems_are_no_reason(weights):
    for name in (".DS_Store", "config.json~", "#config.json#", ".config.json.swp"):
        (weights / NAME / name).write_text("scratch")
    (weights / NAME / ".#config.json").symlink_to("nowhere")
    assert assets.packaged_model(NAME, root=weights) == weights / NAME


@pytest.mark.parametrize("content", [b'{"a/b": "12', b"[]", b"\xff", b'{"a/b": 1}', b""])
def test_a_damaged_manifest_says_so(weights, content):
    (weights / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged .*reinstall the package"):
        assets.packaged_model(NAME, root=weights)
