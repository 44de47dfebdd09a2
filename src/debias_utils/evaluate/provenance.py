"""What decides the rows of an evaluation and is not said in its cells: code, weights, pictures, libraries, profile, device."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, assets

if TYPE_CHECKING:
    from ..profiles import Profile

LIBRARIES = ("dicebear-core", "dicebear-styles", "diffusers", "numpy", "open_clip_torch", "resvg-py", "torch", "transformers")
NO_ROW = (  # code that changes no row: it lists cells, runs them, looks at rows, or trained what is packaged
    "discover/", "show/", "toonville/card", "toonville/train",
    *(
        f"evaluate/{name}.py"
        for name in (
            "__init__", "__main__", "agreement", "compare", "engine", "full_size", "grid", "instruments", "on_ray", "plan",
            "table", "tradeoff",
        )
    ),
)  # fmt: skip


@cache
def code_hash(package: Path = Path(__file__).parents[1]) -> str:
    """A hash, 16 hex digits, of all code and drawings that decide rows."""
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("props/*.svg")]):
        name = path.relative_to(package).as_posix()
        if not name.startswith(NO_ROW):
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def description(parts: Profile, **size: int) -> dict[str, Any]:
    """What decides all rows of a folder: kept beside them, and compared before any of them is read.

    The device is that of whoever asks: Ray's workers have their own, and each row says on which it was computed.
    """
    return {
        "profile": parts.name, "seed": parts.seed, **size, "version": __version__, "device": parts.device.split(":")[0],
        "weights": assets.weights_hash(), "code": code_hash(), "libraries": {name: version(name) for name in LIBRARIES},
    }  # fmt: skip


def check_same(*, code: str | None, weights: str | None) -> None:
    """Refuse to compute what another version of the module asks for, as on a cluster that was not brought up to date.

    Raises:
        RuntimeError: names both.
    """
    here = {"code": code_hash(), "weights": assets.weights_hash()}
    for name, wanted in {"code": code, "weights": weights}.items():
        if wanted not in (None, here[name]):
            raise RuntimeError(f"the {name} of debias_utils: {here[name]} on this worker, {wanted} where it was asked for")
