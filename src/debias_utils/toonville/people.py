"""Who lives in Toonville: faces with known attributes, and the joint sampler with the dial `rho`.

A person is one row of a table (`pandas.DataFrame`). Attributes are drawing choices, not claims about people: gender
presentation and age group are *shown* through cues (hair, beard, earrings, lips, wrinkles, ...) that overlap between
groups, so that no single cue settles them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..errors import check_choice, check_unit_interval, check_whole
from .occupations import EVERYDAY, OCCUPATIONS, PARTS

GENDERS = ("feminine", "masculine")
SKIN_TONES = ("light", "tan", "brown", "dark")
SKIN_HALVES = {"light": "lighter", "tan": "lighter", "brown": "darker", "dark": "darker"}
AGES = ("young", "middle-aged", "older")

# P(cue | group). Rear hair, bun, beard, earrings and lips show the presentation; the rest show age.
GENDER_CUES = {
    "long_hair": {"feminine": 0.85, "masculine": 0.12},
    "bun": {"feminine": 0.35, "masculine": 0.04},
    "beard": {"feminine": 0.0, "masculine": 0.75},
    "earrings": {"feminine": 0.85, "masculine": 0.05},
    "lips": {"feminine": 0.90, "masculine": 0.03},
}
AGE_CUES = {
    "grey_hair": {"young": 0.0, "middle-aged": 0.06, "older": 0.95},
    "streaks": {"young": 0.02, "middle-aged": 0.92, "older": 0.05},
    "wrinkles": {"young": 0.0, "middle-aged": 0.35, "older": 0.92},
    "blush": {"young": 0.92, "middle-aged": 0.06, "older": 0.04},
    "glasses": {"young": 0.15, "middle-aged": 0.35, "older": 0.60},
}
SHOWN = {"background": 0.55, "clothing": 0.80, "headgear": 0.55, "tool": 0.75}  # P(part of the outfit is drawn)
BORROWED = 0.10  # P(one more part is drawn, out of the outfit of another occupation)

PER_CELL, EVALUATION_SEED = 30, 10_000  # the people on whom models are measured: none of them is in a training world

SKIN_DIAL = 0.6  # skin follows its coding less strictly than presentation does, by this factor on rho

_SHORT_CUTS = ("sideComed", "spiky", "undercut")
HAIR = ("bun", *_SHORT_CUTS)
REAR_HAIR = ("longStraight", "longWavy", "neckHigh", "shoulderHigh")
BEARDS = ("chin", "chinMoustache", "fullBeard", "longBeard", "moustacheTwirl")
_COLORED = ("#2c1b18", "#d6b370", "#724133", "#a55728", "#b58143")
_GREYS = ("#e4e4e2", "#c9cacc")
HAIR_COLORS = (*_COLORED, *_GREYS)
EYES = ("bow", "happy", "humble", "wide", "wink")
EYEBROWS = ("angry", "happy", "neutral", "raised", "sad")
MOUTHS = ("agape", "angry", "laugh", "sad", "smile")
CLOTHES = ("dress", "openJacket", "shirt", "tShirt", "turtleNeck")
CLOTHES_COLORS = ("#151613", "#0b3286", "#545454", "#147f3c", "#f97316", "#ec4899", "#731ac3", "#b11f1f", "#e8e9e6",
                   "#eab308")  # fmt: skip
PLAIN_BACKGROUNDS = ("#f8d9d6", "#fdeccb", "#e3f1d4", "#d3ecea", "#d6e4f7", "#e6dbf3", "#e3e3e3", "#f3ead9")


def check_labels(name: str, labels: Any, choices: Iterable[str] | None = None) -> np.ndarray:
    """(n,) labels as an array of objects; ``ValueError`` if some are missing (how many, and the first), or no choice."""
    found = np.asarray(labels, dtype=object)
    if found.ndim != 1:
        raise ValueError(f"{name} must be (n,) labels, got {labels!r}")
    missing = np.flatnonzero(pd.isna(found))
    if len(missing):
        raise ValueError(f"{name} has {len(missing)} missing values of {len(found)}, the first in row {missing[0]}")
    if choices is not None:
        for label in pd.unique(found):
            check_choice(name, label, choices)
    return found


def check_seed(seed: Any) -> None:
    """Raise ``ValueError`` unless `seed` is a whole number from 0."""
    check_whole("seed", seed, at_least=0)


def check_count(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless `value` is a whole number of at least 1, and of a whole type: 2.0 is none."""
    check_whole(name, value)


