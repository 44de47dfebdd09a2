import numpy as np
import pandas as pd
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


def test_equal_confidences_share_a_bin():
    right = np.arange(200) < 160
    rng = np.random.default_rng(0)
    for order in (right, right[::-1], rng.permutation(right)):
        assert calibration_error(np.full(200, 0.8), order) == pytest.approx(0, abs=1e-12)
        shown = reliability(np.full(200, 0.8), order)
        assert shown[["confidence", "accuracy", "n"]].to_numpy().tolist() == [[pytest.approx(0.8), 0.8, 200]]
    confidence = np.repeat([0.6, 0.9], [90, 110])
    right = np.concatenate([np.arange(90) < 45, np.arange(110) < 104])
    by_value = (90 * 0.1 + 110 * (104 / 110 - 0.9)) / 200  # as many bins as values
    assert calibration_error(confidence, right) == pytest.approx(by_value)
    assert calibrated(np.full(200, 0.8), repeats=2000).mean() == pytest.approx((2 * 0.16 / 200 / np.pi) ** 0.5, rel=0.05)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12), st.integers(1, 40))
def test_the_order_of_answers_changes_nothing(seed, n, bins, values):
    rng = np.random.default_rng(seed)
    confidence, right, bins = rng.integers(0, values + 1, n) / values, rng.random(n) < 0.5, min(bins, n)
    order = rng.permutation(n)
    shown = reliability(confidence, right, bins=bins)
    pd.testing.assert_frame_equal(shown, reliability(confidence[order], right[order], bins=bins))
    error = calibration_error(confidence, right, bins=bins)
    assert calibration_error(confidence[order], right[order], bins=bins) == pytest.approx(error, abs=1e-12)
    assert error == pytest.approx(((shown["confidence"] - shown["accuracy"]).abs() * shown["n"]).sum() / n, abs=1e-12)
    assert shown["n"].sum() == n
    assert len(shown) <= bins
    assert shown["confidence"].is_monotonic_increasing
    if len(set(confidence)) == n:
        assert set(shown["n"]) <= {n // bins, n // bins + 1}


def test_calibrated_is_the_error_of_drawn_answers():
    rng = np.random.default_rng(3)
    confidence = rng.integers(0, 11, 80) / 10
    drawn = np.random.default_rng(7).random((20, 80)) < confidence
    expected = [calibration_error(confidence, right, bins=6) for right in drawn]
    assert calibrated(confidence, bins=6, repeats=20, seed=7) == pytest.approx(expected, abs=1e-12)


def test_cues_are_matched_by_the_names_of_groups():
    shown = {"a": [True, False, True], "b": [True, True, False]}
    likelihood = {"a": {"x": 0.9, "y": 0.2}, "b": {"x": 0.7, "y": 0.4}}
    found = cue_posterior(shown, likelihood)
    by_hand = [[0.9 * 0.7, 0.2 * 0.4], [0.1 * 0.7, 0.8 * 0.4], [0.9 * 0.3, 0.2 * 0.6]]
    assert found == pytest.approx(np.array([np.array(row) / sum(row) for row in by_hand]))
    swapped = {"a": likelihood["a"], "b": {"y": 0.4, "x": 0.7}}
    assert cue_posterior(shown, swapped).tolist() == found.tolist()
    reversed_first = {name: dict(reversed(of.items())) for name, of in likelihood.items()}
    assert cue_posterior(shown, reversed_first).tolist() == found[:, ::-1].tolist()  # in the order of the first cue
    assert (
        cue_posterior({name: pd.Series(x, dtype="boolean") for name, x in shown.items()}, likelihood).tolist() == found.tolist()
    )


def test_what_cannot_be_stays_impossible_whatever_the_pull():
    assert leaned([[1.0, 0.0]], [[0, 1]], 5000.0).tolist() == [[1.0, 0.0]]
    assert leaned([[0.5, 0.5]], [[0, 1]], -5000.0).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_every_precision(kind):
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).to(kind).requires_grad_()
    p = logits.softmax(dim=1)
    sure, right = p.max(dim=1).values, torch.arange(60) % 3 > 0
    exact = p.detach().double().numpy()
    assert calibration_error(sure, right) == pytest.approx(calibration_error(exact.max(axis=1), right.numpy()), abs=1e-6)
    assert reliability(sure, right, bins=3)["n"].sum() == 60
    assert len(calibrated(sure, repeats=3)) == 3
    assert leaned(p, torch.eye(3, dtype=kind)[torch.arange(60) % 3], 0.0) == pytest.approx(exact, abs=0.01)
    assert lean(logits[:, 0], right) == pytest.approx(lean(logits[:, 0].detach().double().numpy(), right.numpy()), abs=1e-6)
    assert fit_scale(logits, torch.arange(60) % 3) == fit_scale(logits.detach().double().numpy(), np.arange(60) % 3)


