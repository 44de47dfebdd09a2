"""FairFace's classifier (Karkkainen and Joo 2021): race, gender and age as perceived from a face, by a ResNet-34 with 18 outputs.

Its answers are perceptions of pictures, not what people say of themselves; call groups that rest on them "perceived by FairFace".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet34
from torchvision.transforms.functional import InterpolationMode, normalize, resize

from ..errors import check_choice
from .attributes import AttributeClassifier
from .loading import fill, read_state
from .pictures import check_pictures

RACES = {  # number of races: their names, in the order of the outputs
    7: ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"),
    4: ("White", "Black", "Asian", "Indian"),
}
GENDERS = ("Male", "Female")
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class FairFace(AttributeClassifier):
    """Probabilities of 7 races, 2 genders and 9 ages.

    Pictures are face chips as dlib cuts them: aligned, with a quarter of padding, 300 x 300 in the original; any size is resized.

    Attributes:
        classes: {"race", "gender", "age": the names in the order of the probabilities}.
    """

    def __init__(self, network: nn.Module, *, races: int = 7):
        nn.Module.__init__(self)
        check_choice("number of races", races, RACES)
        self.network = network.eval().requires_grad_(False)
        self.classes = {"race": list(RACES[races]), "gender": list(GENDERS), "age": list(AGES)}

    @classmethod  # a packaged judge has other arguments than a file of the owners'
    def load(cls, name: str | Path, *, races: int = 7, device: str | torch.device = "cpu") -> FairFace:  # type: ignore[override]
        """Load the owners' file of weights (.pt, .pth, .safetensors), without running code out of it.

        Args:
            name: the file. races: 7 for fairface_alldata_20191111.pt, 4 for the file of four races. device: where to put it.

        Raises:
            FileNotFoundError: no such file. ValueError: nothing that can be read as weights, or of another network.
        """
        network = resnet34(weights=None, num_classes=18)
        fill(network, read_state(Path(name)), source=str(name), what="FairFace's ResNet-34 with 18 outputs")
        return cls(network, races=races).to(device)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) RGB chips -> (n, 18). Bytes are resized by PIL, as its owners do; floats in [0, 1] with a gradient.

        Raises:
            ValueError: pictures of another shape or range.
        """
        if isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3:
            small = torch.stack([_resized(chip) for chip in images.permute(0, 2, 3, 1).cpu()]).permute(0, 3, 1, 2) / 255
        else:
            check_pictures(images)
            small = resize(images, [SIDE, SIDE], interpolation=InterpolationMode.BILINEAR, antialias=True)
        weight = next(self.network.parameters())
        return self.network(normalize(small.to(weight.device, weight.dtype), MEAN, STD))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities: chips as in `logits` -> {attribute: (n, classes) float32, rows sum to 1}."""
        logits = self.logits(images).float()
        race = logits[:, : len(self.classes["race"])]  # of the file of four races, outputs 4 to 6 mean nothing
        parts = {"race": race, "gender": logits[:, 7:9], "age": logits[:, 9:]}
        return {attribute: part.softmax(dim=1) for attribute, part in parts.items()}


def _resized(chip: torch.Tensor) -> torch.Tensor:
    """(h, w, 3) bytes -> (SIDE, SIDE, 3) bytes; PyTorch's own resizing rounds differently."""
    return torch.from_numpy(np.array(Image.fromarray(chip.numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
