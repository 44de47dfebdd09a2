"""One fetch of one entry, while its lock is held: from a file at hand, an installed package, the web or the hub."""

from __future__ import annotations

import shutil
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..assets import sha256_of
from . import archive, hub, transfer
from .entry import DownloadError, Entry, Hub, Web, WrongContentError
from .place import VERIFIED, copy, files_of, folder_of, lies, noted, read_json, root, say, unchanged, write_json

LOCAL, MIRRORS = "DEBIAS_UTILS_LOCAL", "DEBIAS_UTILS_MIRRORS"


class Job:
    """Brings what is missing of an entry; see `store.fetch` for the options."""

    def __init__(
        self, entry: Entry, *, local: Path | None, mirrors: list[str], offline: bool, renew: bool, transfer: dict[str, Any]
    ):
        self.entry, self.local, self.mirrors, self.offline, self.renew = entry, local, mirrors, offline, renew
        self.transfer = transfer
        self.folder, self.trusted = folder_of(entry), root() / "trusted" / f"{entry.name}.json"
        self.trust: dict[str, Any] = {} if renew else read_json(self.trusted)
        self.notes = noted(entry)

    def run(self) -> None:
        """Bring every part that is not here."""
        for part in self.entry.parts:
            if self.local is not None:
                self.from_disk(part, self.local)
            elif isinstance(part, Hub):
                if self.renew or not files_of(part, self.folder, self.notes):
                    self.from_hub(part)
            elif not self.renew and all(self.adopt(name, expected) for name, expected in part.contents.items()):
                continue
            elif not self.from_package(part):
                self.from_web(part)

    def adopt(self, name: str, expected: str) -> bool:
        """Is this file here, and what it should be? One of another place or time, as after a kill or a copy, is hashed again."""
        final = self.folder / name
        if unchanged(final, self.notes["files"].get(name), expected):
            return True
        right = expected if len(expected) == 64 else self.trust.get(name, {}).get("sha256")
        if not right or not final.is_file() or sha256_of(final) != right:
            return False
        self.note(name, final, right, "published" if right == expected else "trusted before", "what was here")
        return True

    def from_disk(self, part: Web | Hub, local: Path) -> None:
        """Take a part from a file, an archive or a folder of this machine."""
        if isinstance(part, Web):
            held = local / part.file if local.is_dir() else local
            if part.members and held.is_file():
                return self.unpack(part, copy(held, self.folder / f"{part.file}.part"), f"file {held}")
            wanted = list(part.contents)
        else:
            every = [path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()]
            wanted = [name for name in every if any(fnmatch(name, pattern) for pattern in part.files)] or list(part.files)
        if not local.is_dir() and (len(wanted) > 1 or len(self.entry.parts) > 1):
            raise DownloadError(f"{self.entry.name} has several files: give the folder that holds {', '.join(wanted)}")
        found = {name: local / name if local.is_dir() else local for name in wanted}
        missing = [str(path) for path in found.values() if not path.is_file()]
        if missing:
            raise DownloadError(f"there is no file {', '.join(missing)} to stand in for {self.entry.name}")
        for name, path in found.items():
            expected = part.contents[name] if isinstance(part, Web) else ""
            self.install(name, copy(path, self.folder / f"{name}.part"), expected, f"file {path}")
        if isinstance(part, Hub):
            self.note_hub(part, wanted)
        return None

    def from_package(self, part: Web) -> bool:
        """Take the members from an installed package, if it has them as they were published."""
        there = archive.installed(part)
        if there is None or any(sha256_of(path) != part.contents[name] for name, path in there.items()):
            return False
        for name, path in there.items():
            self.install(name, copy(path, self.folder / f"{name}.part"), part.contents[name], f"package {part.package}")
        return True

    def from_web(self, part: Web) -> None:
        """Fetch a part from the first source that has the right file."""
        sources = [*part.urls, *(f"{mirror.rstrip('/')}/{self.entry.name}/{part.file}" for mirror in self.mirrors)]
        if self.offline or not sources:
            self.refuse(part.file, "" if self.offline else f"No program can fetch it: see {self.entry.page}. ")
        path = self.folder / f"{part.file}.part"
        failures: list[Exception] = []
        for url in sources:
            for _ in range(2):
                continued = False
                try:
                    continued = transfer.download(url, path, known=len(part.sha256) == 64, size=part.size, **self.transfer)
                    if part.members:
                        return self.unpack(part, path, url)
                    return self.install(part.file, path, part.sha256, url)
                except DownloadError as error:
                    failures.append(error)
                    break
                except WrongContentError as error:
                    transfer.discard(path)
                    failures.append(error)
                    if not continued:
                        break  # else once more from the beginning: what it was added to may have been damaged
        wrong = any(isinstance(error, WrongContentError) for error in failures)
        raise (WrongContentError if wrong else DownloadError)("; ".join(dict.fromkeys(map(str, failures))))

    def from_hub(self, part: Hub) -> None:
        """Fetch a part from the Hugging Face hub, at the commit that was there the first time."""
        if self.offline:
            self.refuse(part.repo)
        commit, listed = hub.listing(Hub(part.repo, part.files, self.trust.get(part.repo, {}).get("commit", part.revision)))
        self.remember(part.repo, {"commit": commit, "from": part.revision})
        incoming = self.folder / "incoming.part"
        for file in listed:
            if self.renew or not self.adopt(file.path, file.sha256):
                path = hub.bring(part, commit, file, incoming)
                self.install(file.path, path, file.sha256, f"hub {part.repo} at {commit[:12]}", listed=True)
        self.note_hub(part, [file.path for file in listed])
        shutil.rmtree(incoming, ignore_errors=True)

    def unpack(self, part: Web, path: Path, source: str) -> None:
        """Check an archive, take its members out, check these, and delete it."""
        trusted = part.file in self.trust
        self.check(part.file, path, part.sha256, source)
        inside = self.folder / "members.part"
        try:
            archive.extract(path, part, inside)
        except WrongContentError:
            if not trusted and self.trust.pop(part.file, None):
                write_json(self.trusted, self.trust)  # it was no such archive: nothing to be trusted
            raise
        for name, expected in part.contents.items():
            self.install(name, inside / name, expected, source)
        shutil.rmtree(inside, ignore_errors=True)
        transfer.discard(path)

    def install(self, name: str, path: Path, expected: str, source: str, *, listed: bool = False) -> None:
        """Check a file that has arrived, and only then give it the name under which it is used."""
        digest, by = self.check(name, path, expected, source, listed=listed)
        final = self.folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        path.replace(final)
        transfer.discard(path)  # what was noted beside it
        self.note(name, final, digest, by, source)

    def note(self, name: str, final: Path, digest: str, by: str, source: str) -> None:
        """Write down that a file is here, what it was compared with, and how it lies on the disk."""
        self.notes["files"][name] = {"sha256": digest, "by": by, "from": source, **lies(final)}
        write_json(self.folder / VERIFIED, self.notes)

    def check(self, name: str, path: Path, expected: str, source: str, *, listed: bool = False) -> tuple[str, str]:
        """Compare a file with what is published, else with what was trusted, else trust it and say so."""
        digest = sha256_of(path)
        if not digest.startswith(expected):
            raise WrongContentError(
                f"{name} from {source} has {path.stat().st_size} bytes and SHA-256 {digest[:12]}..., published is "
                f"{expected[:12]}...: it is damaged or another file, and is not used"
            )
        if len(expected) == 64 and not listed:
            return digest, "published"
        before = self.trust.get(name)
        if before and before["sha256"] != digest:
            raise WrongContentError(
                f"{name} from {source} has SHA-256 {digest[:12]}..., trusted since {before['date']} is {before['sha256'][:12]}"
                f"...: it is not used. If its owners say that they changed it: fetch {self.entry.name} --renew"
            )
        if not before:
            self.remember(name, {"sha256": digest, "from": source})
            why = f"of its SHA-256 only {expected} is published" if expected else "no SHA-256 of it is published"
            why = "its SHA-256 is known from the hub's list alone" if listed else why
            say(f"{name}: {why}; trusted on first use, {digest} noted in {self.trusted}")
        return digest, ("listed by the hub, " if listed else "") + f"trusted since {self.trust[name]['date']}"

    def remember(self, what: str, facts: dict[str, str]) -> None:
        """Write down what is trusted from now on."""
        if what not in self.trust:
            self.trust[what] = {"date": date.today().isoformat(), **facts}
            write_json(self.trusted, self.trust)

    def note_hub(self, part: Hub, paths: list[str]) -> None:
        """Write down that all files of a part are here."""
        self.notes["hub"][part.repo] = paths
        write_json(self.folder / VERIFIED, self.notes)

    def refuse(self, what: str, why: str = "") -> None:
        """Raise ``DownloadError``: there is no way to fetch it."""
        raise DownloadError(
            f"{what} of {self.entry.name} is not here{' and fetching is off (offline)' if self.offline else ''}. {why}Give a "
            f"file of yours: python -m debias_utils.assets fetch {self.entry.name} --from FILE, or set {LOCAL} or {MIRRORS}"
        )
