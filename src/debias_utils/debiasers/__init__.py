"""Ways to take an attribute out of CLIP's embeddings, one file each, behind one interface: see `base.Debiaser`."""

from .base import DATA, Debiaser
from .pca_subspace import PCASubspace

METHODS: dict[str, type[Debiaser]] = {method.NAME: method for method in (PCASubspace,)}

__all__ = ["DATA", "METHODS", "Debiaser", "PCASubspace"]
