"""A profile is a set of parts with the same interfaces: chapters name a profile and never ask which one they got."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from . import assets
from .debias.words import AGE_SETS, GENDER_SETS, RACE_SETS, Sets
from .errors import check_choice, check_whole
from .toonville.elements import channels_of_elements, element_names
from .toonville.instructions import instruction
from .toonville.people import EVALUATION_SEED, PER_CELL
from .toonville.train_clip import RHOS, SEEDS, model_name
from .toonville.train_pix2pix import RHOS as EDITOR_RHOS
from .toonville.train_pix2pix import editor_name

if TYPE_CHECKING:
    import pandas as pd

    from .debias.losses import Perceptual
    from .models.attributes import AttributeClassifier
    from .models.clip import Clip
    from .models.identity import IdentityEmbedder
    from .models.inverter import Inverter
    from .models.pix2pix import Pix2Pix
    from .models.stylegan2 import Generator


@dataclass(frozen=True)
class Profile:
    """The parts that a chapter uses.

    Attributes:
        name: the profile's name. device: a torch device. seed: for everything random in a chapter.
        per_cell: people for each occupation x gender x skin tone in the evaluation pictures.
        rhos: the dial's settings for which there are CLIPs. training_seeds: independent trainings for each setting.
        clip_name: (tower, rho, training seed) -> the name of a CLIP.
        editor_name: rho -> the name of an InstructPix2Pix; editor_rhos: the dial's settings for which there are some.
        instruction: occupation -> the text that asks for it.
        loaders: {part: device -> the part}, of the parts that are loaded on first use.
        sample_z: (n, seed) -> latents of the generator whose pictures are people of its world.
        definitional_sets: {attribute: its sets of words}, see `debias.words`.
        known_channels: {style channel: what it draws}, of those for which that is known.
    """

    name: str
    device: str
    seed: int
    per_cell: int
    rhos: tuple[float, ...]
    training_seeds: tuple[int, ...]
    towers: tuple[str, ...]
    clip_name: Callable[[str, float, int], str]
    editor_name: Callable[[float], str]
    editor_rhos: tuple[float, ...]
    instruction: Callable[[str], str]
    loaders: Mapping[str, Callable[[str], Any]]
    sample_z: Callable[[int, int], torch.Tensor]
    definitional_sets: Mapping[str, Sets]
    known_channels: Mapping[int, str]

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

    @property
    def generator(self) -> Generator:
        """The StyleGAN2 whose styles are edited, frozen."""
        return _load(self.loaders["generator"], self.device)

    def editor(self, rho: float = 0.9) -> Pix2Pix:
        """The InstructPix2Pix that was trained on pairs of people, and reads texts, of this dial; frozen."""
        check_choice("rho", rho, self.editor_rhos)
        return _load_editor(self.editor_name(rho), self.device)

    @property
    def attributes(self) -> AttributeClassifier:
        """The judge of edits. Nothing is ever optimised against it."""
        return _load(self.loaders["attributes"], self.device)

    @property
    def identity(self) -> IdentityEmbedder:
        """Who is in the picture; a loss of gradient-based debiasing, and so no independent judge of it."""
        return _load(self.loaders["identity"], self.device)

    @property
    def perceptual(self) -> Perceptual:
        """How far pictures look apart; a loss of gradient-based debiasing, and so no independent judge of it."""
        return _load(self.loaders["perceptual"], self.device)

    @torch.no_grad()
    def sample_styles(self, n: int, *, seed: int = 0) -> torch.Tensor:
        """Flat styles of n random people, (n, S)."""
        z = self.sample_z(n, seed).to(self.device)
        return torch.cat(self.generator.styles(self.generator.mapping(z)), dim=1)

    def channel_names(self) -> list[str]:
        """What to call each of the S style channels: what it draws where that is known, else its layer and number.

        Channels of one name draw the same thing together.
        """
        layers = zip(self.generator.layer_names, self.generator.style_sizes, strict=True)
        names = [f"{layer} {i}" for layer, size in layers for i in range(size)]
        return [self.known_channels.get(i, name) for i, name in enumerate(names)]

    @torch.no_grad()
    def invert(self, images: torch.Tensor) -> torch.Tensor:
        """Flat styles (n, S) with which the generator draws pictures (n, 3, h, w) in [0, 1] again, as well as it can."""
        ws = _load(self.loaders["encoder"], self.device)(images)
        return torch.cat(self.generator.styles(ws), dim=1)

    def synthesize(self, styles: torch.Tensor) -> torch.Tensor:
        """Flat styles (n, S) -> pictures (n, 3, h, w), nominally in [0, 1]. Differentiable; all at once."""
        return (self.generator.synthesis(self.generator.split(styles)) + 1) / 2

    @torch.no_grad()
    def draw(self, styles: torch.Tensor, *, batch_size: int = 64) -> torch.Tensor:
        """Flat styles (..., S) -> pictures (..., 3, h, w) in [0, 1], a batch at a time."""
        flat = styles.flatten(0, -2)
        pictures = torch.cat([self.synthesize(part).clamp(0, 1) for part in flat.split(batch_size)])
        return pictures.unflatten(0, styles.shape[:-1])

    def people(self) -> pd.DataFrame:
        """The evaluation people: every occupation x gender x skin tone equally often, with known stereotype fit."""
        from .toonville import people

        return people.add_stereotype(people.balanced(self.per_cell, seed=self.seed + EVALUATION_SEED))

    def sitters(self, n: int = 40, *, seed: int = 0) -> pd.DataFrame:
        """Those who are edited: n people in everyday clothes, spread evenly over presentations and skin tones.

        seed: 0 to 999; every seed, here and of the profile, gives other people.
        """
        from .toonville import people
        from .toonville.render import everyday

        table = people.balanced(-(-n // 8), seed=EVALUATION_SEED + 100 + 1000 * self.seed + seed)
        one = table[table["occupation"] == table["occupation"].iloc[0]]  # in random order
        return people.add_stereotype(everyday(one.head(n).reset_index(drop=True)))

    def dressed(self, people: pd.DataFrame, occupation: str, *, seed: int = 0) -> torch.Tensor:
        """(n, 3, h, w) pictures of the same people in an occupation's clothes: what no editor could do better."""
        from .toonville import people as _people

        return self.portraits(_people.dress(people, occupation, borrowed=0.0, seed=seed))

    def portraits(self, people: pd.DataFrame) -> torch.Tensor:
        """(n, 3, h, w) pictures in [0, 1] of people."""
        from .toonville import data

        return data.to_tensor(self.pictures(people)).to(self.device)

    def pictures(self, people: pd.DataFrame) -> Any:
        """(n, h, w, 3) uint8 pictures of people, from the cache when they were drawn before."""
        from .toonville import data

        return data.pictures(people)


