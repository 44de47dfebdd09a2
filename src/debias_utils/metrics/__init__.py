"""Measures of bias and of what its removal costs: arrays in, numbers out; no model is imported here.

Every convention is an argument, and every result carries the conventions it was computed with in its attribute ``conventions``,
so that two numbers can be compared knowingly. Chance does not score 0: print the random floor beside whatever you report.

- rankings: `skew_at_k`, `max_skew_at_k`, `min_skew_at_k`, `ndkl`, `kl_at_k`, `bias_at_k`; `RunningTop` for pools of any size
- what a search finds: `text_to_image_recall`, `image_to_text_recall`, `worst_group_recall`, `explicit_query_precision`
- zero-shot classification: `zero_shot_accuracy`, `worst_group_accuracy`, `demographic_parity_gap`, `equal_opportunity_gap`,
  `able`
- embeddings: `association_test` (WEAT, SEAT, iEAT)
- edited pictures: `attribute_shift`
- chance: `random_floor`, `shuffled_floor`; papers' conventions: `PRESETS`, `published_max_skew`

Intervals over people and trainings are in `evaluate.estimates`, the linear probe in `evaluate.leakage`.
"""

from ..measured import FlooredWarning, MeasuredArray, MeasuredDict, MeasuredFloat
from .association import association_scores, association_test, association_tests
from .classification import (
    able,
    demographic_parity_gap,
    equal_opportunity_gap,
    worst_group_accuracy,
    zero_shot,
    zero_shot_accuracy,
)
from .floors import random_floor, shuffled_floor
from .presets import PRESETS, Preset, preset, published_max_skew
from .ranking import ZERO_RULES, bias_at_k, kl_at_k, max_skew_at_k, min_skew_at_k, ndkl, skew_at_k
from .retrieval import explicit_query_precision, image_to_text_recall, text_to_image_recall, worst_group_recall
from .scores import cosine_scores, score_blocks
from .shift import attribute_shift
from .tops import TIE_RULES, RunningTop, retrieved

__all__ = [
    "PRESETS",
    "TIE_RULES",
    "ZERO_RULES",
    "FlooredWarning",
    "MeasuredArray",
    "MeasuredDict",
    "MeasuredFloat",
    "Preset",
    "RunningTop",
    "able",
    "association_scores",
    "association_test",
    "association_tests",
    "attribute_shift",
    "bias_at_k",
    "cosine_scores",
    "demographic_parity_gap",
    "equal_opportunity_gap",
    "explicit_query_precision",
    "image_to_text_recall",
    "kl_at_k",
    "max_skew_at_k",
    "min_skew_at_k",
    "ndkl",
    "preset",
    "published_max_skew",
    "random_floor",
    "retrieved",
    "score_blocks",
    "shuffled_floor",
    "skew_at_k",
    "text_to_image_recall",
    "worst_group_accuracy",
    "worst_group_recall",
    "zero_shot",
    "zero_shot_accuracy",
]
