"""Toonville's people as lists of drawn elements: one coordinate for everything that a picture can show or not show.

An element is a skin tone, a beard's shape, the plumber's cap, ...; it is on (1) or off (0). This is the latent space of the
mini generator. Its StyleSpace has channels for each element, as single channels of the StyleGAN2 of faces were found to
control single things (Wu, Lischinski and Shechtman 2021). There it was learned; here it is built in: one channel draws an
item of an occupation, `TRAIT_CHANNELS` equal ones share the work of a trait.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import people as _people
from .occupations import OCCUPATIONS, PARTS

_COLUMNS = {  # what shows when nothing stands in front of it; "" is never an element of its own
    "skin": _people.SKIN_TONES,
    "hair": _people.HAIR,
    "rear_hair": _people.REAR_HAIR,
    "hair_color": _people.HAIR_COLORS,
    "beard": _people.BEARDS,
    "eyes": _people.EYES,
    "eyebrows": _people.EYEBROWS,
    "mouth": _people.MOUTHS,
    "everyday_clothes": _people.CLOTHES,
    "everyday_color": _people.CLOTHES_COLORS,
    "plain_background": _people.PLAIN_BACKGROUNDS,
}
_SWITCHES = ("lips", "earrings", "streaks", "wrinkles", "blush", "glasses", "tool_left")
_COVERED_BY = {"mouth": "lips", "everyday_clothes": "clothing", "everyday_color": "clothing", "plain_background": "background"}

# Style channels of the mini generator for each trait, that is, for each element that belongs to no occupation. Our choice: what
# it decides is the subject of the chapter on editing with a sentence.
TRAIT_CHANNELS = 24

# (column, value) of every element, in the order of the coordinates; the switches have the value True
ELEMENTS: tuple[tuple[str, object], ...] = (
    *((column, value) for column, values in _COLUMNS.items() for value in values),
    *((column, True) for column in _SWITCHES),
    *((part, job) for part in PARTS for job in OCCUPATIONS),
)
GROUPS: dict[str, list[int]] = {}  # column -> the coordinates of its elements, of which at most one is on
for _index, (_column, _) in enumerate(ELEMENTS):
    GROUPS.setdefault(_column, []).append(_index)


def element_names() -> list[str]:
    """Readable names in the order of the coordinates: "skin: dark", "glasses", "headgear: plumber"."""
    return [name.replace("_", " ") if value is True else f"{name.replace('_', ' ')}: {value}" for name, value in ELEMENTS]


def to_elements(people: pd.DataFrame, *, covered: bool = False) -> np.ndarray:
    """What each person's picture shows.

    Args:
        people: a table as `people.sample` returns it.
        covered: also count what a part of the outfit, or made-up lips, wholly covers: the everyday clothes under an
            overall, the wall behind a workshop. No picture tells what is covered.

    Returns:
        (n, len(ELEMENTS)) float32, 1 where the element is there, else 0.
    """
    there = np.stack([(people[column] == value).to_numpy(bool) for column, value in ELEMENTS], axis=1)  # (n, elements)
    if not covered:
        for column, cover in _COVERED_BY.items():
            there[:, GROUPS[column]] &= ~people[cover].astype(bool).to_numpy()[:, None]
        there[:, GROUPS["tool_left"]] &= people["tool"].astype(bool).to_numpy()[:, None]
    return there.astype(np.float32)


def channels_of_elements() -> list[int]:
    """How many style channels of the mini generator's first layer draw each element, in the order of the coordinates.

    The channels of the first element come first, then those of the second, ...
    """
    return [1 if column in PARTS else TRAIT_CHANNELS for column, _ in ELEMENTS]
