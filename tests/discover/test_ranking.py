import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.discover.ranking import curves, indices, misrank_table, misranked, top


def test_perfect_worst_and_random_rankings():
    relevant = np.array([True] * 5 + [False] * 15)
    perfect = curves(np.arange(20, 0, -1), relevant)
    assert (perfect["ap"], perfect["auc"], perfect["chance_ap"]) == (1.0, 1.0, 0.25)
    assert curves(np.arange(20), relevant)["auc"] == 0.0
    rng = np.random.default_rng(0)
    mean = np.mean([curves(rng.random(400), rng.random(400) < 0.25)["ap"] for _ in range(30)])
    assert mean == pytest.approx(0.25, abs=0.04)


def test_auc_is_the_share_of_right_pairs():
    rng = np.random.default_rng(1)
    scores, relevant = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    pairs = scores[relevant][:, None] - scores[~relevant][None]
    assert curves(scores, relevant)["auc"] == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def test_three_rules_by_hand():
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.6], [0.1, 0.2]])
    truth = np.array([0, 0, 1, 1])
    # query 0: top two are pictures 0 and 2, so 1 is missed; query 1: top two are 2 and 1, so 3 is missed
    assert misranked(scores, truth).tolist() == [False, True, False, True]
    assert misranked(scores, truth, rule="zero-shot").tolist() == [False, True, False, False]
    assert misranked(scores, truth, rule="threshold", threshold=0.25).tolist() == [False, True, False, True]


def test_a_planted_bias_moves_the_share_to_one():
    rng = np.random.default_rng(2)
    group = np.tile([0, 1], 100)
    truth = np.repeat([0, 1], 100)
    shares = []
    for push in (0.0, 1.0, 4.0):
        scores = rng.standard_normal((200, 2)) + 2 * np.eye(2)[truth] - push * (group == 1)[:, None] * np.eye(2)[truth]
        missed = misranked(scores, truth)
        shares.append((group[missed] == 1).mean())
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.95


def test_table_by_hand():
    missed = np.array([1, 0, 0, 1, 1, 0], bool)
    table = misrank_table(missed, ["f", "f", "m", "m", "m", "m"]).set_index("group")
    assert table["share"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert table["rate"].tolist() == pytest.approx([1 / 2, 1 / 2])
    assert (table["share_low"] < table["share"]).all()
    assert (table["share"] < table["share_high"]).all()
    blocks = misrank_table(missed, ["f", "m", "f", "m", "f", "m"], by=["x", "x", "y", "y", "z", "z"])
    assert blocks["by"].tolist() == ["x", "x", "y", "y", "z", "z"]
    assert misrank_table(np.zeros(2, bool), ["f", "m"])["share"].isna().all()


def test_top_keeps_the_input_order_of_ties():
    assert top([1, 3, 3, 2], 3).tolist() == [1, 2, 3]


KINDS = [np.uint8, np.uint64, np.int8, bool, np.float16, np.float64]


def test_a_score_at_the_threshold_is_no_miss_in_any_precision():
    scores = np.array([[0.7], [0.6], [0.8]], np.float32)
    assert misranked(scores, [0, 0, 0], rule="threshold", threshold=0.7).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"threshold must be one number, got \[0\.7, 0\.7, 0\.7\]"):
        misranked(scores, [0, 0, 0], rule="threshold", threshold=[0.7] * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_top_of_any_type_of_number(kind):
    scores = np.array([0, 1, 2, 200, 2]).astype(kind) if np.dtype(kind).kind == "u" else np.array([0, 1, 1, 0, 1]).astype(kind)
    order = sorted(range(5), key=lambda i: -float(scores[i]))
    for k in range(1, 6):
        assert top(scores, k).tolist() == order[:k]
        assert top(scores.tolist(), k).tolist() == order[:k]
        assert top(pd.Series(scores, index=range(7, 12)), k).tolist() == order[:k]
    if kind is not np.uint64:
        assert top(torch.tensor(scores.astype(float)).bfloat16(), 5).tolist() == order
    assert top([2**62, 2**62 + 1], 1).tolist() == [1]
    assert top(np.array([-128, 127], np.int8), 1).tolist() == [1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["r-precision", "zero-shot", "threshold"])
def test_misranks_of_any_type_of_number(kind, rule):
    scores = np.random.default_rng(0).integers(0, 2 if kind is bool else 120, (40, 3)).astype(kind)
    truth, cut = np.arange(40) % 3, 0.5 if kind is bool else 60
    expected = misranked(scores.astype(float), truth, rule=rule, threshold=cut)
    assert 0 < expected.sum() < 40
    assert misranked(scores, truth, rule=rule, threshold=cut).tolist() == expected.tolist()


def test_a_tie_is_no_miss():
    scores, truth = np.full((6, 3), 0.5), np.arange(6) % 3
    for rule in ("r-precision", "zero-shot", "threshold"):
        assert not misranked(scores, truth, rule=rule, threshold=0.5).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(2, 5), st.sampled_from(["r-precision", "zero-shot", "threshold"]))