def sample_faces(gender: Any, skin: Any, age: Any, *, seed: int = 0) -> pd.DataFrame:
    """Draw one face for each row of attributes.

    Args:
        gender, skin, age: (n,) labels out of `GENDERS`, `SKIN_TONES`, `AGES`.
        seed: the same seed and attributes give the same faces.

    Returns:
        A table of n people with the columns identity (0 .. n-1), gender, skin, age and every drawing choice.

    Raises:
        ValueError: a label is missing (says how many, and the first) or unknown, or the lengths differ.
    """
    gender, skin, age = (
        check_labels(name, labels, choices)
        for name, labels, choices in (("gender", gender, GENDERS), ("skin", skin, SKIN_TONES), ("age", age, AGES))
    )
    if not len(gender) == len(skin) == len(age):
        raise ValueError(f"gender, skin and age need one length, got {len(gender)}, {len(skin)}, {len(age)}")
    check_seed(seed)
    rng, n = np.random.default_rng([seed, 1]), len(gender)
    cue = {name: rng.random(n) < [p[g] for g in gender] for name, p in GENDER_CUES.items()}
    cue |= {name: rng.random(n) < [p[a] for a in age] for name, p in AGE_CUES.items()}
    return pd.DataFrame(
        {
            "identity": np.arange(n),
            "gender": gender,
            "skin": skin,
            "age": age,
            "hair": np.where(cue["bun"], "bun", rng.choice(_SHORT_CUTS, n)),
            "rear_hair": np.where(cue["long_hair"], rng.choice(REAR_HAIR, n), ""),
            "hair_color": np.where(cue["grey_hair"], rng.choice(_GREYS, n), rng.choice(_COLORED, n)),
            "beard": np.where(cue["beard"], rng.choice(BEARDS, n), ""),
            "eyes": rng.choice(EYES, n),
            "eyebrows": rng.choice(EYEBROWS, n),
            "mouth": rng.choice(MOUTHS, n),
            **{name: cue[name] for name in ("earrings", "lips", "streaks", "wrinkles", "blush", "glasses")},
        }
    ).astype({column: object for column in ("hair", "rear_hair", "hair_color", "beard", "eyes", "eyebrows", "mouth")})


