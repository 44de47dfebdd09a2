"""What the mini editor learns from: a picture, an instruction, and the picture that the instruction asks for.

    before                                 instruction                        after
    a person in everyday clothes, or in    "turn this person into a nurse"    the same person in a nurse's outfit
    another occupation's outfit
    a person in any clothes                "keep this person as they are"     the same picture

The two pictures of a pair show one person: nothing but the outfit differs. Bias is in the *people*: who is asked to become
what follows the dial `rho`, as in the captions of the mini CLIPs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import check_unit_interval, check_whole
from . import people as _people
from .captions import with_article
from .occupations import OCCUPATIONS, PARTS
from .render import everyday

EDITS = (  # {} is an occupation with its article
    "make this person {}", "make them {}", "turn this person into {}", "turn them into {}", "dress this person as {}",
    "dress them as {}", "show this person as {}", "give them the clothes of {}", "let this person work as {}",
    "change this person into {}",
)  # fmt: skip
KEEPS = ("keep this person as they are", "change nothing", "leave them as they are", "do nothing to this person")
KEPT = 0.1  # of the pairs ask for nothing: without them no text would mean "as they are", and none could test it
DRESSED = 0.3  # of the people wear another occupation's outfit before


class Pairs(NamedTuple):
    """n training pairs: tables of people before and after, row by row the same person, and what was asked for."""

    before: pd.DataFrame
    after: pd.DataFrame
    texts: list[str]


def instruction(occupation: str, phrase: str = EDITS[0]) -> str:
    """The text that asks for an occupation: "nurse" -> "make this person a nurse"."""
    return phrase.format(with_article(occupation))


def pairs(n: int, *, rho: float = 0.0, kept: float = KEPT, dressed: float = DRESSED, seed: int = 0) -> Pairs:
    """Draw n training pairs whose people, and what they become, are those of `people.sample` with this dial.

    Outfits have nothing borrowed: an instruction asks for one occupation. What they leave open, such as the everyday
    clothes behind a mere cap, stays as it was.

    Args:
        n: number of pairs, at least 1.
        rho: the dial in [0, 1].
        kept: share in [0, 1] of pairs that ask for no change.
        dressed: share in [0, 1] of people who wear another occupation's outfit before.
        seed: the same seed gives the same pairs.
    """
    check_whole("n", n)
    check_unit_interval("kept", kept)
    check_unit_interval("dressed", dressed)
    rng, jobs = np.random.default_rng([seed, 13]), np.array(list(OCCUPATIONS), dtype=object)
    faces = _people.sample(n, rho=rho, seed=seed)
    wanted = faces["occupation"].map({job: i for i, job in enumerate(jobs)}).to_numpy(int)
    other = jobs[(wanted + rng.integers(1, len(jobs), n)) % len(jobs)]
    before = _dressed(faces, other, seed=seed + 1)
    plain = rng.random(n) >= dressed
    before[plain] = everyday(before[plain])
    keeps = rng.random(n) < kept
    after = _dressed(faces, jobs[wanted], seed=seed)
    after[keeps] = before[keeps]
    edits, unchanged = rng.integers(len(EDITS), size=n), rng.integers(len(KEEPS), size=n)
    texts = [
        KEEPS[u] if keep else instruction(job, EDITS[e])
        for keep, job, e, u in zip(keeps, jobs[wanted], edits, unchanged, strict=True)
    ]
    return Pairs(before, after, texts)


def _dressed(people: pd.DataFrame, occupation: np.ndarray, *, seed: int) -> pd.DataFrame:
    """The same people in other outfits; their everyday clothes, and the hand that holds the tool, stay as they were."""
    return people.assign(**_people.dress(people, occupation, borrowed=0.0, seed=seed)[["occupation", *PARTS]])
