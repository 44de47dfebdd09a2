import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

from debias_utils.metrics import (
    able,
    cosine_scores,
    demographic_parity_gap,
    equal_opportunity_gap,
    max_skew_at_k,
    shuffled_floor,
    worst_group_accuracy,
    zero_shot,
    zero_shot_accuracy,
)


@pytest.fixture(scope="module")
def data(fixtures):
    folder = fixtures / "published_metrics"
    return np.load(folder / "published.npz"), json.loads((folder / "published.json").read_text())


def test_equal_opportunity_as_the_closed_forms_code(data):
    numbers, official = data
    for when in ("before", "after"):
        expected = official["lian2026"]["classification"][when]
        given_ = (
            numbers[f"lian2026/classification/pred_{when}"],
            numbers["lian2026/image_target_text"],
            numbers["lian2026/image_group"],
        )
        assert equal_opportunity_gap(*given_) == pytest.approx(expected["eo_avg"], abs=1e-12)
        assert equal_opportunity_gap(*given_, classes="max") == pytest.approx(expected["eo_max"], abs=1e-12)


def test_what_sfid_calls_demographic_parity(data):
    numbers, official = data
    truth, gender = numbers["jung2024/zero_shot/true"], numbers["jung2024/query/image_gender"]
    for when in ("before", "after", "image_only"):
        expected, predicted = official["jung2024"]["zero_shot"][when], numbers[f"jung2024/zero_shot/pred_{when}"]
        assert 100 * equal_opportunity_gap(predicted, truth, gender) == pytest.approx(expected["mean_dp"])
        assert 100 * equal_opportunity_gap(predicted, truth, gender, classes="max") == pytest.approx(expected["max_dp"])
    scores = cosine_scores(numbers["jung2024/query/image"], numbers["jung2024/query/text"])
    assert zero_shot(scores, range(12)).tolist() == numbers["jung2024/zero_shot/pred_before"].tolist()
    found = zero_shot_accuracy(scores, truth, average="cells", groups=gender)
    assert found == pytest.approx(official["jung2024"]["zero_shot"]["before"]["mean_accuracy_over_class_gender_cells"])


def test_able_as_the_official_code_and_its_eight_published_rows(data):
    numbers, official = data
    for accuracy, skew, expected in zip(
        numbers["zhang2025/accuracy_percent_as_printed"], numbers["zhang2025/max_skew"], numbers["zhang2025/able"], strict=True
    ):
        assert able(accuracy / 100, skew) == pytest.approx(expected, abs=1e-12)
    rows = official["zhang2025"]["published_rows"]
    assert len(rows) == 8
    for row in rows:  # to what rounding of MaxSkew to three digits leaves
        assert 100 * able(row["top1"] / 100, row["max_skew"]) == pytest.approx(row["published_able"], abs=0.02)


def test_able_carries_the_conventions_of_its_parts():
    skew = max_skew_at_k([3.0, 2, 1, 0], list("aabb"), 2)
    accuracy = zero_shot_accuracy(np.eye(2), [0, 1])
    assert able(accuracy, skew).conventions == {"metric": "ABLE", "accuracy": accuracy.conventions, "max_skew": skew.conventions}
    assert able(0.5, 0.0).conventions == {"metric": "ABLE"}


def test_gaps_by_hand():
    groups = list("aaaabbbbcc")
    truth = list("xxyyxxyyxy")
    predicted = list("xxxyxyyyyy")
    parity = demographic_parity_gap(predicted, groups)
    assert parity.conventions["rates"] == {"x": {"a": 0.75, "b": 0.25, "c": 0}, "y": {"a": 0.25, "b": 0.75, "c": 1}}
    assert parity == pytest.approx((0.5 + 0.75 + 0.25) / 3)
    assert demographic_parity_gap(predicted, groups, pairs="max") == 0.75
    opportunity = equal_opportunity_gap(predicted, truth, groups, pairs="max", classes="each")
    assert opportunity == {"x": 1.0, "y": 0.5}
    assert opportunity.conventions["rates"] == {"x": {"a": 1, "b": 0.5, "c": 0}, "y": {"a": 0.5, "b": 1, "c": 1}}
    assert equal_opportunity_gap(predicted, truth, groups, pairs="max") == 0.75
    assert equal_opportunity_gap(predicted, truth, groups, pairs="max", classes="max") == 1
    assert equal_opportunity_gap(predicted, truth, groups) == pytest.approx(((0.5 + 1 + 0.5) / 3 + (0.5 + 0.5 + 0) / 3) / 2)


def test_a_class_with_one_group_has_no_gap():
    found = equal_opportunity_gap(list("xyz"), list("xxz"), list("aba"))
    assert found == 1
    assert found.conventions["undefined"] == ["z"]
    assert found.conventions["gaps"] == {"x": 1.0}


def test_parity_and_opportunity_are_two_things():
    truth = np.repeat(["nurse", "other"], 100)
    groups = np.where(np.arange(200) % 10 < np.repeat([8, 2], 100), "w", "m")  # most nurses are women
    assert equal_opportunity_gap(truth, truth, groups) == 0  # all are right
    assert demographic_parity_gap(truth, groups) == pytest.approx(0.6)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10_000), st.booleans())
