"""A measure with what belongs beside it: what chance scores, and intervals over people and over trainings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import array, floats
from ..discover.intervals import check_confidence, check_support
from ..discover.uncertainty import t_interval
from ..errors import check_choice, check_whole
from ..measured import FlooredWarning, MeasuredDict


def estimate(
    measure: Callable[..., Any],
    trainings: Sequence[Any],
    *of_people: Any,
    axis: int = -1,
    floor: Mapping[str, float] | None = None,
    support: tuple[float, float] | None = None,
    confidence: float = 0.95,
    repeats: int = 200,
    seed: int = 0,
) -> MeasuredDict:
    """A measure of several trainings on the same people: value, interval over people, interval over trainings, floor.

    People are resampled, the same ones for all trainings, and the interval is the value plus and minus z standard deviations of
    what they score (the bootstrap's standard error). It is not made of the resamples' percentiles: a resample holds people
    twice, which makes every MaxSkew and every NDKL larger, so that percentiles leave out the truth more often than not.
    Coverage of 95 % intervals in simulations of 300 to 600 people and 10 to 20 queries: 89 to 99 %; of percentiles, 0 to 94 %.

    Args:
        measure: takes one entry of `trainings` and `of_people`; returns a number or several, whose mean is taken, such as
            ``lambda scores, groups: max_skew_at_k(scores, groups, 100)``.
        trainings: one array for each training, with people on its `axis`, such as scores (m, n), or predictions (n,).
        of_people: (n,) arrays, such as groups and true classes.
        axis: of the people in `trainings`: -1 for scores, 0 for embeddings (n, d).
        floor: what chance scores: of `random_floor` or `shuffled_floor`; travels along, under "floor".
        support: (low, high) that no interval leaves, such as (0, 1).
        repeats: resamples.

    Returns:
        {"value", "low", "high"} of these trainings, over people; {"trainings_low", "trainings_high"} over trainings, on these
        people, Student's t: NaN for a single one; {"excess"}, the value less the floor's mean, if there is a floor. The
        conventions hold the value "by_training" and those of the measure.

    Raises:
        ValueError: no training; people whose numbers differ, fewer than two of them; a measure that is not finite for the people
            as given. Resamples without a value, as of a group that is missing in them, are left out, and counted under "failed";
            more than one in ten are an error too.
    """
    check_confidence(confidence)
    check_whole("repeats", repeats, at_least=20)
    check_whole("seed", seed, at_least=0)
    given, shared = [_as_is(x) for x in trainings], [_as_is(x) for x in of_people]
    if not given:
        raise ValueError("need at least one training")
    lengths = [x.shape[axis] if x.ndim else 0 for x in given] + [len(x) if x.ndim else 0 for x in shared]
    n = lengths[0]
    if len(set(lengths)) > 1 or n < 2:
        raise ValueError(f"trainings and people's labels need one number of people, at least 2, got {lengths}")

    def value(x: np.ndarray, rows: np.ndarray | None = None) -> tuple[float, dict[str, Any]]:
        found = measure(x, *shared) if rows is None else measure(np.take(x, rows, axis=axis), *(y[rows] for y in shared))
        return float(np.mean(floats("the measure's values", found))), getattr(found, "conventions", {})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlooredWarning)  # the conventions name the groups
        by_training, conventions = zip(*(value(x) for x in given), strict=True)
        rng, drawn = np.random.default_rng(seed), []
        for _ in range(repeats):
            rows = rng.integers(0, n, n)
            try:
                drawn.append(np.mean([value(x, rows)[0] for x in given]))
            except ValueError:  # too few of a group, or a value that is infinite
                continue
    if len(drawn) < 0.9 * repeats:
        raise ValueError(
            f"the measure has no value for {repeats - len(drawn)} of {repeats} resamples of {n} people: too few of a kind"
        )
    mean, low, high = float(np.mean(by_training)), -np.inf, np.inf
    if support is not None:
        low, high = check_support(np.array(by_training), support)
    from scipy.stats import norm

    half = float(norm.ppf((1 + confidence) / 2) * np.std(drawn, ddof=1))
    result = MeasuredDict(value=mean, low=max(mean - half, low), high=min(mean + half, high))
    result["trainings_low"], result["trainings_high"] = np.nan, np.nan
    if len(given) > 1:
        result["trainings_low"], result["trainings_high"] = t_interval(by_training, confidence=confidence, support=support)[1:]
    if floor is not None:
        check_choice("floor's entry", "mean", floor)
        result["excess"] = mean - float(floor["mean"])
    result.conventions = {
        **conventions[0], "by_training": [float(v) for v in by_training], "people": n, "confidence": confidence,
        "repeats": repeats, "failed": repeats - len(drawn), "floor": None if floor is None else dict(floor),
    }  # fmt: skip
    return result


def _as_is(x: Any) -> np.ndarray:
    """An array that keeps what scores carry, such as whether images were normalised."""
    return x if isinstance(x, np.ndarray) else array(x)