@lru_cache(maxsize=16)
def _load_clip(name: str, device: str) -> Clip:
    from .models.clip import Clip

    return Clip.load(name, device=device)


@lru_cache(maxsize=4)
def _load_editor(name: str, device: str) -> Pix2Pix:
    from .models.pix2pix import Pix2Pix

    return Pix2Pix.load(assets.packaged_model(name), device=device)


@lru_cache(maxsize=16)
def _load(loader: Callable[[str], Any], device: str) -> Any:
    return loader(device)


def _generator(device: str) -> Generator:
    from safetensors.torch import load_file

    from .models.stylegan2 import Generator

    state = load_file(assets.packaged_model("toonville-generator") / "model.safetensors")
    return Generator.from_state_dict(state).to(device).requires_grad_(False)


def _attributes(device: str) -> AttributeClassifier:
    from .models.attributes import AttributeClassifier

    return AttributeClassifier.load(device=device)


def _identity(device: str) -> IdentityEmbedder:
    from .models.identity import IdentityEmbedder

    return IdentityEmbedder.load(device=device)


def _inverter(device: str) -> Inverter:
    from .models.inverter import Inverter

    return Inverter.load(device=device)


def _perceptual(device: str) -> Perceptual:
    from .debias.losses import Perceptual

    return Perceptual(_load(_inverter, device).network.features)


def _encoder(device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    generator, inverter = _load(_generator, device), _load(_inverter, device)
    return lambda images: generator.mapping(inverter(images))


def _toonville_z(n: int, seed: int) -> torch.Tensor:
    from .models.inverter import elements_to_z
    from .toonville import people
    from .toonville.elements import to_elements

    return elements_to_z(torch.from_numpy(to_elements(people.sample(n, everyday=0.3, seed=seed))))


PROFILES: dict[str, dict[str, Any]] = {
    "mini": {
        "per_cell": PER_CELL,
        "rhos": RHOS,
        "training_seeds": SEEDS,
        "towers": ("rn", "vit"),
        "clip_name": model_name,
        "editor_name": editor_name,
        "editor_rhos": EDITOR_RHOS,
        "instruction": instruction,
        "loaders": {
            "generator": _generator,
            "encoder": _encoder,
            "attributes": _attributes,
            "identity": _identity,
            "perceptual": _perceptual,
        },
        "sample_z": _toonville_z,
        "definitional_sets": {
            "gender": GENDER_SETS["toonville"],
            "skin": RACE_SETS["toonville"],
            "age": AGE_SETS["toonville"],
        },
        "known_channels": dict(enumerate(np.repeat(element_names(), channels_of_elements()).tolist())),  # b4.conv1 comes first
    },
}


def load_profile(name: str = "mini", *, device: str = "auto", seed: int = 0) -> Profile:
    """The parts for one size of the book.

    Args:
        name: a key of `PROFILES`. device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        seed: decides the evaluation people and everything random in a chapter.

    Raises:
        ValueError: unknown profile or device (names the choices); a seed that is no whole number from 0.
    """
    check_choice("profile", name, PROFILES)
    return Profile(name=name, device=_device(device), seed=check_whole("seed", seed, at_least=0), **PROFILES[name])


def _device(device: str) -> str:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    here = ["cpu", *(["cuda", *gpus] if gpus else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    check_choice("device", device, ["auto", *here])
    return device if device != "auto" else "cuda" if gpus else here[-1]
