"""Joint bias alignment and counterfactual debiasing (Zhang et al. 2025, arXiv 2411.12785): its parts as functions of tensors.

With n(x) = x / |x|, temperature t, a batch of unit pictures V and captions T, and queues Q of earlier pairs (column j of both is
the j-th pair, own batch first), keys are [V; Q_v] and [T; Q_t]. A debiased embedding is x', its bias n(x) - n(x').

    L_ba = mean_i KL(softmax(bias_t [T; Q_t] / t) || softmax(bias_v [V; Q_v] / t)), each within its own modality
    L_cd = (CE(softmax(v [T; Q_t] / t), v' [T; Q_t] / t) + CE(softmax(t [V; Q_v] / t), a(t', t'_cf) [V; Q_v] / t)) / 2
    L = alpha L_cd + (1 - alpha) L_ba

a draws the debiased caption or its counterfactual, which has another class of the attribute in its wording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..errors import check_choice

FORMS = ("add", "subtract")
LAYERS = ("w1", "b1", "w2", "b2")
PARAMETERS = tuple(f"{module}_{layer}" for module in ("image", "shared") for layer in LAYERS)
Modules = Mapping[str, torch.Tensor]


def bias_alignment(x: torch.Tensor, modules: Modules, *, tower: str, form: str = "add") -> torch.Tensor:
    """Embeddings (n, d) with what the modules make of them added or subtracted; not normalised.

    "add" is what the released code does: text t + M(t), image v + M(M_image(v) + v) with M(x) = ReLU(W2 ReLU(W1 x + b1) + b2),
    which can add positive amounts only. "subtract" is the paper's f - BA(f): the same modules, the result subtracted, and
    without the last ReLU (our reading: a bias has components of both signs).

    Args:
        x: (n, d). modules: tensors by the names in `PARAMETERS`: w1 (h, d), b1 (h,), w2 (d, h), b2 (d,) of the module that
            pictures alone pass ("image") and of the one that both towers pass ("shared").
        tower: "text" or "image". form: "add" or "subtract".
    """
    check_choice("tower", tower, ("text", "image"))
    check_choice("form", form, FORMS)
    given = x + _module(x, modules, "image", form) if tower == "image" else x
    bias = _module(given, modules, "shared", form)
    return x + bias if form == "add" else x - bias


def _module(x: torch.Tensor, modules: Modules, name: str, form: str) -> torch.Tensor:
    w1, b1, w2, b2 = (modules[f"{name}_{layer}"] for layer in LAYERS)
    out = F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)
    return F.relu(out) if form == "add" else out


def bias_alignment_loss(
    text_bias: torch.Tensor, image_bias: torch.Tensor, text_keys: torch.Tensor, image_keys: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """L_ba, a scalar: biases (n, d) of pairs and keys (m, d); the gradient flows through both distributions."""
    text = F.log_softmax(text_bias @ text_keys.T / temperature, dim=1)
    image = F.log_softmax(image_bias @ image_keys.T / temperature, dim=1)
    return F.kl_div(image, text, log_target=True, reduction="batchmean")


def similarities(x: torch.Tensor, keys: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """(n, m) softmax of unit rows x (n, d) against keys (m, d): the targets of L_cd."""
    return (x @ keys.T / temperature).softmax(dim=1)


def counterfactual_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    image_targets: torch.Tensor,
    text_targets: torch.Tensor,
    image_keys: torch.Tensor,
    text_keys: torch.Tensor,
    *,
    temperature: float,
) -> torch.Tensor:
    """L_cd, a scalar.

    Args:
        images: (n, d) debiased pictures, unit. texts: (n, d) debiased captions, or counterfactuals, as they were drawn; unit.
        image_targets: (n, m) `similarities` of the original pictures to the captions' keys. text_targets: of the original
            captions, never the counterfactuals, to the pictures' keys.
        image_keys, text_keys: (m, d). temperature: of all.
    """
    to_text = F.cross_entropy(images @ text_keys.T / temperature, image_targets)
    to_image = F.cross_entropy(texts @ image_keys.T / temperature, text_targets)
    return (to_text + to_image) / 2


@dataclass
class PairedQueue:
    """The last pairs that were seen, unit originals: row j of both arrays is one pair. Written in a ring from `place` on."""

    images: torch.Tensor
    texts: torch.Tensor
    place: int = 0

    def push(self, images: torch.Tensor, texts: torch.Tensor) -> None:
        """Write a batch (n, d) over the oldest pairs, round the end if need be; of more than fit, the last ones stay."""
        size = len(self.images)
        rows = (self.place + torch.arange(len(images), device=images.device))[-size:] % size
        self.images[rows], self.texts[rows] = images[-size:], texts[-size:]
        self.place = (self.place + len(images)) % size


class JointTraining:
    """One training of the modules, step by step, in the released code's order: copies, losses, queue, Adam.

    Args:
        modules: their start, see `bias_alignment`; trained in place. copies: the momentum copies' start. queue: its start.
        form: see `bias_alignment`. alpha: the share of L_cd. temperature: of all softmaxes. lr: Adam's.
        momentum: how much of the copies stays in a step.
    """

    def __init__(
        self,
        modules: dict[str, torch.Tensor],
        queue: PairedQueue,
        *,
        copies: dict[str, torch.Tensor] | None = None,
        form: str,
        alpha: float,
        temperature: float,
        lr: float,
        momentum: float,
    ):
        self.modules = {name: value.clone().requires_grad_() for name, value in modules.items()}
        self.copies = {name: value.detach().clone() for name, value in (copies or modules).items()}
        self.queue, self.form, self.alpha, self.temperature, self.momentum = queue, form, alpha, temperature, momentum
        self.optimizer = torch.optim.Adam(self.modules.values(), lr=lr)

    def losses(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        counterfactuals: torch.Tensor,
        *,
        flipped: torch.Tensor,
        teacher: float = 0.0,
    ) -> dict[str, torch.Tensor]:
        """L_ba, L_cd and their weighted sum, as "ba", "cd" and "total".

        Args:
            images, texts, counterfactuals: (n, d) embeddings of any length.
            flipped: (n,) or (1,) bool, whether the counterfactual is shown in place of the caption.
            teacher: share in [0, 1] of the targets that comes from embeddings that the momentum copies debiased.
        """
        with torch.no_grad():
            image, text = F.normalize(images, dim=1), F.normalize(texts, dim=1)
            image_keys, text_keys = torch.cat([image, self.queue.images]), torch.cat([text, self.queue.texts])
            image_targets = similarities(image, text_keys, temperature=self.temperature)
            text_targets = similarities(text, image_keys, temperature=self.temperature)
            if teacher:
                image_m, text_m = self._fair(images, self.copies, "image"), self._fair(texts, self.copies, "text")
                image_targets.lerp_(similarities(image_m, text_keys, temperature=self.temperature), teacher)
                text_targets.lerp_(similarities(text_m, image_keys, temperature=self.temperature), teacher)
        fair_image, fair_text = self._fair(images, self.modules, "image"), self._fair(texts, self.modules, "text")
        fair_other = self._fair(counterfactuals, self.modules, "text")
        ba = bias_alignment_loss(text - fair_text, image - fair_image, text_keys, image_keys, temperature=self.temperature)
        drawn = torch.where(flipped[:, None], fair_other, fair_text)
        cd = counterfactual_loss(
            fair_image, drawn, image_targets, text_targets, image_keys, text_keys, temperature=self.temperature
        )
        return {"ba": ba, "cd": cd, "total": self.alpha * cd + (1 - self.alpha) * ba}

    def step(self, images: torch.Tensor, texts: torch.Tensor, counterfactuals: torch.Tensor, *, flipped: torch.Tensor,
             teacher: float = 0.0) -> dict[str, torch.Tensor]:  # fmt: skip
        """One step of Adam; arguments and result of `losses`."""
        with torch.no_grad():
            for name, copy in self.copies.items():
                copy.mul_(self.momentum).add_(self.modules[name], alpha=1 - self.momentum)
        losses = self.losses(images, texts, counterfactuals, flipped=flipped, teacher=teacher)
        self.queue.push(F.normalize(images, dim=1), F.normalize(texts, dim=1))
        self.optimizer.zero_grad()
        losses["total"].backward()
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def _fair(self, x: torch.Tensor, modules: Modules, tower: str) -> torch.Tensor:
        return F.normalize(bias_alignment(x, modules, tower=tower, form=self.form), dim=1)
