import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils import metrics
from debias_utils.metrics import (
    able,
    attribute_shift,
    bias_at_k,
    cosine_scores,
    max_skew_at_k,
    min_skew_at_k,
    ndkl,
    random_floor,
    skew_at_k,
    worst_group_recall,
)

LN2 = np.log(2)


def ranked(*labels):
    """Scores that keep this order, and the labels."""
    return np.arange(len(labels), 0, -1.0), list(labels)


def loop_ndkl(scores, groups, k, q):
    """The definition, item by item."""
    labels = np.asarray(groups)[np.argsort(-np.asarray(scores), kind="stable")]
    total = z = 0.0
    for i in range(1, k + 1):
        for group, share in q.items():
            p = np.mean(labels[:i] == group)
            total += p * np.log(p / share) / np.log2(i + 1) if p else 0.0
        z += 1 / np.log2(i + 1)
    return total / z


def test_skew_by_hand():
    scores, groups = ranked("a", "a", "a", "b", "a", "b", "b", "b")
    assert skew_at_k(scores, groups, 4) == pytest.approx({"a": np.log(1.5), "b": np.log(0.5)})
    assert max_skew_at_k(scores, groups, 4) == pytest.approx(np.log(1.5))
    assert min_skew_at_k(scores, groups, 4) == pytest.approx(np.log(0.5))
    given_target = skew_at_k(scores, groups, 4, target={"a": 0.75, "b": 0.25})
    assert given_target == pytest.approx({"a": 0.0, "b": 0.0})


def test_target_uniform_and_pool_differ_in_an_uneven_pool():
    scores, groups = ranked("a", "a", "b", "a")
    assert skew_at_k(scores, groups, 4)["a"] == 0.0
    assert skew_at_k(scores, groups, 4, target="uniform")["a"] == pytest.approx(np.log(1.5))


def test_zero_rules():
    scores, groups = ranked("a", "a", "b", "b")
    assert skew_at_k(scores, groups, 2, zero="floor")["b"] == pytest.approx(np.log((1 / 2) / 0.5))
    assert skew_at_k(scores, groups, 2, zero="-inf")["b"] == -np.inf
    assert "b" not in skew_at_k(scores, groups, 2, zero="exclude")
    assert min_skew_at_k(scores, groups, 2, zero="exclude") == pytest.approx(LN2)
    batch = skew_at_k(np.stack([scores, -scores]), groups, 2, zero="exclude")
    assert np.isnan(batch["b"][0])
    assert batch["b"][1] == pytest.approx(LN2)


