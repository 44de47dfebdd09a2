"""CLIP behind one small door: the mini CLIPs of Toonville and open_clip's public CLIP checkpoints alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from .. import assets
from ..errors import check_choice, check_positive

TOKENIZER = "toonville-bpe.txt.gz"  # shared by the packaged models
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "portrait of a {}", "{}")


class Clip(nn.Module):
    """An open_clip model that takes pictures in [0, 1] and texts, and returns unit-length embeddings.

    `encode_image` is differentiable. Parameters are frozen: gradients flow to the pictures, not into the model.

    Attributes:
        model: the open_clip model, in eval mode. name: what it was loaded as. image_size: side that the tower takes.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)  # open_clip has several model classes
        self.tokenizer = tokenizer
        self.name = name
        size = model.visual.image_size
        self.image_size = size if isinstance(size, int) else size[0]
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, name: str, *, pretrained: str | None = None, device: str | torch.device = "cpu") -> Clip:
        """Load a packaged mini CLIP by its name, or a public checkpoint of open_clip.

        Args:
            name: a packaged model ("toonville-rn-rho0.9-seed0"), or an open_clip architecture ("RN50", "ViT-B-32").
            pretrained: for an open_clip architecture: a tag ("openai", "laion2b_s34b_b79k") or a path to weights.
            device: where to put it.

        Raises:
            ValueError: unknown name or tag (lists the choices); a packaged file was altered.
        """
        import open_clip

        if pretrained is None:
            folder = assets.packaged_model(name)
            tokenizer_file = assets.verify(assets.WEIGHTS / TOKENIZER, assets.manifest()[TOKENIZER])
            source, tokenizer_options = f"local-dir:{folder}", {"bpe_path": str(tokenizer_file)}
            model, _, _ = open_clip.create_model_and_transforms(source, precision="fp32")
        else:
            check_choice("open_clip architecture", name, open_clip.list_models())
            tags = open_clip.list_pretrained_tags_by_model(name)
            if pretrained not in tags and not (pretrained.endswith((".pt", ".bin", ".safetensors"))):
                check_choice(f"pretrained tag of {name}", pretrained, tags)
            source, tokenizer_options = name, {}
            quick = bool((open_clip.get_pretrained_cfg(name, pretrained) or {}).get("quick_gelu", False))
            model, _, _ = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, precision="fp32", force_quick_gelu=quick
            )
        tokenizer = open_clip.get_tokenizer(source, **tokenizer_options)
        preprocess = open_clip.get_model_preprocess_cfg(model)
        check_choice(f"interpolation of {name}", preprocess.get("interpolation", "bicubic"), ["bicubic"])
        check_choice(f"resize mode of {name}", preprocess.get("resize_mode", "shortest"), ["shortest"])
        return cls(model, tokenizer, name=name, mean=preprocess["mean"], std=preprocess["std"]).to(device)

    @cached_property
    def embed_dim(self) -> int:
        """Length d of the embeddings."""
        return self.encode_text(["a photo"]).shape[-1]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over all parameters and the preprocessing: what a number was computed with."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
        digest.update(f"{self.image_size} {self.mean.flatten().tolist()} {self.std.flatten().tolist()}".encode())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.mean.device

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Resize the short side (bicubic, antialiased), crop the centre, normalise: (n, 3, h, w) in [0, 1] -> (n, 3, s, s)."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = resize(images, [self.image_size], interpolation=InterpolationMode.BICUBIC, antialias=True)
            images = center_crop(images, [self.image_size])
        return (images - self.mean) / self.std

    def encode_image(self, images: torch.Tensor, *, batch_size: int = 256) -> torch.Tensor:
        """Embed pictures; differentiable.

        Args:
            images: (n, 3, h, w) float, RGB in [0, 1], any size.
            batch_size: pictures at a time; bounds the memory when no gradient is asked for.

        Returns:
            (n, d) float32, each of length 1.

        Raises:
            ValueError: wrong shape or dtype, values outside [0, 1] (by more than 0.1), or NaN.
        """
        check_positive("batch_size", batch_size)
        check_pictures(images)
        batches = images.to(self.device).split(batch_size)
        # norms in float32: half precision underflows
        return torch.cat([F.normalize(self.model.encode_image(self.preprocess(b)).float(), dim=-1) for b in batches])

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> torch.Tensor:
        """Embed texts as they are: n strings -> (n, d) float32, each of length 1."""
        texts = check_texts(texts)
        tokens = self.tokenizer(texts).to(self.device)
        return torch.cat([F.normalize(self.model.encode_text(t).float(), dim=-1) for t in tokens.split(batch_size)])

    def encode_prompts(self, words: Sequence[str], *, templates: Sequence[str] = TEMPLATES) -> torch.Tensor:
        """Embed each word as the mean over prompt templates (Radford et al. 2021): n words -> (n, d), each of length 1.

        Args:
            words: such as "plumber". templates: with one {} each.
        """
        each = self.encode_text(fill_templates(words, templates)).view(len(words), len(templates), -1)
        return F.normalize(each.mean(dim=1), dim=-1)


def check_pictures(images: torch.Tensor, *, name: str = "pictures") -> None:
    """Raise ``ValueError`` unless `images` are (n, 3, h, w) float, in [0, 1] but for an overshoot of 0.1, without NaN."""
    if not isinstance(images, torch.Tensor):
        raise ValueError(f"need {name} as a float tensor (n, 3, h, w) in [0, 1], got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"need float {name} (n, 3, h, w) in [0, 1], got {tuple(images.shape)} {images.dtype}")
    low, high = (float(v) for v in torch.aminmax(images.detach())) if images.numel() else (0.0, 1.0)
    if not (low >= -0.1 and high <= 1.1):  # an editor may overshoot a little; 0..255 or [-1, 1] or NaN is a mistake
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:.3g} to {high:.3g}")


def fill_templates(words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The first word in every template, the second word in every template, ...

    Raises:
        ValueError: no list of texts, or a template without {}.
    """
    words, templates = check_texts(words), check_texts(templates)
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"template {template!r} has no {{}} to put the word in")
    return [template.format(word) for word in words for template in templates]


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list; ``ValueError`` unless it is a list of at least one text."""
    if isinstance(texts, str):
        raise ValueError(f"need a list of texts, got the single text {texts!r}; write [{texts!r}]")
    texts = list(texts)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"need at least one text, and only texts, got {texts[:3]!r}")
    return texts
