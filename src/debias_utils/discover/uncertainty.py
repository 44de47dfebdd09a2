"""Intervals and tests for the numbers of Part I."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def bootstrap(statistic: Callable[..., Any], *samples: Any, confidence: float = 0.95, repeats: int = 1000, seed: int = 0):
    """Percentile bootstrap over rows that are resampled together (`scipy.stats.bootstrap`, paired).

    Args:
        statistic: takes as many arrays as there are samples, returns a float.
        samples: (n, ...) arrays, row i of each belonging to the same picture.

    Returns:
        (estimate, low, high).
    """
    from scipy.stats import bootstrap as scipy_bootstrap

    samples = tuple(np.asarray(sample) for sample in samples)

    def of_rows(rows: np.ndarray) -> float:
        return statistic(*(sample[rows] for sample in samples))

    n = len(samples[0])
    interval = scipy_bootstrap(
        (np.arange(n),), of_rows, vectorized=False, n_resamples=repeats, confidence_level=confidence,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(of_rows(np.arange(n))), float(interval.low), float(interval.high)


def share_over_seeds(missed: Any, members: Any, *, confidence: float = 0.95, repeats: int = 4000, seed: int = 0):
    """Share of the misranked who are members, over several trainings, with an interval for both sources of chance.

    Trainings and people are resampled independently (a two-way bootstrap): the same people are ranked by every training,
    so misranks of different trainings are not independent. With three trainings the bootstrap is too narrow if trainings
    differ much more than people do: report `t_interval` of the single trainings' shares beside it.

    Args:
        missed: (s, n) bool, misranked by training s. members: (n,) bool.

    Returns:
        (estimate, low, high); the estimate pools the misranks of all trainings.
    """
    missed, members = np.asarray(missed, float), np.asarray(members, float)
    if missed.ndim != 2 or members.shape != missed.shape[1:]:
        raise ValueError(f"need missed (s, n) and members (n,), got {missed.shape} and {members.shape}")
    if not missed.any():
        raise ValueError("nobody is misranked: the share is not defined")
    rng, (s, n) = np.random.default_rng(seed), missed.shape
    trainings = rng.multinomial(s, np.full(s, 1 / s), size=repeats)  # (repeats, s)
    people = rng.multinomial(n, np.full(n, 1 / n), size=repeats)  # (repeats, n)
    weight = np.einsum("rs,sn,rn->rn", trainings, missed, people, optimize=True)
    shares = (weight @ members) / np.maximum(weight.sum(axis=1), 1e-12)
    tail = (1 - confidence) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return float((missed @ members).sum() / missed.sum()), float(low), float(high)


def t_interval(values: Any, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t interval of a few independent values, such as one for each training: wide for few, but honest.

    Returns:
        (mean, low, high).
    """
    from scipy.stats import sem, t

    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, got shape {values.shape}")
    half = float(sem(values) * t.ppf((1 + confidence) / 2, len(values) - 1))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def permutation_test(missed: Any, members: Any, *, strata: Any = None, repeats: int = 5000, seed: int = 0) -> tuple[float, float]:
    """Are members misranked at another rate than the rest? Labels are shuffled within each stratum.

    Args:
        missed: (n,) bool. members: (n,) bool. strata: (n,) labels within which people are exchangeable (the occupation).

    Returns:
        (difference of the rates, members - rest; two-sided p-value, at least 1 / (repeats + 1)).
    """
    missed, members = np.asarray(missed, bool), np.asarray(members, bool)
    strata = np.zeros(len(missed), int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    if members.all() or not members.any():
        raise ValueError(f"a comparison needs members and others, got {members.sum()} members of {members.size}")
    rng = np.random.default_rng(seed)
    # The number of missed members in a stratum of N people, M members and D missed is hypergeometric under shuffling.
    counts = [
        (int(m.sum()), int((~m).sum()), int(d.sum()))
        for m, d in ((members[strata == s], missed[strata == s]) for s in np.unique(strata))
    ]
    shuffled = sum(rng.hypergeometric(m, rest, d, size=repeats) for m, rest, d in counts)
    observed, expected = int(missed[members].sum()), sum(d * m / (m + rest) for m, rest, d in counts)
    extreme = int((np.abs(shuffled - expected) >= abs(observed - expected) - 1e-9).sum())
    return float(missed[members].mean() - missed[~members].mean()), (extreme + 1) / (repeats + 1)