def test_zero_shot_accuracy_is_that_of_sklearn(n, classes, seed, tied):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (classes, n)).astype(float) if tied else rng.standard_normal((classes, n))
    names = np.array(list("fbdace"))[:classes]
    truth = names[rng.integers(0, classes, n)]
    predicted = zero_shot(scores, names)
    assert zero_shot_accuracy(scores, truth, classes=names) == pytest.approx(accuracy_score(truth, predicted))
    by_class = recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert zero_shot_accuracy(scores, truth, classes=names, average="classes") == pytest.approx(by_class)
    if not tied and classes > 2:
        order = np.argsort(names)
        expected = top_k_accuracy_score(truth, scores[order].T, k=2, labels=names[order])
        found = zero_shot_accuracy(scores, truth, classes=names, k=2)
        assert found == pytest.approx(expected)
        assert found.conventions["floor"] == 2 / classes


def test_classes_of_several_types():
    assert zero_shot(np.eye(3), ["a", 1, "b"]).tolist() == ["a", 1, "b"]
    assert zero_shot_accuracy(np.eye(3), ["a", 1, "b"], classes=["a", 1, "b"]) == 1


def test_worst_group_accuracy():
    truth, predicted, groups = list("xxyyxy"), list("xyyyxx"), list("aabbbb")
    found = worst_group_accuracy(predicted, truth, groups)
    assert found == 0.5
    assert found.conventions["accuracy"] == {"a": 0.5, "b": 0.75}
    cells = worst_group_accuracy(predicted, truth, groups, cells=True)
    assert cells == 0.5
    assert cells.conventions["accuracy"] == {("x", "a"): 0.5, ("x", "b"): 1, ("y", "b"): pytest.approx(2 / 3)}
    assert cells.conventions["n"] == {("x", "a"): 2, ("x", "b"): 1, ("y", "b"): 3}


def test_chance_leaves_a_gap_and_shuffling_shows_it():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 3, 300), rng.integers(0, 4, 300)
    predicted = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 3, 300))
    floor = shuffled_floor(lambda g: equal_opportunity_gap(predicted, truth, g), groups, strata=truth, repeats=100)
    assert 0.02 < floor["low"] < floor["mean"] < floor["high"] < 0.3
    assert floor["low"] < equal_opportunity_gap(predicted, truth, groups) < floor["high"]  # there is no gap but by chance
    again = shuffled_floor(lambda g: equal_opportunity_gap(predicted, truth, g), groups, strata=truth, repeats=100)
    assert again == floor


def test_shuffling_within_strata_keeps_their_numbers():
    strata, groups = list("uuuvvv"), ["a", "a", "b", "c", "c", 1]
    seen = []

    def counts(labels):
        seen.append([*sorted(map(str, labels[:3])), *sorted(map(str, labels[3:]))])
        return 0.0

    shuffled_floor(counts, groups, strata=strata, repeats=20)
    assert all(found == ["a", "a", "b", "1", "c", "c"] for found in seen)


LABELS = (list("xxyy"), list("xyxy"), list("abab"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: demographic_parity_gap(list("xy"), list("aa")), r"a gap needs at least two groups, got \['a'\]"),
        (lambda: demographic_parity_gap(list("xyx"), list("ab")), r"predicted must be \(2,\)"),
        (lambda: demographic_parity_gap(["x", None], list("ab")), "predicted holds 1 missing"),
        (lambda: demographic_parity_gap(list("xy"), ["a", np.nan]), "groups hold 1 missing"),
        (lambda: demographic_parity_gap(list("xy"), list("ab"), pairs="sum"),
         "unknown rule over pairs 'sum'; choose one of: 'mean', 'max'"),
        (lambda: demographic_parity_gap(list("xy"), list("ab"), classes=1),
         "unknown rule over classes 1; choose one of: 'mean', 'max', 'each'"),
        (lambda: equal_opportunity_gap(list("xy"), list("xy"), list("ab")), "a class with members of two groups"),
        (lambda: equal_opportunity_gap(LABELS[0], [*"xyx", pd.NA], LABELS[2]), "truth holds 1 missing"),
        (lambda: worst_group_accuracy(LABELS[0], LABELS[1], list("aba")), r"truth must be \(3,\)"),
        (lambda: worst_group_accuracy([], [], []), "must not be empty"),
        (lambda: zero_shot(np.eye(2), ["a"]), r"a label for each of c classes, got \(2, n\) and 1"),
        (lambda: zero_shot(np.eye(2), ["a", "a"]), r"classes must differ, got \['a', 'a'\]"),
        (lambda: zero_shot(np.eye(2), ["a", None]), "classes holds? 1 missing"),
        (lambda: zero_shot(np.ones(2), ["a", "b"]), r"got \(n,\) and 2"),
        (lambda: zero_shot_accuracy(np.eye(2), ["a", "z"], classes=["a", "b"]),
         "unknown true class 'z'; choose one of: 'a', 'b'"),
        (lambda: zero_shot_accuracy(np.eye(2), [0, 2]), "unknown true class 2; choose one of: 0, 1"),
        (lambda: zero_shot_accuracy(np.eye(2), [0, 1], k=3), "from 1 to n = 2, got 3"),
        (lambda: zero_shot_accuracy(np.eye(2), [0, 1], average="groups"), "choose one of: 'pictures', 'classes', 'cells'"),
        (lambda: zero_shot_accuracy(np.eye(2), [0, 1], average="cells"), "needs groups"),
        (lambda: zero_shot_accuracy(np.full((2, 2), np.nan), [0, 1]), "scores hold 4 NaN"),
        (lambda: shuffled_floor(len, ["a", None]), "groups hold 1 missing"),
        (lambda: shuffled_floor(len, ["a", "b"], strata=[1]), r"strata must be \(2,\)"),
        (lambda: shuffled_floor(len, ["a", "b"], repeats=0), "repeats must be"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
