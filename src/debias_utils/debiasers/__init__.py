"""Ways to take an attribute out of CLIP's embeddings, one file each, behind one interface: see `base.Debiaser`."""

from .base import DATA, Debiaser
from .biased_prompts import BiasedPrompts
from .clip_clip import CLIPClip
from .closed_form import ClosedForm, ClosedFormPerQuery, FullProjection
from .leace import LEACE
from .pca_subspace import PCASubspace
from .roboshot import RoboShot

METHODS: dict[str, type[Debiaser]] = {
    method.NAME: method
    for method in (
        PCASubspace,
        BiasedPrompts,
        FullProjection,
        ClosedForm,
        ClosedFormPerQuery,
        RoboShot,
        LEACE,
        CLIPClip,
    )
}

__all__ = [
    "DATA",
    "LEACE",
    "METHODS",
    "BiasedPrompts",
    "CLIPClip",
    "ClosedForm",
    "ClosedFormPerQuery",
    "Debiaser",
    "FullProjection",
    "PCASubspace",
    "RoboShot",
]