ONE = {"a": {"x": 0.5, "y": 0.5}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([0.5, np.nan], [True, True], bins=1), "confidence holds 1 NaN, the first at item 1"),
        (lambda: reliability([0.5, 0.6], [True, None], bins=1), "right holds 1 NaN, the first at item 1"),
        (lambda: reliability([50, 97], [True, True], bins=1), "confidence must lie in"),
        (lambda: calibration_error([0.5, 0.6], [np.nan, 1.0], bins=1), "right holds 1 NaN, the first at item 0"),
        (lambda: calibration_error([0.5, 0.6], [0.3, 1.0], bins=1), "right must hold True or False, got 0.3"),
        (lambda: calibration_error([80, 90], [True, True], bins=1), "confidence must lie in"),
        (lambda: calibration_error([-1.2, 0.4], [True, True], bins=1), "confidence must lie in"),
        (lambda: calibrated([np.nan] * 20), "confidence holds 20 NaN"),
        (lambda: calibrated([80.0] * 20), "confidence must lie in"),
        (lambda: calibrated([0.5] * 20, repeats=0), "repeats must be a whole number"),
        (lambda: fit_scale([[np.nan, 0.2]], [0]), "cosines hold 1 NaN"),
        (lambda: fit_scale([[0.1, 0.2]], [np.nan]), "labels hold 1 NaN"),
        (lambda: fit_scale([[0.1, 0.2]], [-1]), "labels must be whole numbers from 0 to 1"),
        (lambda: fit_scale([[0.1, 0.2]], [2]), "labels must be whole numbers from 0 to 1"),
        (lambda: cue_posterior({"a": [True, None]}, ONE), r"cues\['a'\] holds 1 NaN, the first at item 1"),
        (lambda: cue_posterior({"b": [True]}, ONE), r"need each cue that has a likelihood, \['a'\].* got \['b'\]"),
        (lambda: cue_posterior({"a": [True]}, {}), "at least one"),
        (lambda: cue_posterior({"a": [True], "b": [True]}, {**ONE, "b": {"x": 0.5, "z": 0.5}}), "a likelihood for each of"),
        (lambda: cue_posterior({"a": [True], "b": [True]}, {**ONE, "b": {"x": 0.5}}), "a likelihood for each of"),
        (lambda: cue_posterior({"a": [True], "b": [True, False]}, {**ONE, "b": ONE["a"]}), "one shape"),
        (lambda: cue_posterior({"a": [True]}, {"a": {"x": 85, "y": 12}}), r"likelihood\['a'\]\['x'\] must lie in \[0, 1\]"),
        (lambda: cue_posterior({"a": [True]}, {"a": {"x": np.nan, "y": 0.1}}), r"must lie in \[0, 1\]"),
        (lambda: leaned([[np.nan, 1.0]], [[0, 1]], 1.0), "probabilities hold 1 NaN"),
        (lambda: leaned([[90.0, 10.0]], [[0, 1]], 1.0), "probabilities must be probabilities in"),
        (lambda: leaned([[2.0, -1.0]], [[0, 1]], 1.0), "probabilities must be probabilities in"),
        (lambda: leaned([[0.5, 0.5]], [[0, np.nan]], 1.0), "towards hold 1 NaN"),
        (lambda: leaned([[0.5, 0.5]], [[0, 1]], np.nan), "strength holds 1 NaN"),
        (lambda: leaned([[0.5, 0.5]], [[0, 1]], np.inf), "strength must be finite"),
        (lambda: lean([np.nan, 0.2], [True, False]), "log_odds hold 1 NaN"),
        (lambda: lean([np.inf, 0.2], [True, False]), "log_odds must be finite"),
        (lambda: lean([0.1, 0.2, 0.3], [True, False, np.nan]), "coded holds 1 NaN, the first at item 2"),
    ],
)
def test_what_is_missing_or_no_probability_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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
    with pytest.raises(ValueError, match="unknown attribute 'gender'; choose one of: 'skin'"):
        ZeroShot(clip, WORDS, {"skin": ("lighter", "darker")})
    with pytest.raises(ValueError, match="unknown attribute of a scale 'skin'"):
        ZeroShot(clip, WORDS, GENDERS, scales={"skin": 2.0})
    for scale in (float("nan"), 0.0, -3.0, float("inf")):
        with pytest.raises(ValueError, match="the scale of 'gender' must be a number above 0"):
            ZeroShot(clip, WORDS, GENDERS, scales={"gender": scale})


@pytest.mark.parametrize("likelihood", [["beard"], {"beard": [0.2, 0.3]}, pd.DataFrame({"beard": [0.2]})])
def test_a_likelihood_is_a_dictionary_of_dictionaries(likelihood):
    with pytest.raises(ValueError, match=r"likelihood must be \{cue: \{group: P\(cue \| group\)\}\}, got "):
        cue_posterior({"beard": [True]}, likelihood)


def test_cues_are_named_in_a_dictionary_or_a_table():
    likelihood = {"beard": {"a": 0.2, "b": 0.6}}
    with pytest.raises(ValueError, match=r"cues must be \{cue: \(n,\) bool\}, got list"):
        cue_posterior(["beard"], likelihood)
    assert np.allclose(cue_posterior(pd.DataFrame({"beard": [True]}), likelihood), [[0.25, 0.75]])
