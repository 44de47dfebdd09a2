"""Definitional sets: words that differ in one protected attribute alone, by attribute and source.

Write `BiasSubspace.fit([clip.encode_prompts(words) for words in GENDER_SETS["toonville"]], n_components=1)`. Each set holds
one word for each group, always in the same order. The lists say what other people, or Toonville, took to stand for a group;
they are no definition of anybody.

Sources:

- ``GENDER_SETS["bolukbasi2016"]``: the ten pairs of Bolukbasi et al. 2016.
- ``RACE_SETS["manzini2019"]``: the race sets of Manzini et al. 2019, as in the file `race_attributes_optm.json` of their
  repository (TManzini/DebiasMulticlassWordEmbedding). They are bare words and continents, made for word embeddings: "a photo
  of a black" is an odd text for CLIP, and "black" and "white" are colours too.
- ``AGE_SETS["ours"]``: written for this book; none of the sources debiases age.
- ``["toonville"]``: of the words that Toonville's captions use, in the pairs in which they stand there. Race is skin tone in
  Toonville. First names are left out, since they tell a generation besides the gender, and so are phrases such as "with dark
  skin", which fit no template; adjectives become "... person".
"""

from __future__ import annotations

from collections.abc import Mapping

from ..toonville.captions import AGE_WORDS, GENDER_WORDS, SKIN_WORDS

Sets = tuple[tuple[str, ...], ...]


def _gender_pairs() -> Sets:
    """(feminine, masculine) words, as far as both lists of a kind reach."""
    kinds = ("noun", "pronoun", "family", "title")
    return tuple(pair for kind in kinds for pair in zip(*(words[kind] for words in GENDER_WORDS.values()), strict=False))


def _person_sets(words: Mapping[str, tuple[str, ...]]) -> Sets:
    """The first adjectives of all groups, then the second ones, ..., as far as all lists reach."""
    adjectives = [[w for w in group if not w.startswith(("with ", "in "))] for group in words.values()]
    return tuple(tuple(f"{word} person" for word in aligned) for aligned in zip(*adjectives, strict=False))


GENDER_SETS: dict[str, Sets] = {
    "toonville": _gender_pairs(),
    "bolukbasi2016": (
        ("woman", "man"), ("girl", "boy"), ("she", "he"), ("mother", "father"), ("daughter", "son"), ("gal", "guy"),
        ("female", "male"), ("her", "his"), ("herself", "himself"), ("Mary", "John"),
    ),
}  # fmt: skip
RACE_SETS: dict[str, Sets] = {
    "toonville": _person_sets(SKIN_WORDS),
    "manzini2019": (
        ("black", "caucasian", "asian"), ("african", "caucasian", "asian"), ("black", "white", "asian"),
        ("africa", "america", "asia"), ("africa", "america", "china"), ("africa", "europe", "asia"),
    ),
}  # fmt: skip
AGE_SETS: dict[str, Sets] = {
    "toonville": _person_sets(AGE_WORDS),
    "ours": (
        ("young person", "middle-aged person", "old person"), ("young adult", "middle-aged adult", "older adult"),
        ("young woman", "middle-aged woman", "old woman"), ("young man", "middle-aged man", "old man"),
        ("person in their twenties", "person in their forties", "person in their seventies"),
    ),
}  # fmt: skip
