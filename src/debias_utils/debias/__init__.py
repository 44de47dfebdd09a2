"""Taking the bias out: of texts (`subspace`, with lists of `words`), of latents (`gradient`), of edits (`orthogonal`)."""

from .bend import equalise
from .orthogonal import orthogonalise
from .subspace import BiasSubspace, debias_delta, printed_projection

__all__ = ["BiasSubspace", "debias_delta", "equalise", "orthogonalise", "printed_projection"]
