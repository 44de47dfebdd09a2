"""What decides the rows of an evaluation and is not said in its cells: code, weights, pictures, profile."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, assets

if TYPE_CHECKING:
    from ..profiles import Profile

LIBRARIES = ("dicebear-core", "dicebear-styles", "diffusers", "numpy", "open_clip_torch", "resvg-py", "torch", "transformers")
# Code that computes no row, which a test proves: none of it is loaded where a cell is computed. What is not listed here counts.
NO_ROW = (
    "bench/", "checkpoints/", "debiasers/", "discover/", "public.py", "show/",
    "weights/", "results/",  # weights have a hash of their own
    "debias/lpips.py", *(f"models/{name}.py" for name in ("age_gender", "arcface", "dlib_faces", "fairface", "onnx_nets")),
    *(f"toonville/{name}.py" for name in ("card", "card_editors", "card_judges", "train", "train_judges", "training")),
    *(
        f"evaluate/{name}.py"
        for name in (
            "__main__", "agreement", "compare", "engine", "estimates", "full_size", "grid", "instruments", "leakage", "on_ray",
            "plan", "prove", "release", "table", "tradeoff",
        )
    ),
)  # fmt: skip


@cache
def code_hash(package: Path = Path(__file__).parents[1]) -> str:
    """A hash, 16 hex digits, of all code and drawings that decide rows; files of editors and of the system do not count."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.is_file() and not assets.is_scratch(name) and not name.as_posix().startswith(NO_ROW):
            digest.update(name.as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def machine(device: str) -> str:
    """What to call the device: a card's name, or the processor's and how many cores."""
    import torch
    from joblib import cpu_count

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return device
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def libraries() -> dict[str, str]:
    """The versions of what computes and draws."""
    return {name: version(name) for name in LIBRARIES}


def description(parts: Profile, **size: int) -> dict[str, Any]:
    """What decides all rows of a folder: kept beside them, and compared before any of them is read.

    Libraries and device are not part of it: they move a row by its last digits, and stand in each row.
    """
    return {
        "profile": parts.name, "seed": parts.seed, **size, "version": __version__, "weights": assets.weights_hash(),
        "code": code_hash(),
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
