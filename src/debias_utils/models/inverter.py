"""From a picture to the latent of the mini generator: what encoder4editing (Tov et al. 2021) is for StyleGAN2 of faces."""

from __future__ import annotations

import torch
from torch import nn

from . import convnet
from .pictures import check_pictures

Z_DIM = 128  # of the mini generator
_ON = 2.0  # length of one element in z


def elements_to_z(elements: torch.Tensor) -> torch.Tensor:
    """Drawn elements as latents of the mini generator: (n, e) in [0, 1] -> (n, Z_DIM) of one length.

    StyleGAN2's mapping brings z to a common length first. One coordinate more takes up what is missing to it, so that the
    elements pass unchanged.

    Raises:
        ValueError: more elements, or more of them on, than fit; NaN.
    """
    elements = elements if elements.is_floating_point() else elements.float()
    n, count = elements.shape
    missing = Z_DIM - _ON**2 * elements.square().sum(dim=1, keepdim=True)
    if count >= Z_DIM or not bool((missing >= 0).all()):
        raise ValueError(f"at most {Z_DIM - 1} elements, {Z_DIM // int(_ON**2)} of them on, fit into z; got {count}")
    return torch.cat([_ON * elements, missing.sqrt(), elements.new_zeros(n, Z_DIM - 1 - count)], dim=1)


class Inverter(nn.Module):
    """Reads the drawn elements off a picture.

    Attributes:
        network: (n, 3, h, w) in [0, 1] -> (n, e) logits of the elements; its feature maps also make the mini world's
            perceptual distance, as those of a network that was trained to classify do in LPIPS.
    """

    def __init__(self, network: convnet.ConvNet):
        super().__init__()
        self.network = network

    @classmethod
    def load(cls, name: str = "toonville-inverter", *, device: str | torch.device = "cpu") -> Inverter:
        """Load the packaged inverter; ``ValueError`` for a model of another kind, or an altered file."""
        return cls(convnet.load(name, kind="inverter")[0]).to(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) pictures in [0, 1] -> (n, Z_DIM) latents z. Elements are on or off, so no gradient passes."""
        check_pictures(images)
        return elements_to_z((self.network(images) > 0).float())
