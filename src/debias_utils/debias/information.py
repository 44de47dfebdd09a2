"""How much each dimension of an embedding tells about an attribute: mutual information, by two estimators.

Sources: Wang et al. 2021 (CLIP-clip; their code's smoothed histogram) and Gao et al. 2017 (nearest neighbours for mixtures of
discrete and continuous values, "mixed KSG", which later reruns of CLIP-clip use).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.special import digamma

from .. import arrays
from ..errors import check_choice, check_whole
from ..tensors import is_number

_OPTIONS = {"histogram": ("bins", "sigma", "normalized"), "ksg": ("n_neighbors",)}
ESTIMATORS = tuple(_OPTIONS)
_TIE = 1e-15  # distances closer than this are the same
_MANY = 20  # label values; beyond, labels count as continuous


def mutual_information(features: Any, labels: Any, *, estimator: str = "histogram", **options: Any) -> np.ndarray:
    """Mutual information of each feature and the labels, (d,) in nats, float64.

    "histogram", of CLIP-clip's authors: `bins` (64) squared cells over the range of the data, smoothed by a Gaussian of `sigma`
    (1.0) cells in both directions with zeros outside, then the plug-in sum. Biased upwards (.025 for 360 rows of nothing), and
    the smoothing cuts 30 % of the mass of the lowest and the highest label but none between. `normalized`: instead
    (H(x) + H(y)) / H(x, y) - 1, without a unit.
    "ksg": `n_neighbors` (5); around 0 where there is nothing, also below. The distance compares labels with features as numbers,
    so that the scale of both matters unless the labels lie farther apart than neighbours do.

    Both are of one basis: a rotation of the features changes them.

    Args:
        features: (n, d), as they are. labels: (n,); numbers count as numbers, words as 0, 1, ... in their order.

    Raises:
        ValueError: wrong shapes, NaN, missing labels, labels all alike, an unknown estimator or option, too few rows.
    """
    check_choice("estimator", estimator, ESTIMATORS)
    for name in options:
        check_choice(f"option of the estimator {estimator!r}", name, _OPTIONS[estimator])
    x = arrays.floats("features", features)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"features must be (n, d), got shape {x.shape}")
    y = _numbers(labels, n=len(x))
    if estimator == "ksg":
        return np.array([mixed_ksg(column, y, **options) for column in x.T])
    return np.array([_histogram(column.astype(float), y, **options) for column in x.T])


def kept_dimensions(information: Any, keep: int | float) -> np.ndarray:
    """The dimensions that tell least, in rising order, (m,): CLIP-clip keeps them and drops the others.

    Args:
        information: (d,), from `mutual_information`. keep: how many to KEEP, from 1 to d, or their share in (0, 1]; 1 is one
            dimension and 1.0 all of them. Ties keep the first.

    Raises:
        ValueError: wrong shape, NaN, keep out of range.
    """
    values = arrays.floats("information", information)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"information must be (d,), got shape {values.shape}")
    if isinstance(keep, (float, np.floating)):
        if not 0 < keep <= 1:
            raise ValueError(f"keep must be a share in (0, 1] or a whole number of dimensions, got {keep!r}")
        count = max(1, round(float(keep) * len(values)))
    else:
        count = check_whole("keep", keep, at_most=len(values), limit="d = ")
    return np.sort(np.argsort(values, kind="stable")[:count])


def _numbers(labels: Any, *, n: int) -> np.ndarray:
    names, codes = arrays.labels("labels", labels, n=n)
    if len(names) < 2:
        raise ValueError(f"labels must have at least two classes, got only {names[0]!r}")
    numeric = all(isinstance(name, (bool, int, float)) for name in names)
    return np.array(names, float)[codes] if numeric else codes.astype(float)


def _histogram(x: np.ndarray, y: np.ndarray, *, bins: int = 64, sigma: float = 1.0, normalized: bool = False) -> float:
    check_whole("bins", bins)
    if not (is_number(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be a number from 0, got {sigma!r}")
    joint = gaussian_filter(np.histogram2d(x, y, bins=bins)[0], sigma, mode="constant")
    joint += np.finfo(float).eps
    joint /= joint.sum()
    one, other, both = (float((p * np.log(p)).sum()) for p in (joint.sum(axis=0), joint.sum(axis=1), joint))
    return (one + other) / both - 1 if normalized else both - one - other


def mixed_ksg(x: Any, y: Any, *, n_neighbors: int = 5) -> float:
    """Mutual information of x and y in nats by nearest neighbours, for values that are discrete, continuous or both.

    With r the distance (largest coordinate) from a point to its k-th neighbour in (x, y): the mean of
    psi(k) + ln n - psi(n_x) - psi(n_y), n_x and n_y the points closer than r in x and in y alone, itself included. Where r
    is 0, k is the number of points in the same place. Not cut at 0.

    Args:
        x, y: (n,) or (n, d) numbers.

    Raises:
        ValueError: shapes that do not fit, NaN, no more than n_neighbors rows.
    """
    k = check_whole("n_neighbors", n_neighbors)
    one, other = (arrays.floats(name, value).astype(float) for name, value in (("x", x), ("y", y)))
    if one.ndim not in (1, 2) or other.ndim not in (1, 2) or len(one) != len(other):
        raise ValueError(f"need x and y of as many rows, (n,) or (n, d), got {one.shape} and {other.shape}")
    if len(one) <= k:
        raise ValueError(f"{k} neighbours need more than {k} rows, got {len(one)}")
    if one.ndim == other.ndim == 1:
        values, codes = arrays.labels("y", other)
        if len(values) <= _MANY:
            return _ksg_of_classes(one, codes, np.array(values), k)
    joint = np.column_stack([one, other])
    tree = cKDTree(joint)
    r = tree.query(joint, k + 1, p=np.inf)[0][:, k]
    near = _reach(r)
    same = r == 0
    count = np.full(len(one), k)
    count[same] = tree.query_ball_point(joint[same], _TIE, p=np.inf, return_length=True)
    return _mean_of_psi(count, _all_within(one, near), _all_within(other, near))


def _ksg_of_classes(x: np.ndarray, codes: np.ndarray, values: np.ndarray, k: int) -> float:
    """The same for few values of y, a hundred times faster: within a class, neighbours are neighbours in one sorted row."""
    order = np.argsort(x)
    x, codes = x[order], codes[order]
    sizes = np.bincount(codes)
    classes = [np.flatnonzero(codes == c) for c in range(len(values))]
    apart = abs(values[:, None] - values)
    r = np.empty(len(x))
    for rows in classes:
        r[rows] = _kth_neighbour(x[rows], k)
    # Beyond the gap to another label, its points are neighbours too: of each class the nearest k + 1 to the left and right.
    gap = (apart + np.where(np.eye(len(values), dtype=bool), np.inf, 0)).min(axis=1)
    far = np.flatnonzero(r > gap[codes])
    if len(far):
        distances = []
        for c, rows in enumerate(classes):
            padded = np.concatenate([np.full(k + 1, -np.inf), x[rows], np.full(k + 1, np.inf)])
            window = np.searchsorted(x[rows], x[far])[:, None] + np.arange(2 * k + 2)
            distances.append(np.maximum(abs(padded[window] - x[far, None]), apart[codes[far], c][:, None]))
        r[far] = np.partition(np.concatenate(distances, axis=1), k, axis=1)[:, k]
    near = _reach(r)
    n_y = sizes[codes].astype(float)
    n_y[far] = (apart[codes[far]] <= near[far, None]) @ sizes
    count = np.full(len(x), float(k))
    for rows in classes:
        same = rows[r[rows] == 0]
        count[same] = _within(x[rows], x[same], np.full(len(same), _TIE))
    return _mean_of_psi(count, _within(x, x, near), n_y)


def _mean_of_psi(k: np.ndarray, n_x: np.ndarray, n_y: np.ndarray) -> float:
    return float((digamma(k) + np.log(len(k)) - digamma(n_x) - digamma(n_y)).mean())


def _reach(r: np.ndarray) -> np.ndarray:
    """Just below r, so that the k-th neighbour itself does not count; all in the same place where r is 0."""
    return np.where(r == 0, _TIE, np.minimum(r - _TIE, np.nextafter(r, 0)))


def _kth_neighbour(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each sorted value to its k-th neighbour; infinite where there are too few."""
    padded = np.concatenate([np.full(k, -np.inf), x, np.full(k, np.inf)])
    spans = (np.maximum(x - padded[j : j + len(x)], padded[j + k : j + k + len(x)] - x) for j in range(k + 1))
    return np.minimum.reduce(list(spans))


def _all_within(values: np.ndarray, reach: np.ndarray) -> np.ndarray:
    if values.ndim == 1:
        return _within(np.sort(values), values, reach)
    return np.asarray(cKDTree(values).query_ball_point(values, reach, p=np.inf, return_length=True))


def _within(values: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """How many of the sorted values differ from each centre by no more than its reach."""
    # centre - reach rounds, and a tie must not turn on that: step to the next value while the difference itself says so.
    low = np.searchsorted(values, centres - reach)
    high = np.searchsorted(values, centres + reach, side="right")
    padded = np.concatenate([[-np.inf], values, [np.inf]])  # values[i] is padded[i + 1]
    while (more := centres - padded[low] <= reach).any():
        low[more] = np.searchsorted(values, padded[low[more]])
    while (less := centres - padded[low + 1] > reach).any():
        low[less] = np.searchsorted(values, padded[low[less] + 1], side="right")
    while (more := padded[high + 1] - centres <= reach).any():
        high[more] = np.searchsorted(values, padded[high[more] + 1], side="right")
    while (less := padded[high] - centres > reach).any():
        high[less] = np.searchsorted(values, padded[high[less]])
    return high - low