def test_ndkl_by_hand():
    assert ndkl(*ranked("a", "b"), k=1) == pytest.approx(LN2)
    assert ndkl(*ranked("a", "a"), target={"a": 1.0}) == 0.0
    n = 1000
    assert ndkl(*ranked(*["a", "b"] * (n // 2))) == pytest.approx(0.0060, abs=5e-5)
    assert ndkl(*ranked(*["a"] * (n // 2), *["b"] * (n // 2))) == pytest.approx(0.4541, abs=5e-5)


def test_bias_at_k():
    scores, groups = ranked("m", "m", "f", "x", "f", "f")
    assert bias_at_k(scores, groups, 3, positive="m", negative="f") == pytest.approx(1 / 3)
    assert bias_at_k(-scores, groups, 2, positive="m", negative="f") == -1.0
    assert bias_at_k(*ranked("x", "m", "f"), 1, positive="m", negative="f") == 0.0


def test_worst_group_recall():
    scores, groups = ranked("a", "a", "b", "b", "c")
    relevant = np.array([True, True, True, True, False])
    result = worst_group_recall(scores, relevant, groups, 3)
    assert result == 0.5
    assert result.conventions["recall"] == {"a": 1.0, "b": 0.5}


def test_able_reproduces_the_published_rows():
    assert able(1.0, 0.0) == 1.0
    assert able(0.0, 0.5) == 0.0
    assert 100 * able(0.6831, 0.218) == pytest.approx(73.87, abs=0.02)
    assert 100 * able(0.6805, 0.080) == pytest.approx(78.35, abs=0.03)


def test_attribute_shift():
    before, after = np.eye(2), np.eye(2)[::-1]
    assert attribute_shift(before, before).tolist() == [0, 0]
    assert attribute_shift(before, after) == pytest.approx(np.sqrt([2, 2]))
    assert attribute_shift(before, after, mean=True) == pytest.approx([1, 1])
    assert attribute_shift([[0.5, 0.5]], [[0.8, 0.2]]) == pytest.approx(0.3 * np.sqrt(2))
    assert attribute_shift(torch.eye(2, requires_grad=True), after).shape == (2,)


def test_results_carry_their_conventions():
    scores, groups = ranked("a", "b", "a")
    assert max_skew_at_k(scores, groups, 2).conventions == {
        "metric": "MaxSkew@k", "k": 2, "target": "pool", "shares": {"a": 2 / 3, "b": 1 / 3}, "zero": "floor", "ties": "order",
    }  # fmt: skip
    assert ndkl(np.stack([scores, scores]), groups).conventions["k"] == 3
    assert skew_at_k(scores, groups, 1).conventions["metric"] == "Skew@k"
    raw = cosine_scores(np.eye(3), np.eye(3), normalize_images=False)
    assert raw.conventions == {"normalize_images": False}
    for result in (ndkl(raw, groups), max_skew_at_k(raw[0], groups, 2), bias_at_k(raw, groups, 2, positive="a", negative="b")):
        assert result.conventions["normalize_images"] is False  # how the scores came about travels on


def test_a_mean_over_queries_is_a_plain_number():
    mean = max_skew_at_k(np.random.default_rng(0).random((4, 9)), np.arange(9) % 2, 3).mean()
    assert type(mean) is np.float64


def test_cosine_scores_normalise_images_only_when_asked():
    images, prompts = np.array([[3.0, 0], [1, 1]]), np.array([[2.0, 0]])
    assert cosine_scores(images, prompts)[0] == pytest.approx([1, np.sqrt(0.5)])
    assert cosine_scores(images, prompts, normalize_images=False)[0] == pytest.approx([3, 1])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 10_000), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_against_the_definition(n, kinds, seed, tied, precision):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, kinds, n)
    scores = (rng.integers(-2, 2, (3, n)) if tied else rng.standard_normal((3, n))).astype(precision)
    k = int(rng.integers(1, n + 1))
    q = {g: np.mean(groups == g) for g in np.unique(groups)}
    expected = [loop_ndkl(row, groups, k, q) for row in scores]
    assert np.asarray(ndkl(scores, groups, k=k)) == pytest.approx(expected, abs=1e-12)
    assert ndkl(scores[0], groups, k=k) == pytest.approx(expected[0], abs=1e-12)
    for row in range(3):
        top = groups[np.argsort(-scores[row], kind="stable")[:k]]
        skews = {g: np.log(max(np.sum(top == g), 1) / k / share) for g, share in q.items()}
        assert skew_at_k(scores[row], groups, k) == pytest.approx(skews)
        assert np.asarray(max_skew_at_k(scores, groups, k))[row] == pytest.approx(max(skews.values()))


@pytest.mark.parametrize("precision", [np.float16, np.float32, np.float64])
def test_ranking_of_zeros_tiny_numbers_and_infinities(precision):
    tiny = np.finfo(precision).smallest_subnormal
    scores = np.array([0.0, -0.0, tiny, np.inf, -np.inf, -tiny, -1.0, -np.inf, 0.0, np.inf, -0.0, 1.0], precision)
    groups = np.arange(len(scores))  # each its own group, with its own share: NDKL tells which item stands where
    target = dict(enumerate((groups + 1) / (groups + 1).sum()))
    for k in range(1, len(scores) + 1):
        expected = loop_ndkl(scores, groups, k, target)
        assert ndkl(scores, groups, k=k, target=target) == pytest.approx(expected, abs=1e-12)


def test_k_equal_to_n_shows_no_skew_against_the_pool():
    rng = np.random.default_rng(0)
    assert max_skew_at_k(rng.random(50), rng.integers(0, 3, 50), 50) == pytest.approx(0.0)


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(1)
    scores, groups = rng.standard_normal((9, 50)), rng.integers(0, 3, 50)
    whole = np.asarray(ndkl(scores, groups)), np.asarray(max_skew_at_k(scores, groups, 7))
    monkeypatch.setattr(metrics, "_BLOCK", 100)
    assert np.array_equal(whole[0], ndkl(scores, groups))
    assert np.array_equal(whole[1], max_skew_at_k(scores, groups, 7))


def test_torch_scores_of_any_precision():
    rng = np.random.default_rng(2)
    scores, groups = rng.standard_normal(30), rng.integers(0, 2, 30)
    assert ndkl(torch.tensor(scores, requires_grad=True), groups) == ndkl(scores, groups)
    assert np.isfinite(ndkl(torch.tensor(scores).half(), groups))


def test_random_floor_is_near_the_known_one():
    groups = np.repeat([0, 1], [530 * 5, 470 * 5])
    floor = random_floor(max_skew_at_k, groups, k=500, target="uniform", repeats=100)
    assert 0.03 < floor["mean"] < 0.09
    assert floor["low"] < floor["mean"] < floor["high"]
    assert floor.conventions["target"] == "uniform"


@pytest.mark.parametrize("name", ["two_groups", "seven_groups", "ties"])
@pytest.mark.parametrize("kind", ["raw", "l2norm"])
def test_official_implementation(fixtures, name, kind):
    data = np.load(fixtures / "ranking_metrics" / f"{name}.npz")
    scores = data["scores" if kind == "raw" else "scores_l2norm"]
    for j, k in enumerate(data["ks"].tolist()):
        for target, official in (("pool", "dem_par"), ("uniform", "eq_opp")):
            skew = max_skew_at_k(scores, data["labels"], k, target=target, ties="all")
            assert np.allclose(skew, data[f"{kind}/maxskew_{official}"][:, j], atol=1e-9, rtol=0)
            assert np.allclose(
                ndkl(scores, data["labels"], k=k, target=target, ties="all"),
                data[f"{kind}/ndkl_{official}"][:, j],
                atol=1e-9,
                rtol=0,
            )


def test_official_min_skew(fixtures):
    data = np.load(fixtures / "ranking_metrics" / "seven_groups.npz")
    for j, k in enumerate(data["ks"].tolist()):
        skew = min_skew_at_k(data["scores"], data["labels"], k, ties="all")
        assert np.allclose(skew, data["derived_smooth1overk/minskew_dem_par"][:, j], atol=1e-9, rtol=0)
        skew = min_skew_at_k(data["scores"], data["labels"], k, ties="all", zero="-inf")
        assert np.allclose(skew, data["derived_unsmoothed/minskew_dem_par"][:, j], atol=1e-9, rtol=0)


GOOD = ranked("a", "b", "a", "b")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_skew_at_k(*GOOD, 0), "k must be a whole number from 1 to n = 4, got 0"),
        (lambda: max_skew_at_k(*GOOD, -3), "got -3"),
        (lambda: max_skew_at_k(*GOOD, 5), "got 5"),
        (lambda: ndkl(*GOOD, k=5), "got 5"),
        (lambda: max_skew_at_k(*GOOD, 1.0), "got 1.0"),
        (lambda: max_skew_at_k(*GOOD, True), "got True"),
        (lambda: ndkl([1.0, np.nan, 2.0, np.nan], GOOD[1]), "2 NaN, the first at query 0, item 1"),
        (lambda: ndkl(*GOOD, target={"a": 0.5, "b": 0.3, "c": 0.2}), r"\['c'\] are absent from the pool; pool: \['a', 'b'\]"),
        (lambda: ndkl(*GOOD, target={"a": 1.0}), r"\['b'\] are missing"),
        (lambda: ndkl(*GOOD, target={"a": 0.9, "b": 0.9}), "sum to 1"),
        (lambda: ndkl(*GOOD, target="population"), "unknown target 'population'; choose one of: 'pool', 'uniform'"),
        (lambda: skew_at_k(*GOOD, 2, zero="epsilon"), "unknown zero rule 'epsilon'; choose one of: 'floor', '-inf', 'exclude'"),
        (lambda: skew_at_k(*GOOD, 2, ties="random"), "unknown tie rule 'random'"),
        (lambda: bias_at_k(*GOOD, 2, positive="z", negative="a"), "unknown positive group 'z'; choose one of: 'a', 'b'"),
        (lambda: ndkl([], []), "not empty"),
        (lambda: ndkl(GOOD[0], ["a"]), r"groups must be \(4,\)"),
        (lambda: cosine_scores(np.eye(3), np.empty((0, 3))), "at least one prompt"),
        (lambda: cosine_scores(np.eye(3), np.eye(4)), "need one d"),
        (lambda: cosine_scores([[np.nan, 1.0]], np.eye(2)), "images: 1 embeddings hold NaN or have length 0"),
        (lambda: cosine_scores(np.eye(2), np.zeros((1, 2))), "prompts: 1 embeddings"),
        (lambda: able(97.0, 0.1), "fraction"),
        (lambda: able(0.9, -0.1), "at least 0"),
        (lambda: attribute_shift([[1, 0]], [[1, 0, 0]]), "one shape"),
        (lambda: attribute_shift([[np.nan, 0]], [[1, 0]]), "NaN"),
        (lambda: worst_group_recall(GOOD[0], np.zeros(4, bool), GOOD[1], 2), "no item is relevant"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
