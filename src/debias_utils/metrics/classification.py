"""Zero-shot classification: accuracy, the worst group's accuracy, and the gaps between groups; ABLE (Zhang et al. 2025).

Predictions, truth and groups are (n,) labels. Two gaps go by the wrong name in published code, so here is what they are:

- demographic parity asks whether every group gets a class equally often, whatever is right: P(predicted c | group);
- equal opportunity asks whether every group's members of a class are found equally often: P(predicted c | true c, group), the
  true positive rate. The "DP" of SFID and SPD is this one (Jung et al. 2024; Zhao et al. 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..arrays import array, labels
from ..errors import check_choice
from ..measured import MeasuredDict, MeasuredFloat
from ._results import carried, check_k, measured
from .tops import validate_scores

OVER_PAIRS = ("mean", "max")
OVER_CLASSES = ("mean", "max", "each")
AVERAGES = ("pictures", "classes", "cells")


def zero_shot(scores: Any, classes: Sequence[Any]) -> np.ndarray:
    """The class of the highest score of each picture; of tied ones the first.

    Args:
        scores: (c, n), one row for each class, as `cosine_scores(images, class_prompts)` makes them. classes: their c labels.

    Returns:
        (n,) labels.

    Raises:
        ValueError: scores that are missing or no matrix; another number of classes; a class twice.
    """
    scores, single, _ = validate_scores(scores)
    names = _classes(classes, len(scores), single)
    mixed = len({type(name) for name in names}) > 1  # NumPy would make text of all
    return np.array(names, dtype=object if mixed else None)[scores.argmax(axis=0)]


def zero_shot_accuracy(
    scores: Any, truth: Any, *, classes: Sequence[Any] | None = None, k: int = 1, average: str = "pictures", groups: Any = None
) -> MeasuredFloat:
    """Zero-shot accuracy: how often the true class has the highest score, or one of the k highest.

    Args:
        scores: (c, n), as in `zero_shot`; of tied classes the first ranks first.
        truth: (n,) labels. classes: the c labels of the rows; by default 0 to c - 1.
        k: 1 for top-1, 5 for top-5 accuracy.
        average: over all "pictures"; over "classes", each with the same weight; or over "cells", every group of every class with
            the same weight, as the code of Jung et al. 2024 has it.
        groups: (n,) labels, for "cells".

    Returns:
        A fraction in [0, 1]. The conventions hold "floor", what guessing scores on average: k / c.

    Raises:
        ValueError: as `zero_shot`; a true class that is not among the classes; k outside [1, c]; "cells" without groups.
    """
    conventions = carried(scores)
    scores, single, _ = validate_scores(scores)
    names = _classes(range(len(scores)) if classes is None else classes, len(scores), single)
    k = check_k(k, len(scores))
    check_choice("average", average, AVERAGES)
    found, codes = labels("truth", truth, n=scores.shape[1])
    for label in found:
        check_choice("true class", label, names)
    own = np.array([names.index(label) for label in found])[codes]
    score = scores[own, np.arange(len(own))]
    before = (scores == score) & (np.arange(len(scores))[:, None] < own)
    right = ((scores > score) | before).sum(axis=0) < k
    if average == "cells":
        if groups is None:
            raise ValueError("the average over cells needs groups, (n,) labels")
        kinds, group = labels("groups", groups, n=len(own))
        own = own * len(kinds) + group
    cells = np.zeros_like(own) if average == "pictures" else own
    value = _means(right, cells, cells.max() + 1)
    conventions |= {"metric": "zero-shot accuracy", "k": k, "average": average, "ties": "order", "floor": k / len(names)}
    return measured(np.array([np.nanmean(value)]), True, conventions)


def worst_group_accuracy(predicted: Any, truth: Any, groups: Any, *, cells: bool = False) -> MeasuredFloat:
    """The accuracy of the group that fares worst.

    Args:
        predicted, truth, groups: (n,) labels.
        cells: take every group of every true class for a group, as the literature on spurious correlations does (Sagawa et al.
            2020); a cell is called (class, group).

    Returns:
        A fraction in [0, 1]. The conventions hold every group's "accuracy" and how many it has ("n").

    Raises:
        ValueError: labels that are missing or not of one length.
    """
    kinds, group = labels("groups", groups)
    n = len(group)
    if not n:
        raise ValueError("groups must not be empty")
    found, codes = labels("truth", truth, n=n)
    right = _codes_of(labels("predicted", predicted, n=n), found) == codes
    names = [(c, g) for c in found for g in kinds] if cells else kinds
    place = codes * len(kinds) + group if cells else group
    accuracy, sizes = _means(right, place, len(names)), np.bincount(place, minlength=len(names))
    there = np.flatnonzero(sizes)
    conventions = {
        "metric": "worst-group accuracy", "cells": bool(cells),
        "accuracy": {names[i]: float(accuracy[i]) for i in there}, "n": {names[i]: int(sizes[i]) for i in there},
    }  # fmt: skip
    return measured(np.array([np.nanmin(accuracy)]), True, conventions)


def demographic_parity_gap(predicted: Any, groups: Any, *, pairs: str = "mean", classes: str = "mean") -> Any:
    """How differently often groups get a class: |P(predicted c | a) - P(predicted c | b)|, whatever is right.

    Chance leaves a gap: see `shuffled_floor`.

    Args:
        predicted: (n,) labels, such as those of `zero_shot`, or which pictures a search found (`retrieved`). groups: (n,) labels.
        pairs: "mean" or "max" over the pairs of groups.
        classes: "mean" or "max" over the classes that are predicted for anybody, or "each".

    Returns:
        A fraction in [0, 1]; with "each" {class: gap}. The conventions hold all "gaps" and the "rates" {class: {group: rate}}.

    Raises:
        ValueError: labels that are missing or not of one length, fewer than two groups, an unknown rule.
    """
    kinds, group = labels("groups", groups)
    found, codes = labels("predicted", predicted, n=len(group))
    rates = {c: _rates(codes == i, np.ones(len(codes), bool), group, kinds) for i, c in enumerate(found)}
    return _gap("demographic-parity gap", rates, kinds, pairs, classes)


def equal_opportunity_gap(predicted: Any, truth: Any, groups: Any, *, pairs: str = "mean", classes: str = "mean") -> Any:
    """How differently often a class is recognised: the gap in true positive rates, |P(right | c, a) - P(right | c, b)|.

    Chance leaves a gap: see `shuffled_floor`, with ``strata=truth``.

    Args:
        predicted, truth, groups: (n,) labels.
        pairs, classes: as `demographic_parity_gap`; over the true classes. A group without members of a class is in none of its
            pairs; a class with fewer than two groups has no gap, is left out, and listed in the conventions under "undefined".

    Returns:
        As `demographic_parity_gap`.

    Raises:
        ValueError: as `demographic_parity_gap`; no class with members of two groups.
    """
    kinds, group = labels("groups", groups)
    found, codes = labels("truth", truth, n=len(group))
    right = _codes_of(labels("predicted", predicted, n=len(group)), found) == codes
    rates = {c: _rates(right, codes == i, group, kinds) for i, c in enumerate(found)}
    return _gap("equal-opportunity gap", rates, kinds, pairs, classes)


def able(accuracy: float, max_skew: float) -> float:
    """ABLE: harmonic mean of the accuracy and e^-MaxSkew (Zhang et al. 2025).

    Args:
        accuracy: a fraction in [0, 1]. max_skew: MaxSkew@k >= 0, natural logarithm; what rounding leaves below 0 counts as 0.

    Returns:
        A fraction in [0, 1]; 1 means all right and no skew, 0 that nothing is right. The conventions hold those of its two parts.

    Raises:
        ValueError: NaN, more than one number, a percentage, a negative skew.
    """
    conventions: dict[str, Any] = {"metric": "ABLE"}
    for name, value in (("accuracy", accuracy), ("max_skew", max_skew)):
        if hasattr(value, "conventions"):
            conventions[name] = value.conventions
    numbers = {"accuracy": array(accuracy), "max_skew": array(max_skew)}
    for name, number in numbers.items():
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be one number, got {number.tolist()!r}")
    accuracy, max_skew = (float(number.item()) for number in numbers.values())
    if not 0.0 <= accuracy <= 1.0 + 1e-6:
        raise ValueError(f"accuracy must be a fraction in [0, 1], got {accuracy!r}")
    if not max_skew >= -1e-6:
        raise ValueError(f"max_skew must be at least 0, got {max_skew!r}")
    accuracy, fairness = min(accuracy, 1.0), float(np.exp(-max(max_skew, 0.0)))
    value = 2.0 * fairness * accuracy / (fairness + accuracy) if accuracy else 0.0
    return measured(np.array([value]), True, conventions)


def _classes(classes: Sequence[Any], count: int, single: bool) -> list[Any]:
    found, codes = labels("classes", classes)
    if single or len(codes) != count:
        got = f"{'(n,)' if single else f'({count}, n)'} and {len(codes)}"
        raise ValueError(f"need scores (c, n) and a label for each of c classes, got {got}")
    if len(found) < count:
        raise ValueError(f"classes must differ, got {[found[code] for code in codes]}")
    return [found[code] for code in codes]


def _codes_of(given: tuple[list[Any], np.ndarray], names: list[Any]) -> np.ndarray:
    """(n,) place of each label among the names, -1 if it is none of them."""
    place = {name: i for i, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in given[0]], int)[given[1]]


def _means(values: np.ndarray, codes: np.ndarray, kinds: int) -> np.ndarray:
    """(kinds,) mean of the values with each code; NaN where there is none."""
    sizes = np.bincount(codes, minlength=kinds)
    return np.divide(np.bincount(codes, values, minlength=kinds), sizes, out=np.full(kinds, np.nan), where=sizes > 0)


def _rates(hit: np.ndarray, among: np.ndarray, group: np.ndarray, kinds: list[Any]) -> dict[Any, float]:
    rates = _means(hit[among], group[among], len(kinds))
    return {kind: float(rate) for kind, rate in zip(kinds, rates, strict=True) if not np.isnan(rate)}


def _gap(metric: str, rates: dict[Any, dict[Any, float]], kinds: list[Any], pairs: str, classes: str) -> Any:
    check_choice("rule over pairs", pairs, OVER_PAIRS)
    check_choice("rule over classes", classes, OVER_CLASSES)
    if len(kinds) < 2:
        raise ValueError(f"a gap needs at least two groups, got {kinds}")
    apart = {c: [abs(a - b) for a, b in combinations(rate.values(), 2)] for c, rate in rates.items()}
    gaps = {c: _over(pairs, found) for c, found in apart.items() if found}
    if not gaps:
        raise ValueError(
            f"a gap needs a class with members of two groups, got { ({c: list(rate) for c, rate in rates.items()}) }"
        )
    conventions: dict[str, Any] = {"metric": metric, "pairs": pairs, "classes": classes, "gaps": gaps, "rates": rates}
    if len(gaps) < len(rates):
        conventions["undefined"] = [c for c in rates if c not in gaps]
    if classes == "each":
        result = MeasuredDict(gaps)
        result.conventions = conventions
        return result
    return measured(np.array([_over(classes, list(gaps.values()))]), True, conventions)


def _over(rule: str, values: list[float]) -> float:
    return float(np.mean(values) if rule == "mean" else max(values))
