"""Who is in the picture, whatever they wear: Toonville's stand-in for ArcFace (Deng et al. 2019)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from . import convnet
from .pictures import check_pictures


class IdentityEmbedder(nn.Module):
    """Embeds a face so that the same person in other clothes stays close and other people do not."""

    def __init__(self, network: convnet.ConvNet):
        super().__init__()
        self.network = network

    @classmethod
    def load(cls, name: str = "toonville-identity", *, device: str | torch.device = "cpu") -> IdentityEmbedder:
        """Load a packaged embedder; ``ValueError`` for a model of another kind, or an altered file."""
        return cls(convnet.load(name, kind="identity embedder")[0]).to(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) pictures in [0, 1] -> (n, d) float32 of length 1; differentiable."""
        check_pictures(images)
        return F.normalize(self.network(images).float(), dim=1)
