"""Ways to take an attribute out of CLIP's embeddings, one file each, behind one interface: see `base.Debiaser`."""

from .base import DATA, Debiaser
from .bend_vlm import BendVLM
from .fairer_clip import FairerCLIP, FairerCLIPUnlabelled
from .pca_subspace import PCASubspace
from .prism import PRISM, PRISMMini
from .sfid import SFID
from .spd import SPD

METHODS: dict[str, type[Debiaser]] = {
    method.NAME: method for method in (PCASubspace, SFID, SPD, PRISMMini, PRISM, BendVLM, FairerCLIP, FairerCLIPUnlabelled)
}

__all__ = [
    "DATA",
    "METHODS",
    "PRISM",
    "SFID",
    "SPD",
    "BendVLM",
    "Debiaser",
    "FairerCLIP",
    "FairerCLIPUnlabelled",
    "PCASubspace",
    "PRISMMini",
]
