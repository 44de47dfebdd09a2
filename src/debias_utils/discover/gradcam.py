"""Grad-CAM for CLIP: where a text finds its evidence in a picture (Selvaraju et al. 2017; Tanjim et al. 2024, Fig. 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..models.clip import Clip
from ..models.pictures import check_pictures, check_tensor, to_match
from ..tensors import check_finite, floats


class Heatmaps(NamedTuple):
    """maps: (n, h, w) float in [0, 1], the size of the pictures, each with maximum 1; empty: (n,) bool, map is zero.

    CLIP sees the centre of a picture, a square as long as its short side: the maps lie there, and are 0 elsewhere.
    """

    maps: torch.Tensor
    empty: torch.Tensor


def default_layer(clip: Clip) -> nn.Module:
    """The layer whose activations are explained: the last with a grid that is finer than 2 x 2.

    For a convolutional tower the last stage (`layer4`, the paper's choice), or the one before it when the pictures are so
    small that the last one is left with 2 x 2 cells. For a ViT the first LayerNorm of the last block, which its attention
    reads: the last block's *output* has no gradient on patch tokens, because only the class token is read from it.
    """
    visual = clip.model.visual
    if is_vit(clip):
        return visual.transformer.resblocks[-1].ln_1
    if not hasattr(visual, "layer4"):
        raise ValueError(f"no default layer for the image tower {type(visual).__name__} of {clip.name!r}: pass layer=")
    return visual.layer4 if clip.image_size // 32 > 2 else visual.layer3


def is_vit(clip: Clip) -> bool:
    """Is the image tower a vision transformer?"""
    return hasattr(clip.model.visual, "transformer")


def gradcam(clip: Clip, images: torch.Tensor, text: torch.Tensor, *, layer: nn.Module | None = None) -> Heatmaps:
    """Grad-CAM of y = cos(image, text): map = ReLU(sum_c w_c A_c), w_c = mean over the grid of dy/dA_c.

    The library `grad-cam` takes the activations and gradients; its min-max scaling, which turns an all-zero map into
    nothing one can see, is not used: such maps are flagged. y is the raw cosine, not a softmax over other labels.

    Args:
        clip: convolutional or ViT tower. images: (n, 3, h, w) in [0, 1].
        text: (d,) or (n, d) unit-length text embeddings. layer: default `default_layer`.

    Returns:
        `Heatmaps` of the pictures' size, bilinear between the cells of the layer's grid, 0 beyond the crop that CLIP sees.

    Raises:
        ValueError: pictures as in `Clip.encode_image`; a text of another shape or length, or that is not finite.
    """
    from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients

    check_pictures(images)
    check_tensor("text", text)
    if text.ndim not in (1, 2) or (text.ndim == 2 and len(text) not in (1, len(images))):
        raise ValueError(f"text must be (d,) or ({len(images)}, d), one row for each picture, got {tuple(text.shape)}")
    if text.shape[-1] != clip.embed_dim:
        raise ValueError(f"text must have the length of {clip.name}'s embeddings, {clip.embed_dim}, got {tuple(text.shape)}")
    check_finite("text", text)
    if not len(images):
        return Heatmaps(
            torch.zeros(0, *images.shape[2:], device=clip.device), torch.zeros(0, dtype=torch.bool, device=clip.device)
        )
    target = text.float().to(clip.device).expand(len(images), -1)  # (n, d)
    reshape = _patches_to_grid if is_vit(clip) else None
    hooks = ActivationsAndGradients(clip, [layer or default_layer(clip)], reshape)
    try:
        with torch.enable_grad():  # the pictures need a gradient for the frozen model to keep its graph
            embedding = clip.encode_image(images.detach().clone().requires_grad_(True), batch_size=max(1, len(images)))
            (embedding * target).sum().backward()
        found = hooks.activations[0], hooks.gradients[0]
        activations, gradients = (x.float().to(clip.device) for x in found)  # (n, c, gh, gw)
    finally:
        hooks.release()
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # (n, c, 1, 1)
    maps = F.relu((weights * activations).sum(dim=1, keepdim=True))  # (n, 1, gh, gw)
    maps = _to_picture(maps, clip, *images.shape[-2:])[:, 0]
    peak = maps.amax(dim=(1, 2))
    return Heatmaps((maps / peak.clamp_min(torch.finfo(maps.dtype).tiny)[:, None, None]).detach(), (peak == 0).detach())


def _to_picture(maps: torch.Tensor, clip: Clip, height: int, width: int) -> torch.Tensor:
    """Maps of the crop that CLIP sees, (n, 1, gh, gw), at its place in the picture: (n, 1, height, width), 0 elsewhere."""
    if height == width:
        return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    h, w, top, left = clip.placement(height, width)
    places = []
    for length, resized, start in ((height, h, top), (width, w, left)):
        pixel = torch.arange(length, dtype=torch.float64) + 0.5  # centres, counted from the picture's edge
        place = (pixel * resized / length - start) / clip.image_size  # 0 and 1 at the edges of the crop
        places.append((2 * place - 1).to(maps.dtype).to(maps.device))  # -1 and 1, as grid_sample has it
    y, x = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack([x, y], dim=-1).expand(len(maps), -1, -1, -1)
    found = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    return found * ((x.abs() <= 1) & (y.abs() <= 1))


def _patches_to_grid(tokens: torch.Tensor) -> torch.Tensor:
    """(n, 1 + side * side, c), class token first -> (n, c, side, side)."""
    patches = tokens[:, 1:]
    side = int(patches.shape[1] ** 0.5)
    return patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)


def heat_shares(maps: torch.Tensor, masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Which share of a picture's heat falls on each part; with masks that cover the picture the shares sum to 1.

    Args:
        maps: (n, h, w) >= 0. masks: {part: (n, h, w) in [0, 1]}, of the pictures' size like the maps.

    Returns:
        {part: (n,)}; NaN where the map is zero everywhere.

    Raises:
        ValueError: masks of another shape than the maps; maps that are negative or not finite, masks outside [0, 1].
    """
    check_tensor("maps", maps)
    if maps.ndim != 3 or not bool(((maps >= 0) & maps.isfinite()).all()):
        raise ValueError(f"maps must be (n, h, w), finite and at least 0, got {tuple(maps.shape)} {_range(maps)}")
    total, parts = maps.sum(dim=(1, 2)), {part: floats(f"the mask of {part!r}", mask) for part, mask in masks.items()}
    for part, mask in parts.items():
        if mask.shape != maps.shape:
            raise ValueError(f"the mask of {part!r} has shape {tuple(mask.shape)}, the maps have {tuple(maps.shape)}")
        if not bool(((mask >= 0) & (mask <= 1)).all()):  # also false for NaN
            raise ValueError(f"the mask of {part!r} must lie in [0, 1], got {_range(mask)}")
    return {part: (maps * to_match(mask, maps)).sum(dim=(1, 2)) / total for part, mask in parts.items()}


def _range(x: torch.Tensor) -> str:
    return f"values from {x.min():.4g} to {x.max():.4g}" if x.numel() else "no values"
