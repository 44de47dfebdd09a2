"""The one door to checkpoints: `python -m debias_utils.assets` lists, shows, fetches and verifies them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import assets
from .entry import Entry, Hub, in_words
from .place import noted
from .registry import REGISTRY
from .store import fetch, state, verify


def card(entry: Entry) -> str:
    """What a reader should know of a checkpoint, as Markdown; what is not published is called so."""
    licence = entry.licence
    allowed = "" if licence.commercial else " **It must be accepted by name before the first use.**"
    lines = [f"# {entry.title}", "", f"`{entry.name}`: {entry.use}.", ""]
    lines += [
        f"- Licence: {licence.name}. {licence.terms}{allowed} <{licence.url}>",
        f"- Described by its owners: <{entry.page}>",
    ]
    lines += [f"- Size to be fetched: {in_words(entry.size)}"]
    for part in entry.parts:
        if isinstance(part, Hub):
            lines += [f"- From the Hugging Face hub: {part.repo} at {part.revision}: {', '.join(part.files)}"]
            lines += ["- SHA-256: as the hub lists it on first use, and that commit from then on"]
            continue
        lines += [f"- From: {', '.join(f'<{url}>' for url in part.urls) or 'the page above, by hand'} ({part.file})"]
        for name, digest in {part.file: part.sha256, **part.contents}.items():
            known = digest if len(digest) == 64 else f"only {digest}... is published" if digest else "not published"
            lines += [f"- SHA-256 of {name}: {known}{'' if len(digest) == 64 else '; trusted on first use'}"]
    return "\n".join(lines + [f"- {note}" for note in entry.notes]) + "\n"


def main(arguments: Sequence[str] | None = None, *, registry: Mapping[str, Entry] = REGISTRY) -> int:
    """Run a command; returns the exit status: 0, or 1 after an error, which is told in a line."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "list":
            print(_table(registry))
        elif options.command == "show":
            for name in options.names:
                print(_shown(_known(name, registry)))
        elif options.command == "fetch":
            for name in options.names:
                given = {"source": options.source, "accepted": options.accept, "renew": options.renew}
                given |= {"offline": True} if options.offline else {}
                given |= {"mirrors": options.mirror} if options.mirror else {}
                print(fetch(name, registry=registry, progress=not options.quiet, **given))
        else:
            return _verify(options.names, registry)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m debias_utils.assets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all checkpoints: size, licence, whether they are here")
    show = commands.add_parser("show", help="all about some: sources, checksums, terms, notes")
    get = commands.add_parser("fetch", help="bring some onto this machine, continuing what was begun")
    check = commands.add_parser("verify", help="hash what is here again; without names, all of it and the packaged models")
    for command, count in ((show, "+"), (get, "+"), (check, "*")):
        command.add_argument("names", nargs=count, metavar="NAME")
    get.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="a file or a folder of yours instead of the download"
    )
    get.add_argument("--accept", action="append", default=[], metavar="LICENCE", help="accept a licence, by its name")
    get.add_argument("--mirror", action="append", default=[], metavar="URL", help="an address that has NAME/file")
    get.add_argument("--offline", action="store_true", help="fetch nothing")
    get.add_argument("--renew", action="store_true", help="fetch again and trust what is there now")
    get.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _known(name: str, registry: Mapping[str, Entry]) -> Entry:
    from ..errors import check_choice

    check_choice("checkpoint", name, registry)
    return registry[name]


def _table(registry: Mapping[str, Entry]) -> str:
    rows = [("name", "size", "licence", "state", "what")]
    for entry in registry.values():
        licence = entry.licence.name + ("" if entry.licence.commercial else " *")
        rows.append((entry.name, in_words(entry.size), licence, state(entry) or "-", entry.title))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows]
    return "\n".join([*lines, "", "* forbids commercial use: to be accepted by name"])


def _shown(entry: Entry) -> str:
    lines = [card(entry)]
    for name, record in sorted(noted(entry)["files"].items()):
        lines.append(
            f"- here: {name}, {in_words(record['size'])}, SHA-256 {record['sha256']} ({record['by']}), from {record['from']}"
        )
    return "\n".join([*lines, ""])


def _verify(names: Sequence[str], registry: Mapping[str, Entry]) -> int:
    if not names:
        for model in sorted({file.split("/")[0] for file in assets.manifest() if "/" in file}):
            assets.packaged_model(model)
        print("packaged models: whole")
        names = [entry.name for entry in registry.values() if state(entry)]
    failed = 0
    for name in names:
        try:
            print(f"{name}: whole, {', '.join(path.name for path in verify(name, registry=registry))}")
        except (OSError, ValueError) as error:
            failed = 1
            print(f"{name}: {error}", file=sys.stderr)
    return failed