def test_the_order_of_pictures_and_queries_changes_no_misrank(seed, n, queries, rule):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 4, (n, queries)), rng.integers(0, queries, n)
    missed = misranked(scores, truth, rule=rule, threshold=2)
    pictures, names = rng.permutation(n), rng.permutation(queries)
    place = np.argsort(names)  # where each query went
    assert (
        misranked(scores[pictures][:, names], place[truth[pictures]], rule=rule, threshold=2).tolist()
        == missed[pictures].tolist()
    )
    for i in range(n):  # the definition, picture by picture
        own, others = scores[i, truth[i]], scores[:, truth[i]]
        beaten = {
            "r-precision": (others > own).sum() >= (truth == truth[i]).sum(),
            "zero-shot": (scores[i] > own).any(),
            "threshold": own < 2,
        }
        assert missed[i] == beaten[rule]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.sampled_from([np.uint8, bool, np.float32, float]))
def test_curves_do_not_depend_on_the_order_or_the_type(seed, n, kind):
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 2 if kind is bool else 5, n), np.arange(n) % 2 == 0
    first, order = curves(scores.astype(float), relevant), rng.permutation(n)
    second = curves(scores[order].astype(kind), relevant[order].astype(int).tolist())
    for name, value in first.items():
        assert np.array_equal(value, second[name])


def test_curves_of_infinite_scores():
    assert curves([np.inf, 1.0, -np.inf], [True, False, False])["auc"] == 1.0


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pd.Categorical, lambda x: pd.Series(x, dtype="string"), pd.Index])
def test_tables_of_labels_in_any_form(kind):
    missed, groups, by = [True, False, True, False], ["m", "f", "m", "m"], ["z", "z", "a", "a"]
    table = misrank_table(missed, kind(groups), by=kind(by))
    assert table["by"].tolist() == ["z", "z", "a", "a"]
    assert table["group"].tolist() == ["f", "m", "f", "m"]
    assert table["misranked"].tolist() == [0, 1, 0, 1]
    assert table["rate"].tolist()[1::2] == [1.0, 0.5]
    assert indices(kind(groups), ["f", "m"]).tolist() == [1, 0, 1, 1]


def test_indices_of_whole_numbers_and_tensors():
    assert indices(torch.tensor([3, 1]), [1, 2, 3]).tolist() == [2, 0]
    assert indices([], ["a"]).tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curves([1, 2], [True, True]), "2 relevant of 2"),
        (lambda: curves([1, 2], [False, False]), "0 relevant"),
        (lambda: curves([1, np.nan], [True, False]), "1 NaN"),
        (lambda: curves([1, 2], [True]), "one shape"),
        (lambda: misranked(np.zeros((2, 2)), [0, 1], rule="guess"), "unknown misrank rule 'guess'; choose one of: 'r-precision'"),
        (lambda: misranked(np.zeros((2, 2)), [0, 1], rule="threshold"), "needs a threshold"),
        (lambda: misranked(np.full((2, 2), np.nan), [0, 1]), "4 NaN"),
        (lambda: misranked(np.zeros((2, 2)), [0, 2]), "must index the 2 queries"),
        (lambda: misrank_table([True], ["a", "b"]), "one shape"),
        (lambda: curves([1, 2, 3], [True, np.nan, False]), "relevant holds 1 NaN, the first at item 1"),
        (
            lambda: curves([1, 2, 3], pd.Series([True, pd.NA, False], dtype="boolean")),
            "relevant holds 1 NaN, the first at item 1",
        ),
        (lambda: curves([1, 2, 3], [90, 0, 1]), "relevant must hold True or False, got 90 at item 0"),
        (lambda: curves([1, 2, 3], ["yes", "no", "no"]), "relevant must be numbers"),
        (lambda: misranked([[0.1, None]], [0]), "scores hold 1 NaN, the first at row 0, column 1"),
        (lambda: misranked(np.zeros((2, 2)), [0, np.nan]), "truth holds 1 NaN"),
        (lambda: misranked(np.zeros((2, 2)), [0, 0.5]), "truth must hold whole numbers, got 0.5"),
        (lambda: misranked(np.zeros((2, 2)), [0, 1], rule="threshold", threshold=np.nan), "threshold holds 1 NaN"),
        (lambda: misrank_table([True, np.nan], ["a", "b"]), "missed holds 1 NaN, the first at item 1"),
        (lambda: misrank_table([True, None], ["a", "b"]), "missed holds 1 NaN, the first at item 1"),
        (lambda: misrank_table([True, False], ["a", None]), "groups hold 1 missing labels .*the first at item 1"),
        (lambda: misrank_table([True, False], pd.Series(["a", None], dtype="category")), "groups hold 1 missing labels"),
        (lambda: misrank_table([True, False], ["a", "b"], by=[np.nan, 1.0]), "by holds 1 missing labels .*the first at item 0"),
        (lambda: top([1.0, np.nan], 1), "scores hold 1 NaN, the first at item 1"),
        (lambda: top([[1.0, 2.0]], 1), r"scores must be \(n,\), got \(1, 2\)"),
        (lambda: top([1.0, 2.0], 1.5), "got 1.5"),
        (lambda: top([1.0, 2.0], np.nan), "got nan"),
        (lambda: indices(["a", None], ["a", "b"]), "values hold 1 missing labels .*the first at item 1"),
        (lambda: indices(["a"], ["a", "a"]), "choices must differ"),
        (lambda: top([1.0], 2), "k must be a whole number from 1 to n = 1, got 2"),
        (lambda: indices(["a", "z"], ["a", "b"]), "unknown label 'z'; choose one of: 'a', 'b'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
