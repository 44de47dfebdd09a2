"""Learned tokens before every query, in CLIP's text tower, against an adversary: the prompt array of Berg et al. 2022."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from ..debias.prompt_array import PLACES, encode_with_tokens, start_tokens
from ..errors import check_choice, check_whole
from ..models.clip import Clip
from .base import Debiaser, take, unit
from .training import FOOLING, adversary_loss, batches, check_positive, fooling_loss, perceptron, weighted_classes

KEEPING = ("similarities", "contrastive")


def kept_similarities(images: torch.Tensor, texts: torch.Tensor, plain: torch.Tensor, *, scale: float) -> torch.Tensor:
    """KL of the softmax over texts that pictures had with the plain texts from the one they have now; a scalar, 0 at the start.

    images: (n, d), texts and plain: (m, d), all unit. scale: what CLIP multiplies cosines by.
    """
    before, now = (F.log_softmax(scale * images @ x.T, dim=1) for x in (plain, texts))
    return F.kl_div(now, before, log_target=True, reduction="batchmean")


def contrastive_loss(images: torch.Tensor, texts: torch.Tensor, *, scale: float) -> torch.Tensor:
    """CLIP's own loss of n pairs: the mean of the cross-entropies from pictures to texts and back; (n, d) unit rows, a scalar."""
    logits, pair = scale * images @ texts.T, torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2


