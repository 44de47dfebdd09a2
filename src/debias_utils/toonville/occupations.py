"""The papers' 14 occupations, and which way Toonville's captions lean for each of them.

The list is Tanjim et al. 2024, section 3.2. The leans are Toonville's own: seven jobs are coded towards each gender
presentation and seven towards each half of the skin scale, so that the dial `rho` changes who does which job: at every
`rho` half of the people are feminine and half have one of the two lighter skin tones. Most leans
follow the stereotypes that the papers report; some go against them, so that no result here can come from what a reader
(or a method) brings along from our own world.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PARTS = ("background", "clothing", "headgear", "tool")  # what an occupation draws, from back to front


@dataclass(frozen=True)
class Occupation:
    """One occupation: its name, the lean of its captions, and the cut and colour of its clothes."""

    name: str
    gender: str  # the stereotypical gender presentation
    skin: str  # the stereotypical half of the skin scale
    clothes: str  # DiceBear toon-head's name of the cut
    color: str

    @property
    def props(self) -> dict[str, str]:
        """SVG fragments of the four parts, in the 768 x 768 coordinates of the portrait."""
        return _read_props(self.name)


@cache
def _read_props(name: str) -> dict[str, str]:
    """The groups of ``props/<name>.svg``, which any SVG editor opens, by their ids."""
    text = (files(__package__) / "props" / f"{name.replace(' ', '-')}.svg").read_text("utf-8")
    return {part: _group(text, part) for part in PARTS}


def _group(text: str, part: str) -> str:
    match = re.search(rf'^  <g id="{part}">(.*?)^  </g>', text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise ValueError(f"the drawing has no group {part!r}")
    return match.group(1).strip()


OCCUPATIONS = {
    occupation.name: occupation
    for occupation in (
        Occupation("plumber", "masculine", "darker", "tShirt", "#5b8fd9"),
        Occupation("carpenter", "masculine", "lighter", "tShirt", "#c0692b"),
        Occupation("nurse", "feminine", "lighter", "tShirt", "#f4fbfd"),
        Occupation("administrative assistant", "feminine", "lighter", "openJacket", "#d45f9c"),
        Occupation("machine operator", "feminine", "darker", "tShirt", "#47505c"),
        Occupation("cleaner", "feminine", "darker", "tShirt", "#1fb5ad"),
        Occupation("truck driver", "masculine", "darker", "openJacket", "#b11f1f"),
        Occupation("writer", "feminine", "lighter", "turtleNeck", "#6a1b4d"),
        Occupation("technical support person", "feminine", "darker", "shirt", "#3b8fe8"),
        Occupation("farmer", "masculine", "darker", "tShirt", "#3f9a3f"),
        Occupation("security guard", "masculine", "darker", "shirt", "#1b2748"),
        Occupation("executive manager", "masculine", "lighter", "shirt", "#1d1f24"),
        Occupation("military person", "masculine", "lighter", "turtleNeck", "#626d36"),
        Occupation("software developer", "feminine", "lighter", "tShirt", "#7c3aed"),
    )
}

EVERYDAY = "everyday"  # a person in everyday clothes, with no sign of an occupation
