"""Who is in the picture, whatever they wear: Toonville's stand-in for ArcFace (Deng et al. 2019)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from . import convnet


class IdentityEmbedder(nn.Module):
    """Embeds a face so that the same person in other clothes stays close and other people do not."""

    def __init__(self, network: convnet.ConvNet):
        super().__init__()
        self.network = network

    @classmethod
    def load(cls, name: str = "toonville-identity", *, device: str | torch.device = "cpu") -> IdentityEmbedder:
        """Load a packaged embedder; errors as in `assets.packaged_model`."""
        return cls(convnet.load(name)[0]).to(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) pictures in [0, 1] -> (n, d) float32 of length 1; differentiable."""
        return F.normalize(self.network(images).float(), dim=1)
