"""Taking the bias out: of texts (`subspace`, with lists of `words`), of latents (`gradient`), of edits (`orthogonal`)."""

from .contrast import multi_positive_loss
from .orthogonal import orthogonalise
from .subspace import BiasSubspace, debias_delta, printed_projection
from .tokens import token_projection

__all__ = [
    "BiasSubspace",
    "debias_delta",
    "multi_positive_loss",
    "orthogonalise",
    "printed_projection",
    "token_projection",
]
