"""CLIP behind one small door: the mini CLIPs of Toonville and open_clip's public CLIP checkpoints alike."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from .. import assets
from ..errors import check_choice, check_whole
from .loading import packaged, public_model, read_config
from .pictures import check_pictures

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
        if not isinstance(size, int) and size[0] != size[1]:
            raise ValueError(f"the image tower of {name} takes {size[0]} x {size[1]} pictures; only square ones are cut here")
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        pretrained: str | Path | None = None,
        quick_gelu: bool | None = None,
        device: str | torch.device = "cpu",
    ) -> Clip:
        """Load a packaged mini CLIP by its name, or a public checkpoint of open_clip.

        Args:
            name: a packaged model ("toonville-rn-rho0.9-seed0"), or an open_clip architecture ("RN50", "ViT-B-32").
            pretrained: for an open_clip architecture: a tag ("openai", "laion2b_s34b_b79k"), or a file of weights (.pt, .pth,
                .bin, .safetensors), which is read without running code. Pictures are normalised as the tag says; for a file as
                all tags of the architecture say, and as OpenAI's where they differ.
            quick_gelu: the activation that a file's weights were trained with: True for OpenAI's, MetaCLIP's and DFN's, False for
                most of LAION's and DataComp's. None where it is known: from the tag, OpenAI's own files, an architecture named
                "...-quickgelu", or one of which no public weights use it.
            device: where to put it.

        Raises:
            ValueError: unknown name or tag, or a packaged model of another kind (lists the choices); a packaged file was altered,
                or asks for code from elsewhere; a file that cannot be read, does not fit, or whose activation is not known.
            FileNotFoundError: no such file of weights.
        """
        import open_clip

        if pretrained is None:
            if name in open_clip.list_models():
                tags = ", ".join(map(repr, open_clip.list_pretrained_tags_by_model(name)))
                raise ValueError(
                    f"{name!r} is an architecture of open_clip: pretrained= must be {tags or 'given: open_clip has no tag'}"
                    f"{', or' if tags else '; give'} a file of weights"
                )
            folder = packaged("CLIP", name)
            trained = bool(read_config(folder).get("quick_gelu", False))
            tokenizer_file = assets.verify(assets.WEIGHTS / TOKENIZER, assets.manifest()[TOKENIZER])
            source, tokenizer_options = f"local-dir:{folder}", {"bpe_path": str(tokenizer_file)}
            model = open_clip.create_model(source, precision="fp32", require_pretrained=True)
        else:
            check_choice("open_clip architecture", name, open_clip.list_models())
            source, tokenizer_options = name, {}
            model, trained = public_model(name, pretrained, quick_gelu=quick_gelu)
        if quick_gelu is not None and quick_gelu != trained:
            raise ValueError(
                f"quick_gelu={quick_gelu} contradicts {name}{f' {str(pretrained)!r}' if pretrained else ''}: {trained}"
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

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the image tower takes pictures, that of its first convolution."""
        first = next((m.weight for m in self.model.visual.modules() if isinstance(m, nn.Conv2d)), self.mean)
        return first.dtype

    def placement(self, height: int, width: int) -> tuple[int, int, int, int]:
        """What `preprocess` does to pictures of a size: (height, width) after resizing, then (top, left) of the crop in them."""
        short, side = min(height, width), self.image_size
        h, w = (side if length == short else int(side * length / short) for length in (height, width))
        return h, w, round((h - side) / 2), round((w - side) / 2)  # as torchvision's center_crop rounds

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Resize the short side (bicubic, antialiased), crop the centre, normalise: (n, 3, h, w) in [0, 1] -> (n, 3, s, s)."""
        h, w, top, left = self.placement(*images.shape[-2:])
        if images.shape[-2:] != (h, w):
            images = resize(images, [h, w], interpolation=InterpolationMode.BICUBIC, antialias=True)
        images = images[..., top : top + self.image_size, left : left + self.image_size]
        return (images - self.mean) / self.std

    def encode_image(self, images: torch.Tensor, *, batch_size: int = 256) -> torch.Tensor:
        """Embed pictures; differentiable.

        Args:
            images: (n, 3, h, w) float of any precision, RGB in [0, 1], any size.
            batch_size: pictures at a time; bounds the memory when no gradient is asked for.

        Returns:
            (n, d) float32, each of length 1.

        Raises:
            ValueError: wrong shape or dtype, values outside [0, 1] (by more than 0.1), or NaN.
        """
        check_whole("batch_size", batch_size)
        check_pictures(images)
        if not len(images):
            return images.new_zeros((0, self.embed_dim), dtype=torch.float32, device=self.device)
        dtype = self.dtype
        batches = images.to(torch.promote_types(dtype, torch.float32)).to(self.device).split(int(batch_size))
        each = [self.model.encode_image(self.preprocess(b).to(dtype)) for b in batches]
        return torch.cat([F.normalize(e.float(), dim=-1) for e in each])  # norms in float32: half precision underflows

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """N texts -> (n, context length) token ids.

        Raises:
            ValueError: a text is too long; names what would be cut. open_clip cuts it in silence.
        """
        texts = check_texts(texts)
        tokens = self.tokenizer(texts)
        length = tokens.shape[1]

        def cut(texts: list[str]) -> list[bool]:  # then its end, here the last token, comes later where there is room
            one, more = (self.tokenizer(texts, context_length=n) for n in (length, length + 1))
            return (one != more[:, :length]).any(dim=1).tolist()

        for text in (text for text, is_cut in zip(texts, cut(texts), strict=True) if is_cut):
            words = text.split()
            keep = bisect_left(range(1, len(words) + 1), True, key=lambda n: cut([" ".join(words[:n])])[0])
            gone = " ".join(words[keep:])
            raise ValueError(f"{text[:40]!r}... is longer than the {length} tokens that fit {self.name}; {gone!r} would be cut")
        return tokens

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> torch.Tensor:
        """Embed texts as they are: n strings -> (n, d) float32, each of length 1.

        Raises:
            ValueError: no list of texts, or a text that does not fit; see `tokenize`.
        """
        check_whole("batch_size", batch_size)
        batches = self.tokenize(texts).to(self.device).split(int(batch_size))
        return torch.cat([F.normalize(self.model.encode_text(t).float(), dim=-1) for t in batches])

    def encode_prompts(self, words: Sequence[str], *, templates: Sequence[str] = TEMPLATES) -> torch.Tensor:
        """Embed each word as the mean over prompt templates (Radford et al. 2021): n words -> (n, d), each of length 1.

        Args:
            words: such as "plumber". templates: with one {} each.

        Raises:
            ValueError: as in `fill_templates` and `encode_text`.
        """
        words, templates = check_texts(words), check_texts(templates)
        each = self.encode_text(fill_templates(words, templates)).view(len(words), len(templates), -1)
        return F.normalize(each.mean(dim=1), dim=-1)


def fill_templates(words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The first word in every template, the second word in every template, ...

    Raises:
        ValueError: no list of texts, or a template without {}, or with more in it.
    """
    words, templates = check_texts(words), check_texts(templates)
    for template in templates:
        try:
            fields = [tuple(field) for _, *field in Formatter().parse(template) if field[0] is not None]
        except ValueError as error:  # a single brace
            raise ValueError(f"template {template!r} cannot be filled: {error}") from error
        if not fields:
            raise ValueError(f"template {template!r} has no {{}} to put the word in")
        if fields != [("", "", None)]:  # name, format and conversion: {:.2} would cut the word
            raise ValueError(f"template {template!r} must have one {{}}, and nothing else in braces")
    return [template.format(word) for word in words for template in templates]


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list; ``ValueError`` unless it is a list of at least one text."""
    if isinstance(texts, str):
        raise ValueError(f"need a list of texts, got the single text {texts!r}; write [{texts!r}]")
    if not isinstance(texts, Iterable):
        raise ValueError(f"need a list of texts, got {texts!r}")
    texts = list(texts)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"need at least one text, and only texts, got {texts[:3]!r}")
    return texts
