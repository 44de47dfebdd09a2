"""How far an evaluator can be trusted: its calibration, other readings to hold beside it, and evaluators that are biased.

A judge here is what `judge.judge` takes: something with `classes` that turns pictures into probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from ..arrays import booleans, floats
from ..errors import check_choice, check_probabilities, check_unit_interval, check_whole

if TYPE_CHECKING:
    from ..debias.words import Sets
    from ..models.clip import Clip

SCALES = (1.0, 100.0)  # CLIP's training does not let its scale grow beyond 100 (Radford et al. 2021, section 2.5)


def reliability(confidence: Any, right: Any, *, bins: int = 10) -> pd.DataFrame:
    """A reliability diagram: how often answers given with some probability are right, in bins that hold equally many.

    Answers with the same confidence share a bin, so that their order changes nothing: where many do, bins are uneven and
    fewer. 200 answers that all have a confidence of 0.8 are one bin.

    Args:
        confidence: (n,) probabilities. right: (n,) bool. bins: at most n.

    Returns:
        A row for each bin: confidence (mean), accuracy, low, high (its Wilson 95 % interval), n.

    Raises:
        ValueError: something missing, other shapes, confidences outside [0, 1], more bins than answers.
    """
    from scipy.stats import binomtest

    confidence, right = floats("confidence", confidence).astype(float), booleans("right", right)
    rows = []
    for part in _bins(confidence, right.shape, bins):
        span = binomtest(int(right[part].sum()), len(part)).proportion_ci(method="wilson")
        rows.append((confidence[part].mean(), right[part].mean(), span.low, span.high, len(part)))
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "low", "high", "n"])


def calibration_error(confidence: Any, right: Any, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3), in bins that hold equally many (Nixon et al. 2019).

    Args, bins and errors as `reliability`. It is above 0 even for a perfect judge: print `calibrated` beside it.
    """
    confidence, right = floats("confidence", confidence).astype(float), booleans("right", right)
    return float(sum(abs((confidence - right)[part].sum()) for part in _bins(confidence, right.shape, bins)) / len(confidence))


def calibrated(confidence: Any, *, bins: int = 15, repeats: int = 1000, seed: int = 0) -> np.ndarray:
    """(repeats,) calibration errors of a judge that is right exactly as often as it says (Bröcker and Smith 2007).

    Args and errors as `reliability`.
    """
    check_whole("repeats", repeats)
    check_whole("seed", seed, at_least=0)
    confidence, rng = floats("confidence", confidence).astype(float), np.random.default_rng(seed)
    parts = _bins(confidence, confidence.shape, bins)
    misses = (confidence - (rng.random(len(confidence)) < confidence) for _ in range(repeats))
    return np.array([sum(abs(miss[part].sum()) for part in parts) for miss in misses]) / len(confidence)


