"""Discover, measure and remove bias in CLIP: the module behind the book. Heavy libraries load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .profiles import Profile

__version__ = "0.1.0"
__all__ = ["load_profile"]
SUBMODULES = (
    "assets", "bench", "checkpoints", "debias", "debiasers", "discover", "edit", "errors", "evaluate", "metrics", "models",
    "profiles", "public", "show", "toonville",
)  # fmt: skip


def load_profile(name: str = "mini", *, device: str = "auto", seed: int = 0) -> Profile:
    """The parts for one size of the book; see `debias_utils.profiles.load_profile`."""
    from . import profiles

    return profiles.load_profile(name, device=device, seed=seed)


def __getattr__(name: str) -> Any:
    """Import submodules on first use: `debias_utils.metrics` works after a plain `import debias_utils`."""
    import importlib

    if name in SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
