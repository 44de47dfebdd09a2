"""Ways to take an attribute out of CLIP's embeddings, one file each, behind one interface: see `base.Debiaser`."""

from .base import DATA, Debiaser
from .dear import DeAR
from .joint import JointDebiasing
from .pca_subspace import PCASubspace
from .prompt_array import PromptArray

METHODS: dict[str, type[Debiaser]] = {method.NAME: method for method in (PCASubspace, PromptArray, DeAR, JointDebiasing)}

__all__ = ["DATA", "METHODS", "DeAR", "Debiaser", "JointDebiasing", "PCASubspace", "PromptArray"]
