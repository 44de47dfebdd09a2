"""The conventions of published numbers: as they were computed, and as they should be.

MaxSkew of two papers is not one measure: target, k, the rule for an absent group, ties, lengths of embeddings, and even the score
by which images are ranked and the prompts that are averaged over differ. `PRESETS` says what each used, as far as it is published
or can be read in released code; what is not (NP) is said too, and has to be given.

Left out, since their conventions are not published: Zhao et al. 2026 (SPD reports SFID's Skew@100 and "DP", its code is not
there), Hirota et al. 2025 (SANER: data set and k), Chuang et al. 2023 and Dehdashtian et al. 2024 (MaxSkew@1000, target not said,
no code), Seth et al. 2023 (DeAR, no code). Wang et al. 2021 (CLIP-clip) have no MaxSkew: theirs is `bias_at_k` for k from 1 to
10, men less women, averaged over queries with its sign, so that opposite biases cancel.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from ..errors import check_choice
from ..measured import FlooredWarning, MeasuredFloat
from .ranking import max_skew_at_k
from .scores import cosine_scores


@dataclass(frozen=True)
class Preset:
    """How a paper computes its MaxSkew@k.

    Attributes:
        source: paper, and the code in which this was read.
        skew: keyword arguments for `max_skew_at_k` (`skew_at_k` and `min_skew_at_k` know all but "absolute"); k only if
            published.
        scores: keyword arguments for `cosine_scores`.
        prompts: averaged over all of them ("mean"), or only the "last" one's value.
        ndkl: keyword arguments for `ndkl`, if the paper has it.
        unpublished: what has to be given or guessed.
        beside: conventions of the paper's other measures, and what else one has to know.
    """

    source: str
    skew: dict[str, Any]
    scores: dict[str, Any] = field(default_factory=dict)
    prompts: str = "mean"
    ndkl: dict[str, Any] | None = None
    unpublished: str = ""
    beside: str = ""


PRESETS = {
    "geyik2019": Preset(
        "Geyik, Ambler and Kenthapadi 2019, definitions 2 to 4",
        {"target": "pool", "zero": "-inf", "ties": "order"},
        ndkl={"target": "pool"},
        unpublished="k depends on the page; nothing is floored",
        beside="the paper ranks people for recruiters: no embeddings, no prompts",
    ),
    "berg2022": Preset(
        "Berg et al. 2022 (prompt array); oxai/debias-vision-lang f481bded",
        {"target": "uniform", "zero": "floor", "ties": "all"},
        {"normalize_images": False},
        ndkl={"target": "uniform", "ties": "all"},
        unpublished="k: the code's default is all items, with which a balanced set scores 0 whatever the model",
        beside="the code prints the target of the pool too (dem_par); the figures use the uniform one (eq_opp); 319 prompts; as "
        "many men as women",
    ),
    "hall2023": Preset(
        "Hall et al. 2023 (VisoGender)",
        {"target": "pool", "zero": "floor", "ties": "order"},
        unpublished="k: every one is tabulated",
        beside="MinSkew@k too",
    ),
    "gerych2024": Preset(
        "Gerych et al. 2024 (BEND-VLM); waltergerych/bend_vlm 3777904f",
        {"k": 500, "target": "pool", "zero": "-inf", "ties": "order"},
        beside="kl_at_k too; an absent group's ratio is set to 1e-10, which never is the largest; 25 stereotype queries; "
        "ranked and reference images are halves of one labelled set, five shuffles",
    ),
    "jung2024": Preset(
        "Jung et al. 2024 (SFID); HoinJung/Unified-Debiaisng-VLM-SFID a811a491",
        {"k": 100, "target": "uniform", "zero": "-inf", "ties": "order", "absolute": True},
        {"normalize_images": False, "normalize_prompts": False, "over_prompts": 100.0},
        prompts="last",
        beside="ten subsets of 1,000 images, the last caption's value of each; infinite if a gender is absent; nothing is "
        'renormalised after the method; its "DP" is equal_opportunity_gap(pairs="max", classes="mean") x 100, its accuracy '
        'zero_shot_accuracy(average="cells")',
    ),
    "zhang2025": Preset(
        "Zhang et al. 2025 (joint removal); haoyusimon/VL_Debiasing 89d13aac",
        {"k": 1000, "target": "uniform", "zero": "floor", "ties": "all"},
        {"normalize_images": False},
        ndkl={"k": 1000, "target": "uniform", "ties": "all"},
        beside="FairFace's validation set as it is, 53 % men, so that a random ranking scores about .065; ABLE takes top-1 "
        "accuracy in per cent, rounded to two digits",
    ),
    "guimard2026": Preset(
        "Guimard, Bartsch et al. 2026 (SEM); mardgui/SEM 554ffc55",
        {"k": 500, "target": "pool", "ties": "order", "zero": "-inf"},
        unpublished="the rule for an absent group was not read; it could decide MaxSkew only if it raised one",
        beside="kl_at_k too; 25 stereotype queries, mean over ten random halves of the set",
    ),
    "lian2026": Preset(
        "Lian et al. 2026 (closed form); Supltz/Debias_VLM 8c441adc",
        {"k": 1000, "target": "pool", "zero": "-inf", "ties": "order"},
        beside="captions with gender words replaced by person; k is cut to the pool's size, where every skew is 0; its EO gap is "
        'equal_opportunity_gap(pairs="mean"), with classes="mean" (Avg) or "max" (Max)',
    ),
}


def preset(name: str) -> Preset:
    """The conventions of one paper, by its name in `PRESETS`: ``max_skew_at_k(scores, groups, **preset("zhang2025").skew)``.

    Raises:
        ValueError: an unknown name.
    """
    check_choice("preset", name, PRESETS)
    return PRESETS[name]


def published_max_skew(
    images: Any, prompts: Any, groups: Any, name: str, *, k: int | None = None, corrected: bool = False
) -> MeasuredFloat:
    """MaxSkew@k of embeddings under a paper's conventions: one number, as the paper would have printed it, or as it should be.

    Args:
        images: (n, d) embeddings, (m, d) prompts: as the method leaves them. groups: (n,) labels.
        name: of `PRESETS`. k: by default the paper's.
        corrected: keep what is a choice (k and target), and mend the rest: cosines of unit-length embeddings rank, ties keep
            their order, absent groups are left out, skews have their sign, and all prompts count.

    Returns:
        The value; its conventions say everything, "preset" and "corrected" among it.

    Raises:
        ValueError: an unknown preset; no k where the paper has none; k larger than the pool; as `cosine_scores`.
    """
    paper = preset(name)
    options = {**paper.skew, **({} if k is None else {"k": k})}
    if "k" not in options:
        raise ValueError(f"the preset {name!r} has no k of its own: give one ({paper.unpublished})")
    if corrected:
        options = {"k": options["k"], "target": options["target"], "zero": "exclude", "ties": "order"}
    scores = cosine_scores(images, prompts, **({} if corrected else paper.scores))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlooredWarning)  # it is the paper's convention that is asked for
        found = max_skew_at_k(scores, groups, **options)
    average = "mean" if corrected else paper.prompts
    value = MeasuredFloat(found[-1] if average == "last" else found.mean())
    value.conventions = {**found.conventions, "prompts": average, "preset": name, "corrected": bool(corrected)}
    return value
