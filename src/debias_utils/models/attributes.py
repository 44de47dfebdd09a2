"""What a picture shows, by a judge that nothing is optimised against: Toonville's stand-in for FairFace."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..errors import check_whole
from . import convnet
from .pictures import check_pictures


class AttributeClassifier(nn.Module):
    """One network with a softmax for every attribute, as FairFace has (Karkkainen and Joo 2021).

    Attributes:
        classes: {attribute: its classes, in the order of the probabilities}.
    """

    def __init__(self, network: convnet.ConvNet, classes: dict[str, list[str]]):
        super().__init__()
        if network.outputs != (total := sum(len(names) for names in classes.values())):
            raise ValueError(f"the network has {network.outputs} outputs, the classes need {total}")
        self.network: nn.Module = network
        self.classes = classes

    @classmethod
    def load(cls, name: str = "toonville-attributes", *, device: str | torch.device = "cpu") -> AttributeClassifier:
        """Load a packaged classifier; ``ValueError`` for a model of another kind, or an altered file."""
        network, config = convnet.load(name, kind="attribute classifier")
        return cls(network, config["classes"]).to(device)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities: (n, 3, h, w) pictures in [0, 1] -> {attribute: (n, classes) float32, rows sum to 1}; differentiable."""
        check_pictures(images)
        logits = self.network(images).float().split([len(names) for names in self.classes.values()], dim=1)
        return {attribute: part.softmax(dim=1) for attribute, part in zip(self.classes, logits, strict=True)}

    @torch.no_grad()
    def labels(self, images: torch.Tensor, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """The most probable class: (n, 3, h, w) pictures in [0, 1] -> {attribute: (n,) names}."""
        check_whole("batch_size", batch_size)
        check_pictures(images)
        seen = [self(part) for part in images.split(int(batch_size))]
        return {
            name: np.asarray(classes, dtype=object)[torch.cat([part[name] for part in seen]).argmax(dim=1).cpu().numpy()]
            for name, classes in self.classes.items()
        }
