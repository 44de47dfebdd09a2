"""Files from the Hugging Face hub, by huggingface_hub: it resumes, and reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and proxies.

It compares sizes only. What the hub lists of each file, the SHA-256 of large ones and git's hash of small ones, is compared here,
before the file gets the name under which it is used.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ..assets import sha256_of
from .entry import DownloadError, Hub, WrongContentError


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it; `git` is the SHA-1 of git's blob, which is all that there is of small files."""

    path: str
    size: int | None
    sha256: str
    git: str


def listing(part: Hub) -> tuple[str, list[Listed]]:
    """The commit that a revision is now, and the files of `part` in it.

    Raises:
        DownloadError: the hub does not answer, or has no such repository, revision or file.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=_endpoint()).model_info(part.repo, revision=part.revision, files_metadata=True)
    except Exception as error:  # those of the hub, of its HTTP library, and of JSON
        raise DownloadError(f"the hub gives no list of {part.repo}: {_first_line(error)}") from error
    files = [
        Listed(each.rfilename, each.size, (each.lfs.sha256 if each.lfs else "") or "", each.blob_id or "")
        for each in info.siblings or ()
        if any(fnmatch(each.rfilename, pattern) for pattern in part.files)
    ]
    missing = [pattern for pattern in part.files if not any(fnmatch(each.path, pattern) for each in files)]
    if missing or not info.sha:
        raise DownloadError(f"{part.repo} has no {', '.join(missing) or 'commit'} at {part.revision} on the hub")
    strange = [each.path for each in files if each.path.startswith("/") or ".." in each.path.split("/")]
    if strange:
        raise DownloadError(f"{part.repo} lists files outside of it: {', '.join(strange)}")
    return info.sha, files


def bring(part: Hub, commit: str, file: Listed, folder: Path) -> Path:
    """Fetch one file into `folder` under its path, continuing what is there, and compare it with the listing.

    Raises:
        DownloadError: it cannot be fetched. WrongContentError: it is not what the hub lists; it is deleted.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(part.repo, file.path, revision=commit, local_dir=folder, endpoint=_endpoint()))
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # of this machine: a full disk
            raise
        raise DownloadError(f"{file.path} of {part.repo} cannot be fetched from the hub: {_first_line(error)}") from error
    if file.sha256:
        kind, expected, found = "SHA-256", file.sha256, sha256_of(path)
    else:
        data = path.read_bytes()  # small: the hub lists a SHA-256 of all others
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False)
        kind, expected, found = "git hash", file.git, blob.hexdigest()
    if found != expected:
        path.unlink()
        raise WrongContentError(f"{file.path} of {part.repo} has {kind} {found[:12]}..., the hub lists {expected[:12] or 'none'}")
    return path


def _endpoint() -> str | None:
    """The hub's address, or that of a mirror; read when it is needed, unlike the hub's library does."""
    return os.environ.get("HF_ENDPOINT") or None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
