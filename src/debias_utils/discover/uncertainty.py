"""Intervals and tests for the numbers of Part I."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import array, booleans, labels, numbers
from ..errors import check_whole
from .intervals import check_confidence, check_support, equal_limits, finite_values, mean_interval, rounding, support_of


def bootstrap(statistic: Callable[..., Any], *samples: Any, confidence: float = 0.95, repeats: int = 1000, seed: int = 0):
    """Percentile bootstrap of a statistic, over rows that are resampled together (`scipy.stats.bootstrap`, paired).

    For what is no mean: areas, ratios, calibration errors. Its limits are too near for skewed values and stand still where all
    are equal; the mean of one sample, `bootstrap(np.mean, values)`, therefore is `mean_interval` of it. Give a paired difference
    of means to `difference_interval`.

    Args:
        statistic: takes as many arrays as there are samples, returns a float.
        samples: (n, ...) finite numbers, or (n,) labels; of one length, row i of each belonging to the same picture.

    Returns:
        (estimate, low, high).

    Raises:
        ValueError: no samples, samples of different lengths, fewer than 2 rows, missing or infinite values.
    """
    from scipy.stats import bootstrap as scipy_bootstrap

    check_confidence(confidence)
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    arrays = [_sample(f"sample {i}", sample) for i, sample in enumerate(samples)]
    lengths = [len(x) if x.ndim else 0 for x in arrays]
    if len(set(lengths)) != 1 or lengths[0] < 2:
        raise ValueError(f"samples are paired: they need one length of at least 2, got {lengths}")
    n = lengths[0]
    if statistic is np.mean and len(arrays) == 1 and arrays[0].ndim == 1:
        return mean_interval(arrays[0], confidence=confidence, repeats=repeats, seed=seed)

    def of_rows(rows: np.ndarray) -> float:
        return statistic(*(x[rows] for x in arrays))

    interval = scipy_bootstrap(
        (np.arange(n),), of_rows, vectorized=False, n_resamples=repeats, confidence_level=confidence,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(of_rows(np.arange(n))), float(interval.low), float(interval.high)


def _sample(name: str, sample: Any) -> np.ndarray:
    """Numbers without a missing or infinite one, or (n,) labels without a missing one."""
    x = array(sample)
    if x.dtype.kind in "biufc" or (x.dtype.kind == "O" and not any(isinstance(value, str) for value in x.ravel().tolist())):
        return numbers(name, x, finite=True)
    labels(name, sample)
    return x


def share_over_seeds(missed: Any, members: Any, *, confidence: float = 0.95, repeats: int = 4000, seed: int = 0):
    """Share of the misranked who are members, over several trainings, with an interval for both sources of chance.

    Trainings and people are resampled independently (a two-way bootstrap): the same people are ranked by every training,
    so misranks of different trainings are not independent. With three trainings the bootstrap is too narrow if trainings
    differ much more than people do: report `t_interval` of the single trainings' shares beside it.

    A resample without a misrank has no share and is left out: the interval is one of the share given that somebody is misranked,
    and that of the rest mirrors it. Where all of the misranked are members, or none, no resample can say otherwise: the limit is
    then the exact one for as many people as are misranked by any training (see `intervals.equal_limits`). Where nearly all or
    nearly none are, it is no nearer than that.

    Args:
        missed: (s, n) bool, misranked by training s. members: (n,) bool.

    Returns:
        (estimate, low, high); the estimate pools the misranks of all trainings.

    Raises:
        ValueError: other shapes, missing values, values that are neither true nor false; nobody is misranked.
    """
    missed, members = booleans("missed", missed), booleans("members", members)
    check_confidence(confidence)
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    if missed.ndim != 2 or members.shape != missed.shape[1:]:
        raise ValueError(f"need missed (s, n) and members (n,), got {missed.shape} and {members.shape}")
    if not missed.any():
        raise ValueError("nobody is misranked: the share is not defined")
    tail, estimate = (1 - confidence) / 2, float((missed @ members.astype(float)).sum() / missed.sum())
    different = int(missed.any(axis=0).sum())
    if estimate in (0, 1):
        return estimate, *equal_limits(estimate, different, tail, 0.0, 1.0)
    rng, (s, n) = np.random.default_rng(seed), missed.shape
    trainings = rng.multinomial(s, np.full(s, 1 / s), size=repeats)  # (repeats, s)
    people = rng.multinomial(n, np.full(n, 1 / n), size=repeats)  # (repeats, n)
    weight = np.einsum("rs,sn,rn->rn", trainings, missed, people, optimize=True)
    total = weight.sum(axis=1)
    shares = (weight @ members)[total > 0] / total[total > 0]
    low, high = np.quantile(shares, [tail, 1 - tail])
    least, most = equal_limits(1, different, tail, 0.0, 1.0)[0], equal_limits(0, different, tail, 0.0, 1.0)[1]
    return estimate, float(min(low, least)), float(max(high, most))


def t_interval(
    values: Any, *, confidence: float = 0.95, support: tuple[float, float] | None = None
) -> tuple[float, float, float]:
    """Mean and Student's t interval of a few independent values, such as one for each training: wide for few, but honest.

    For a dozen people or more `mean_interval` is the book's rule; it cannot resample three values. Without a `support` the ends
    of an interval of rates may leave [0, 1]: Student's t knows nothing of bounds.

    Args:
        values: (n,), n at least 2. support: (low, high), which the interval does not leave, such as (0, 1) for shares; by
            default nothing bounds it, unless all values are equal (see `mean_interval`).

    Returns:
        (mean, low, high).

    Raises:
        ValueError: fewer than 2 values, or some that are not finite or outside of the support.
    """
    from scipy.stats import t

    x = finite_values(values)
    check_confidence(confidence)
    n, mean, tail = len(x), float(x.mean()), (1 - confidence) / 2
    bottom, top = (-np.inf, np.inf) if support is None else check_support(x, support)
    if np.ptp(x) <= rounding(x):
        return mean, *equal_limits(mean, n, tail, *(support_of(x) if support is None else (bottom, top)))
    half = float(x.std(ddof=1) / np.sqrt(n) * t.ppf(1 - tail, n - 1))
    return mean, max(mean - half, bottom), min(mean + half, top)


def permutation_test(missed: Any, members: Any, *, strata: Any = None, repeats: int = 5000, seed: int = 0) -> tuple[float, float]:
    """Are members misranked at another rate than the rest? Labels are shuffled within each stratum.

    Args:
        missed: (n,) bool. members: (n,) bool. strata: (n,) labels within which people are exchangeable (the occupation).

    Returns:
        (difference of the rates, members - rest; two-sided p-value, at least 1 / (repeats + 1)). With strata the difference is
        the one that is tested: the mean of the strata's differences, with the weights m * r / (m + r) of Mantel and Haenszel for
        m members and r others. A stratum that lacks either says nothing and has no weight.

    Raises:
        ValueError: lengths that differ, missing values, values that are neither true nor false; no stratum with members and
            others.
    """
    missed, members = booleans("missed", missed), booleans("members", members)
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    if missed.ndim != 1 or members.shape != missed.shape:
        raise ValueError(f"missed and members need one length, (n,), got {missed.shape} and {members.shape}")
    strata = labels("strata", np.zeros(len(missed), int) if strata is None else strata, n=len(missed))[1]
    if members.all() or not members.any():
        raise ValueError(f"a comparison needs members and others, got {members.sum()} members of {members.size}")
    rng = np.random.default_rng(seed)
    # The number of missed members in a stratum of N people, M members and D missed is hypergeometric under shuffling.
    counts = [
        (int(m.sum()), int((~m).sum()), int(d.sum()))
        for m, d in ((members[strata == s], missed[strata == s]) for s in np.unique(strata))
    ]
    weight = sum(m * rest / (m + rest) for m, rest, _ in counts)
    if not weight:
        raise ValueError("a comparison needs members and others in the same stratum, and no stratum has both")
    shuffled = sum(rng.hypergeometric(m, rest, d, size=repeats) for m, rest, d in counts)
    expected = sum(d * m / (m + rest) for m, rest, d in counts)
    away = int(missed[members].sum()) - expected
    extreme = int((np.abs(shuffled - expected) >= abs(away) - 1e-9).sum())
    return float(away / weight), (extreme + 1) / (repeats + 1)