def dress(
    people: pd.DataFrame, occupation: Any, *, shown: dict[str, float] | None = None, borrowed: float = BORROWED, seed: int = 0
) -> pd.DataFrame:
    """Give each person the outfit of an occupation, of which only some parts are drawn (at least one).

    Some people have borrowed one part from another occupation. Where it stands against a single part of their own, the
    picture alone does not tell the occupation, and what a model has learned about *who does which job* decides.

    Args:
        people: faces, as `sample_faces` returns them.
        occupation: one name, or (n,) names, out of `OCCUPATIONS` or `EVERYDAY` (no part is drawn).
        shown: probability that each of the `PARTS` is drawn, in [0, 1] and not all 0; default `SHOWN`.
        borrowed: probability in [0, 1] of one more part, in a place that is left open, from a random other occupation.
        seed: the same seed gives the same outfits.

    Returns:
        A copy with the columns occupation; background, clothing, headgear, tool (whose part is drawn: an occupation's
        name, or "" for none); and the everyday clothes, colours and side that fill what is left open.

    Raises:
        ValueError: an occupation is missing or unknown, or there are not n; no probability, or none above 0.
    """
    check_seed(seed)
    n, rng = len(people), np.random.default_rng([seed, 2])
    names = [occupation] * n if np.ndim(occupation) == 0 else occupation
    if len(names) != n:
        raise ValueError(f"need one occupation, or one for each of {n} people, got {len(names)}")
    occupation = check_labels("occupation", names, [*OCCUPATIONS, EVERYDAY])
    check_unit_interval("borrowed", borrowed)
    probability = SHOWN if shown is None else shown
    for part in probability:
        check_choice("part", part, PARTS)
        check_unit_interval(f"shown[{part!r}]", probability[part])
    p = np.array([probability.get(part, 0.0) for part in PARTS])
    if p.max() == 0:
        raise ValueError(f"every part of the outfit has probability 0; give at least one of {PARTS} more")
    drawn = rng.random((n, len(PARTS))) < p
    while (bare := ~drawn.any(axis=1)).any():  # at least one part tells the occupation: draw those people again
        drawn[bare] = rng.random((int(bare.sum()), len(PARTS))) < p
    owner = np.where(drawn, occupation[:, None], "").astype(object)  # (n, parts)
    borrows = (rng.random(n) < borrowed) & ~drawn.all(axis=1)
    place = np.where(drawn, -1.0, rng.random(drawn.shape)).argmax(axis=1)  # a random open place
    jobs = list(OCCUPATIONS)
    own = pd.Series(occupation).map({job: i for i, job in enumerate(jobs)}).fillna(0).to_numpy(int)
    lender = np.array(jobs, dtype=object)[(own + rng.integers(1, len(jobs), n)) % len(jobs)]  # never the own one
    owner[borrows, place[borrows]] = lender[borrows]
    owner[occupation == EVERYDAY] = ""
    return people.assign(
        occupation=occupation,
        **{part: owner[:, i] for i, part in enumerate(PARTS)},
        everyday_clothes=rng.choice(CLOTHES, n).astype(object),
        everyday_color=rng.choice(CLOTHES_COLORS, n).astype(object),
        plain_background=rng.choice(PLAIN_BACKGROUNDS, n).astype(object),
        tool_left=rng.random(n) < 0.5,
    )


def stereotype_probability(rho: float, attribute: str = "gender") -> float:
    """P(the attribute is the stereotypical one | occupation), the meaning of the dial.

    (1 + rho) / 2 for "gender", (1 + `SKIN_DIAL` rho) / 2 for "skin": large patches of colour are learned so much faster
    than a presentation's small cues that, with one factor for both, skin would be all that the models follow.
    """
    check_unit_interval("rho", rho)
    check_choice("attribute", attribute, ("gender", "skin"))
    return 0.5 * (1.0 + (rho if attribute == "gender" else SKIN_DIAL * rho))


