"""Train the mini generator and its inverter.

No adversary: we know what every picture shows, so the generator learns to draw it (L1 and perceptual distance). The
inverter comes first, because its feature maps make the perceptual distance.
"""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from . import data, people
from .elements import ELEMENTS, channels_of_elements, to_elements

CHANNELS = (128, 96, 64, 32, 16)  # of the blocks of 4, 8, 16, 32, 64 pixels
EMA = 0.999
PERCEPTUAL = 10.0  # its weight beside the L1 distance: at 0.3 faces stayed blurred
FADED = 1 / 3  # of the generator's pictures lie on the way from one person to another
SNAPSHOT = 1_000  # steps; the generator is saved that often


def train_inverter(out: Path, *, count: int = 20_000, steps: int = 1_500, batch: int = 96, seed: int = 0) -> None:
    """Binary cross-entropy on the elements that each picture shows."""
    import torch
    from torch.nn import functional as F

    from ..models.convnet import ConvNet
    from .training import batches, decayed, fit, save_network

    torch.manual_seed(seed)
    table = people.sample(count, everyday=0.3, seed=700 + seed)
    pictures, targets = data.pictures(table), torch.from_numpy(to_elements(table))
    network = ConvNet(len(ELEMENTS)).to(memory_format=torch.channels_last)
    order = batches(count, batch, np.random.default_rng([seed, 10]))

    def loss() -> torch.Tensor:
        _, index = next(order)
        images = data.to_tensor(pictures[index]).contiguous(memory_format=torch.channels_last)
        return 20 * F.binary_cross_entropy_with_logits(network(images), targets[index])

    fit(decayed(network, lr=2e-3), loss, steps=steps, name="toonville-inverter")
    save_network(network, out / "toonville-inverter")


def new_generator(*, seed: int) -> Any:
    """A StyleGAN2 whose first convolution has one style channel for each drawn element, and whose other styles are fixed.

    That is how it is trained; `shared_out` makes the one that is kept. z passes the mapping unchanged (see
    `models.inverter.elements_to_z`). Affine maps are not trained, but for the biases of the layers that no element drives.
    """
    import torch

    from ..models.inverter import Z_DIM
    from ..models.stylegan2 import LR_MULTIPLIER, Generator

    generator: Any = Generator(z_dim=Z_DIM, w_dim=Z_DIM, mapping_layers=1, resolution=64, channels=CHANNELS, seed=seed)
    count = len(ELEMENTS)
    with torch.no_grad():
        generator.mapping.fc0.weight.copy_(torch.eye(Z_DIM) * math.sqrt(Z_DIM) / LR_MULTIPLIER / math.sqrt(2))
        for name, value in generator.named_parameters():
            if name.endswith("affine.weight"):
                value.zero_()
        first = generator.synthesis.b4.conv1.affine
        first.weight[:count, :count] = torch.eye(count) * math.sqrt(Z_DIM) / 2  # style 1 for an element that is on
        first.bias[:count] = 0.0
    generator.mapping.requires_grad_(False)
    for name, value in generator.named_parameters():
        if name.endswith(("affine.weight", "noise_strength")) or name == "synthesis.b4.conv1.affine.bias":
            value.requires_grad_(False)
    return generator


def shared_out(generator: Any) -> Any:
    """The same pictures with as many style channels for each element as `elements.channels_of_elements` says."""
    from ..models.share import share_work

    first = generator.style_sizes[0]
    return share_work(generator, range(first), channels_of_elements() + [1] * (first - len(ELEMENTS)))


def train_generator(out: Path, *, count: int = 20_000, steps: int = 16_000, batch: int = 8, seed: int = 0) -> None:
    """Draw each person from their elements: L1 in [-1, 1] + `PERCEPTUAL` x perceptual distance; the mean of the weights is kept.

    Some pictures are two people on top of each other, each as strong as their elements: a style between off and on then
    fades its element in. Without them the response between 0 and 1 is nobody's business, and no gradient tells of it.
    The inverter is read from `out`: train it first.
    """
    import torch

    from ..debias.losses import Perceptual
    from ..models.convnet import read
    from ..models.inverter import elements_to_z
    from .training import batches, decayed, fit, save_half

    table = people.sample(count, everyday=0.3, seed=700 + seed)
    pictures = data.pictures(table)
    bare, full = (torch.from_numpy(to_elements(table, covered=covered)) for covered in (False, True))
    perceptual = Perceptual(read(out / "toonville-inverter")[0].features)
    generator = new_generator(seed=seed)
    average = copy.deepcopy(generator).requires_grad_(False)
    order, rng = batches(count, batch, np.random.default_rng([seed, 11])), torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        _, index = next(order)
        covered = torch.rand(batch, 1, generator=rng) < 0.5  # what is covered must not matter
        elements, wanted = torch.where(covered, full[index], bare[index]), data.to_tensor(pictures[index])
        fade = torch.rand(batch, 1, generator=rng) * (torch.rand(batch, 1, generator=rng) < FADED)  # (n, 1)
        z = elements_to_z(elements.lerp(elements.roll(1, 0), fade))
        wanted = wanted.lerp(wanted.roll(1, 0), fade[:, :, None, None])
        drawn = generator.synthesis(generator.styles(generator.mapping(z)))
        return (drawn - (2 * wanted - 1)).abs().mean() + PERCEPTUAL * perceptual((drawn + 1) / 2, wanted).mean()

    def save() -> None:
        average.mapping.w_avg.copy_(average.mapping(elements_to_z(bare))[:, 0].mean(dim=0))
        save_half(shared_out(average).state_dict(), out / "toonville-generator" / "model.safetensors")

    taken = itertools.count(1)

    def follow() -> None:
        step = next(taken)
        keep = min(EMA, step / (step + 10))  # early on the mean must not hold on to where it began
        with torch.no_grad():
            for mean, value in zip(average.parameters(), generator.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)
        if step % SNAPSHOT == 0 or step == steps:
            save()

    # convolution weights are of size 1 and demodulated: a rate that suits other networks would hardly turn them
    fit(decayed(generator, lr=5e-2, decay=0.0), loss, steps=steps, name="toonville-generator", after=follow)
