"""The interval of a mean: one rule for the whole book."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import floats, numbers
from ..errors import check_whole

FLOOR = 0.3  # our choice: high enough to bound the interval, low enough to leave the coverage of spread values alone
SAME = 1e-6  # values nearer than this, of the largest or of 1, count as equal: float32 rounds that much after some arithmetic
NEAR = 1e-6  # shares and probabilities in float32 leave [0, 1] by so much
PART = 2**22  # resampled values held at once


def mean_interval(
    values: Any,
    *,
    confidence: float = 0.95,
    repeats: int = 4000,
    seed: int = 0,
    support: tuple[float, float] | None = None,
) -> tuple[float, float, float]:
    """Mean of n independent values, such as one for each person, with its interval. For paired samples use `difference_interval`.

    The outer limits of two intervals: Student's t, which is right for symmetric values but too short on the long side of skewed
    ones, and the bootstrap-t (Efron and Tibshirani 1993, section 12.5), which is the other way round. In the latter each
    resample is divided by its own standard error, but by no less than `FLOOR` of the sample's, since a resample of nearly equal
    values may have hardly any. Two cases have exact or nearly exact answers:

    - values that are one of two numbers, such as right and wrong: Wilson's interval of a share. Without a `support` they may also
      be differences of which the -1 has not been seen yet: where Student's t reaches beyond one of the two, so does the interval,
      up to the bound. With a wider `support` they are treated as any others.
    - values that are all equal: a share of 1 - (tail ** (1 / n)) of other values may have gone unseen, at the ends of the
      support. No flip among 40 people: 0 to 8.8 %, the exact binomial limit.

    Coverage of 95 % intervals in simulations (n = 16, 40, 100; see the tests): 93 to 97 % for flips of 10 % or more, their paired
    differences, means over 14 occupations of flips, symmetric heavy tails (t with 3 degrees of freedom) and lognormal values of
    n = 40 or more. Outside of that:

    - rare flips (5 %) and n = 16: 99 %, since so few counts are possible (their shares, with `support`, 96 %);
    - seven zeros among ten values: 97 to 98.5 % for n = 40;
    - lognormal values (sigma 1), n = 16: about 92 %; and many zeros with a skewed rest: 93 % for seven among ten, 86 % for
      17 among 20. So few values do not show how skewed they are: say so where such an interval is used.
    - flips that go together within a person (the mean over 14 occupations of 5 %), n = 16: about 92 %;
    - differences of flips of unequal frequency (5 and 15 %), n = 16, without a `support`: 85 %, since differences that are all 0
      or 1 by chance are read as a share; with support (-1, 1), as `difference_interval` gives it, 94 %;
    - with fewer than a dozen values nothing that resamples can be trusted: 6 values cover 85 to 95 %.

    A test beside it (`compare.sign_flip_test`) is exact for few flips and the more careful: five differences of 1 among 40 have
    p = 0.06, and the interval that `difference_interval` gives them, 0.018 to 0.337, just leaves out 0. Without a `support` they
    are taken for a share here, whose interval leaves out 0 by far. Claim a difference where test and `difference_interval` agree.

    Args:
        values: (n,), n at least 2.
        confidence: in (0, 1).
        repeats: resamples.
        support: (low, high), the values that are possible; the interval does not leave it. By default [0, 1] if all values lie
            there, else [-1, 1] if they do, else no bound: give it for differences, which may all be positive by chance, and for
            rates. Equal values without a bound c are taken to lie anywhere up to |c| (at least 1) from it.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: fewer than 2 values, or some that are not finite or outside of the support.
    """
    from scipy.stats import binomtest, t

    x = finite_values(values)
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    check_confidence(confidence)
    bottom, top = support_of(x) if support is None else check_support(x, support)
    n, mean, tail = len(x), float(x.mean()), (1 - confidence) / 2
    same = rounding(x)
    if np.ptp(x) <= same:
        return mean, *equal_limits(mean, n, tail, bottom, top)
    half = float(t.ppf(1 - tail, n - 1) * x.std(ddof=1) / np.sqrt(n))
    low, high, least, most = mean - half, mean + half, float(x.min()), float(x.max())
    upper, ends = x > (least + most) / 2, least - bottom <= same and top - most <= same
    if (np.where(upper, most - x, x - least) <= same).all() and (support is None or ends):
        share = binomtest(int(upper.sum()), n).proportion_ci(confidence, method="wilson")
        below, above = (least + limit * (most - least) for limit in (share.low, share.high))
        low, high = below if support is not None or low > least else low, above if support is not None or high < most else high
    else:
        below, above = _bootstrap_t(x, tail, repeats, seed)
        low, high = min(low, below), max(high, above)
    return mean, float(min(mean, max(low, bottom))), float(max(mean, min(high, top)))


def difference_interval(
    values: Any, others: Any, *, paired: bool = True, confidence: float = 0.95, repeats: int = 4000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of values less the mean of others, with its interval.

    Values in [0, 1] differ by -1 to 1: that both lie there is what bounds the interval, and not the sign of the differences.

    Args:
        values: (n,). others: (n,), entry i of the same person; not paired: (m,).
        paired: `mean_interval` of the differences. Otherwise the intervals of the two means, joined as those of independent
            estimates are: each limit as far away as the root of the sum of squares of the two (Zou and Donner 2008).

    Raises:
        ValueError: as `mean_interval`; paired samples of different lengths.
    """
    x, y = finite_values(values), finite_values(others)
    bottom, top = support_of(np.concatenate([x, y]))
    options: dict[str, Any] = {"confidence": confidence, "repeats": repeats, "seed": seed}
    if paired:
        if len(x) != len(y):
            raise ValueError(f"paired samples must have one length, got {len(x)} and {len(y)}")
        return mean_interval(x - y, support=(bottom - top, top - bottom), **options)
    (a, a_low, a_high), (b, b_low, b_high) = (mean_interval(v, support=(bottom, top), **options) for v in (x, y))
    return a - b, a - b - float(np.hypot(a - a_low, b_high - b)), a - b + float(np.hypot(a_high - a, b - b_low))


