"""Cut faces out the way ArcFace was trained to see them: five landmarks moved onto a template, differentiably."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .. import arrays
from ..errors import check_whole
from ..tensors import at_least_float32, floats
from .pictures import check_tensor, to_match

# insightface's template for 112 x 112 crops, (x, y): left eye, right eye, nose, left and right corner of the mouth, left and
# right as the viewer has them
ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))

FINEST = 32  # readings for a pixel of the crop, each way, at most: bounds the memory where landmarks span a huge picture


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

    As in insightface: the similarity takes the landmarks to the template with the least squared error, measured in the crop, and
    the picture is read at its inverse. Find the landmarks once, on the original, and use them for the original and for every edit
    of it: the crops then show the same place, and a moving detector plays no part in the loss.

    Up to two pixels of the picture for one of the crop it is read bilinearly, as there. Beyond that bilinear reading skips
    pixels: the crop is then read several times as fine and averaged by a triangle that is two of its pixels wide, as the
    antialiased bilinear resizing of PIL and torchvision does. What lies beyond the picture is 0.

    Args:
        images: (n, 3, h, w) float. landmarks: (n, 5, 2), (x, y) in pixels, whole ones or not, the centre of the first pixel at
            (0, 0), in the order of `ARCFACE`. size: side of the crops; the template grows with it.

    Returns:
        (n, 3, size, size) float32 or float64, values as in the pictures.

    Raises:
        ValueError: no float tensor; landmarks of another shape, not finite, all in one point, or nothing like a face.
    """
    check_whole("size", size)
    check_tensor("pictures", images)
    if images.ndim != 4:
        raise ValueError(f"need pictures (n, 3, h, w), got {tuple(images.shape)}")
    images = at_least_float32(images)
    points = to_match(check_landmarks(landmarks, len(images)), images)
    if not bool(points.isfinite().all()):
        raise ValueError(f"no landmarks in rows {missing_faces(landmarks)}: leave these pictures out")
    template = points.new_tensor(ARCFACE) * (size / 112)
    back = inverse(similarity(points, template.expand_as(points)))  # crop -> picture; where the picture is to be read
    if not bool(back.isfinite().all()):
        raise ValueError(f"the landmarks of rows {missing_faces(back)} fit no turned and scaled face: are they in another order?")
    crops = images.new_empty(len(images), images.shape[1], size, size)
    shrink = [math.hypot(*column) for column in back[:, :, 0].tolist()]  # pixels of the picture for one of the crop
    fineness = torch.tensor([1 if s <= 2 else min(math.ceil(s), FINEST) for s in shrink])
    for times in fineness.unique().tolist():
        rows = (fineness == times).nonzero()[:, 0].to(images.device)
        crops = crops.index_put((rows,), _read(images[rows], back[rows], size, times))
    return crops


def inverse(matrix: torch.Tensor) -> torch.Tensor:
    """The similarity that undoes another: (n, 2, 3) -> (n, 2, 3); not finite where it shrinks everything to a point."""
    turn = matrix[:, :, :2]
    back = turn.mT / turn[:, :, 0].square().sum(dim=1)[:, None, None]
    return torch.cat([back, -back @ matrix[:, :, 2:]], dim=2)


def _read(images: torch.Tensor, back: torch.Tensor, size: int, times: int) -> torch.Tensor:
    """Crops (n, c, size, size) of pictures at the places `back` (n, 2, 3), each pixel from many readings if `times` > 1."""
    h, w = images.shape[-2:]
    steps = torch.arange(size).to(images)
    if times > 1:  # from the middle of the pixel before the first to that of the one behind the last
        steps = (torch.arange((size + 1) * times).to(images) + 0.5) / times - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, -1, 3) @ back.mT
    places = (2 * places + 1) / places.new_tensor([w, h]) - 1  # grid_sample has the edges of the picture at -1 and 1
    crops = F.grid_sample(images, places.view(-1, len(steps), len(steps), 2), align_corners=False)
    if times == 1:
        return crops
    triangle = 1 - ((torch.arange(2 * times).to(images) + 0.5) / times - 1).abs()
    window = (triangle / triangle.sum()).outer(triangle / triangle.sum())
    return F.conv2d(crops, window.expand(crops.shape[1], 1, -1, -1), stride=times, groups=crops.shape[1])


def check_landmarks(landmarks: Any, n: int) -> torch.Tensor:
    """Landmarks as a float tensor, see `as_points`; ``ValueError`` unless they are (n, 5, 2) and no face is a single point."""
    points = as_points(landmarks)
    if points.shape != (n, 5, 2):
        raise ValueError(f"need landmarks ({n}, 5, 2), (x, y) in pixels, got {tuple(points.shape)}")
    flat = (points == points[:, :1]).flatten(1).all(dim=1).nonzero()[:, 0].tolist()
    if flat:
        raise ValueError(f"the five landmarks of rows {flat} are one point")
    return points


def as_points(landmarks: Any) -> torch.Tensor:
    """Landmarks as a float tensor: a tensor, an array or a list, of whole pixels too; a face that is None becomes NaN.

    Raises:
        ValueError: no numbers, or faces of several shapes.
    """
    if isinstance(landmarks, (list, tuple)) or getattr(landmarks, "dtype", None) is np.dtype(object):
        faces = [np.full((5, 2), np.nan) if face is None else arrays.array(face) for face in landmarks]
        shapes = {face.shape for face in faces}
        if len(shapes) > 1:
            raise ValueError(f"need landmarks (5, 2) of each face, (x, y) in pixels, got {sorted(shapes)}")
        landmarks = np.stack(faces) if faces else np.zeros((0, 5, 2))
    if not isinstance(landmarks, torch.Tensor):
        landmarks = arrays.floats("landmarks", landmarks, missing=True)
    return floats("landmarks", landmarks)


def missing_faces(landmarks: Any) -> list[int]:
    """Rows without a face: those whose landmarks, (n, 5, 2) as in `as_points`, hold NaN or infinity, or are None."""
    return (~as_points(landmarks).isfinite().flatten(1).all(dim=1)).nonzero()[:, 0].tolist()
