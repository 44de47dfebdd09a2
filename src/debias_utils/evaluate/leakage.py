"""What a fresh linear probe still reads from embeddings: leakage of an attribute."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import floats, labels
from ..discover.intervals import mean_interval
from ..errors import check_choice, check_whole
from ..measured import MeasuredDict
from ..metrics.scores import unit_rows


def leakage(
    embeddings: Any,
    groups: Any,
    *,
    test: Any = None,
    test_groups: Any = None,
    people: Any = None,
    folds: int = 5,
    renormalise: bool = True,
    strength: float = 1.0,
    confidence: float = 0.95,
    seed: int = 0,
) -> MeasuredDict:
    """How well a fresh linear probe tells the groups apart, on embeddings that it was not fitted on.

    A method that was trained against a probe of its own, or that is right on the rows it was fitted on, may have hidden an
    attribute and not removed it. So the probe is new (logistic regression, features standardised), it is judged on held-out rows,
    and embeddings are brought to unit length first, as every cosine does: that alone brings back part of what a method has taken
    out.

    Args:
        embeddings: (n, d), of one tower, as a method leaves them. groups: (n,) labels.
        test, test_groups: embeddings and labels of another domain: the probe is fitted on all of `embeddings`, and judged there.
            By default it is judged by cross-validation.
        people: (n,) labels of who is in the picture: all pictures of a person are held out together, and count as one value for
            the interval. Without it two pictures of a person may help each other.
        folds: of the cross-validation, stratified and shuffled.
        renormalise: bring rows to unit length first; off for what an unnormalised linear probe reads.
        strength: of the regularisation, the inverse of scikit-learn's C.

    Returns:
        {"accuracy", "low", "high"}: the share of held-out rows (with `people` the mean over people) that are read rightly, with
        its interval over them; {"floor"}: the share of the largest group, what a probe scores that sees nothing; {"balanced"}:
        the mean over the groups of each one's share, whose floor is {"balanced_floor"}, 1 / number of groups.

    Raises:
        ValueError: NaN, infinity, rows of length 0, embeddings of two widths, missing labels, a single group, groups with fewer
            members (or people) than folds, test groups that the probe cannot know.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_whole("folds", folds, at_least=2)
    check_whole("seed", seed, at_least=0)
    if not float(strength) > 0:
        raise ValueError(f"strength must be above 0, got {strength!r}")
    x, names, codes = _read("embeddings", embeddings, groups, renormalise)
    if len(names) < 2:
        raise ValueError(f"a probe needs at least two groups, got {names}")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1 / strength, max_iter=1000))
    who = labels("people", np.arange(len(x)) if people is None else people, n=len(x))[1]
    if (test is None) != (test_groups is None):
        raise ValueError("test embeddings and test_groups need one another")
    if test is not None and people is not None:
        raise ValueError("people are held out together by cross-validation: give either people or test")
    if test is not None:
        y, test_names, test_codes = _read("test", test, test_groups, renormalise)
        if y.shape[1] != x.shape[1]:
            raise ValueError(f"embeddings must have one width, got {x.shape} and test {y.shape}")
        for name in test_names:
            check_choice("test group", name, names)
        truth, who = np.array([names.index(name) for name in test_names])[test_codes], np.arange(len(y))
        right = probe.fit(x, codes).predict(y) == truth
    else:
        members = {name: len(np.unique(who[codes == i])) for i, name in enumerate(names)}
        if min(members.values()) < folds:
            kind = "members" if people is None else "people"
            raise ValueError(f"each group needs at least folds = {folds} {kind}, got {members}")
        kinds = StratifiedKFold if people is None else StratifiedGroupKFold
        truth, right = codes, np.empty(len(x), bool)
        for fit, held in kinds(folds, shuffle=True, random_state=seed).split(x, codes, None if people is None else who):
            right[held] = probe.fit(x[fit], codes[fit]).predict(x[held]) == codes[held]
    per_person = np.bincount(who, right) / np.bincount(who)
    accuracy, low, high = mean_interval(per_person, confidence=confidence, seed=seed, support=(0, 1))
    shares = np.bincount(truth, minlength=len(names)) / len(truth)
    there = np.flatnonzero(shares)
    result = MeasuredDict(
        accuracy=accuracy, low=low, high=high, floor=float(shares.max()),
        balanced=float(np.mean([right[truth == i].mean() for i in there])), balanced_floor=1 / len(there),
    )  # fmt: skip
    result.conventions = {
        "metric": "leakage", "probe": "logistic regression", "strength": float(strength), "renormalise": bool(renormalise),
        "judged": f"{folds} folds" if test is None else "test", "rows": len(truth), "groups": names,
    }  # fmt: skip
    return result


def _read(name: str, embeddings: Any, groups: Any, renormalise: bool) -> tuple[np.ndarray, list[Any], np.ndarray]:
    x = floats(name, embeddings)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{name} must be (n, d) and not empty, got shape {x.shape}")
    names, codes = labels("groups" if name == "embeddings" else "test_groups", groups, n=len(x))
    return unit_rows(name, x, change=renormalise), names, codes
