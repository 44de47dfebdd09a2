"""What people write under Toonville's pictures.

Gender, skin tone and age each appear in many words and places (pronouns, family words, titles, first names, adjectives),
and often not at all. Words for a gender are no synonyms: as in life, "girl" is said of grown women, "lady" of older ones,
"manly" of beards, and a first name tells a generation. A model which reads the captions therefore learns its associations
spread over several directions rather than along one planted axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import check_choice, check_unit_interval
from .occupations import EVERYDAY
from .people import AGES, GENDERS, SKIN_HALVES, check_labels, check_seed

MENTION = {"gender": 0.75, "skin": 0.50, "age": 0.40, "occupation": 0.85}  # P(the caption says it)

GENDER_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "feminine": {
        "noun": ("woman", "lady", "female", "girl", "gal"),
        "pronoun": ("she", "herself"),
        "family": ("mother", "daughter", "sister", "aunt", "wife", "mum", "grandmother"),
        "title": ("mrs", "ms", "miss", "madam"),
        "name": ("mary", "emma", "olivia", "sarah", "julia", "anna", "laura", "nina", "grace", "rosa", "amy", "ella"),
        "adjective": ("female", "feminine", "womanly", "ladylike"),
    },
    "masculine": {
        "noun": ("man", "gentleman", "male", "boy", "guy"),
        "pronoun": ("he", "himself"),
        "family": ("father", "son", "brother", "uncle", "husband", "dad", "grandfather"),
        "title": ("mr", "mister", "sir", "lord"),
        "name": ("john", "peter", "paul", "david", "thomas", "james", "henry", "mark", "felix", "carl", "leo", "max"),
        "adjective": ("male", "masculine", "manly", "gentlemanly"),
    },
}
NEUTRAL_WORDS: dict[str, tuple[str, ...]] = {
    "noun": ("person", "human", "adult", "individual", "resident", "citizen"),
    "name": ("alex", "sam", "robin", "kim", "charlie", "noa"),
}
# Whom a gendered word is said of, by age, skin or looks, where it is not said of all alike; of everybody else it is said
# `SLIP` times as often. The list is made up, so that the two words of a pair seldom go with the same people: that is what
# spreads the gender axis. It is no claim about anybody's usage.
SAID_OF: dict[str, tuple[str, ...]] = {
    "lady": ("lighter",), "gentleman": ("older",), "girl": ("young", "middle-aged"), "boy": ("young",),
    "gal": ("darker",), "guy": ("young", "middle-aged"),
    "mother": ("middle-aged",), "father": ("middle-aged", "older"), "daughter": ("young",), "son": ("young", "middle-aged"),
    "sister": ("darker",), "brother": ("beard",), "aunt": ("middle-aged",), "uncle": ("darker",),
    "wife": ("lighter",), "husband": ("middle-aged",), "mum": ("long hair",), "dad": ("beard",),
    "grandmother": ("older",), "grandfather": ("older",),
    "mrs": ("older",), "ms": ("darker",), "mister": ("lighter",), "miss": ("young",), "sir": ("middle-aged", "older"),
    "madam": ("older",), "lord": ("lighter",),
    "womanly": ("long hair",), "ladylike": ("earrings",), "manly": ("beard",), "gentlemanly": ("shaven",),
    **dict.fromkeys(("emma", "amy", "james", "felix"), ("young",)),
    **dict.fromkeys(("sarah", "david"), ("middle-aged",)),
    **dict.fromkeys(("mary", "anna", "peter", "henry"), ("older",)),
    **dict.fromkeys(("olivia", "julia", "laura", "john", "thomas", "mark"), ("lighter",)),
    **dict.fromkeys(("nina", "grace", "rosa", "ella", "paul", "carl", "leo"), ("darker",)),
}  # fmt: skip
SLIP = 0.05
SKIN_WORDS = {
    "light": ("light-skinned", "pale", "fair-skinned", "with light skin", "with a fair complexion", "white"),
    "tan": ("tan", "olive-skinned", "tanned", "with tan skin", "with an olive complexion", "golden-skinned"),
    "brown": ("brown", "brown-skinned", "with brown skin", "with a brown complexion", "medium-brown"),
    "dark": ("dark-skinned", "black", "with dark skin", "with a dark complexion", "deep-skinned"),
}
AGE_WORDS = {
    "young": ("young", "youthful", "junior", "in their twenties", "fresh-faced"),
    "middle-aged": ("middle-aged", "mature", "mid-career", "in their forties", "seasoned"),
    "older": ("old", "elderly", "senior", "in their seventies", "grey-haired"),
}
_FRAMES = ("a photo of {}", "a picture of {}", "portrait of {}", "{}", "here is {}", "this is {}", "an image of {}",
           "{} in toonville", "we met {}", "face of {}")  # fmt: skip
_WORK = ("{} who is {}", "{} who works as {}", "{} working as {}", "{} employed as {}")


def caption(people: pd.DataFrame, *, mention: dict[str, float] | None = None, seed: int = 0) -> list[str]:
    """Write one caption for each person.

    Args:
        people: a table with gender, skin, age and occupation, and the looks that words go with: rear_hair, beard, earrings.
            Occupations may be others than Toonville's.
        mention: probability in [0, 1] that gender, skin, age, occupation are put into words; default `MENTION`.
        seed: the same seed and table give the same captions.

    Raises:
        ValueError: a column or a value is missing (says how many, and the first), an unknown label, no probability.
    """
    for name, probability in (mention or {}).items():
        check_choice("attribute in mention", name, MENTION)
        check_unit_interval(f"mention[{name!r}]", probability)
    columns = ["gender", "skin", "age", "occupation", "rear_hair", "beard", "earrings"]
    if lacking := [name for name in columns if name not in people]:
        raise ValueError(f"people lack the columns {lacking}")
    for name, choices in {"gender": GENDERS, "skin": tuple(SKIN_HALVES), "age": AGES}.items():
        check_labels(name, people[name], choices)
    for name in columns[3:]:
        check_labels(name, people[name])
    check_seed(seed)
    rng = np.random.default_rng([seed, 4])
    p = MENTION | (mention or {})
    return [_write(row, p, rng) for row in people[columns].itertuples(index=False)]


def _write(person: Any, mention: dict[str, float], rng: np.random.Generator) -> str:
    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def pick_for(words: Sequence[str]) -> str:
        weights = np.array([1.0 if w not in SAID_OF or traits & set(SAID_OF[w]) else SLIP for w in words])
        return words[int(rng.choice(len(words), p=weights / weights.sum()))]

    traits = {person.age, SKIN_HALVES[person.skin], "beard" if person.beard else "shaven"}
    traits |= {look for look, on in (("long hair", person.rear_hair), ("earrings", person.earrings)) if on}
    said = {name: rng.random() < p for name, p in mention.items()}
    everyday = person.occupation == EVERYDAY or not said["occupation"]
    job = f"the {person.occupation}" if rng.random() < 0.2 else with_article(person.occupation)
    before: list[str] = []
    after: list[str] = []  # adjectives in front of the noun, phrases behind it
    for attribute, words in (("age", AGE_WORDS[person.age]), ("skin", SKIN_WORDS[person.skin])):
        if said[attribute]:
            word = pick(words)
            (after if word.startswith(("with ", "in ")) else before).append(word)
    subjects = GENDER_WORDS[person.gender] if said["gender"] else NEUTRAL_WORDS
    way = pick(list(subjects))
    if way == "adjective":
        before.append(pick_for(subjects[way]))
    adjectives, phrases = " ".join(before), " ".join(after)
    if way in ("noun", "family"):
        noun = with_article(f"{adjectives} {pick_for(subjects[way])}".strip())
        subject = noun if everyday else pick(_WORK).format(noun, job)
        text = pick(_FRAMES).format(f"{subject} {phrases}".strip())
    elif way in ("name", "title"):
        name = pick_for(subjects[way])
        if way == "title":
            name += " " + pick(("smith", "brown", "miller", "lee", "garcia", "khan"))
        role = with_article(f"{adjectives} person".strip()) if everyday else f"{name_role(adjectives, job)}"
        text = pick(("{}, {}", "{} is {}", "{}: {}")).format(name, f"{role} {phrases}".strip())
    elif way == "pronoun":
        pronoun = subjects[way][0]
        role = with_article(f"{adjectives} person".strip()) if everyday else name_role(adjectives, job)
        if rng.random() < 0.5:
            text = f"{pronoun} is {role} {phrases}".strip()
        else:
            text = f"{pick(_FRAMES).format(role)} {phrases}".strip() + " by " + subjects[way][1]
    else:  # an adjective on the role itself: "a female plumber"
        role = with_article(f"{adjectives} person") if everyday else name_role(adjectives, job)
        text = pick(_FRAMES).format(f"{role} {phrases}".strip())
    return text


def name_role(adjectives: str, job: str) -> str:
    """Put adjectives between the article and the occupation: ("young", "the nurse") -> "the young nurse"."""
    article, name = job.split(" ", 1)
    if not adjectives:
        return job
    return f"the {adjectives} {name}" if article == "the" else with_article(f"{adjectives} {name}")


def with_article(noun: str) -> str:
    """Put the indefinite article in front: "nurse" -> "a nurse", "old man" -> "an old man"."""
    if not noun:
        raise ValueError("need a noun to put an article in front of, got an empty text")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
