"""Faces by dlib: where they are, chips cut as FairFace and the age and gender networks were trained on, and who they show.

The detector is the one that the papers used, and the identity network is free for any use: a second one beside ArcFace. It is not
differentiable: for measuring only. Pictures stay on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import check_whole

FILES = {
    "recognition": "dlib_face_recognition_resnet_model_v1.dat",
    "detector": "mmod_human_face_detector.dat",
    "landmarks": "shape_predictor_5_face_landmarks.dat",
}
FAIRFACE = {
    "size": 300,
    "padding": 0.25,
}  # chips of FairFace; `size=64` and `size=32` with `padding=0.2` are those of age and gender


@dataclass(frozen=True)
class Face:
    """One face of a picture.

    Attributes:
        box: left, top, right, bottom in pixels. landmarks: (5, 2) pixels (x, y), the corners of the eyes and the nose: not those
            of ArcFace. confidence: of the detector; NaN where it gives none.
    """

    box: tuple[int, int, int, int]
    landmarks: np.ndarray
    confidence: float


class DlibFaces:
    """dlib's detectors, landmarks and identity network.

    Args:
        folder: with the files of the checkpoint "dlib-faces"; the five landmarks suffice for all but `cnn` and `embed`.
        cnn: find faces with the network that FairFace was made with, slower and better for turned ones, instead of HOG.

    Raises:
        FileNotFoundError: a file is missing. ValueError: a file that dlib cannot read.
    """

    def __init__(self, folder: str | Path, *, cnn: bool = False):
        import dlib

        self.dlib, self.folder = dlib, Path(folder)
        self.predictor = self._open(dlib.shape_predictor, "landmarks")
        self.cnn = self._open(dlib.cnn_face_detection_model_v1, "detector") if cnn else None
        self.hog = dlib.get_frontal_face_detector()

    def find(self, picture: np.ndarray, *, upsample: int = 0) -> list[Face]:
        """All faces of a picture (h, w, 3) uint8 RGB, the largest first.

        upsample: how often the picture is doubled first, to find smaller faces; 0 finds those of about 80 pixels and more.
        """
        picture, upsample = _check(picture), check_whole("upsample", upsample, at_least=0)
        if self.cnn is not None:
            found = [(each.rect, float(each.confidence)) for each in self.cnn(picture, upsample)]
        else:
            boxes, scores, _ = self.hog.run(picture, upsample)
            found = list(zip(boxes, scores, strict=True))
        faces = [
            Face((box.left(), box.top(), box.right(), box.bottom()), self._landmarks(picture, box), score) for box, score in found
        ]
        return sorted(faces, key=lambda face: -(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))

    def chip(self, picture: np.ndarray, face: Face, *, size: int, padding: float) -> np.ndarray:
        """A face turned upright and cut out of the whole picture, (size, size, 3) uint8; see `FAIRFACE`."""
        return self.dlib.get_face_chip(
            _check(picture), self._shape(picture, face), size=check_whole("size", size), padding=padding
        )

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        """Who it is, (128,) float64; distances below 0.6 count as the same person, its author says."""
        if not hasattr(self, "recognition"):
            self.recognition = self._open(self.dlib.face_recognition_model_v1, "recognition")
        return np.array(self.recognition.compute_face_descriptor(_check(picture), self._shape(picture, face)))

    def _shape(self, picture: np.ndarray, face: Face) -> Any:
        return self.predictor(picture, self.dlib.rectangle(*face.box))

    def _landmarks(self, picture: np.ndarray, box: Any) -> np.ndarray:
        return np.array([(point.x, point.y) for point in self.predictor(picture, box).parts()])

    def _open(self, kind: Any, file: str) -> Any:
        path = self.folder / FILES[file]
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}; see: python -m debias_utils.assets fetch dlib-faces")
        try:
            return kind(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} cannot be read by dlib: {error}") from error


def _check(picture: np.ndarray) -> np.ndarray:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        got = f"{picture.shape} {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ValueError(f"need a picture (h, w, 3) of bytes, RGB, got {got}")
    return np.ascontiguousarray(picture)
