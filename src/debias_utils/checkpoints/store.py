"""Fetch a checkpoint into the cache and hand out its path: one process at a time, checked before anybody opens it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from filelock import FileLock, Timeout

from .. import assets
from ..errors import check_choice
from .entry import Entry, LicenceNotAcceptedError, WrongContentError
from .job import LOCAL, MIRRORS, Job
from .place import VERIFIED, folder_of, noted, read_json, root, say, whole, write_json
from .registry import REGISTRY

OFFLINE, ACCEPT = ("DEBIAS_UTILS_OFFLINE", "HF_HUB_OFFLINE"), "DEBIAS_UTILS_ACCEPT"


def fetch(
    name: str,
    *,
    source: str | Path | None = None,
    accepted: Sequence[str] = (),
    mirrors: Sequence[str] | None = None,
    offline: bool | None = None,
    renew: bool = False,
    progress: bool = True,
    timeout: float = 30.0,
    pause: float = 1.0,
    registry: Mapping[str, Entry] = REGISTRY,
) -> Path:
    """The files of a checkpoint on this machine, fetched if they are not there, checked before anything opens them.

    Args:
        name: an entry of the registry.
        source: a file, or a folder with the entry's files, that stands in for the download; also $DEBIAS_UTILS_LOCAL, a folder
            with a folder for each entry.
        accepted: names of licences that are accepted hereby, and from now on; also $DEBIAS_UTILS_ACCEPT, separated by commas.
        mirrors: addresses that have <entry>/<file>, asked after the owners'; also $DEBIAS_UTILS_MIRRORS, separated by blanks. For
            the Hugging Face hub set HF_ENDPOINT; proxies are those of HTTPS_PROXY and NO_PROXY.
        offline: fetch nothing; also $DEBIAS_UTILS_OFFLINE or $HF_HUB_OFFLINE set to 1.
        renew: fetch again, forget what was trusted on first use and trust what is there now.
        progress: show it. timeout: seconds of silence until a connection counts as lost. pause: seconds before a second try.
        registry: the table of entries.

    Returns:
        The file, if the entry has only one, else the folder with its `files`.

    Raises:
        ValueError: no such entry (lists them). LicenceNotAcceptedError: the licence forbids commercial use; shows it.
        DownloadError: offline, or no source has it. WrongContentError: a file is another than the one published or trusted.
        OSError: the cache cannot be written, or is full.
    """
    entry = _find(name, registry)
    check_licence(entry, accepted)
    again = renew or source is not None
    if again or not whole(entry):
        assets.check_writable(folder_of(entry))
        with _alone(entry):
            if again or not whole(entry):  # another process may have been here in the meantime
                Job(
                    entry,
                    local=Path(source).expanduser() if source is not None else _stand_in(entry),
                    mirrors=list(os.environ.get(MIRRORS, "").split() if mirrors is None else mirrors),
                    offline=any(map(_is_set, OFFLINE)) if offline is None else offline,
                    renew=renew,
                    transfer={"progress": progress, "timeout": timeout, "pause": pause},
                ).run()
    found = whole(entry)
    if not found:
        raise WrongContentError(f"{name} was changed while it was fetched: fetch it again")
    return found[0] if len(found) == 1 else folder_of(entry)


def files(name: str, *, registry: Mapping[str, Entry] = REGISTRY) -> list[Path]:
    """The checked files of a fetched entry; none if it is not here, or only in part."""
    return whole(_find(name, registry))


def verify(name: str, *, registry: Mapping[str, Entry] = REGISTRY) -> list[Path]:
    """Hash all files of a fetched entry again; returns them.

    Raises:
        FileNotFoundError: it is not here. WrongContentError: a file is damaged or altered; it will not be used any more.
    """
    entry = _find(name, registry)
    notes, folder = noted(entry), folder_of(entry)
    for file, record in sorted(notes["files"].items()):
        if (folder / file).is_file() and assets.sha256_of(folder / file) != record["sha256"]:
            del notes["files"][file]
            write_json(folder / VERIFIED, notes)
            raise WrongContentError(f"{folder / file} is not what was fetched: it was altered or cut short; fetch {name} again")
    found = whole(entry)
    if not found:
        raise FileNotFoundError(f"{name} is not here, or only in part; fetch it")
    return found


def state(entry: Entry) -> str:
    """What there is of an entry: "here", "in part" or ""."""
    folder = folder_of(entry)
    return "here" if whole(entry) else "in part" if noted(entry)["files"] or any(folder.glob("*.part")) else ""


def accept(licence: str, *, registry: Mapping[str, Entry] = REGISTRY) -> None:
    """Note that a licence is accepted on this machine; ``ValueError`` if no entry has one of that name."""
    check_choice("licence", licence, sorted({entry.licence.name for entry in registry.values()}))
    path = root() / "accepted.json"
    write_json(path, {**read_json(path), licence: date.today().isoformat()})


def check_licence(entry: Entry, accepted: Sequence[str] = ()) -> None:
    """Raise ``LicenceNotAcceptedError`` with the terms unless they allow commercial use or were accepted by name."""
    licence = entry.licence
    if licence.commercial or licence.name in read_json(root() / "accepted.json"):
        return
    if licence.name in accepted:
        accept(licence.name, registry={entry.name: entry})
    elif licence.name not in os.environ.get(ACCEPT, "").replace(",", " ").split():
        raise LicenceNotAcceptedError(
            f"{entry.name} is under {licence.name}: {licence.terms} See {licence.url}. If you accept it: "
            f"python -m debias_utils.assets fetch {entry.name} --accept {licence.name}"
        )


def _find(name: str, registry: Mapping[str, Entry]) -> Entry:
    check_choice("checkpoint", name, registry)
    return registry[name]


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def _stand_in(entry: Entry) -> Path | None:
    """The folder for an entry in $DEBIAS_UTILS_LOCAL."""
    given = os.environ.get(LOCAL)
    folder = Path(given).expanduser() / entry.name if given else None
    return folder if folder is not None and folder.is_dir() else None


@contextmanager
def _alone(entry: Entry) -> Iterator[None]:
    """Hold the entry. The lock is the operating system's, so that it ends with the process, however that ends."""
    lock = FileLock(root() / f"{entry.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is fetching {entry.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
