"""One small convolutional network, which Toonville's inverter, identity embedder and attribute classifier share."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from .. import assets
from .loading import packaged
from .pictures import to_match


class ConvNet(nn.Module):
    """Four stages of two 3 x 3 convolutions, each stage at half the size of the one before, then one linear layer.

    The linear layer reads all positions of the last stage, not their mean: where something is drawn tells what it is.

    Args:
        outputs: length of the output.
        width: channels of the first stage; the others have 2, 4 and 4 times as many.
        image_size: side of the pictures, a multiple of 16.
    """

    def __init__(self, outputs: int, *, width: int = 32, image_size: int = 64):
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, got {image_size}")
        self.outputs, self.width, self.image_size = outputs, width, image_size
        channels = (3, width, 2 * width, 4 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(a, b, stride=2), _convolution(b, b)) for a, b in itertools.pairwise(channels)
        )
        self.head = nn.Linear(channels[-1] * (image_size // 16) ** 2, outputs)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The four stages' feature maps, (n, c, h, w) each, of pictures (n, 3, s, s) in [0, 1]."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"need pictures (n, 3, {self.image_size}, {self.image_size}), got {tuple(images.shape)}")
        x, maps = 2.0 * to_match(images, self.head.weight) - 1.0, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, s, s) pictures in [0, 1] -> (n, outputs)."""
        return self.head(F.dropout(self.features(images)[-1].flatten(1), 0.2, self.training))


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def load(name: str, *, kind: str | None = None) -> tuple[ConvNet, dict[str, Any]]:
    """A packaged network, frozen and in eval mode, and its config.json.

    Raises:
        ValueError: there is no model of that name, or none of that `kind`, one of `loading.KINDS`; a file was altered.
    """
    return read(packaged(kind, name) if kind else assets.packaged_model(name))


def read(folder: Path) -> tuple[ConvNet, dict[str, Any]]:
    """As `load`, from any folder, unchecked."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    network = ConvNet(**config["network"])
    network.load_state_dict(load_file(folder / "model.safetensors"))  # copies half precision into float32
    return network.eval().requires_grad_(False), config
