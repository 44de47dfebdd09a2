"""The book's study of StyleCLIP: the same people, asked for every occupation, before debiasing and after each cure.

Every number that the papers leave open is an argument here, with our choice as its default.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from ..debias.gradient import Result, debias_latent
from ..debias.losses import Loss, clip_loss, identity_loss, perceptual_loss
from ..debias.orthogonal import orthogonalise
from ..debias.subspace import BiasSubspace, debias_delta
from ..debias.words import Sets
from ..edit import relevance as _relevance
from ..edit.styleclip import beta_for, direction, edit, text_delta
from ..errors import check_choice
from ..toonville.occupations import OCCUPATIONS
from .judge import judge

if TYPE_CHECKING:
    from ..models.clip import Clip
    from ..profiles import Profile

PROTECTED = ("gender", "skin")  # what text-based debiasing takes out, as in the paper
BETAS = {"clip": 1.0, "identity": 3.0, "perceptual": 10.0}
CHANNELS, ALPHA = 120, 3.0  # of the edits that are debiased: the chapters show what other choices do
STEPS = 20
NEUTRAL = "person"
REGRESSION = "regression"  # the way to relevance


@torch.no_grad()
def joint_subspace(
    encode: Callable[[list[str]], torch.Tensor], sets: Mapping[str, Sets], *attributes: str, n_components: float | int = 0.9
) -> BiasSubspace:
    """The subspaces of some attributes, fitted on their definitional sets, as one.

    Args:
        encode: n words -> (n, d). sets: {attribute: its sets}. attributes: at least one. n_components: of each, see
            `BiasSubspace.fit`.

    Raises:
        ValueError: no attribute, or an unknown one; names the choices.
    """
    spaces = []
    for attribute in attributes or ("",):
        check_choice("attribute", attribute, sets)
        spaces.append(BiasSubspace.fit([encode(list(words)) for words in sets[attribute]], n_components=n_components))
    return reduce(BiasSubspace.join, spaces)


def losses(parts: Profile, clip: Clip, texts: torch.Tensor, originals: torch.Tensor) -> dict[str, Loss]:
    """The three losses of gradient-based debiasing: what asks for the occupation, and what holds person and picture.

    Args:
        parts: the profile. clip: whose texts and pictures are compared. texts: (n, d) of it. originals: (n, 3, h, w).
    """
    return {
        "clip": clip_loss(clip, texts),
        "identity": identity_loss(parts.identity, originals),
        "perceptual": perceptual_loss(parts.perceptual, originals),
    }


def likeness(parts: Profile, clip: Clip) -> dict[str, Any]:
    """What these losses look at, as `judge.judge` takes it: measured beside the rest, and no independent evidence."""
    return {"identity": parts.identity, "perceptual": parts.perceptual, "clip": clip}


class StyleClipStudy:
    """One CLIP, one generator, some people, all occupations.

    Args:
        parts: the profile. rho, training_seed: which CLIP guides the edits.
        people: how many, balanced over presentation and skin tone, in everyday clothes.
        samples: of the generator, for the channels' statistics and relevance.

    Attributes:
        jobs: the occupations. people: the table. start: (n, S) styles of their inverted portraits. originals:
        (n, 3, h, w), the generator's own drawings of them. statistics: of the style channels. bounds: two (S,), what no
        optimised style leaves. deltas: (14, d) text differences, not debiased.
    """

    def __init__(self, parts: Profile, *, rho: float = 0.9, training_seed: int = 0, people: int = 40, samples: int = 1000):
        self.parts, self.rho, self.training_seed = parts, rho, training_seed
        self.clip, self.jobs = parts.clip(rho, training_seed=training_seed), list(OCCUPATIONS)
        self.people = parts.sitters(people, seed=training_seed)
        self.start = parts.invert(parts.portraits(self.people))
        self.originals = parts.draw(self.start)
        self.styles = parts.sample_styles(samples, seed=parts.seed + 20_000)
        self.statistics = _relevance.channel_statistics(self.styles)
        with torch.no_grad():
            self.texts = self.clip.encode_prompts(self.jobs)  # (14, d)
            self.neutral = self.clip.encode_prompts([NEUTRAL])[0]  # (d,)
        self.deltas = text_delta(self.texts, self.neutral)
        low = torch.minimum(self.statistics.low, self.start.amin(dim=0))  # nobody starts outside
        high = torch.maximum(self.statistics.high, self.start.amax(dim=0))
        self.bounds = (low, high)

    def only(self, who: Sequence[int]) -> StyleClipStudy:
        """The same study with some of its people, by their numbers: each of them is edited as among all."""
        _ = self.features  # computed once for all of them
        other = copy.copy(self)
        other.people = self.people.iloc[list(who)].reset_index(drop=True)
        other.start, other.originals = self.start[list(who)], self.originals[list(who)]
        return other

    @cached_property
    def features(self) -> torch.Tensor:
        """(samples, d) embeddings of the sampled pictures."""
        with torch.no_grad():
            return torch.cat([self.clip.encode_image(self.parts.draw(part)) for part in self.styles.split(64)])

    def relevance(self, deltas: torch.Tensor) -> torch.Tensor:
        """(t, S) relevance of the channels to text differences (t, d), by regression."""
        return _relevance.regression(self.styles, self.features, deltas)

    def directions(self, relevance: torch.Tensor, *, channels: int) -> torch.Tensor:
        """Edits (t, S) with the most relevant channels, of relevance (t, S): the most relevant moves by one deviation."""
        std = self.statistics.std
        return torch.stack([direction(r, std, beta=beta_for(r, channels=channels)) for r in relevance])

    def apply(self, directions: torch.Tensor, *, alpha: float) -> torch.Tensor:
        """(t, n, S) styles of everyone after each edit (t, S), within the range that the generator knows."""
        low, high = self.statistics.low, self.statistics.high
        return torch.stack([edit(self.start, d, alpha=alpha, low=low, high=high) for d in directions])

    def edit(self, deltas: torch.Tensor, *, channels: int = CHANNELS, alpha: float = ALPHA) -> torch.Tensor:
        """(t, n, S) styles of everyone after an edit along each text difference (t, d)."""
        return self.apply(self.directions(self.relevance(deltas), channels=channels), alpha=alpha)

    def subspace(self, *attributes: str, n_components: float | int = 0.9) -> BiasSubspace:
        """The joint subspace of attributes out of gender, skin and age, fitted on the profile's definitional sets.

        Raises:
            ValueError: no attribute, or an unknown one; names the choices.
        """
        return joint_subspace(self.clip.encode_prompts, self.parts.definitional_sets, *attributes, n_components=n_components)

    def debiased(self, subspace: BiasSubspace) -> torch.Tensor:
        """Text-based debiasing: (14, d) text differences with the subspace taken out."""
        return debias_delta(self.deltas, torch.zeros_like(self.neutral), subspace)

    def debiased_texts(self, subspace: BiasSubspace) -> torch.Tensor:
        """(14, d) texts of the occupations with the subspace taken out."""
        return subspace.project_out(self.texts)

    def orthogonal(self, directions: torch.Tensor, subspace: BiasSubspace) -> torch.Tensor:
        """The third way, ours: edits (14, S) made orthogonal to the relevance of the channels to the subspace."""
        basis = torch.as_tensor(subspace.basis, dtype=self.deltas.dtype, device=self.deltas.device)
        protected = self.relevance(basis)  # (r, S)
        return torch.stack([orthogonalise(d, protected, std=self.statistics.std) for d in directions])

    def gradient_based(
        self,
        edited: torch.Tensor,
        texts: torch.Tensor,
        *,
        betas: Mapping[str, float] = BETAS,
        steps: int = STEPS,
        lr: float = 0.1,
        progress: bool = True,
    ) -> Result:
        """Gradient-based debiasing of edits, from the biased or the text-debiased ones.

        Args:
            edited: (t, m, S) styles to start from, of everyone or of the first m people. texts: (t, d) what the pictures should
                still show.

        Returns:
            The result with a latent of (t * m, S), occupations outermost; see `debias.gradient.debias_latent`.
        """
        t, m, _ = edited.shape
        originals = self.originals[:m].repeat(t, 1, 1, 1)
        return debias_latent(
            edited.flatten(0, 1),
            lambda styles, index: self.parts.synthesize(styles),
            losses(self.parts, self.clip, texts.repeat_interleave(m, dim=0), originals),
            betas=betas,
            steps=steps,
            lr=lr,
            scale=self.statistics.std,
            bounds=self.bounds,
            progress=progress,
        )

    def judge(self, edited: torch.Tensor, *, more: bool = False) -> pd.DataFrame:
        """One row for each edited person, of styles (14, m, S) of the first m people; see `judge.judge`.

        more: also measure what the gradient-based method optimises, see `likeness`.
        """
        originals, also = self.originals[: edited.shape[1]], likeness(self.parts, self.clip) if more else {}
        return judge(originals, self.parts.draw(edited), self.jobs, attributes=self.parts.attributes, **also)
