"""Taking the bias out: of texts in closed form (`subspace`, with lists of `words`), of latents by optimisation (`gradient`)."""

from .subspace import BiasSubspace, debias_delta, printed_projection

__all__ = ["BiasSubspace", "debias_delta", "printed_projection"]