def equal_limits(value: float, n: int, tail: float, bottom: float, top: float) -> tuple[float, float]:
    """Limits of the mean where n values are equal: what has not been seen has at most a share of 1 - tail ** (1 / n)."""
    unseen, reach = 1 - tail ** (1 / n), max(1.0, abs(value))
    down, up = (reach if np.isinf(end) else abs(end - value) for end in (bottom, top))
    return value - unseen * down, value + unseen * up


def support_of(x: np.ndarray) -> tuple[float, float]:
    """[0, 1] if all values lie there, else [-1, 1] if they do, else no bound."""
    if x.max() > 1 + NEAR or x.min() < -1 - NEAR:
        return -np.inf, np.inf
    return (0.0 if x.min() >= -NEAR else -1.0), 1.0


def rounding(x: np.ndarray) -> float:
    """How far apart equal values may lie because they were computed in float32."""
    return SAME * max(1.0, float(np.abs(x).max()))


def check_support(x: np.ndarray, support: Any) -> tuple[float, float]:
    """Raise ``ValueError`` unless support is (low, high), in any form, and holds all values."""
    low, high = pair if len(pair := floats("support", support, finite=False).ravel().tolist()) == 2 else (0.0, 0.0)
    if not low < high:
        raise ValueError(f"support must be (low, high) with low < high, got {support!r}")
    if x.min() < low - NEAR or x.max() > high + NEAR:
        raise ValueError(f"values from {x.min():g} to {x.max():g} leave the support {support!r}")
    return low, high


def check_confidence(confidence: float) -> None:
    """Raise ``ValueError`` unless confidence lies between 0 and 1."""
    try:
        inside = bool(0 < confidence < 1)  # also false for NaN
    except (TypeError, ValueError):  # no number, or many
        inside = False
    if not inside:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")


def finite_values(values: Any) -> np.ndarray:
    """(n,) float64, n at least 2; None and pandas' missing values count as NaN.

    Raises:
        ValueError: other shapes; values that are not finite, with how many and where the first is.
    """
    x = numbers("values", values, missing=True).astype(float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"need at least 2 finite values (n,), got shape {x.shape}")
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        raise ValueError(
            f"need at least 2 finite values (n,), got shape {x.shape} with {len(wrong)} not finite, the first at {wrong[0]}"
        )
    return x


def _bootstrap_t(x: np.ndarray, tail: float, repeats: int, seed: int) -> tuple[float, float]:
    rng, n = np.random.default_rng(seed), len(x)
    mean, spread = float(x.mean()), float(x.std(ddof=1))
    away = (x - mean) / spread
    pulls = []
    for start in range(0, repeats, max(1, PART // n)):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(max(1, PART // n), repeats - start)) / n  # (part, n)
        means = counts @ away
        error = np.sqrt((counts @ away**2 - means**2).clip(min=0) * n / (n - 1))
        pulls.append(means / error.clip(min=FLOOR))
    low, high = np.quantile(np.concatenate(pulls), [tail, 1 - tail])
    return mean - float(high) * spread, mean - float(low) * spread
