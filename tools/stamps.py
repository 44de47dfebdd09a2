"""The note beside a finished chapter: what it was made from, how long that took, and the checksum of its page."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any


def read_stamp(stamp: Path) -> dict[str, Any]:
    """What a finished chapter noted: `key`, `seconds` and `page`; empty if there is no whole and sensible note."""
    try:
        noted = json.loads(stamp.read_text("utf-8"))
        key, page, seconds = noted["key"], noted["page"], noted["seconds"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    sensible = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds) and seconds >= 0
    return {"key": key, "page": page, "seconds": seconds} if sensible else {}


def write_stamp(page: Path, *, key: str, seconds: float) -> None:
    """Note what the finished page was made from; whole or not at all."""
    stamp = page.with_suffix(".json")
    part = stamp.with_suffix(".part")
    part.write_text(json.dumps({"key": key, "seconds": seconds, "page": _checksum(page)}), "utf-8")
    part.replace(stamp)


def unproven(page: Path) -> str | None:
    """Why nobody can say that a run wrote this page as it lies there; None if its stamp has its checksum."""
    if not page.is_file():
        return "there is no page"
    stamp = read_stamp(page.with_suffix(".json"))
    if not stamp:
        return "no stamp says that a run finished it; run it again"
    if stamp["page"] != _checksum(page):
        return "not the page that the run wrote: edited by hand, or cut short; run it again"
    return None


def _checksum(page: Path) -> str:
    return hashlib.sha256(page.read_bytes()).hexdigest()
