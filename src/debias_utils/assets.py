"""Where files come from: shipped in the package, or kept in a cache; checked before use; never a pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from .errors import check_choice

if TYPE_CHECKING:
    import pandas as pd

CACHE_VARIABLE = "DEBIAS_UTILS_CACHE"
WEIGHTS = Path(str(files("debias_utils"))) / "weights"  # folders of packaged models, and manifest.json


@cache
def manifest() -> dict[str, str]:
    """SHA-256 of every packaged weight file, by its path under `WEIGHTS`."""
    return json.loads((WEIGHTS / "manifest.json").read_text("utf-8"))


def packaged_model(name: str, *, root: Path = WEIGHTS) -> Path:
    """The folder of a packaged model, after its weights were checked against the manifest.

    Raises:
        ValueError: there is no model of that name (lists those that exist), or a file was altered or cut short.
        FileNotFoundError: a file of the model is missing.
    """
    listed = manifest() if root == WEIGHTS else json.loads((root / "manifest.json").read_text("utf-8"))
    check_choice("model", name, sorted({file.split("/")[0] for file in listed if "/" in file}))
    for file, expected in listed.items():
        if file.startswith(f"{name}/"):
            verify(root / file, expected)
    return root / name


def verify(path: Path, sha256: str) -> Path:
    """Return `path` if its content has this SHA-256, else say what is wrong with it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the checksum differs.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; reinstall the package, or run `make mini-models`")
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes and checksum {found[:12]}..., expected {sha256[:12]}...: "
            "it was altered or cut short; reinstall the package"
        )
    return path


def weights_hash() -> str:
    """One hash, 16 hex digits, of all packaged files."""
    return hashlib.sha256(json.dumps(manifest(), sort_keys=True).encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cache_dir() -> Path:
    """The cache folder: the environment variable `DEBIAS_UTILS_CACHE`, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("debias_utils"))


def cached_array(path: Path, make: Callable[[], np.ndarray], *, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The array in a cache file, read-only and mapped; made and written first if it is not there or damaged.

    Raises:
        OSError: the cache folder cannot be written; found out before `make` is called.
    """
    found = read_array(path, shape=shape, dtype=dtype)
    if found is None:
        check_writable(path.parent)
        write_array(path, make())
        found = read_array(path, shape=shape, dtype=dtype)
        if found is None:
            raise OSError(f"{path} was written and cannot be read back; is the disk healthy?")
    return found


def cached_table(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table in a Parquet file; made and written, whole or not at all, if there is none that can be read.

    Raises:
        OSError: the cache folder cannot be written; found out before `make` is called.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):  # pyarrow's own errors are among them
        check_writable(path.parent)
    table = make()
    write_whole(path, lambda file: table.to_parquet(file, index=False))
    return table


def check_writable(folder: Path) -> None:
    """Make the folder, and raise a clear ``OSError`` before any work is done if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all; see `write_whole`."""
    write_whole(path, lambda file: np.save(file, array, allow_pickle=False))


def write_whole(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all: `save` fills a temporary one, ``*.part``, which is then renamed.

    Raises:
        OSError: the folder is read-only or full.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_array(path: Path, *, shape: tuple[int, ...], dtype: type) -> np.ndarray | None:
    """Map an array from a file, read-only; None if it is absent, damaged or of another shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == dtype else None


def cannot_write(folder: Path, error: OSError) -> OSError:
    """An error that names the folder and says what to do."""
    reason = error.strerror or str(error)
    cached = folder.absolute().is_relative_to(cache_dir().absolute())
    where, instead = ("the cache folder", f"set {CACHE_VARIABLE} to another") if cached else ("this folder", "choose another")
    return OSError(error.errno or 0, f"cannot write to {where} ({reason}); {instead}", str(folder))
