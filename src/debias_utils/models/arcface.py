"""ArcFace (Deng et al. 2019) from insightface's ONNX files, made differentiable: who is in the picture.

Its models are for non-commercial research, and its accuracy differs by group: see `checkpoints.REGISTRY`. Find faces and
landmarks once, on the original, cut with `align.align_faces`, and compare a second network before a result rests on this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .onnx_nets import read_onnx, shapes, to_torch
from .pictures import check_pictures, fit

SIDE = 112


class ArcFace(nn.Module):
    """Embeds aligned faces; the cosine of two embeddings says how alike the faces are.

    Attributes:
        normalises: the network itself brings bytes to [-1, 1]. width: d, the length of an embedding.
    """

    def __init__(self, network: nn.Module, *, normalises: bool = False):
        super().__init__()
        self.network, self.normalises = network, normalises

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> ArcFace:
        """Load a recognition network of insightface (glintr100.onnx, w600k_r50.onnx).

        Raises:
            FileNotFoundError: no such file. ValueError: no ONNX model, or not one of 112 x 112 faces to one embedding.
        """
        model = read_onnx(Path(path))
        inputs, outputs = shapes(model)
        if (
            len(inputs) != 1
            or len(outputs) != 1
            or len(inputs[0]) != 4
            or inputs[0][1:] != (3, SIDE, SIDE)
            or len(outputs[0]) != 2
        ):
            raise ValueError(
                f"{path} takes {inputs} and gives {outputs}; a recognition network takes (n, 3, 112, 112) and gives (n, d)"
            )
        if inputs[0][0] is not None:
            raise ValueError(f"{path} was saved for {inputs[0][0]} pictures at once: save it with an open batch")
        return cls(to_torch(model, source=str(path)), normalises=_normalises(model)).to(device)

    def raw(self, faces: torch.Tensor) -> torch.Tensor:
        """(n, 3, 112, 112) aligned faces, RGB in [0, 1] -> (n, d) as the network gives them; differentiable.

        Raises:
            ValueError: pictures of another size or range: align them first.
        """
        check_pictures(faces, name="faces")
        if faces.shape[-2:] != (SIDE, SIDE):
            size = " x ".join(map(str, faces.shape[-2:]))
            raise ValueError(f"need aligned faces of 112 x 112, got {size}; models.align.align_faces cuts them")
        x = fit(faces, self.network) * 255
        return self.network(x if self.normalises else (x - 127.5) / 127.5).float()

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces as in `raw` -> (n, d) float32 of length 1."""
        return F.normalize(self.raw(faces), dim=1)


def _normalises(model: Any) -> bool:
    """Does the network bring bytes to its range itself? insightface tells by the names of the first nodes, and so does this."""
    names = [node.name for node in model.graph.node[:8]]
    return any(n.startswith(("Sub", "_minus")) for n in names) and any(n.startswith(("Mul", "_mul")) for n in names)
