"""Ways to take an attribute out of CLIP's embeddings, one file each, behind one interface: see `base.Debiaser`."""

from .base import DATA, Debiaser
from .bend_vlm import BendVLM
from .biased_prompts import BiasedPrompts
from .clip_clip import CLIPClip
from .closed_form import ClosedForm, ClosedFormPerQuery, FullProjection
from .dear import DeAR
from .fairer_clip import FairerCLIP, FairerCLIPUnlabelled
from .joint import JointDebiasing
from .leace import LEACE
from .pca_subspace import PCASubspace
from .prism import PRISM, PRISMMini
from .prompt_array import PromptArray
from .roboshot import RoboShot
from .sfid import SFID
from .spd import SPD

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
        SFID,
        SPD,
        PRISMMini,
        PRISM,
        BendVLM,
        FairerCLIP,
        FairerCLIPUnlabelled,
        PromptArray,
        DeAR,
        JointDebiasing,
    )
}

__all__ = [
    "DATA",
    "LEACE",
    "METHODS",
    "PRISM",
    "SFID",
    "SPD",
    "BendVLM",
    "BiasedPrompts",
    "CLIPClip",
    "ClosedForm",
    "ClosedFormPerQuery",
    "DeAR",
    "Debiaser",
    "FairerCLIP",
    "FairerCLIPUnlabelled",
    "FullProjection",
    "JointDebiasing",
    "PCASubspace",
    "PRISMMini",
    "PromptArray",
    "RoboShot",
]
