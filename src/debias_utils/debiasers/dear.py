"""A linear residual takes the attribute out of pictures, against a classifier: DeAR, Seth et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from ..errors import check_choice, check_whole
from .base import Debiaser, take
from .training import FOOLING, adversary_loss, batches, check_positive, fooling_loss, perceptron, weighted_classes


def additive_residual(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Embeddings (n, d) plus a linear function of themselves, x + (W x + b); weight (d, d), bias (d,). Not normalised."""
    return x + F.linear(x, weight, bias)


def residual_loss(
    x: torch.Tensor,
    debiased: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    *,
    reconstruction: float,
    against: str,
) -> torch.Tensor:
    """Weight times mean |x' - x|^2 + what fools the classifier, see `training.fooling_loss`; a scalar.

    Args:
        x, debiased: (n, d). logits: (n, k) that the classifier says of `debiased`. labels: (n,). weights: (k,) of the classes.
        reconstruction: weight of the first term. against: "uniform" or "cross-entropy".
    """
    kept = (debiased - x).square().sum(dim=1).mean()
    return reconstruction * kept + fooling_loss(logits, labels, weights, against=against)


@dataclass(eq=False)
class DeAR(Debiaser):
    """Pictures get a residual, E' = E + phi(E) with phi one linear layer, from which a classifier cannot tell the attribute.

    Published are phi and the two kinds of terms, |E' - E|^2 and minus the cross-entropy of the attribute's classifier. Not
    published, and so ours: all weights and rates; that phi starts at 0, the identity; that the classifier reads E' at length 1,
    as the bench does; that it goes on learning beside phi; and that classes count alike. Texts stay as they are.

    Args:
        against: what phi wants of the classifier: "uniform" odds (ours), or its "cross-entropy" large (published, unbounded).
        reconstruction: weight of |E' - E|^2.
        hidden: width of the classifier's two hidden layers. classifier_epochs: how long it learns before phi moves.
        classifier_steps: its steps for each of phi's; 0 freezes it.
        lr, classifier_lr: Adam's; phi's falls to 0 along a line. epochs, batch_size: of both.
        seed: of the start and the order. device: where to train.
    """

    against: str = "uniform"
    reconstruction: float = 1.0
    hidden: int = 128
    classifier_epochs: int = 2
    classifier_steps: int = 5
    lr: float = 3e-5
    classifier_lr: float = 1e-3
    epochs: int = 15
    batch_size: int = 256
    seed: int = 0
    device: str = "cpu"

    NAME: ClassVar = "DeAR"
    SOURCE: ClassVar = "Seth et al. 2023, arXiv 2303.10431, Fig. 2; US patent 12430898, claim 2"
    NEEDS: ClassVar = ("images", "groups")
    TOWERS: ClassVar = ("image",)
    TRAINED: ClassVar = True
    STATE: ClassVar = ("weight", "bias")

    def fit(self, **data: Any) -> DeAR:
        """See `Debiaser.fit`. A ``ValueError`` also for a setting out of range."""
        self._check()
        images, groups = take(data, needs=self.NEEDS, method=self.NAME)
        x = torch.from_numpy(images).float().to(self.device)
        codes, weights = (t.to(self.device) for t in weighted_classes(groups))
        n, d = x.shape
        classifier = perceptron((d, self.hidden, self.hidden, len(weights)), self.seed, self.device)
        phi = [torch.zeros(d, d, device=self.device, requires_grad=True), torch.zeros(d, device=self.device, requires_grad=True)]
        learns = torch.optim.Adam(classifier.parameters(), lr=self.classifier_lr)
        moves = torch.optim.Adam(phi, lr=self.lr)
        falls = torch.optim.lr_scheduler.LinearLR(moves, 1.0, 0.0, total_iters=self.epochs * -(-n // self.batch_size))

        def learn(rows: torch.Tensor) -> None:
            with torch.no_grad():
                debiased = F.normalize(additive_residual(x[rows], *phi), dim=1)
            learns.zero_grad()
            adversary_loss(classifier(debiased), codes[rows], weights).backward()
            learns.step()

        for _, rows in batches(
            n, self.batch_size, epochs=self.classifier_epochs, seed=self.seed, name=f"{self.NAME}: classifier"
        ):
            learn(rows.to(self.device))
        generator = torch.Generator().manual_seed(self.seed)
        for _, rows in batches(n, self.batch_size, epochs=self.epochs, seed=self.seed, name=self.NAME):
            for _ in range(self.classifier_steps):
                learn(torch.randint(n, (len(rows),), generator=generator).to(self.device))
            rows = rows.to(self.device)
            debiased = additive_residual(x[rows], *phi)
            loss = residual_loss(
                x[rows], debiased, classifier(F.normalize(debiased, dim=1)), codes[rows], weights,
                reconstruction=self.reconstruction, against=self.against,
            )  # fmt: skip
            moves.zero_grad()
            loss.backward()
            moves.step()
            falls.step()
        weight, bias = (value.detach().cpu().numpy() for value in phi)
        return self._fitted(d, weight=weight, bias=bias)

    def _check(self) -> None:
        check_choice("against", self.against, FOOLING)
        check_positive(reconstruction=self.reconstruction, lr=self.lr, classifier_lr=self.classifier_lr)
        for name in ("hidden", "epochs", "batch_size"):
            check_whole(name, getattr(self, name))
        for name in ("classifier_epochs", "classifier_steps", "seed"):
            check_whole(name, getattr(self, name), at_least=0)

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        return additive_residual(x, state["weight"], state["bias"])
