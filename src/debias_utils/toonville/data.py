"""Pictures by the thousand: rendered once on every core, then read from a cache; and datasets for torch."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import assets
from . import captions as _captions
from . import render as _render
from .people import check_count

if TYPE_CHECKING:
    import torch

_CHUNK = 250  # pictures per task


def pictures(people: pd.DataFrame, *, size: int = _render.SIZE, jobs: int | None = None, progress: bool = True) -> np.ndarray:
    """Render people, or read them from the cache when these very people were drawn before.

    Args:
        people: a table as `people.sample` or `people.balanced` returns it.
        size: side in pixels.
        jobs: processes; default one per core that this process may use.
        progress: show a progress bar while rendering.

    Returns:
        (n, size, size, 3) uint8 RGB, read-only, mapped from the cache file: memory is used as pages are touched.

    Raises:
        OSError: the cache folder cannot be written; names the folder and the variable that moves it.
        ValueError: size or jobs is no whole number of at least 1.
    """
    check_count("size", size)
    check_count("jobs", 1 if jobs is None else jobs)
    path = assets.cache_dir() / "toonville" / f"{key(people, size=size)}.npy"
    return assets.cached_array(
        path, lambda: _render_all(people, size, jobs, progress), shape=(len(people), size, size, 3), dtype=np.uint8
    )


def _render_all(people: pd.DataFrame, size: int, jobs: int | None, progress: bool) -> np.ndarray:
    from joblib import Parallel, cpu_count, delayed
    from tqdm import tqdm

    jobs = jobs or cpu_count()
    chunks = [people.iloc[start : start + _CHUNK] for start in range(0, len(people), _CHUNK)]
    work = Parallel(n_jobs=min(jobs, max(len(chunks), 1)), return_as="generator")(
        delayed(_render.render)(chunk, size=size) for chunk in chunks
    )
    bar = tqdm(total=len(people), desc="drawing Toonville", unit="people", disable=not progress)
    out = np.zeros((len(people), size, size, 3), np.uint8)
    with bar:
        for i, drawn in enumerate(work):
            out[i * _CHUNK : i * _CHUNK + len(drawn)] = drawn
            bar.update(len(drawn))
    return out


def key(people: pd.DataFrame, *, size: int = _render.SIZE) -> str:
    """A hash of everything that decides the pixels: the people, the drawing code, the props, the libraries."""
    digest = hashlib.sha256(people.to_csv(index=False).encode())
    folder = files(__package__)
    sources = [folder / "render.py", folder / "occupations.py", *sorted((folder / "props").iterdir(), key=lambda f: f.name)]
    for source in sources:
        if source.is_file():
            digest.update(source.read_bytes())
    versions = [f"{name} {version(name)}" for name in ("dicebear-core", "dicebear-styles", "resvg-py")]
    digest.update(f"{size} {versions}".encode())
    return digest.hexdigest()[:32]


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in [0, 1], what every model of this package takes.

    Raises:
        ValueError: the array is not uint8 RGB pictures.
    """
    import torch

    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"need (n, h, w, 3) uint8 pictures, got {images.shape} {images.dtype}")
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2))).float().div_(255)


class CaptionedPeople:
    """A map-style torch dataset of (picture (3, h, w) float32 in [0, 1], caption).

    Each person has a new caption in every epoch: call `set_epoch`.
    """

    def __init__(self, people: pd.DataFrame, *, seed: int = 0, progress: bool = True):
        self.people, self.seed = people, seed
        self.images = pictures(people, progress=progress)
        self._epoch = -1
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Write the captions anew, by seed and epoch; nothing to do within an epoch."""
        if epoch == self._epoch:
            return
        self._epoch = epoch
        self.captions = _captions.caption(self.people, seed=self.seed + 1000 * epoch)

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        return to_tensor(self.images[index][None])[0], self.captions[index]

    def batch(self, indices: Any) -> tuple[torch.Tensor, list[str]]:
        """Many at once, faster than one by one: ((b, 3, h, w) float32 in [0, 1], b captions).

        indices: (b,) positions, or a mask (n,) of bools.
        """
        indices = np.arange(len(self))[np.asarray(indices)]
        return to_tensor(self.images[indices]), [self.captions[i] for i in indices]
