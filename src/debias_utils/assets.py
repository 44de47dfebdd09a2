"""Where files come from: shipped in the package, or kept in a cache; checked before use; never a pickle.

Public checkpoints have a registry of their own, `checkpoints`, whose door is the command `python -m debias_utils.assets`.

What a cache keeps carries its own SHA-256, so that a damaged or altered file counts as absent and is computed again: an array
(.npy) behind its last value, a table (.parquet) in its metadata. Both stay files that NumPy and pandas read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from .errors import check_choice

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CACHE_VARIABLE = "DEBIAS_UTILS_CACHE"
WEIGHTS = Path(str(files("debias_utils"))) / "weights"  # folders of packaged models, and manifest.json
DIGEST, BLANK = b"sha256", b"0" * 64  # a checksum is that of the file with BLANK in its place
PART = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{32}\.part$")  # host, process: whose unfinished file it is
SCRATCH = (  # what editors, shells and systems leave behind
    ".*", "#*", "*~", "__pycache__", "*.swp", "*.swo", "*.bak", "*.orig", "*.rej", "*.tmp", "*.part", "4913", "Thumbs.db",
    "desktop.ini",
)  # fmt: skip
DAY = 24 * 60 * 60


@cache
def manifest() -> dict[str, str]:
    """SHA-256 of every packaged weight file, by its path under `WEIGHTS`."""
    return _read_manifest(WEIGHTS)


def _read_manifest(root: Path) -> dict[str, str]:
    path = root / "manifest.json"
    try:
        listed = json.loads(path.read_text("utf-8"))
        if not (isinstance(listed, dict) and all(isinstance(digest, str) for digest in listed.values())):
            raise ValueError("it is no table of checksums")
    except ValueError as error:  # JSON's and Unicode's own errors are among them
        raise ValueError(f"{path} is damaged ({error}); reinstall the package") from error
    return listed


def packaged_model(name: str, *, root: Path = WEIGHTS) -> Path:
    """The folder of a packaged model, after its files were checked against the manifest.

    Raises:
        ValueError: there is no model of that name (lists those that exist), a file was altered or cut short, or the folder
            holds a file that the manifest does not list: a loader might read it.
        FileNotFoundError: a file of the model is missing.
    """
    listed = manifest() if root == WEIGHTS else _read_manifest(root)
    check_choice("model", name, sorted({file.split("/")[0] for file in listed if "/" in file}))
    for file, expected in listed.items():
        if file.startswith(f"{name}/"):
            verify(root / file, expected)
    found = {path.relative_to(root) for path in (root / name).rglob("*") if path.is_symlink() or not path.is_dir()}
    strange = sorted(path.as_posix() for path in found if path.as_posix() not in listed and not is_scratch(path))
    if strange:
        raise ValueError(f"{root / name} holds files that belong to no packaged model: {', '.join(strange)}; delete them")
    return root / name


def is_scratch(path: Path) -> bool:
    """Is this a file of an editor or of the system, as no loader reads it: hidden, a backup, a lock, compiled code?"""
    return any(fnmatch(part, pattern) for part in path.parts for pattern in SCRATCH)


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
    """Hex SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def cache_dir() -> Path:
    """The cache folder: the environment variable `DEBIAS_UTILS_CACHE` ("~" is the home folder), or the user's cache folder.

    Raises:
        ValueError: the variable holds a relative path, which would be another folder in a notebook than in the command; or
            neither it nor a home folder is set.
    """
    import platformdirs

    given = os.environ.get(CACHE_VARIABLE)
    try:
        folder = Path(given or platformdirs.user_cache_dir("debias_utils")).expanduser()
    except RuntimeError:  # no home folder
        folder = Path(given or "~")
    if not folder.is_absolute():
        if given and not given.startswith("~"):
            raise ValueError(f"{CACHE_VARIABLE} must be an absolute path, got {given!r}; here that would be {folder.absolute()}")
        raise ValueError(f"no home folder is known to keep the cache in: set {CACHE_VARIABLE} to a folder of yours, in full")
    return folder