def fit_scale(cosines: Any, labels: Any) -> float:
    """The scale within `SCALES` with which softmax(scale * cosines) makes the labels likeliest: temperature scaling.

    Args:
        cosines: (n, c), of each picture with each class; where they tell the classes apart, the largest scale wins.
        labels: (n,) numbers of the true classes, from 0 to c - 1.

    Raises:
        ValueError: something missing, shapes that do not fit, a class that does not exist.

    Source:
        Guo et al. 2017, section 4.2; the scale is one over their temperature.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    cosines, classes = floats("cosines", cosines).astype(float), floats("labels", labels)
    if cosines.ndim != 2 or classes.shape != cosines.shape[:1] or not cosines.size:
        raise ValueError(f"need cosines (n, c) and labels (n,), got {cosines.shape} and {classes.shape}")
    if (classes % 1).any() or classes.min() < 0 or classes.max() >= cosines.shape[1]:
        raise ValueError(f"labels must be whole numbers from 0 to {cosines.shape[1] - 1}, got {classes.min()} to {classes.max()}")
    own = np.arange(len(classes)), classes.astype(int)

    def loss(log_scale: float) -> float:
        return -float(log_softmax(np.exp(log_scale) * cosines, axis=1)[own].mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(SCALES), method="bounded", options={"xatol": 1e-6}).x))


class ZeroShot:
    """A CLIP as a judge: each class is the mean of its words, each answer a softmax over scaled cosines.

    Args:
        clip: the CLIP. sets: {attribute: its sets}, of one word for each class. classes: {attribute: names in that order}.
        scales: {attribute: scale of the cosines}; the CLIP's own where there is none.

    Raises:
        ValueError: sets and classes do not fit; a scale of another attribute, or that is no number above 0.
    """

    def __init__(
        self,
        clip: Clip,
        sets: Mapping[str, Sets],
        classes: Mapping[str, Sequence[str]],
        *,
        scales: Mapping[str, float] | None = None,
    ):
        for name, scale in (scales or {}).items():
            check_choice("attribute of a scale", name, sets)
            if not 0 < scale < float("inf"):
                raise ValueError(f"the scale of {name!r} must be a number above 0, got {scale!r}")
        for name, words in sets.items():
            check_choice("attribute", name, classes)
            if any(len(each) != len(classes[name]) for each in words):
                raise ValueError(f"the sets of {name!r} need one word for each of {list(classes[name])}")
        self.clip, self.classes = clip, {name: list(classes[name]) for name in sets}
        self.texts = {
            name: F.normalize(torch.stack([clip.encode_prompts(list(each)) for each in words]).mean(dim=0), dim=-1)
            for name, words in sets.items()
        }  # (classes, d)
        self.scales = dict.fromkeys(sets, float(clip.model.logit_scale.detach().exp())) | dict(scales or {})

    @torch.no_grad()
    def cosines(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(n, 3, h, w) pictures in [0, 1] -> {attribute: (n, classes)}."""
        seen = self.clip.encode_image(images)
        return {name: seen @ texts.T for name, texts in self.texts.items()}

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities: (n, 3, h, w) pictures in [0, 1] -> {attribute: (n, classes)}."""
        return {name: (self.scales[name] * found).softmax(dim=1) for name, found in self.cosines(images).items()}


def cue_posterior(cues: Mapping[str, Any], likelihood: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """What the cues say by Bayes' rule, and no more can be said by anyone: groups equally frequent, cues independent.

    Args:
        cues: {cue: (n,) bool}; those that the likelihood does not name are not used.
        likelihood: {cue: {group: P(cue | group)}} such as `toonville.GENDER_CUES`: the same groups for each cue, by name.

    Returns:
        (n, groups) probabilities, groups in the order of the likelihood's first cue. Evidence that no group could show counts
        for none of them.

    Raises:
        ValueError: no cue, one that is not given or has missing values or another length, groups that differ between the cues,
            a likelihood that is no probability.
    """
    if not isinstance(likelihood, Mapping) or not all(isinstance(of_group, Mapping) for of_group in likelihood.values()):
        raise ValueError(f"likelihood must be {{cue: {{group: P(cue | group)}}}}, got {type(likelihood).__name__}")
    if not hasattr(cues, "keys"):  # dictionaries and tables have them
        raise ValueError(f"cues must be {{cue: (n,) bool}}, got {type(cues).__name__}")
    if not likelihood or any(name not in cues for name in likelihood):
        raise ValueError(f"need each cue that has a likelihood, {list(likelihood)}, and at least one; got {list(cues)}")
    groups = list(next(iter(likelihood.values())))
    for name, of_group in likelihood.items():
        if set(of_group) != set(groups):
            raise ValueError(f"each cue needs a likelihood for each of {groups}, {name!r} has {list(of_group)}")
        for group in groups:
            check_unit_interval(f"likelihood[{name!r}][{group!r}]", of_group[group])
    shown = {name: booleans(f"cues[{name!r}]", cues[name]) for name in likelihood}
    if len({x.shape for x in shown.values()}) > 1 or next(iter(shown.values())).ndim != 1:
        raise ValueError(f"cues must have one shape (n,), got {', '.join(str(x.shape) for x in shown.values())}")
    chance = {name: np.array([of_group[group] for group in groups], float) for name, of_group in likelihood.items()}
    joint = np.prod([np.where(shown[name][:, None], p, 1 - p) for name, p in chance.items()], axis=0)  # (n, groups)
    total = joint.sum(axis=1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), 1 / joint.shape[1])


def leaned(probabilities: Any, towards: Any, strength: float) -> np.ndarray:
    """A judge's probabilities, pulled towards what it expects: p'_i is proportional to p_i exp(strength * towards_i).

    Args:
        probabilities: (n, c). towards: (n, c), how much of what the judge sees is coded for each class. strength: the dial.

    Returns:
        (n, c); with strength 0 the same probabilities. What has probability 0 keeps it.

    Raises:
        ValueError: something missing or infinite, shapes that do not fit, rows that are no distributions.
    """
    p, towards = floats("probabilities", probabilities).astype(float), floats("towards", towards).astype(float)
    if p.ndim != 2 or p.shape != towards.shape:
        raise ValueError(f"probabilities and towards need one shape (n, c), got {p.shape} and {towards.shape}")
    check_probabilities("probabilities", p)
    pull = np.where(p > 0, floats("strength", [strength])[0] * towards, -np.inf)
    weight = p * np.exp(pull - pull.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def lean(log_odds: Any, coded: Any) -> float:
    """The strength of `leaned` that a judge shows by itself: half the difference that the coding makes to its log-odds.

    Args:
        log_odds: (n,) of one of two classes, on pictures in which that class and the coding are independent.
        coded: (n,) bool, whether the picture's occupation is coded for that class.

    Raises:
        ValueError: something missing or infinite, shapes that do not fit, pictures coded one way alone.
    """
    log_odds, coded = floats("log_odds", log_odds).astype(float), booleans("coded", coded)
    if log_odds.ndim != 1 or log_odds.shape != coded.shape or coded.all() or not coded.any():
        raise ValueError(f"need pictures coded both ways, got {int(coded.sum())} of {coded.size}")
    return float(log_odds[coded].mean() - log_odds[~coded].mean()) / 2


def _bins(confidence: np.ndarray, right: tuple[int, ...], bins: int) -> list[np.ndarray]:
    """Rows of each bin, from the least to the most confident; `right` is the shape of the answers."""
    check_whole("bins", bins)
    if confidence.ndim != 1 or right != confidence.shape or len(confidence) < bins:
        raise ValueError(f"need confidence (n,) and right (n,) with n >= {bins}, got {confidence.shape} and {right}")
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(f"confidence must lie in [0, 1], got {confidence.min():.3g} to {confidence.max():.3g}")
    order = np.argsort(confidence, kind="stable")
    ranked = confidence[order]
    cuts = np.cumsum([len(part) for part in np.array_split(ranked, bins)])[:-1]
    # a cut that would part equal confidences goes to the nearer end of them, so that their order plays no part
    first, last = np.searchsorted(ranked, ranked[cuts], "left"), np.searchsorted(ranked, ranked[cuts], "right")
    cuts = np.unique(np.where(cuts - first <= last - cuts, first, last))
    return np.split(order, cuts[(cuts > 0) & (cuts < len(ranked))])