@dataclass(eq=False)
class PromptArray(Debiaser):
    """Tokens are learned that stand before every text, so that its similarity to a picture does not tell the attribute.

    An adversary guesses the attribute of a picture from its similarities to the prompts; the tokens make it guess badly, and keep
    what the tower is for. Pictures stay as they are, and the tower's weights too. Since the tokens work inside the tower,
    `transform_text` needs `tower` and the `prompts` whose embeddings it is given: it adds what the tokens change in them.

    Published are the tokens (2, before the start token, starting at token 0), the adversary's layers (3 hidden ones of 32), and
    that it is trained beside them with a contrastive loss on captioned pictures. Not published, and so ours: the weight and the
    form of the losses, all rates and lengths, the standardised similarities that the adversary reads, one softmax over the
    attribute's classes in place of their sigmoids, and classes that count alike.

    Args:
        n_tokens: how many. place: where they go, see `debias.prompt_array.with_tokens`.
        against: what the tokens want of the adversary: "uniform" odds (ours), or its "cross-entropy" large (published).
        keep: "similarities" keeps the pictures' similarities to the prompts (ours; needs nothing more); "contrastive" is
            published, and needs `caption_texts`.
        weight: of the adversary's part in the loss, beside 1 for what is kept.
        hidden: width of the adversary's three hidden layers. adversary_steps: its steps for each of the tokens'.
        lr, adversary_lr: Adam's. epochs, batch_size: of both. seed: of the start and the order. It trains where the tower is.
    """

    n_tokens: int = 2
    place: str = "prepend"
    against: str = "uniform"
    keep: str = "similarities"
    weight: float = 1.0
    hidden: int = 32
    adversary_steps: int = 3
    lr: float = 1e-3
    adversary_lr: float = 3e-3
    epochs: int = 5
    batch_size: int = 256
    seed: int = 0

    NAME: ClassVar = "prompt array"
    SOURCE: ClassVar = "Berg et al. 2022, arXiv 2203.11933, section 4"
    NEEDS: ClassVar = ("images", "groups", "tower", "prompts")
    OPTIONAL: ClassVar = ("caption_texts",)
    TOWERS: ClassVar = ("text",)
    TRAINED: ClassVar = True
    WITH_TEXTS: ClassVar = ("tower", "prompts")
    STATE: ClassVar = ("tokens", "tower")

    def fit(self, **data: Any) -> PromptArray:
        """See `Debiaser.fit`. A ``ValueError`` also for a setting out of range, another kind of tower, or texts without room."""
        self._check()
        needs = self.NEEDS + (self.OPTIONAL if self.keep == "contrastive" else ())
        images, groups, tower, prompts, *captions = take(data, needs=needs, method=self.NAME)
        ids = self._ids(tower, prompts)
        device = ids.device
        x = torch.from_numpy(images).float().to(device)
        codes, weights = (t.to(device) for t in weighted_classes(groups))
        caption_ids = self._ids(tower, captions[0]) if captions else None
        plain = _embedded(tower, ids, start_tokens(tower.model, 0))
        if plain.shape[1] != x.shape[1]:
            raise ValueError(f"images have width {x.shape[1]}, the tower's texts {plain.shape[1]}: give one CLIP's")
        scale = float(tower.model.logit_scale.detach().exp())
        before = x @ plain.T
        mean, std = before.mean(dim=0), before.std(dim=0).clamp(min=1e-6)
        tokens = start_tokens(tower.model, self.n_tokens).to(device).requires_grad_()
        adversary = perceptron((len(ids), *[self.hidden] * 3, len(weights)), self.seed, device)
        learns = torch.optim.Adam(adversary.parameters(), lr=self.adversary_lr)
        moves = torch.optim.Adam([tokens], lr=self.lr)
        generator = torch.Generator().manual_seed(self.seed)
        for _, rows in batches(len(x), self.batch_size, epochs=self.epochs, seed=self.seed, name=self.NAME):
            texts = _embedded(tower, ids, tokens, self.place)
            for _ in range(self.adversary_steps):
                some = torch.randint(len(x), (len(rows),), generator=generator).to(device)
                learns.zero_grad()
                adversary_loss(adversary((x[some] @ texts.detach().T - mean) / std), codes[some], weights).backward()
                learns.step()
            rows = rows.to(device)
            fooled = fooling_loss(adversary((x[rows] @ texts.T - mean) / std), codes[rows], weights, against=self.against)
            if caption_ids is None:
                kept = kept_similarities(x[rows], texts, plain, scale=scale)
            else:
                kept = contrastive_loss(x[rows], _embedded(tower, caption_ids[rows], tokens, self.place), scale=scale)
            moves.zero_grad()
            (kept + self.weight * fooled).backward()
            moves.step()
        return self._fitted(x.shape[1], tokens=tokens.detach().cpu().numpy(), tower=_fingerprint(tower))

    def _check(self) -> None:
        for name, value, choices in (
            ("place", self.place, PLACES),
            ("against", self.against, FOOLING),
            ("keep", self.keep, KEEPING),
        ):
            check_choice(name, value, choices)
        check_positive(weight=self.weight, lr=self.lr, adversary_lr=self.adversary_lr)
        for name in ("n_tokens", "hidden", "adversary_steps", "epochs", "batch_size"):
            check_whole(name, getattr(self, name))
        check_whole("seed", self.seed, at_least=0)

    def _ids(self, tower: Any, texts: Any) -> torch.Tensor:
        """Token ids (m, t), on the tower's device. ``ValueError`` unless it is a `Clip` and all texts have room."""
        if not isinstance(tower, Clip):
            raise ValueError(f"tower must be a debias_utils.models.clip.Clip, got {type(tower).__name__}")
        ids = tower.tokenize(texts).to(tower.device)
        room = ids.shape[1] - 1 - ids.argmax(dim=1)
        if room.min() < self.n_tokens:
            row = int(room.argmin())
            raise ValueError(
                f"{list(texts)[row]!r} leaves room for {int(room[row])} learned tokens in {tower.name}, not {self.n_tokens}"
            )
        return ids

    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        model, prompts = take(data, needs=self.WITH_TEXTS, method=f"{self.NAME}, to transform texts,")
        ids = self._ids(model, prompts)
        if not np.array_equal(_fingerprint(model), state["tower"].cpu().numpy()):
            raise ValueError(f"{self.NAME} was fitted in another CLIP than {model.name}: its tokens mean nothing there")
        with torch.no_grad():
            plain = _embedded(model, ids, start_tokens(model.model, 0))
            texts = _embedded(model, ids, state["tokens"].to(model.device), self.place)
        if len(plain) != len(x):
            raise ValueError(f"need one of prompts for each row: {len(plain)} and {len(x)}")
        likeness = (x.detach() * plain.to(x)).sum(dim=1)
        if likeness.min() < 0.99:
            row = int(likeness.argmin())
            raise ValueError(
                f"row {row} is not the embedding of {prompts[row]!r}: their cosine is {likeness[row]:.3f}; "
                "of a mean over templates, transform each text and take the mean then"
            )
        return x + (texts - plain).to(x)


def _embedded(tower: Any, ids: torch.Tensor, tokens: torch.Tensor, place: str = "prepend") -> torch.Tensor:
    """Unit rows (m, d) in float32."""
    return unit(encode_with_tokens(tower.model, ids, tokens, place=place).float())


def _fingerprint(tower: Any) -> np.ndarray:
    """Which CLIP it is, (32,) bytes."""
    return np.frombuffer(bytes.fromhex(tower.checksum), np.uint8).copy()
