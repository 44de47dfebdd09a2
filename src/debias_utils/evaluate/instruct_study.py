"""The book's study of InstructPix2Pix: the same people, instructed for every occupation, and both cures, on any profile.

Every number that the papers leave open is an argument here, with our choice as its default.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..debias.gradient import Result, debias_latent
from ..debias.losses import Loss
from ..debias.subspace import BiasSubspace
from ..edit.instruct import edit
from ..edit.sampler import Sampler
from ..toonville.occupations import OCCUPATIONS
from .judge import judge
from .study import BETAS, joint_subspace, likeness, losses

if TYPE_CHECKING:
    from ..profiles import Profile

GUIDANCE = (7.5, 1.5)  # diffusers' default
SAMPLER_STEPS = 10  # few, for the sake of time
STEPS, RATE = 50, 0.05  # the steps are the paper's; the rate is not published
CHUNK = 32  # pictures that are drawn at a time
LAST = 6  # the estimate of the fifth call of ten is what the losses see


class InstructStudy:
    """One editor, some people, all occupations.

    Args:
        parts: the profile. rho: which editor. seed: which people, and which noise. people: how many, balanced over presentation
            and skin tone, in everyday clothes.

    Attributes:
        model: the editor. clip: of the same dial, for the losses. jobs: the occupations. people: the table. numbers: of the
            people, which their noise depends on. originals: (n, 3, h, w) their pictures. conditions: (14, tokens, d), what the
            UNet reads of each instruction.
    """

    def __init__(self, parts: Profile, *, rho: float = 0.9, seed: int = 0, people: int = 40):
        self.parts, self.rho, self.jobs = parts, rho, list(OCCUPATIONS)
        self.noise_seed = parts.seed + 10_000 * seed
        self.model, self.clip = parts.editor(rho), parts.clip(rho)
        self.people, self.numbers = parts.sitters(people, seed=seed), list(range(people))
        self.originals = parts.portraits(self.people)
        self.conditions = self.model.encode_text([parts.instruction(job) for job in self.jobs])

    def only(self, who: Sequence[int]) -> InstructStudy:
        """The same study with some of its people, by their numbers: each of them is edited, and keeps the noise, as among all."""
        other = copy.copy(self)
        other.people = self.people.iloc[list(who)].reset_index(drop=True)
        other.numbers, other.originals = [self.numbers[i] for i in who], self.originals[list(who)]
        return other

    def subspace(self, *attributes: str, n_components: float | int = 0.9) -> BiasSubspace:
        """The joint subspace of attributes out of gender, skin and age, of the states that the UNet reads.

        Raises:
            ValueError: no attribute, or an unknown one; names the choices.
        """
        return joint_subspace(self.model.encode_prompts, self.parts.definitional_sets, *attributes, n_components=n_components)

    def debiased(self, subspace: BiasSubspace, *, skip_first: int = 1) -> torch.Tensor:
        """Text-based debiasing: conditions (14, tokens, d) with the subspace out of every token but the first, not normalised."""
        return subspace.project_out(self.conditions, normalize=False, skip_first=skip_first)

    def draw(
        self,
        conditions: torch.Tensor,
        *,
        people: int | None = None,
        guidance: tuple[float, float] = GUIDANCE,
        steps: int = SAMPLER_STEPS,
        progress: bool = True,
    ) -> torch.Tensor:
        """Edited pictures (k, m, 3, h, w) of the first m people.

        Args:
            conditions: (k, tokens, d) for everyone, or (k, m, tokens, d), one for each person. people: m; default all.
            guidance: scales of text and image. steps: of the sampler.
        """
        images = self.originals[:people]
        if conditions.ndim == 4:
            conditions = conditions.transpose(0, 1)
        options: dict[str, Any] = {"guidance": guidance, "steps": steps, "seed": self.noise_seed, "progress": progress}
        options["people"] = self.numbers[: len(images)]
        return edit(self.model, images, conditions, chunk_size=CHUNK, **options).transpose(0, 1)

    @torch.no_grad()
    def imagine(self, conditions: torch.Tensor, *, draws: int, scale: float = 3.0) -> torch.Tensor:
        """(k, draws, 3, h, w) pictures of nobody in particular: the text (k, tokens, d) alone, zeros for the image latents.

        scale: of the text. Draw i starts from the noise of person i, whatever the text.
        """
        nobody, rows = self.originals[:1].expand(draws, -1, -1, -1), torch.arange(draws).repeat(len(conditions))  # for its size
        options: dict[str, Any] = {"steps": SAMPLER_STEPS, "guidance": (scale, 1.0), "seed": self.noise_seed}
        sampler = Sampler(self.model, nobody, rows=rows, **options)
        sampler.image_latents = torch.zeros_like(sampler.image_latents)
        chunks = torch.arange(len(rows)).split(CHUNK)
        drawn = torch.cat([sampler(conditions[index // draws], index).clamp(0, 1) for index in chunks])
        return drawn.unflatten(0, (len(conditions), draws))

    def stereotypical(self, pictures: torch.Tensor) -> np.ndarray:
        """(14,) shares of each occupation's pictures, (14, n, 3, h, w), with the gender presentation that it is coded with."""
        seen = [self.parts.attributes.labels(block)["gender"] for block in pictures]
        return np.array([(s == OCCUPATIONS[job].gender).mean() for s, job in zip(seen, self.jobs, strict=True)])

    def sampler(
        self,
        people: int,
        *,
        jobs: Sequence[str] | None = None,
        gradient: str = "one-step",
        k: int = LAST,
        steps: int = SAMPLER_STEPS,
    ) -> Sampler:
        """The decoder of conditions (k x m, tokens, d) of k occupations (default: all), those outermost; see `edit.sampler`."""
        rows = torch.arange(people).repeat(len(self.jobs if jobs is None else jobs))
        options: dict[str, Any] = {"steps": steps, "guidance": GUIDANCE, "seed": self.noise_seed, "people": self.numbers[:people]}
        spare = gradient != "one-step" or self.originals.shape[-1] > 128  # small pictures, one recorded call: the memory is there
        return Sampler(self.model, self.originals[:people], rows=rows, gradient=gradient, k=k, checkpoint=spare, **options)

    def losses(self, people: int, *, jobs: Sequence[str] | None = None) -> dict[str, Loss]:
        """What holds the first m people and what asks for k occupations (default: all); k x m rows, occupations outermost."""
        jobs = self.jobs if jobs is None else list(jobs)
        with torch.no_grad():
            texts = self.clip.encode_prompts(jobs)  # (k, d')
        originals = self.originals[:people].repeat(len(jobs), 1, 1, 1)
        return losses(self.parts, self.clip, texts.repeat_interleave(people, dim=0), originals)

    def gradient_based(
        self,
        conditions: torch.Tensor,
        *,
        people: int,
        jobs: Sequence[str] | None = None,
        betas: Mapping[str, float] = BETAS,
        steps: int = STEPS,
        lr: float = RATE,
        gradient: str = "one-step",
        k: int = LAST,
        sampler_steps: int = SAMPLER_STEPS,
        progress: bool = True,
    ) -> tuple[torch.Tensor, Result]:
        """Gradient-based debiasing of c_T: one condition for each person and occupation.

        Args:
            conditions: (k, tokens, d) to start from: the instructions' own, or text-debiased ones. people: the first m. jobs:
                which k occupations they ask for; default, all.
            betas, steps, lr: see `debias.gradient`; the rate is in units of the conditions' standard deviation.
            gradient, k, sampler_steps: how a gradient passes the sampler, see `edit.sampler`. By default the losses see the
                estimate that the k-th last call makes of the picture, which is the cheapest.

        Returns:
            (k, m, tokens, d), as `draw` takes them, and how they were found, with a row for each pair, occupations outermost.
        """
        result = debias_latent(
            conditions.repeat_interleave(people, dim=0),
            self.sampler(people, jobs=jobs, gradient=gradient, k=k, steps=sampler_steps),
            self.losses(people, jobs=jobs),
            betas=betas,
            steps=steps,
            lr=lr,
            scale=self.conditions.std(),  # of all: whoever is in the batch
            max_gradient=1.0,  # a few pictures have steep losses, and would be thrown far off
            chunk_size=28,
            progress=progress,
        )
        return result.latent.unflatten(0, (len(conditions), people)), result

    def judge(self, edited: torch.Tensor) -> pd.DataFrame:
        """One row for each edited person, of pictures (14, m, 3, h, w) of the first m people; see `judge.judge`."""
        originals, also = self.originals[: edited.shape[1]], likeness(self.parts, self.clip)
        return judge(originals, edited, self.jobs, attributes=self.parts.attributes, **also)
