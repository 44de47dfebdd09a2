"""Cut faces out the way ArcFace was trained to see them: five landmarks moved onto a template, differentiably."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from ..errors import check_positive

# insightface's template for 112 x 112 crops, (x, y): left eye, right eye, nose, left and right corner of the mouth, left and
# right as the viewer has them
ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


def similarity(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The rotation, scale and shift that moves points onto others with the least squared error (Umeyama 1991, in the plane).

    Without reflection. As complex numbers: target = a source + b, a linear least-squares problem.

    Args:
        source, target: (n, k, 2) points (x, y), k >= 2.

    Returns:
        (n, 2, 3), M with target = M @ (x, y, 1).
    """
    center, goal = source.mean(dim=1), target.mean(dim=1)  # (n, 2)
    p, q = source - center[:, None], target - goal[:, None]
    spread = p.square().sum(dim=(1, 2))
    real = (p * q).sum(dim=(1, 2)) / spread
    imaginary = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(dim=1) / spread
    turn = torch.stack([torch.stack([real, -imaginary], dim=1), torch.stack([imaginary, real], dim=1)], dim=1)  # (n, 2, 2)
    shift = goal - (turn @ center[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], dim=2)


def align_faces(images: torch.Tensor, landmarks: torch.Tensor, *, size: int = 112) -> torch.Tensor:
    """Crops with the landmarks where ArcFace's template has them, differentiable in the pictures.

    Find the landmarks once, on the original, and use them for the original and for every edit of it: the crops then show the
    same place, and a moving detector plays no part in the loss. Bilinear; what lies beyond the picture is 0, as there.

    Args:
        images: (n, 3, h, w). landmarks: (n, 5, 2), (x, y) in pixels, the centre of the first pixel at (0, 0), in the order of
            `ARCFACE`. size: side of the crops; the template grows with it.

    Returns:
        (n, 3, size, size) float32 or float64, values as in the pictures.

    Raises:
        ValueError: landmarks of another shape, not finite, or all in one point.
    """
    check_positive("size", size)
    images = images.to(torch.promote_types(images.dtype, torch.float32))  # half precision would miss the place by a quarter pixel
    points = check_landmarks(landmarks, len(images)).to(images)
    if not bool(points.isfinite().all()):
        raise ValueError(f"no landmarks in rows {missing_faces(landmarks)}: leave these pictures out")
    template = points.new_tensor(ARCFACE) * (size / 112)
    back = similarity(template.expand_as(points), points)  # crop -> picture; where the picture is to be read
    h, w = images.shape[-2:]
    y, x = torch.meshgrid(*[torch.arange(size).to(points)] * 2, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, -1, 3) @ back.mT  # (n, size * size, 2)
    places = (2 * places + 1) / places.new_tensor([w, h]) - 1  # grid_sample has the edges of the picture at -1 and 1
    return F.grid_sample(images, places.view(-1, size, size, 2), align_corners=False)


def check_landmarks(landmarks: Any, n: int) -> torch.Tensor:
    """Landmarks as a float tensor; ``ValueError`` unless they are (n, 5, 2) and no face is a single point."""
    points = torch.as_tensor(landmarks)
    if points.shape != (n, 5, 2) or not points.is_floating_point():
        raise ValueError(f"need float landmarks ({n}, 5, 2), (x, y) in pixels, got {tuple(points.shape)} {points.dtype}")
    flat = (points == points[:, :1]).flatten(1).all(dim=1).nonzero()[:, 0].tolist()
    if flat:
        raise ValueError(f"the five landmarks of rows {flat} are one point")
    return points


def missing_faces(landmarks: Any) -> list[int]:
    """Rows without a face: those whose landmarks, (n, 5, 2), hold NaN or infinity."""
    return (~torch.as_tensor(landmarks).isfinite().flatten(1).all(dim=1)).nonzero()[:, 0].tolist()
