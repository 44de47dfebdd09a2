"""Taking the bias out: of texts (`subspace`, with lists of `words`), of latents (`gradient`), of edits (`orthogonal`).

`projections`, `information` and `erasure` hold what the debiasers of CLIP's embeddings compute, as functions of arrays.
"""

from ..metrics import association_test
from .bend import equalise
from .contrast import multi_positive_loss
from .erasure import leace, shrunk_covariance
from .information import kept_dimensions, mixed_ksg, mutual_information
from .orthogonal import orthogonalise
from .projections import calibrated_projection, group_prototypes, insight_map, prototype_basis, soft_projection, token_projection
from .subspace import BiasSubspace, debias_delta, printed_projection

__all__ = [
    "BiasSubspace",
    "association_test",
    "calibrated_projection",
    "debias_delta",
    "equalise",
    "group_prototypes",
    "insight_map",
    "kept_dimensions",
    "leace",
    "mixed_ksg",
    "multi_positive_loss",
    "mutual_information",
    "orthogonalise",
    "printed_projection",
    "prototype_basis",
    "shrunk_covariance",
    "soft_projection",
    "token_projection",
]
