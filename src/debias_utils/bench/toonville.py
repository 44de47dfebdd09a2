"""The bench's task in Toonville, where the truth is known: fitted on the stereotyped world, measured on a balanced one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import toonville
from ..discover.ranking import indices
from ..errors import check_choice
from ..toonville.captions import AGE_WORDS, GENDER_WORDS, SKIN_WORDS
from ..toonville.occupations import OCCUPATIONS
from .task import Task

if TYPE_CHECKING:
    from ..profiles import Profile

# attribute, as the table of people names it: {class: a word for it that captions use}
WORDS = {
    "gender": {group: words["noun"][0] for group, words in GENDER_WORDS.items()},
    "skin": {group: words[0] for group, words in SKIN_WORDS.items()},
    "age": {group: words[0] for group, words in AGE_WORDS.items()},
}
PEOPLE = 3_000  # whom methods are fitted on


def task(parts: Profile, attribute: str = "gender", *, rho: float = 0.9, training_seed: int = 0, people: int = PEOPLE) -> Task:
    """What one CLIP of Toonville gives the bench.

    Methods are fitted on `people` of the CLIP's own world, with their attribute known, and on words. Ranked are balanced people
    in everyday clothes, none of whom was fitted on; the task is to name the occupation of the same people at work.

    Args:
        parts: the profile. attribute: "gender", "skin" or "age". rho, training_seed: which CLIP.

    Raises:
        ValueError: an unknown attribute, dial or training.
    """
    check_choice("attribute", attribute, WORDS)
    clip = parts.clip(rho, training_seed=training_seed)
    words, jobs = WORDS[attribute], list(OCCUPATIONS)

    def texts(prompts: list[str]) -> np.ndarray:
        found: np.ndarray = clip.encode_prompts(prompts).cpu().double().numpy()
        return found

    def images(table: Any) -> np.ndarray:
        return np.asarray(parts.image_embeddings(table, rho=rho, training_seed=training_seed), float)

    own = toonville.sample(people, rho=rho, seed=parts.seed + 30_000 + training_seed)
    classes = list(words)
    turned = dict(zip(classes, [*classes[1:], classes[0]], strict=True))  # each class becomes the next one
    said = {
        name: clip.encode_text(toonville.caption(table, seed=parts.seed)).cpu().double().numpy()  # the same sentences
        for name, table in (
            ("captions", own), ("counterfactuals", own.assign(**{attribute: own[attribute].map(turned)})),
        )
    }  # fmt: skip
    queries = texts(jobs)  # (14, d)
    group_queries = np.stack([texts([f"{job}, {word}" for job in jobs]) for word in words.values()], axis=1)  # (14, a, d)
    spoken = {group: [*(f"{word}, {job}" for job in jobs), word] for group, word in words.items()}
    crowd = parts.people()
    fit = {
        "images": images(own),
        "groups": own[attribute].to_numpy(str),
        "targets": indices(own["occupation"], jobs),
        **said,
        "texts": np.concatenate([texts(prompts) for prompts in spoken.values()]),
        "text_groups": np.repeat(list(spoken), [len(prompts) for prompts in spoken.values()]),
        "sets": [texts(list(alike)) for alike in parts.definitional_sets[attribute]],
        "queries": queries,
        "group_queries": group_queries,
    }
    return Task(
        fit,
        images=images(toonville.everyday(crowd)),
        groups=crowd[attribute].to_numpy(str),
        queries=queries,
        names=tuple(jobs),
        group_queries=group_queries,
        asked=tuple(words),
        targets=crowd["occupation"].to_numpy(str),
        task_images=images(crowd),
        task_groups=crowd[attribute].to_numpy(str),
        about={"world": "Toonville", "attribute": attribute, "rho": rho, "training": training_seed},
    )
