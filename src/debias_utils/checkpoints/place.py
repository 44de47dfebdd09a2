"""Where fetched files lie, what was noted of them, and how a file is compared.

    <cache>/checkpoints/<entry>/            files under their own names: only what was checked
    <cache>/checkpoints/<entry>/verified.json   what each was compared with, and how it lay on the disk then
    <cache>/checkpoints/<entry>/*.part          unfinished, continued by the next fetch
    <cache>/checkpoints/trusted/<entry>.json    what was trusted on first use, where no checksum is published; keep it
    <cache>/checkpoints/accepted.json           licences that were accepted here

A file is hashed when it arrives, and counts as absent as soon as its size, place or times on the disk are others than then.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from .. import assets
from .entry import Entry, Hub, Web

VERIFIED = "verified.json"


def root() -> Path:
    """The folder of all checkpoints."""
    return assets.cache_dir() / "checkpoints"


def folder_of(entry: Entry) -> Path:
    """The folder of one."""
    return root() / entry.name


def noted(entry: Entry) -> dict[str, Any]:
    """What is known of the files that are here: {"files": {path: record}, "hub": {repository: paths}}."""
    return {"files": {}, "hub": {}, **read_json(folder_of(entry) / VERIFIED)}


def whole(entry: Entry) -> list[Path]:
    """All files of an entry, if all are here and lie on the disk as they did when they were checked; else none."""
    notes, found = noted(entry), []
    for part in entry.parts:
        paths = files_of(part, folder_of(entry), notes)
        if not paths:
            return []
        found += paths
    return found


def files_of(part: Web | Hub, folder: Path, notes: dict[str, Any]) -> list[Path]:
    """The files of a part, as in `whole`."""
    expected = dict.fromkeys(notes["hub"].get(part.repo, ()), "") if isinstance(part, Hub) else part.contents
    right = [unchanged(folder / name, notes["files"].get(name), digits) for name, digits in expected.items()]
    return [folder / name for name in expected] if all(right) else []


def unchanged(path: Path, record: dict[str, Any] | None, expected: str = "") -> bool:
    """Does a file lie on the disk as it did when it was checked, and is that what is `expected` today?"""
    try:
        return record is not None and record["sha256"].startswith(expected) and lies(path).items() <= record.items()
    except (OSError, KeyError):
        return False


def lies(path: Path) -> dict[str, int]:
    """Size, place and times of a file: whoever alters it alters these."""
    stat = path.stat()
    return {"size": stat.st_size, "inode": stat.st_ino, "modified": stat.st_mtime_ns, "changed": stat.st_ctime_ns}


def copy(source: Path, target: Path) -> Path:
    """Copy a file; returns the copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        if error.filename == str(source):
            raise
        raise assets.cannot_write(target.parent, error) from error
    return target


def read_json(path: Path) -> dict[str, Any]:
    """A table of notes; empty if it is absent or damaged."""
    try:
        notes = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def write_json(path: Path, notes: dict[str, Any]) -> None:
    """Write a table of notes, whole or not at all."""
    assets.write_whole(path, lambda file: file.write(json.dumps(notes, indent=1, sort_keys=True).encode()))


def say(text: str) -> None:
    """Tell the person, beside whatever the program prints."""
    print(text, file=sys.stderr, flush=True)
