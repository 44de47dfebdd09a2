"""Some files out of an archive, or out of an installed package: only those that are named, under names of our own, never code."""

from __future__ import annotations

import importlib.util
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..assets import write_whole
from .entry import Web, WrongContentError, archive_kind


def extract(archive: Path, part: Web, folder: Path) -> None:
    """Write the members of an archive into a folder, each whole or not at all.

    Raises:
        WrongContentError: it is no archive, or does not hold each member exactly once.
    """
    try:
        with _members(archive, part.file) as (names, read):
            for member in part.members:
                found = [name for name in names if name == member or name.endswith(f"/{member}")]
                if len(found) != 1:
                    raise WrongContentError(f"{part.file} holds {len(found)} files {member!r}, expected one")
                with closing(read(found[0])) as source:
                    write_whole(folder / PurePosixPath(member).name, _filled_from(source))
    # zipfile says NotImplementedError of a compression that it does not know
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, WrongContentError):
            raise
        raise WrongContentError(f"{part.file} cannot be read as an archive: {error}") from error


def _filled_from(source: IO[bytes]) -> Callable[[IO[bytes]], object]:
    return lambda file: shutil.copyfileobj(source, file)


@contextmanager
def _members(archive: Path, name: str) -> Iterator[tuple[list[str], Callable[[str], Any]]]:
    """Names of the regular files in an archive, and a function that opens one."""
    if archive_kind(name) == "zip":
        with zipfile.ZipFile(archive) as opened:
            yield [info.filename for info in opened.infolist() if not info.is_dir()], opened.open
    else:
        with tarfile.open(archive) as tar:
            yield [info.name for info in tar.getmembers() if info.isreg()], tar.extractfile


def installed(part: Web) -> dict[str, Path] | None:
    """{file that is kept: where an installed package has it}, without importing the package; None if it has not all of them."""
    try:
        spec = importlib.util.find_spec(part.package) if part.package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parents[1]
    found = {PurePosixPath(member).name: home / member for member in part.members}
    return found if all(path.is_file() for path in found.values()) else None
