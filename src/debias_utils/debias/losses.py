"""What gradient-based debiasing minimises (Tanjim et al. 2024, equations 2 to 5): relevance to the text, identity, likeness.

    L = b1 (1 - cos(CLIP(t), CLIP(i_g))) + b2 (1 - cos(R(i_o), R(i_g))) + b3 LPIPS(i_o, i_g)

Each term is a `Loss`: loss(images, index) -> (m,), where images (m, 3, h, w) in [0, 1] are generated pictures of the rows
index (m,) of the batch. No term is told anyone's gender or skin tone. The networks are anything that can be called with
pictures in [0, 1] and passes gradients; put them into eval mode, and do not judge the outcome with the same ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..models.align import ARCFACE, align_faces, check_landmarks, missing_faces
from ..models.clip import Clip
from ..models.pictures import at_least_float32, check_pictures, check_same_size, check_tensor, fit, like
from ..tensors import check_finite

Features = Callable[[torch.Tensor], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Loss:
    """One term of the loss, called as loss(images, index) -> (m,).

    Attributes:
        function: (images (m, 3, h, w) in [0, 1], index (m,) int64 on the CPU) -> (m,), one value a picture, none of which
            depends on another picture. rows: the size of the batch that it was made for; None fits every batch.
        absent: rows for which it has nothing to say and returns 0; their traces are NaN.
    """

    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    rows: int | None = None
    absent: tuple[int, ...] = ()

    def __call__(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The loss of each picture, (m,)."""
        return self.function(images, index)