def cached_array(path: Path, make: Callable[[], np.ndarray], *, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The array in a cache file, read-only and mapped; made and written first if it is absent, damaged or altered.

    Raises:
        OSError: the cache folder cannot be written; found out before `make` is called.
    """
    found = read_array(path, shape=shape, dtype=dtype)
    if found is None:
        check_writable(path.parent)
        write_array(path, make())
        found = read_array(path, shape=shape, dtype=dtype)
        if found is None:
            raise _unreadable(path)
    return found


def cached_table(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table in a Parquet file; made and written, whole or not at all, if it is absent, damaged or altered.

    Raises:
        OSError: the cache folder cannot be written; found out before `make` is called.
    """
    import pyarrow as pa

    label = {b"name": path.name.encode()}
    found = read_table(path, label)
    if found is None:
        check_writable(path.parent)
        write_table(path, pa.Table.from_pandas(make(), preserve_index=False), label)
        found = read_table(path, label)
        if found is None:
            raise _unreadable(path)
    return found.to_pandas()


def check_writable(folder: Path) -> None:
    """Make the folder, and raise a clear ``OSError`` before any work is done if nothing can be written there."""
    probe = folder / "probe"
    write_whole(probe, lambda file: file.write(b"can this be written?"), keep=False)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array with its checksum, whole or not at all; see `write_whole`."""
    header = io.BytesIO()
    array = np.asarray(array, order="C")
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    digest = _array_digest(path, header.getvalue(), array)

    def save(file: IO[bytes]) -> None:
        file.write(header.getvalue())
        file.write(array.reshape(-1).view(np.uint8).data)  # NumPy's own writer loses the error of a full disk
        file.write(digest)

    write_whole(path, save)


def read_array(path: Path, *, shape: tuple[int, ...], dtype: type) -> np.ndarray | None:
    """Map an array from a file of `write_array`, read-only; None if it is absent, damaged, altered or of another shape."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            if np.lib.format.read_array_header_1_0(file) != (shape, False, dtype):
                return None
            offset = file.tell()
            array = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
            file.seek(0)
            header = file.read(offset)
            file.seek(offset + array.nbytes)
            kept = file.read()
    except Exception:  # NumPy parses the header as Python: a damaged one raises whatever it likes
        return None
    return array if kept == _array_digest(path, header, array) else None


def _array_digest(path: Path, header: bytes, array: np.ndarray) -> bytes:
    """The checksum of an array under its name: a file that was renamed holds something else."""
    digest = hashlib.sha256(path.name.encode() + header)
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest().encode()


def write_table(path: Path, table: pa.Table, label: Mapping[bytes, bytes]) -> None:
    """Write a Parquet file that carries its label and its checksum, whole or not at all; see `write_whole`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    metadata = {**(table.schema.metadata or {}), **label, DIGEST: BLANK}
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    data = buffer.getvalue().to_pybytes()
    whole = hashlib.sha256(data).hexdigest().encode().join(data.rsplit(BLANK, 1))
    write_whole(path, lambda file: file.write(whole))


def read_table(path: Path, label: Mapping[bytes, bytes]) -> pa.Table | None:
    """The table in a file of `write_table`; None if it is absent, damaged, altered or of another label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
        file = pq.ParquetFile(pa.BufferReader(data))
        kept = file.metadata.metadata or {}
        blank = BLANK.join(data.rsplit(kept[DIGEST], 1))
        if hashlib.sha256(blank).hexdigest().encode() == kept[DIGEST] and all(kept.get(k) == v for k, v in label.items()):
            return file.read()
    except Exception:  # pyarrow has many errors for a damaged file
        pass
    return None


def write_whole(path: Path, save: Callable[[IO[bytes]], object], *, keep: bool = True) -> None:
    """Write a file whole or not at all: `save` fills a temporary one, ``*.part``, which is then renamed.

    What killed processes have left in the folder is deleted on the way. keep: False tries it only.

    Raises:
        OSError: the folder is read-only or full, or a folder stands in the file's place.
    """
    temporary = path.with_name(f"{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with temporary.open("xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        if keep:
            temporary.replace(path)
    except IsADirectoryError as error:
        raise IsADirectoryError(error.errno, "a folder stands where a file is to be written; delete it", str(path)) from error
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Delete unfinished files whose writers are dead: at once those of this machine, after a day those of others."""
    for path in folder.glob("*.part"):
        if found := PART.search(path.name):
            host, process = found[1], int(found[2])
            with contextlib.suppress(OSError):  # another process may have been faster
                if not _alive(process) if host == _host() else time.time() - path.stat().st_mtime > DAY:
                    path.unlink()


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere, asking would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


@cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _unreadable(path: Path) -> OSError:
    return OSError(errno.EIO, "was written and cannot be read back; is the disk healthy?", str(path))


def cannot_write(folder: Path, error: OSError) -> OSError:
    """An error that names the folder and says what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    try:
        cached = folder.absolute().is_relative_to(cache_dir())
    except ValueError:  # there is no cache folder
        cached = False
    where, instead = ("the cache folder", f"set {CACHE_VARIABLE} to another") if cached else ("this folder", "choose another")
    return OSError(error.errno or errno.EIO, f"cannot write to {where} ({reason}); {instead}", str(folder))


if __name__ == "__main__":
    from .checkpoints.door import main

    raise SystemExit(main())
