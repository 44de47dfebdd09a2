"""The parts of InstructPix2Pix (Brooks et al. 2023, arXiv:2211.09800) behind one small door: a mini editor's and public ones.

    ids --text_encoder--> condition c_T          pictures --VAE--> image latents c_I
    (noisy latent, image latents, c_T) --UNet--> noise          latent --VAE--> pictures

diffusers does the diffusion. What these parts hold to, as diffusers' `StableDiffusionInstructPix2PixPipeline` does: the
condition is the text encoder's last hidden state behind its final LayerNorm; image latents are the mode of the VAE's posterior
and not scaled; only what goes to the decoder is divided by the VAE's scaling factor.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import assets
from ..errors import check_whole
from ..tensors import at_least_float32
from .clip import TEMPLATES, check_texts, fill_templates
from .loading import check_loaded, packaged_names, weight_files
from .pictures import check_pictures, to_match

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class Pix2Pix(nn.Module):
    """UNet, VAE, text encoder, tokenizer and scheduler of an InstructPix2Pix pipeline, frozen and in eval mode.

    `predict_noise` and `decode` are differentiable: gradients flow to the condition and the latents, not into the model.
    What comes out is float32 (float64 of a float64 model), whatever the precision inside.

    Attributes:
        unet, vae, text_encoder, tokenizer, scheduler: diffusers' and transformers' objects. name: what they were loaded as.
        factor: pixels of a picture for one of the latent, each way. width: d, the length of a token's state.
    """

    def __init__(self, *, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any, name: str = "these parts"):
        super().__init__()
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.scheduler, self.name = tokenizer, scheduler, name
        channels, latent = unet.config.in_channels, vae.config.latent_channels
        if channels != 2 * latent:
            raise ValueError(
                f"the UNet of {name} has {channels} input channels; one of InstructPix2Pix has {2 * latent}: {latent} for the "
                f"noisy latent and {latent} for the image latents" + (", which are missing here" if channels == latent else "")
            )
        self.width = text_encoder.config.hidden_size
        if unet.config.cross_attention_dim != self.width:
            read = unet.config.cross_attention_dim
            raise ValueError(f"the UNet of {name} reads tokens of length {read}, but its text encoder writes {self.width}")
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.eval().requires_grad_(False)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        variant: str | None = None,
    ) -> Pix2Pix:
        """Load a folder that diffusers saved, or a public checkpoint of the hub; safetensors only, never a pickle.

        Args:
            source: a packaged editor ("toonville-pix2pix-rho0.9"), a folder, read without the network, or a hub name such as
                "timbrooks/instruct-pix2pix".
            device: where to put it.
            dtype: of all parts, read in it from the start; None takes float16 on a GPU and float32 elsewhere.
            variant: which of several sets of weights: "fp16" is half as large; None takes the whole ones, or "fp16" from a folder
                that has no others.

        Raises:
            ValueError: no such folder, parts that are missing from it, a UNet that takes no image latents, or weights that the
                installed libraries did not read as they were saved (they fill in random ones and only log it).
            OSError: a hub name that cannot be reached or has no safetensors.
        """
        editors = packaged_names("InstructPix2Pix editor")
        folder, is_hub = Path(source), re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))
        if str(source) in editors:
            folder = assets.packaged_model(str(source))
        elif not folder.is_dir() and not is_hub:
            raise ValueError(
                f"{str(source)!r} is neither a folder nor a hub name such as 'timbrooks/instruct-pix2pix', nor a packaged "
                f"editor: {', '.join(map(repr, editors))}"
            )
        from diffusers import StableDiffusionInstructPix2PixPipeline

        if dtype is None:
            dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
        if (
            variant is None
            and folder.is_dir()
            and not weight_files(folder / "unet", None)
            and weight_files(folder / "unet", "fp16")
        ):
            variant = "fp16"
        options: dict[str, Any] = {"use_safetensors": True, "safety_checker": None, "requires_safety_checker": False}
        options |= {"variant": variant} if variant else {}
        if not folder.is_dir():
            folder = Path(StableDiffusionInstructPix2PixPipeline.download(str(source), **options))
        missing = [name for name in ("model_index.json", *PARTS) if not (folder / name).exists()]
        if missing:
            raise ValueError(f"{folder} is no InstructPix2Pix pipeline as diffusers saves it: {', '.join(missing)} missing")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch_dtype", category=FutureWarning)  # the older name, which all know
            pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(
                str(folder),
                local_files_only=True,
                low_cpu_mem_usage=False,  # the other way needs accelerate
                torch_dtype=dtype,  # from the start: half the memory
                **options,
            )
        import diffusers
        import transformers

        for name, library in (("unet", diffusers), ("vae", diffusers), ("text_encoder", transformers)):
            reader = f"{library.__name__} {library.__version__}"
            check_loaded(getattr(pipeline, name), folder / name, reader=reader, variant=variant)
        model = cls(**{name: getattr(pipeline, name) for name in PARTS}, name=str(source))
        return model.to(device, dtype)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the UNet."""
        return self.unet.conv_in.weight.dtype  # diffusers' own property goes through all parameters, 3 % of a small model's time

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """N texts -> (n, 77) token ids: start, words, end, padding.

        Raises:
            ValueError: a text is too long; names what would be cut. diffusers cuts it and goes on, with a line in the log: an
                edit that nobody asked for.
        """
        texts, length = check_texts(texts), self.tokenizer.model_max_length
        for text, ids in zip(texts, self.tokenizer(texts, verbose=False).input_ids, strict=True):
            if len(ids) > length:
                cut = self.tokenizer.decode(ids[length - 1 : -1]).strip()
                raise ValueError(f"{text[:40]!r}... has {len(ids)} tokens, of which {length} fit; {cut!r} would be cut")
        return self.tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt").input_ids

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> torch.Tensor:
        """What the UNet reads: n texts -> (n, 77, d), the last hidden states behind the final LayerNorm, not normalised.

        Raises:
            ValueError: no list of texts, or a text of more than 77 tokens.
        """
        check_whole("batch_size", batch_size)
        batches = self.tokenize(texts).to(self.device).split(int(batch_size))
        return torch.cat([at_least_float32(self.text_encoder(ids)[0]) for ids in batches])

    def encode_prompts(self, words: Sequence[str], *, templates: Sequence[str] = TEMPLATES) -> torch.Tensor:
        """Each word as a token state: the state at the end of the text, mean over prompt templates; n words -> (n, d).

        This is where the UNet reads, so that a subspace of these can be taken out of all 77 states:

            sets = [model.encode_prompts(words) for words in GENDER_SETS["bolukbasi2016"]]
            c = BiasSubspace.fit(sets, n_components=1).project_out(model.encode_text(texts), normalize=False, skip_first=1)

        CLIP's pooled and projected embeddings live in another space, even where d is the same. The state is the one that the
        text encoder would pool, at the first end token (padding repeats it): the only one that has seen the whole text and
        is not padding. The unconditional text is not to be projected: it says what guidance moves away from.

        Args:
            words: such as "plumber". templates: with one {} each.
        """
        words, templates = check_texts(words), check_texts(templates)
        texts = fill_templates(words, templates)
        end = (self.tokenize(texts) == self.tokenizer.eos_token_id).int().argmax(dim=1)  # the first of the largest
        states = self.encode_text(texts)[torch.arange(len(texts)), end]
        return states.view(len(words), len(templates), -1).mean(dim=1)

    @torch.no_grad()
    def encode_image(self, images: torch.Tensor, *, batch_size: int = 8) -> torch.Tensor:
        """Image latents: (n, 3, h, w) pictures in [0, 1] -> (n, 4, h / factor, w / factor), the posterior's mode, not scaled.

        Raises:
            ValueError: wrong shape, dtype or range, NaN, or sides that are no multiples of `factor`.
        """
        check_whole("batch_size", batch_size)
        check_pictures(images)
        sides = images.shape[-2:]
        if any(side % self.factor or not side for side in sides):
            nearest = " x ".join(str(max(1, round(side / self.factor)) * self.factor) for side in sides)
            size = " x ".join(map(str, sides))
            raise ValueError(f"the VAE takes heights and widths that are multiples of {self.factor}, got {size}; near: {nearest}")
        batches = (2 * to_match(images, self.unet.conv_in.weight) - 1).split(int(batch_size))
        return torch.cat([at_least_float32(self.vae.encode(b).latent_dist.mode()) for b in batches])

    def predict_noise(
        self, latents: torch.Tensor, image_latents: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        """One call of the UNet, without guidance: e(z_t, c_I, c_T), (n, 4, h', w').

        Args:
            latents: (n, 4, h', w') as the scheduler scales them. image_latents: (n, 4, h', w'), see `encode_image`; zeros
                leave out the picture. timestep: a number in a tensor. condition: (n, 77, d).
        """
        x = torch.cat([latents, image_latents], dim=1).to(self.dtype)
        return at_least_float32(self.unet(x, timestep, encoder_hidden_states=condition.to(self.dtype), return_dict=False)[0])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (n, 4, h', w') as the sampler leaves them -> pictures (n, 3, h, w), nominally in [0, 1], not clamped."""
        decoded = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.dtype), return_dict=False)[0]
        return at_least_float32(decoded) * 0.5 + 0.5
