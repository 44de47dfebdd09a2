"""LPIPS (Zhang et al. 2018) by the lpips package, as a `Perceptual` that checks the range of its pictures."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch
from torch import nn
from torchvision.transforms.functional import resize

from ..errors import check_choice, check_whole
from ..models.loading import fill, read_state
from .losses import Perceptual

NETWORKS = ("alex", "vgg", "squeeze")


class Features(nn.Module):
    """The feature maps that LPIPS compares, of pictures that are made smaller first: (n, 3, h, w) in [0, 1] -> a list.

    side: of the shorter side, at most. LPIPS was made with pictures of 64 to 256; larger ones cost memory, not accuracy.
    """

    def __init__(self, net: nn.Module, scaling: nn.Module, *, side: int):
        super().__init__()
        self.net, self.scaling, self.side = net, scaling, check_whole("side", side)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(n, 3, h, w) in [0, 1] -> list of (n, c, h', w')."""
        if min(images.shape[-2:]) > self.side:
            images = resize(images, [self.side], antialias=True)
        return list(self.net(self.scaling(2 * images - 1)))


def load_lpips(
    backbone: str | Path, linear: str | Path, *, network: str = "vgg", side: int = 256, device: str | torch.device = "cpu"
) -> Perceptual:
    """LPIPS 0.1; "alex" is advised for measuring, "vgg" for a loss, and not the same one for both.

    Args:
        backbone: torchvision's weights of the network. linear: the package's own layers over them (weights/v0.1/<network>.pth).
        network: one of `NETWORKS`. side: see `Features`. device: where to put it.

    Raises:
        ValueError: unknown network, or weights of another one. FileNotFoundError: no such file.
    """
    check_choice("network", network, NETWORKS)
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's arguments that lpips uses are deprecated
        model = lpips.LPIPS(net=network, pretrained=False, pnet_rand=True, verbose=False).eval().requires_grad_(False)
    names = {re.sub(r"slice\d+\.", "features.", key): key for key in model.net.state_dict()}
    state = read_state(Path(backbone))
    found = {names[key]: value for key, value in state.items() if key in names}
    fill(model.net, found, source=str(backbone), what=f"torchvision's features of {network}")
    layers = nn.ModuleDict({f"lin{i}": layer for i, layer in enumerate(model.lins)})
    fill(layers, read_state(Path(linear)), source=str(linear), what=f"LPIPS's layers over {network}")
    features = Features(model.net, model.scaling_layer, side=side)
    return Perceptual(features, weights=[layer.model[1].weight for layer in model.lins]).eval().requires_grad_(False).to(device)
