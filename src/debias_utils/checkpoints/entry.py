"""What describes a checkpoint: its licence, its files, where they come from and what is known about their content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

DIGITS = re.compile(r"[0-9a-f]{8,64}")


class DownloadError(OSError):
    """Nothing could be fetched: no source answered, the network is off, or a source offers something else."""


class WrongContentError(ValueError):
    """A file is another than the one that was published, or trusted before; it is not used."""


class LicenceNotAcceptedError(PermissionError):
    """The licence forbids some uses and nobody has accepted it on this machine."""


@dataclass(frozen=True)
class Licence:
    """Under which terms a checkpoint may be used.

    Attributes:
        name: by which it is accepted. terms: what it says, in a sentence or two. url: where it stands.
        commercial: False if it forbids commercial use; then it must be accepted before the first use.
    """

    name: str
    terms: str
    url: str
    commercial: bool = True


@dataclass(frozen=True)
class Web:
    """One file of the web, or some files out of an archive.

    Attributes:
        file: its name. urls: where it is, the owner's first; none where no program can fetch it.
        sha256: as published, or its first digits where only those are; "" where none is: then it is trusted on first use.
        size: in bytes; None where it is not published. about: a rounded size where only that is, to be shown, not compared.
        members: {path in the archive: SHA-256 or ""}, the files that are taken out of it, kept under their last name; {} if the
            file is no archive. package: an installed package that holds the members at these paths, so that nothing is fetched.
    """

    file: str
    urls: tuple[str, ...] = ()
    sha256: str = ""
    size: int | None = None
    about: int | None = None
    members: Mapping[str, str] = field(default_factory=dict)
    package: str = ""

    def __post_init__(self) -> None:
        for digest in filter(None, (self.sha256, *self.members.values())):
            if not DIGITS.fullmatch(digest):
                raise ValueError(f"{digest!r} is no SHA-256 in lower-case hexadecimal digits, nor its first 8 or more")
        if self.members and archive_kind(self.file) is None:
            raise ValueError(f"{self.file} has members, so it must be one of: .zip, .whl, .tar.gz, .tar")

    @property
    def contents(self) -> dict[str, str]:
        """{file that is kept: its SHA-256, or "" where none is published}."""
        return {PurePosixPath(path).name: digest for path, digest in self.members.items()} or {self.file: self.sha256}


@dataclass(frozen=True)
class Hub:
    """Files of a repository of the Hugging Face hub.

    Attributes:
        repo: "owner/name". files: their paths, or patterns of them such as "tokenizer/*". revision: a branch, or a commit.
    """

    repo: str
    files: tuple[str, ...]
    revision: str = "main"


@dataclass(frozen=True)
class Entry:
    """One checkpoint.

    Attributes:
        name: by which it is fetched. title: what it is. use: what the book does with it. parts: its files.
        page: where its owners describe it. notes: what a reader should know before trusting or using it.
        settings: what a loader needs and no file tells, such as {"quick_gelu": True}.
    """

    name: str
    title: str
    use: str
    licence: Licence
    page: str
    parts: tuple[Web | Hub, ...]
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes to be fetched, perhaps rounded; None where they are not published."""
        sizes = [part.size or part.about if isinstance(part, Web) else None for part in self.parts]
        return None if None in sizes else sum(size for size in sizes if size)


def archive_kind(name: str) -> str | None:
    """What an archive of this name is read as, "zip" or "tar"; None if it is no archive."""
    return "zip" if name.endswith((".zip", ".whl")) else "tar" if name.endswith((".tar", ".tar.gz", ".tgz")) else None


def in_words(size: int | None) -> str:
    """Bytes in words: "1.7 GB"."""
    if size is None:
        return "not published"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