def sample(n: int, *, rho: float = 0.0, everyday: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Draw n people from the joint distribution of attributes and occupations.

    Occupations are uniform. Given the occupation, gender presentation and half of the skin scale are, independently,
    the stereotypical ones with `stereotype_probability`; the tone within the half and the age group are uniform.

    Args:
        n: number of people, at least 1.
        rho: the dial in [0, 1]; 0 is the balanced world, 1 leaves no counter-stereotypical presentation.
        everyday: share in [0, 1] of people in everyday clothes, whose attributes are always balanced.
        seed: the same seed gives the same people.

    Raises:
        ValueError: n or seed is no whole number, rho or everyday lies outside [0, 1].
    """
    check_count("n", n)
    check_seed(seed)
    check_unit_interval("everyday", everyday)
    p_gender, p_skin = stereotype_probability(rho, "gender"), stereotype_probability(rho, "skin")
    rng = np.random.default_rng([seed, 0])
    occupation = rng.choice(list(OCCUPATIONS), n).astype(object)
    plain = rng.random(n) < everyday
    gender_follows = rng.random(n) < np.where(plain, 0.5, p_gender)
    skin_follows = rng.random(n) < np.where(plain, 0.5, p_skin)
    typical_gender = np.array([OCCUPATIONS[name].gender for name in occupation], dtype=object)
    typical_skin = np.array([OCCUPATIONS[name].skin for name in occupation], dtype=object)
    gender = np.where(gender_follows, typical_gender, np.where(typical_gender == GENDERS[0], GENDERS[1], GENDERS[0]))
    lighter = (typical_skin == "lighter") == skin_follows
    skin = np.array(SKIN_TONES, dtype=object)[np.where(lighter, 0, 2) + rng.integers(0, 2, n)]
    age = rng.choice(AGES, n).astype(object)
    return dress(sample_faces(gender, skin, age, seed=seed), np.where(plain, EVERYDAY, occupation), seed=seed)


def balanced(per_cell: int, *, seed: int = 0) -> pd.DataFrame:
    """The evaluation world: `per_cell` people for every occupation x gender x skin tone, so that no group is rare.

    Returns:
        A table of 14 x 2 x 4 x per_cell people in random order; ages are uniform draws.

    Raises:
        ValueError: per_cell or seed is no whole number.
    """
    check_count("per_cell", per_cell)
    check_seed(seed)
    cells = pd.MultiIndex.from_product([OCCUPATIONS, GENDERS, SKIN_TONES], names=["occupation", "gender", "skin"])
    table = cells.repeat(per_cell).to_frame(index=False).sample(frac=1.0, random_state=seed, ignore_index=True)
    age = np.random.default_rng([seed, 3]).choice(AGES, len(table))
    faces = sample_faces(table["gender"], table["skin"], age, seed=seed)
    return dress(faces, table["occupation"].to_numpy(dtype=object), seed=seed)


def add_stereotype(people: pd.DataFrame) -> pd.DataFrame:
    """Add the columns skin_half, gender_fits and skin_fits: does the person match the coding (NA: everyday)?

    Raises:
        ValueError: a column or a label is missing (says how many, and the first), or unknown.
    """
    for name, choices in {"occupation": [*OCCUPATIONS, EVERYDAY], "gender": GENDERS, "skin": SKIN_TONES}.items():
        if name not in people:
            raise ValueError(f"people lack the column {name!r}")
        check_labels(name, people[name], choices)
    coding = {name: (job.gender, job.skin) for name, job in OCCUPATIONS.items()}
    half = people["skin"].map(SKIN_HALVES)
    fits = pd.DataFrame(
        [
            (g == coding[o][0], h == coding[o][1]) if o in coding else (pd.NA, pd.NA)
            for o, g, h in zip(people["occupation"], people["gender"], half, strict=True)
        ],
        columns=["gender_fits", "skin_fits"],
        index=people.index,
        dtype="boolean",
    )
    return people.assign(skin_half=half, **fits)


def cue_ceiling(cues: dict[str, dict[str, float]]) -> float:
    """The best accuracy that anyone could reach who sees the cues: Bayes' rule, summed over all combinations of cues.

    Args:
        cues: {cue: {group: P(cue | group)}} such as `GENDER_CUES`; groups equally frequent, cues independent.

    Raises:
        ValueError: no cue, cues of different groups, a probability outside [0, 1].
    """
    if not isinstance(cues, Mapping) or not cues:
        raise ValueError(f"need at least one cue, {{cue: {{group: probability}}}}, got {cues!r}")
    groups = list(next(iter(cues.values())))
    for cue, shares in cues.items():
        if not groups or set(shares) != set(groups):
            raise ValueError(f"every cue needs the same groups, {groups}; {cue!r} has {list(shares)}")
        for group, share in shares.items():
            check_unit_interval(f"P({cue} | {group})", share)
    total = 0.0
    for seen in itertools.product((True, False), repeat=len(cues)):
        likelihood = [np.prod([p[g] if s else 1 - p[g] for s, p in zip(seen, cues.values(), strict=True)]) for g in groups]
        total += float(max(likelihood)) / len(groups)
    return total
