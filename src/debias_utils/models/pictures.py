"""One check and one conversion of pictures, at every door that takes some."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def check_pictures(images: torch.Tensor, *, name: str = "pictures") -> None:
    """Raise ``ValueError`` unless `images` are (n, 3, h, w) float, in [0, 1] but for an overshoot of 0.1, without NaN."""
    if not isinstance(images, torch.Tensor):
        raise ValueError(f"need {name} as a float tensor (n, 3, h, w) in [0, 1], got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"need float {name} (n, 3, h, w) in [0, 1], got {tuple(images.shape)} {images.dtype}")
    low, high = torch.stack(torch.aminmax(images.detach())).tolist() if images.numel() else (0.0, 1.0)
    if not (low >= -0.1 and high <= 1.1):  # an editor may overshoot a little; 0..255 or [-1, 1] or NaN is a mistake
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:.3g} to {high:.3g}")


def check_same_size(a: torch.Tensor, b: torch.Tensor, *, names: str) -> None:
    """Raise ``ValueError`` unless two batches of pictures have one height and width."""
    if a.shape[-2:] != b.shape[-2:]:
        sizes = " and ".join(" x ".join(map(str, x.shape[-2:])) for x in (a, b))
        raise ValueError(f"{names} must have one size, got {sizes}: resize the one or the other first")


def check_tensor(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless `value` is a float tensor: an array of NumPy, say, is not."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a float tensor, got {got}; torch.as_tensor(...) makes one of an array")


def to_match(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`x` in the precision and on the device of `other`; precision first, since Apple's GPUs have no float64."""
    return x.to(other.dtype).to(other.device)


def fit(images: torch.Tensor, *owners: Any) -> torch.Tensor:
    """Pictures in the precision and on the device of the first float parameter that the owners have; as they are if none has any.

    Args:
        images: any float tensor. owners: modules, methods of modules or parameters; other functions take what they get.
    """
    for owner in owners:
        module = getattr(owner, "__self__", owner)
        parameters = module.parameters() if isinstance(module, nn.Module) else [owner] if isinstance(owner, torch.Tensor) else []
        for parameter in parameters:
            if parameter.is_floating_point():
                return to_match(images, parameter)
    return images
