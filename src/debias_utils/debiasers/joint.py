"""Both towers lose the attribute together: joint bias alignment and counterfactual debiasing, Zhang et al. 2025."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from ..debias.joint import FORMS, PARAMETERS, JointTraining, PairedQueue, bias_alignment
from ..errors import check_choice, check_unit_interval, check_whole
from .base import Debiaser, take
from .training import batches, check_positive, linear

FLIPS = ("pair", "batch")


@dataclass(eq=False)
class JointDebiasing(Debiaser):
    """Modules behind both frozen towers, trained so that their biases align and a caption reads like its counterfactual.

    The equations are in `debias.joint`. Paper and released code differ in the first two settings and in the teacher, which
    only the code has. Left out, for it needs data sets of its own: the choice of the epoch by ABLE on ImageNet. Ours: the rows'
    order is drawn anew in each epoch (the code keeps one order), and embeddings enter at length 1.

    Args:
        form: "add" (code: f + M(f), M ends in a ReLU) or "subtract" (paper: f - BA(f)).
        flip: whether the caption or its counterfactual is shown is drawn for each "pair" (paper) or once a "batch" (code).
        alpha: share of the counterfactual loss; .3 is published.
        teacher: share of the targets that the momentum copies give (.4 in the code, 0 in the paper) from the epoch
            `teacher_from` on (5 of up to 100 in the code). momentum: of these copies.
        temperature: of all similarities. queue: how many earlier pairs are kept (65,536 published; ours is small, for two cores).
        hidden_image, hidden_shared: widths of the two modules. lr, epochs, batch_size: of Adam (5e-6, up to 100 and 512 are
            published, for 75,901 pictures of width 512; the defaults are ours, for Toonville).
        seed: of the start, the order and the draws. device: where to train.
    """

    form: str = "subtract"
    flip: str = "pair"
    alpha: float = 0.3
    teacher: float = 0.4
    teacher_from: int = 1
    momentum: float = 0.995
    temperature: float = 0.07
    queue: int = 2048
    hidden_image: int = 512
    hidden_shared: int = 1024
    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 256
    seed: int = 0
    device: str = "cpu"

    NAME: ClassVar = "joint debiasing"
    SOURCE: ClassVar = "Zhang et al. 2025, arXiv 2411.12785, sections 3 and 4"
    NEEDS: ClassVar = ("images", "captions", "counterfactuals")
    TOWERS: ClassVar = ("text", "image")
    TRAINED: ClassVar = True
    STATE: ClassVar = PARAMETERS

    def fit(self, **data: Any) -> JointDebiasing:
        """See `Debiaser.fit`. A ``ValueError`` also for a setting out of range."""
        self._check()
        images, captions, counterfactuals = (
            torch.from_numpy(x).float().to(self.device) for x in take(data, needs=self.NEEDS, method=self.NAME)
        )
        n, d = images.shape
        generator = torch.Generator().manual_seed(self.seed)
        modules: dict[str, torch.Tensor] = {}
        for module, h in (("image", self.hidden_image), ("shared", self.hidden_shared)):
            values = (*linear(d, h, generator), *linear(h, d, generator))
            modules |= dict(zip((name for name in PARAMETERS if name.startswith(module)), values, strict=True))
        queue = F.normalize(torch.randn(2, self.queue, d, generator=generator), dim=2).to(self.device)
        training = JointTraining(
            {name: value.to(self.device) for name, value in modules.items()},
            PairedQueue(*queue),
            form=self.form, alpha=self.alpha, temperature=self.temperature, lr=self.lr, momentum=self.momentum,
        )  # fmt: skip
        for epoch, rows in batches(n, self.batch_size, epochs=self.epochs, seed=self.seed, name=self.NAME):
            flipped = torch.rand(len(rows) if self.flip == "pair" else 1, generator=generator) >= 0.5
            training.step(
                *(x[rows.to(self.device)] for x in (images, captions, counterfactuals)),
                flipped=flipped.to(self.device),
                teacher=self.teacher if epoch >= self.teacher_from else 0.0,
            )
        return self._fitted(d, **{name: value.detach().cpu().numpy() for name, value in training.modules.items()})

    def _check(self) -> None:
        check_choice("form", self.form, FORMS)
        check_choice("flip", self.flip, FLIPS)
        for name in ("alpha", "teacher", "momentum"):
            check_unit_interval(name, getattr(self, name))
        check_positive(temperature=self.temperature, lr=self.lr)
        for name in ("queue", "hidden_image", "hidden_shared", "epochs", "batch_size"):
            check_whole(name, getattr(self, name))
        check_whole("teacher_from", self.teacher_from, at_least=0)
        check_whole("seed", self.seed, at_least=0)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return bias_alignment(x, state, tower=tower, form=self.form)
