"""Train the mini editor's VAE: pictures of 64 x 64 to latents of 16 x 16 and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import data, people

CHANNELS = (16, 32, 64)  # at 64, 32, 16 pixels
LATENT = 8  # channels of the latents
PERCEPTUAL = 10.0  # weight beside the L1 distance, as the generator's
KL = 1e-4  # weight of the mean over the latents: just enough that the decoder bears small errors of the UNet


def new_vae() -> Any:
    """An untrained `AutoencoderKL`."""
    from diffusers import AutoencoderKL

    n = len(CHANNELS)
    return AutoencoderKL(
        sample_size=64, latent_channels=LATENT, block_out_channels=CHANNELS, layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
    )  # fmt: skip


def train_vae(out: Path, *, count: int = 20_000, steps: int = 2_500, batch: int = 8, seed: int = 0) -> None:
    """L1 in [-1, 1] + `PERCEPTUAL` x perceptual distance + `KL` x KL divergence, on balanced people.

    At the end the latents are standardised, see `standardise`. The inverter is read from `out`: train it first.
    """
    import torch

    from ..debias.losses import Perceptual
    from ..models.convnet import read
    from .training import batches, decayed, fit

    torch.manual_seed(seed)
    pictures = data.pictures(people.sample(count, everyday=0.3, seed=700 + seed))
    perceptual = Perceptual(read(out / "toonville-inverter")[0].features)
    vae = new_vae()
    order = batches(count, batch, np.random.default_rng([seed, 14]))

    def loss() -> torch.Tensor:
        _, index = next(order)
        images = data.to_tensor(pictures[index])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(2 * images - 1).latent_dist
            drawn = vae.decode(posterior.sample()).sample.float()
            distance = perceptual((drawn + 1) / 2, images).mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return (drawn - (2 * images - 1)).abs().mean() + PERCEPTUAL * distance + KL * kl

    fit(decayed(vae, lr=2e-3, decay=0.01), loss, steps=steps, name="toonville-vae")
    standardise(vae, data.to_tensor(pictures[: min(count, 2_000)]))
    vae.half().save_pretrained(out / "toonville-vae")


def standardise(vae: Any, images: Any) -> None:
    """Give each channel of the latents mean 0 and standard deviation 1; what is drawn stays the same.

    InstructPix2Pix gives its UNet image latents as they are and noisy latents scaled by one factor. Both are then of the size
    that a UNet takes best, and the scaling factor is 1. The change of basis goes into the last layer of the encoder and
    the first of the decoder, 1 x 1 convolutions both.

    Args:
        vae: an `AutoencoderKL`; altered. images: (n, 3, h, w) in [0, 1].
    """
    import torch

    with torch.no_grad():
        latents = torch.cat([vae.encode(2 * part - 1).latent_dist.mode() for part in images.split(100)])
        mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
        into, back = vae.quant_conv, vae.post_quant_conv
        into.bias[: len(mean)] -= mean
        into.weight[: len(mean)] /= std.view(-1, 1, 1, 1)
        into.bias[: len(mean)] /= std
        into.bias[len(mean) :] -= 2 * std.log()
        back.bias += back.weight[:, :, 0, 0] @ mean
        back.weight *= std.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)
