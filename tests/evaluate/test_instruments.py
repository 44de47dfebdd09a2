import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit, softmax
from sklearn.calibration import calibration_curve

from debias_utils import toonville
from debias_utils.evaluate.instruments import (
    SCALES,
    ZeroShot,
    calibrated,
    calibration_error,
    cue_posterior,
    fit_scale,
    lean,
    leaned,
    reliability,
)
from debias_utils.evaluate.judge import read

GENDERS = {"gender": toonville.GENDERS}
WORDS = {"gender": (("woman", "man"), ("female", "male"))}


def test_reliability_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    confidence = rng.random(1000)
    right = rng.random(1000) < confidence**2
    found = reliability(confidence, right, bins=10)
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    assert np.allclose(found["accuracy"], accuracy)
    assert np.allclose(found["confidence"], mean)
    assert found["n"].tolist() == [100] * 10
    assert (found["low"] <= found["accuracy"]).all()
    assert (found["accuracy"] <= found["high"]).all()


def test_calibration_error_by_hand():
    confidence = [0.9, 0.9, 0.6, 0.6]
    assert calibration_error(confidence, [True, True, True, False], bins=2) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert calibration_error(confidence, [False, False, True, False], bins=2) == pytest.approx(0.5 * 0.9 + 0.5 * 0.1)
    assert calibration_error([1.0, 0.0], [True, False], bins=1) == 0


def test_calibration_error_is_the_gap_of_the_diagram():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(500), rng.random(500) < 0.5
    shown = reliability(confidence, right, bins=7)
    gap = ((shown["confidence"] - shown["accuracy"]).abs() * shown["n"]).sum() / 500
    assert calibration_error(confidence, right, bins=7) == pytest.approx(gap)


def test_a_calibrated_judge_lies_within_what_chance_makes_and_an_overconfident_one_does_not():
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.5, 1, 2000)
    right = rng.random(2000) < truth
    chance = calibrated(truth, repeats=300)
    assert 0 < np.median(chance) < 0.03
    assert calibration_error(truth, right) < np.quantile(chance, 0.99)
    boasting = 1 - (1 - truth) / 3
    assert calibration_error(boasting, right) > calibrated(boasting, repeats=300).max()


@pytest.mark.parametrize("scale", [3.0, 30.0])
def test_a_known_scale_is_found_again(scale):
    rng = np.random.default_rng(3)
    cosines = rng.normal(0, 2 / scale, (20_000, 3))
    chances = softmax(scale * cosines, axis=1)
    labels = (rng.random((20_000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    assert fit_scale(cosines, labels) == pytest.approx(scale, rel=0.05)


def test_where_classes_are_apart_the_largest_scale_wins():
    assert fit_scale(0.1 * np.eye(2), [0, 1]) == pytest.approx(SCALES[1], rel=1e-2)


def test_a_clip_tells_presentations(clip, world):
    people, images = world
    judge = ZeroShot(clip, WORDS, GENDERS)
    found = read(judge, images, batch_size=20)["gender"]
    assert found.shape == (56, 2)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    names = np.array(toonville.GENDERS, dtype=object)
    assert (names[found.argmax(axis=1)] == people["gender"].to_numpy()).mean() > 0.7
    assert judge.scales["gender"] == pytest.approx(float(clip.model.logit_scale.exp()))
    surer = read(ZeroShot(clip, WORDS, GENDERS, scales={"gender": 90.0}), images)["gender"]
    assert (surer.argmax(axis=1) == found.argmax(axis=1)).all()  # no scale changes an answer
    assert surer.max(axis=1).mean() > found.max(axis=1).mean()
    assert torch.allclose(judge.cosines(images)["gender"] @ torch.tensor([1.0, -1.0]), torch.from_numpy(
        logit(found[:, 0].astype(float))).float() / judge.scales["gender"], atol=1e-4)  # fmt: skip


def test_bayes_is_right_as_often_as_the_ceiling_says():
    people = toonville.sample(4000, seed=5)
    cues = {
        "long_hair": people["rear_hair"] != "",
        "bun": people["hair"] == "bun",
        "beard": people["beard"] != "",
        "earrings": people["earrings"],
        "lips": people["lips"],
    }
    found = cue_posterior(cues, toonville.GENDER_CUES)
    assert np.allclose(found.sum(axis=1), 1)
    right = np.array(toonville.GENDERS)[found.argmax(axis=1)] == people["gender"].to_numpy()
    ceiling = toonville.cue_ceiling(toonville.GENDER_CUES)
    assert right.mean() == pytest.approx(ceiling, abs=4 * (ceiling * (1 - ceiling) / 4000) ** 0.5)
    sure = found.max(axis=1)
    assert calibration_error(sure, right) < np.quantile(calibrated(sure, repeats=200), 0.999)


def test_impossible_evidence_says_nothing():
    assert cue_posterior({"a": [True]}, {"a": {"x": 0.0, "y": 0.0}}).tolist() == [[0.5, 0.5]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0, 50))
def test_the_dial(seed, classes, strength):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), size=7)
    towards = rng.dirichlet(np.ones(classes), size=7)
    found = leaned(p, towards, strength)
    assert np.allclose(found.sum(axis=1), 1)
    assert np.allclose(leaned(p, towards, 0.0), p)
    assert np.allclose(leaned(p, np.full_like(p, 0.5), strength), p)  # what is coded for none pulls nowhere
    more, row = leaned(p, towards, strength + 1), np.arange(7)
    assert (more[row, towards.argmax(axis=1)] >= found[row, towards.argmax(axis=1)] - 1e-12).all()
    assert (more[row, towards.argmin(axis=1)] <= found[row, towards.argmin(axis=1)] + 1e-12).all()


@pytest.mark.parametrize("strength", [0.0, 0.7, 2.0])
def test_the_strength_of_a_lean_is_found_again(strength):
    rng = np.random.default_rng(6)
    p = rng.uniform(0.05, 0.95, 4000)
    coded = rng.permutation(np.arange(4000) % 2 == 0)
    found = leaned(np.stack([1 - p, p], axis=1), np.stack([~coded, coded], axis=1), strength)
    assert lean(logit(found[:, 1]), coded) == pytest.approx(strength, abs=0.1)


def test_bad_input(clip):
    for call in (reliability, calibration_error):
        with pytest.raises(ValueError, match=r"need confidence \(n,\)"):
            call([0.5], [True], bins=2)
        with pytest.raises(ValueError, match="bins must be a whole number"):
            call([0.5], [True], bins=0)
    with pytest.raises(ValueError, match=r"got 0.2 to 1.5"):
        reliability([0.2, 1.5], [True, True], bins=1)
    with pytest.raises(ValueError, match=r"need cosines \(n, c\)"):
        fit_scale([[0.1, 0.2]], [0, 1])
    with pytest.raises(ValueError, match=r"one shape \(n, c\)"):
        leaned([[0.5, 0.5]], [[1.0, 0.0, 0.0]], 1.0)
    with pytest.raises(ValueError, match="coded both ways, got 2 of 2"):
        lean([0.1, 0.2], [True, True])
    with pytest.raises(ValueError, match="one word for each of"):
        ZeroShot(clip, {"gender": (("woman", "man", "person"),)}, GENDERS)
