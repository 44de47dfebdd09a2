"""What debiasing through the sampler needs in memory, counted on torch's meta device: shapes alone, no weights and no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import check_whole
from ..models.pix2pix import Pix2Pix


def stable_diffusion() -> Pix2Pix:
    """InstructPix2Pix on Stable Diffusion 1 (Rombach et al. 2022; Brooks et al. 2023) in half precision, on the meta device.

    The public configuration; it can be called, and gives shapes. There is no tokenizer and no scheduler.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    channels = (128, 256, 512, 512)
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(sample_size=64, in_channels=8, cross_attention_dim=768),
            "vae": AutoencoderKL(
                sample_size=512, latent_channels=4, block_out_channels=channels, layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
            ),
        }  # fmt: skip
        return Pix2Pix(**parts, tokenizer=None, scheduler=None, name="Stable Diffusion 1").to(torch.float16)


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of the parameters and buffers, each counted once."""
    tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def saved_bytes(run: Callable[[], Any], *modules: nn.Module) -> int:
    """Bytes that autograd keeps for the way back of `run`, without the modules' own parameters.

    On the meta device, attention counts with all its maps: an upper bound, for fused kernels keep none.
    """
    weights = {t.untyped_storage()._cdata for module in modules for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # held, so that no address is given twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    found = sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in weights)
    del result
    return found


def sampler_bytes(
    model: Pix2Pix, *, size: int, batch: int = 1, tokens: int = 77, dtype: torch.dtype = torch.float16
) -> dict[str, int]:
    """Bytes that the sampler's gradient keeps at its fullest, part by part.

    Each recorded call and the decoder are computed again on the way back, one after the other (checkpointing): what adds up is
    `weights` and the largest of the rest, whatever the number of steps.

    Args:
        model: on any device. size: side of the pictures, a multiple of `model.factor`. batch: pictures at a time. tokens: of a
            text. dtype: of what goes in.

    Returns:
        "weights"; "call": a recorded call of one branch, as in "one-step" and "detached"; "call, full": of two, as in "full" and
        "last-k" behind the first recorded call; "decoder".
    """
    for name, count in (("size", size), ("batch", batch), ("tokens", tokens)):
        check_whole(name, count)
    if size % model.factor:
        raise ValueError(f"size must be a multiple of {model.factor}, got {size}")
    side, channels, device = size // model.factor, model.vae.config.latent_channels, model.device

    def latents(n: int) -> torch.Tensor:
        return torch.zeros(n, channels, side, side, dtype=dtype, device=device, requires_grad=True)

    def call(n: int) -> int:
        condition = torch.zeros(n, tokens, model.width, dtype=dtype, device=device, requires_grad=True)
        image, t = torch.zeros(n, channels, side, side, dtype=dtype, device=device), torch.ones((), device=device)
        return saved_bytes(lambda: model.predict_noise(latents(n), image, t, condition), model)

    return {
        "weights": weight_bytes(model),
        "call": call(batch),
        "call, full": call(2 * batch),
        "decoder": saved_bytes(lambda: model.decode(latents(batch)), model),
    }
