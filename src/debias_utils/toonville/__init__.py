"""Toonville: a small drawn world with known truth. People -> occupations -> pictures and masks -> captions."""

from .captions import AGE_WORDS, GENDER_WORDS, SKIN_WORDS, caption
from .data import CaptionedPeople, pictures, to_tensor
from .occupations import EVERYDAY, OCCUPATIONS, PARTS, Occupation
from .people import (
    AGE_CUES,
    AGES,
    BORROWED,
    GENDER_CUES,
    GENDERS,
    SHOWN,
    SKIN_DIAL,
    SKIN_HALVES,
    SKIN_TONES,
    add_stereotype,
    balanced,
    cue_ceiling,
    dress,
    sample,
    sample_faces,
    stereotype_probability,
)
from .render import MASK_PARTS, everyday, layers, masks, render, to_svg

__all__ = [
    "AGES", "AGE_CUES", "AGE_WORDS", "BORROWED", "EVERYDAY", "GENDERS", "GENDER_CUES", "GENDER_WORDS", "MASK_PARTS",
    "OCCUPATIONS", "PARTS", "SHOWN", "SKIN_DIAL", "SKIN_HALVES", "SKIN_TONES", "SKIN_WORDS", "CaptionedPeople", "Occupation",
    "add_stereotype", "balanced", "caption", "cue_ceiling", "dress", "everyday", "layers", "masks", "pictures", "render",
    "sample", "sample_faces", "stereotype_probability", "to_svg", "to_tensor",
]  # fmt: skip