def clip_loss(clip: Clip, text: torch.Tensor) -> Loss:
    """1 - cos(CLIP(t), CLIP(i_g)), in [0, 2]: keeps the edit that the text asked for (equation 4).

    Args:
        clip: its `encode_image` is used, so pictures go through CLIP's own resizing, mean and deviation.
        text: (d,) one text embedding for all pictures, or (n, d) one for each row; any length but 0.

    Raises:
        ValueError: text is of another shape or length than CLIP's embeddings, is not finite or has length 0.
    """
    check_tensor("text", text)
    text = at_least_float32(text.detach())
    if text.ndim not in (1, 2) or not bool((text.norm(dim=-1) > 1e-12).all()):  # also false for NaN
        raise ValueError(f"text must be (d,) or (n, d) without NaN or rows of length 0, got shape {tuple(text.shape)}")
    check_finite("text", text)
    check_finite("the length of text", text.norm(dim=-1))
    width = getattr(clip, "embed_dim", text.shape[-1])  # anything with an `encode_image` will do
    if text.shape[-1] != width:
        raise ValueError(f"text must have the length of CLIP's embeddings, {width}, got shape {tuple(text.shape)}")
    text = F.normalize(text, dim=-1)

    def loss(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        embeddings = clip.encode_image(images)  # (m, d) of length 1
        return 1 - (embeddings * like(text if text.ndim == 1 else text[index], embeddings)).sum(dim=-1)

    return Loss(loss, rows=None if text.ndim == 1 else len(text))


def identity_loss(identity: Callable[[torch.Tensor], torch.Tensor], originals: torch.Tensor, *, landmarks: Any = None) -> Loss:
    """1 - cos(R(i_o), R(i_g)), in [0, 2]: keeps the person (equation 2).

    Args:
        identity: R, (m, 3, h, w) pictures in [0, 1] -> (m, d) embeddings of any length; it crops as it needs.
        originals: (n, 3, h, w) in [0, 1], i_o. For a generator take the inverted picture, its own drawing of the person:
            otherwise the loss also fights the error of the inversion.
        landmarks: (n, 5, 2), found once on the originals: `identity` then gets 112 x 112 crops of both pictures, cut by the same
            transform, see `align_faces`. Rows of NaN or None have no face: they are counted in a warning and in `Loss.absent`,
            and no identity is kept in them.

    Raises:
        ValueError: originals or landmarks of another shape, or no face at all; when called, pictures outside [0, 1] or of
            another size than the originals.
    """
    check_pictures(originals, name="originals")
    absent: list[int] = []
    if landmarks is not None:
        n = len(originals)
        points = check_landmarks(landmarks, n).clone()
        absent = missing_faces(points)
        if len(absent) == n:
            raise ValueError(f"no face in any of the {n} originals: leave the identity loss out")
        if absent:
            warnings.warn(
                f"no face in {len(absent)} of {n} originals, rows {absent}: left out of the identity loss", stacklevel=2
            )
        points[absent] = points.new_tensor(ARCFACE)  # something to cut out, whatever it is

    def features(images: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        faces = images if landmarks is None else align_faces(images, points[index])
        return [F.normalize(at_least_float32(identity(fit(faces, identity))), dim=-1)]

    def distance(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> torch.Tensor:
        return 1 - (a[0] * b[0]).sum(dim=-1)

    compare = _ToOriginals(features, distance, originals)
    gone = torch.zeros(len(originals), dtype=torch.bool)
    gone[absent] = True

    def loss(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        distances = compare(images, index)
        return distances.masked_fill(gone[index].to(distances.device), 0)

    return Loss(loss if absent else compare, rows=len(originals), absent=tuple(absent))


def perceptual_loss(perceptual: Perceptual, originals: torch.Tensor) -> Loss:
    """LPIPS(i_o, i_g), at least 0: keeps the picture. Equation 3 prints an L2 norm; LPIPS itself is a sum of squares.

    Args:
        perceptual: the distance. originals: (n, 3, h, w) in [0, 1], i_o.
    """

    def features(images: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
        return perceptual.features(images)

    return Loss(_ToOriginals(features, perceptual.distance, originals), rows=len(originals))


class Perceptual(nn.Module):
    """LPIPS (Zhang et al. 2018, equation 1) over the feature maps of any network.

    d(a, b) = sum over layers of the mean over places of sum_c weight_c (a_c - b_c)^2, with features a, b of unit length over
    the channels. The published LPIPS is one instance; LPIPS advises "vgg" for optimising, and 256 x 256 pictures at most:

        net = lpips.LPIPS(net="vgg").eval()
        Perceptual(lambda images: net.net(net.scaling_layer(2 * images - 1)), weights=[lin.model[1].weight for lin in net.lins])

    Args:
        network: (n, 3, h, w) pictures in [0, 1] -> sequence of (n, c, h', w') feature maps.
        weights: for each feature map c non-negative numbers, in any shape; by default 1 / c, the mean over channels.

    Raises:
        ValueError: weights are negative or not finite, or do not fit the feature maps.
    """

    def __init__(self, network: Features, *, weights: Sequence[torch.Tensor] | None = None):
        super().__init__()
        self.network = network
        for i, weight in enumerate(weights or ()):
            if not bool(((weight >= 0) & weight.isfinite()).all()):
                raise ValueError(f"weights must be finite and not negative; those of layer {i} go down to {weight.min():.3g}")
        self.weights = None if weights is None else nn.ParameterList([nn.Parameter(w.detach().flatten(), False) for w in weights])

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The network's feature maps, of unit length over the channels: (n, 3, h, w) in [0, 1] -> list of (n, c, h', w').

        Nothing is checked here. Pictures get the precision of the network if it is a module or its method, else of the weights.
        """
        maps = [at_least_float32(m) for m in self.network(fit(images, self.network, *(self.weights or ())))]
        channels = [m.shape[1] for m in maps]
        if self.weights is not None and channels != [len(weight) for weight in self.weights]:
            raise ValueError(f"weights for {[len(w) for w in self.weights]} channels do not fit feature maps of {channels}")
        # never 0 under the root, as in flat areas after a ReLU: no NaN in the gradient; a third of the time of vector_norm
        return [m * (m.square().sum(dim=1, keepdim=True) + 1e-20).rsqrt() for m in maps]

    def distance(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> torch.Tensor:
        """Distance between two results of `features`: (n,)."""
        squares = [(x - y).square().mean(dim=(2, 3)) for x, y in zip(a, b, strict=True)]  # (n, c) each
        if self.weights is None:
            return torch.stack([s.mean(dim=1) for s in squares]).sum(dim=0)
        return torch.stack([s @ weight.to(s) for s, weight in zip(squares, self.weights, strict=True)]).sum(dim=0)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Distance between pictures (n, 3, h, w) in [0, 1]: (n,), 0 for equal pictures.

        Where a gradient is recorded pictures may leave [0, 1], as those of a decoder in training do.

        Raises:
            ValueError: wrong shape or dtype, two sizes; without a gradient, values outside [0, 1] (by more than 0.1) or NaN.
        """
        for images in (a, b):
            if not (isinstance(images, torch.Tensor) and images.requires_grad and torch.is_grad_enabled()):
                check_pictures(images)
        check_same_size(a, b, names="two pictures that are compared")
        return self.distance(self.features(a), self.features(b))


class _ToOriginals:
    """distance(features(originals[index], index), features(images, index)).

    The originals' features are computed once for the rows at hand and kept while rows only drop out, as in
    `debias_latent`, where a chunk runs to its end before the next: memory for one chunk, however many originals there are.
    """

    def __init__(
        self,
        features: Callable[[torch.Tensor, torch.Tensor], list[torch.Tensor]],
        distance: Callable[..., torch.Tensor],
        originals: torch.Tensor,
    ):
        check_pictures(originals, name="originals")
        self.features, self.distance, self.originals = features, distance, originals.detach().clamp(0, 1)
        self.index = torch.empty(0, dtype=torch.long)
        self.kept: list[torch.Tensor] = []  # features of originals[index]

    def __call__(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        check_pictures(images, name="generated pictures")
        check_same_size(images, self.originals, names="generated and original pictures")
        if not torch.equal(index, self.index):
            same = index[:, None] == self.index  # (m, rows at hand)
            if same.any(dim=1).all():
                self.kept = [feature[same.int().argmax(dim=1)] for feature in self.kept]
            else:
                with torch.no_grad():
                    self.kept = self.features(like(self.originals[index], images), index)
            self.index = index
        return self.distance(self.kept, self.features(images, index))
