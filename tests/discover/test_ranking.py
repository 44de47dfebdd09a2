import numpy as np
import pytest

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
        (lambda: top([1.0], 2), "k must be from 1 to n = 1, got 2"),
        (lambda: indices(["a", "z"], ["a", "b"]), "unknown label 'z'; choose one of: 'a', 'b'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
