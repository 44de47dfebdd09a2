"""A profile is a set of parts with the same interfaces: chapters name a profile and never ask which one they got."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from . import assets
from .errors import check_choice
from .toonville.people import EVALUATION_SEED, PER_CELL
from .toonville.train_clip import RHOS, SEEDS, model_name

if TYPE_CHECKING:
    import pandas as pd

    from .models.clip import Clip


@dataclass(frozen=True)
class Profile:
    """The parts that a chapter uses.

    Attributes:
        name: the profile's name. device: a torch device. seed: for everything random in a chapter.
        per_cell: people for each occupation x gender x skin tone in the evaluation pictures.
        rhos: the dial's settings for which there are CLIPs. training_seeds: independent trainings for each setting.
        clip_name: (tower, rho, training seed) -> the name of a CLIP.
    """

    name: str
    device: str
    seed: int
    per_cell: int
    rhos: tuple[float, ...]
    training_seeds: tuple[int, ...]
    towers: tuple[str, ...]
    clip_name: Callable[[str, float, int], str]

    def clip(self, rho: float = 0.9, *, training_seed: int = 0, tower: str = "rn") -> Clip:
        """The CLIP that was trained on captions with this dial, training seed and image tower ("rn" or "vit")."""
        check_choice("rho", rho, self.rhos)
        check_choice("training seed", training_seed, self.training_seeds)
        check_choice("tower", tower, self.towers)
        return _load_clip(self.clip_name(tower, rho, training_seed), self.device)

    def image_embeddings(
        self, people: pd.DataFrame, *, rho: float = 0.9, training_seed: int = 0, tower: str = "rn", batch_size: int = 256
    ) -> np.ndarray:
        """Embeddings of the people's pictures, (n, d) float32 of length 1; computed once, then read from the cache."""
        from .toonville import data

        clip = self.clip(rho, training_seed=training_seed, tower=tower)
        key = hashlib.sha256(f"{clip.checksum} {data.key(people)}".encode()).hexdigest()[:32]
        path = assets.cache_dir() / "embeddings" / f"{key}.npy"

        def embed() -> np.ndarray:
            images = self.pictures(people)
            starts = tqdm(range(0, len(people), batch_size), desc=f"embedding with {clip.name}", unit="batch", leave=False)
            with torch.no_grad():
                batches = [clip.encode_image(data.to_tensor(images[i : i + batch_size])).cpu().numpy() for i in starts]
            return np.concatenate(batches)

        return np.asarray(assets.cached_array(path, embed, shape=(len(people), clip.embed_dim), dtype=np.float32))

    def job_scores(self, people: pd.DataFrame, *, rho: float = 0.9, training_seed: int = 0, tower: str = "rn") -> np.ndarray:
        """CLIP scores of the people's pictures for the occupations, in the order of `toonville.OCCUPATIONS`.

        Returns:
            (n, 14) cosines with the mean text of several prompt templates (`Clip.encode_prompts`).
        """
        from .toonville import OCCUPATIONS

        images = self.image_embeddings(people, rho=rho, training_seed=training_seed, tower=tower)  # (n, d)
        with torch.no_grad():
            texts = self.clip(rho, training_seed=training_seed, tower=tower).encode_prompts(list(OCCUPATIONS))  # (14, d)
        return images @ texts.cpu().numpy().T

    def people(self) -> pd.DataFrame:
        """The evaluation people: every occupation x gender x skin tone equally often, with known stereotype fit."""
        from .toonville import people

        return people.add_stereotype(people.balanced(self.per_cell, seed=self.seed + EVALUATION_SEED))

    def pictures(self, people: pd.DataFrame) -> Any:
        """(n, h, w, 3) uint8 pictures of people, from the cache when they were drawn before."""
        from .toonville import data

        return data.pictures(people)


@lru_cache(maxsize=16)
def _load_clip(name: str, device: str) -> Clip:
    from .models.clip import Clip

    return Clip.load(name, device=device)


PROFILES: dict[str, dict[str, Any]] = {
    "mini": {
        "per_cell": PER_CELL,
        "rhos": RHOS,
        "training_seeds": SEEDS,
        "towers": ("rn", "vit"),
        "clip_name": model_name,
    },
}


def load_profile(name: str = "mini", *, device: str = "auto", seed: int = 0) -> Profile:
    """The parts for one size of the book.

    Args:
        name: a key of `PROFILES`. device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        seed: decides the evaluation people and everything random in a chapter.

    Raises:
        ValueError: unknown profile or device; names the choices.
    """
    check_choice("profile", name, PROFILES)
    return Profile(name=name, device=_device(device), seed=int(seed), **PROFILES[name])


def _device(device: str) -> str:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    here = ["cpu", *(["cuda", *gpus] if gpus else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    check_choice("device", device, ["auto", *here])
    return device if device != "auto" else "cuda" if gpus else here[-1]
