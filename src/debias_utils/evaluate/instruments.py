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

from ..errors import check_positive

if TYPE_CHECKING:
    from ..debias.words import Sets
    from ..models.clip import Clip

SCALES = (1.0, 100.0)  # CLIP's training does not let its scale grow beyond 100 (Radford et al. 2021, section 2.5)


def reliability(confidence: Any, right: Any, *, bins: int = 10) -> pd.DataFrame:
    """A reliability diagram: how often answers given with some probability are right, in bins that hold equally many.

    Args:
        confidence: (n,) probabilities. right: (n,) bool. bins: at most n.

    Returns:
        A row for each bin: confidence (mean), accuracy, low, high (its Wilson 95 % interval), n.

    Raises:
        ValueError: other shapes, probabilities outside [0, 1], more bins than answers.
    """
    from scipy.stats import binomtest

    confidence, right, rows = np.asarray(confidence, float), np.asarray(right, bool), []
    for part in _bins(confidence, right, bins):
        span = binomtest(int(right[part].sum()), len(part)).proportion_ci(method="wilson")
        rows.append((confidence[part].mean(), right[part].mean(), span.low, span.high, len(part)))
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "low", "high", "n"])


def calibration_error(confidence: Any, right: Any, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3), in bins that hold equally many (Nixon et al. 2019).

    Args and errors as `reliability`. It is above 0 even for a perfect judge: print `calibrated` beside it.
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    return float(sum(abs((confidence - right)[part].sum()) for part in _bins(confidence, right, bins)) / len(confidence))


def calibrated(confidence: Any, *, bins: int = 15, repeats: int = 1000, seed: int = 0) -> np.ndarray:
    """(repeats,) calibration errors of a judge that is right exactly as often as it says (Bröcker and Smith 2007)."""
    confidence, rng = np.asarray(confidence, float), np.random.default_rng(seed)
    drawn = rng.random((repeats, len(confidence))) < confidence
    return np.array([calibration_error(confidence, right, bins=bins) for right in drawn])


def fit_scale(cosines: Any, labels: Any) -> float:
    """The scale within `SCALES` with which softmax(scale * cosines) makes the labels likeliest: temperature scaling.

    Args:
        cosines: (n, c), of each picture with each class; where they tell the classes apart, the largest scale wins.
        labels: (n,) numbers of the true classes.

    Source:
        Guo et al. 2017, section 4.2; the scale is one over their temperature.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    cosines, labels = np.asarray(cosines, float), np.asarray(labels, int)
    if cosines.ndim != 2 or labels.shape != cosines.shape[:1]:
        raise ValueError(f"need cosines (n, c) and labels (n,), got {cosines.shape} and {labels.shape}")

    def loss(log_scale: float) -> float:
        return -float(log_softmax(np.exp(log_scale) * cosines, axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(SCALES), method="bounded", options={"xatol": 1e-6}).x))


class ZeroShot:
    """A CLIP as a judge: each class is the mean of its words, each answer a softmax over scaled cosines.

    Args:
        clip: the CLIP. sets: {attribute: its sets}, of one word for each class. classes: {attribute: names in that order}.
        scales: {attribute: scale of the cosines}; the CLIP's own where there is none.

    Raises:
        ValueError: sets and classes do not fit.
    """

    def __init__(
        self,
        clip: Clip,
        sets: Mapping[str, Sets],
        classes: Mapping[str, Sequence[str]],
        *,
        scales: Mapping[str, float] | None = None,
    ):
        for name, words in sets.items():
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
        cues: {cue: (n,) bool}. likelihood: {cue: {group: P(cue | group)}} such as `toonville.GENDER_CUES`.

    Returns:
        (n, groups) probabilities. Evidence that no group could show counts for none of them.
    """
    shown = [np.asarray(cues[name], bool)[:, None] for name in likelihood]
    chance = [np.array(list(of_group.values()), float) for of_group in likelihood.values()]
    joint = np.prod([np.where(s, p, 1 - p) for s, p in zip(shown, chance, strict=True)], axis=0)  # (n, groups)
    total = joint.sum(axis=1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), 1 / joint.shape[1])


def leaned(probabilities: Any, towards: Any, strength: float) -> np.ndarray:
    """A judge's probabilities, pulled towards what it expects: p'_i is proportional to p_i exp(strength * towards_i).

    Args:
        probabilities: (n, c). towards: (n, c), how much of what the judge sees is coded for each class. strength: the dial.

    Returns:
        (n, c); with strength 0 the same probabilities.
    """
    p, towards = np.asarray(probabilities, float), np.asarray(towards, float)
    if p.ndim != 2 or p.shape != towards.shape:
        raise ValueError(f"probabilities and towards need one shape (n, c), got {p.shape} and {towards.shape}")
    pull = strength * towards
    weight = p * np.exp(pull - pull.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def lean(log_odds: Any, coded: Any) -> float:
    """The strength of `leaned` that a judge shows by itself: half the difference that the coding makes to its log-odds.

    Args:
        log_odds: (n,) of one of two classes, on pictures in which that class and the coding are independent.
        coded: (n,) bool, whether the picture's occupation is coded for that class.
    """
    log_odds, coded = np.asarray(log_odds, float), np.asarray(coded, bool)
    if log_odds.shape != coded.shape or coded.all() or not coded.any():
        raise ValueError(f"need pictures coded both ways, got {int(coded.sum())} of {coded.size}")
    return float(log_odds[coded].mean() - log_odds[~coded].mean()) / 2


def _bins(confidence: np.ndarray, right: np.ndarray, bins: int) -> list[np.ndarray]:
    """Rows of each bin, from the least to the most confident."""
    check_positive("bins", bins)
    if confidence.ndim != 1 or right.shape != confidence.shape or len(confidence) < bins:
        raise ValueError(f"need confidence (n,) and right (n,) with n >= {bins}, got {confidence.shape} and {right.shape}")
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError(f"confidence must lie in [0, 1], got {confidence.min():.3g} to {confidence.max():.3g}")
    return np.array_split(np.argsort(confidence, kind="stable"), bins)
