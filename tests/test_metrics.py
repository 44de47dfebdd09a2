import copy
import io
import pickle
import tracemalloc
import warnings
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils import metrics
from debias_utils.arrays import labels
from debias_utils.metrics import (
    FlooredWarning,
    MeasuredArray,
    able,
    attribute_shift,
    bias_at_k,
    cosine_scores,
    kl_at_k,
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


@pytest.mark.filterwarnings("ignore::debias_utils.metrics.FlooredWarning")
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
    monkeypatch.setattr(metrics.tops, "_BLOCK", 100)
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


@pytest.mark.filterwarnings("ignore::debias_utils.metrics.FlooredWarning")
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


METRICS = {
    "kl": lambda s, g: kl_at_k(s, g, 3),
    "max": lambda s, g: max_skew_at_k(s, g, 3),
    "min": lambda s, g: min_skew_at_k(s, g, 3),
    "skew": lambda s, g: skew_at_k(s, g, 3),
    "ndkl": ndkl,
    "recall": lambda s, g: worst_group_recall(s, [True] * len(s), g, 3),
}
COMPLETE = {
    "list": list("abab"),
    "tuple": tuple("abab"),
    "array": np.array(list("abab")),
    "objects": np.array(list("abab"), dtype=object),
    "series": pd.Series(list("abab"), index=[5, 6, 7, 8]),
    "category": pd.Series(list("abab"), dtype="category"),
    "categorical": pd.Categorical(list("abab"), categories=["b", "a", "unused"]),
    "string": pd.Series(list("abab"), dtype="string"),
    "index": pd.Index(list("abab")),
}
SCORES4 = np.array([4.0, 3, 2, 1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("form", COMPLETE)
def test_groups_in_any_form(metric, form):
    result = METRICS[metric](SCORES4, COMPLETE[form])
    assert result == METRICS[metric](SCORES4, ["a", "b", "a", "b"])
    assert bias_at_k(SCORES4, COMPLETE[form], 3, positive="a", negative="b") == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "groups",
    [
        ["a", None, "b", None],
        ["a", np.nan, "b", float("nan")],
        [1.0, np.nan, 2.0, np.nan],
        [1, None, 2, None],
        ["a", pd.NA, "b", pd.NaT],
        np.array([1, np.nan, 2, np.nan]),
        np.array([1.0, np.nan, 2, float("nan")], dtype=object),
        np.array(["2020-01-01", "NaT", "2020-01-02", "NaT"], "datetime64[ns]"),
        np.ma.masked_array([1, 2, 1, 2], [False, True, False, True]),
        pd.Series(["a", None, "b", None]),
        pd.Series(["a", None, "b", None], dtype="string"),
        pd.Series(["a", None, "b", None], dtype="category"),
        pd.Series([1, None, 2, None], dtype="Int64"),
        pd.Series([True, None, False, None], dtype="boolean"),
        pd.Series([1.0, None, 2.0, None]),
        torch.tensor([1.0, float("nan"), 2.0, float("nan")]),
    ],
    ids=lambda groups: f"{type(groups).__name__}",
)
def test_missing_labels_are_refused(metric, groups):
    with pytest.raises(ValueError, match=r"groups hold 2 missing labels \(None or NaN\), the first at item 1"):
        METRICS[metric](SCORES4, groups)


def test_equal_labels_are_one_group_whatever_their_type():
    shares = skew_at_k(np.arange(6), np.array([1.0, 2, 2.0, np.float64(1), 1, True], dtype=object), 3).conventions["shares"]
    assert shares == pytest.approx({1: 4 / 6, 2: 2 / 6})
    mixed = skew_at_k(SCORES4, ["a", 1, "a", 1], 2)
    assert mixed == {"a": 0.0, 1: 0.0}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(-5, 5), st.integers(0, 1000), st.sampled_from([np.int8, np.int64, np.uint8, bool, float]))
def test_labels_are_those_of_numpy(n, low, seed, kind):
    values = np.random.default_rng(seed).integers(low, low + 7, n).astype(kind)
    names, codes = labels("groups", values)
    unique, inverse = np.unique(values, return_inverse=True)
    assert names == unique.tolist()
    assert codes.tolist() == inverse.tolist()
    names, codes = labels("groups", values.astype(object))
    assert names == unique.tolist()
    assert codes.tolist() == inverse.tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int8, bool, np.float16, np.float64])
def test_whole_numbers_and_booleans_rank_as_they_are(kind):
    scores = np.array([0, 1, 2, 200, 1, 0]) if kind in (np.uint8, np.uint64) else np.array([0, 1, 1, -120, 0, 1])
    scores = scores.astype(kind)
    groups = np.arange(6)
    target = dict(enumerate((groups + 1) / 21))
    for k in range(1, 7):
        assert ndkl(scores, groups, k=k, target=target) == pytest.approx(loop_ndkl(scores.astype(float), groups, k, target))
    top = groups[np.argsort(-scores.astype(float), kind="stable")[:3]]
    expected = dict.fromkeys(range(6), 1 / 3 / (1 / 6))
    assert np.exp(list(skew_at_k(scores, groups, 3, zero="exclude").values())) == pytest.approx(
        [expected[g] for g in sorted(top)]
    )


def test_large_whole_numbers_keep_their_order():
    scores = np.array([2**60, 2**60 + 1])
    assert skew_at_k(scores, ["a", "b"], 1, zero="exclude") == {"b": pytest.approx(LN2)}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_every_precision(kind):
    scores = torch.tensor([0.5, 0.25, 1.0, 0.125], dtype=kind, requires_grad=True)
    for metric in METRICS.values():
        assert metric(scores, torch.tensor([0, 1, 0, 1])) == metric([0.5, 0.25, 1.0, 0.125], [0, 1, 0, 1])
    rows = torch.tensor([[0.5, 0.5]], dtype=kind, requires_grad=True)
    assert attribute_shift(rows, [rows[0]]).tolist() == [0]
    assert cosine_scores(rows, rows) == pytest.approx(1, abs=1e-6)
    assert able(torch.tensor(0.5, dtype=kind), torch.tensor(0.0, dtype=kind)) == pytest.approx(2 / 3)


def test_no_precision_is_asked_of_a_device_that_lacks_it():
    class OnDevice:
        """A tensor that knows no float64 until it is on the CPU, as on Apple's devices."""

        def __init__(self, x):
            self.x = x

        def detach(self):
            return self

        def cpu(self):
            return self.x

        def __getattr__(self, name):
            raise AttributeError(f"not on this device: {name}")

    scores = OnDevice(torch.tensor([0.5, 0.25, 1.0, 0.125], dtype=torch.bfloat16))
    assert ndkl(scores, ["a", "b", "a", "b"]) == ndkl([0.5, 0.25, 1.0, 0.125], ["a", "b", "a", "b"])


def test_cosines_in_half_precision_are_those_of_float64():
    assert cosine_scores(np.full((1, 768), 10, np.float16), np.full((1, 768), 10, np.float16)) == pytest.approx(1, abs=1e-6)
    rng = np.random.default_rng(0)
    images, prompts = (rng.standard_normal((n, 512)).astype(np.float16) for n in (3000, 2))
    scores = cosine_scores(images, prompts)
    assert scores.dtype == np.float32
    a, b = (x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in (images, prompts))
    assert np.allclose(scores, b @ a.T, atol=1e-6)
    assert len(np.unique(scores[0])) > 2900  # 10,000 pictures had 330 different scores in half precision
    raw = cosine_scores(images, prompts, normalize_images=False)
    assert np.allclose(raw, b @ images.astype(float).T, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-44, 1e30, 3e38])
def test_lengths_neither_overflow_nor_vanish(scale):
    images = np.float32(scale) * np.array([[1, 1], [1, 0]], np.float32)
    found = cosine_scores(images, np.array([[1, 1]], np.float32))
    assert found[0] == pytest.approx([1, 0.5**0.5], abs=1e-6)


def test_floor_with_an_absent_group_is_noted_and_warned_of():
    groups = np.repeat(["a", "b", "c"], [600, 399, 1])
    scores = np.zeros(1000)
    scores[[*range(6), *range(600, 604)]] = 1  # a fair top: six of a, four of b
    with pytest.warns(FlooredWarning, match="zero='exclude'"):
        skew = max_skew_at_k(scores, groups, 10)
    assert skew == pytest.approx(np.log(0.1 / 0.001))
    assert skew.conventions["floored"] == ["c"]
    assert max_skew_at_k(scores, groups, 10, zero="exclude") == pytest.approx(0.0025, abs=5e-5)
    assert skew_at_k(scores, groups, 10).conventions["floored"] == ["c"]
    with pytest.warns(FlooredWarning):
        batch = max_skew_at_k(np.stack([scores, np.arange(1000)]), groups, 10)  # the second: c first, all others absent or few
    assert batch.conventions["floored"] == ["c"]
    rare = np.repeat(["a", "b"], [50, 50])
    lowest = min_skew_at_k(np.arange(100), rare, 10)
    assert lowest.conventions["floored"] == ["a"]  # the value is the floor's, and no surprise
    assert "floored" not in max_skew_at_k(np.arange(100), rare, 10).conventions  # b decides


def test_the_warning_is_shown_once_for_each_line():
    groups, scores = np.repeat([0, 1], [99, 1]), np.arange(100, 0, -1)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for k in range(2, 40):
            max_skew_at_k(scores, groups, k)
    assert [warning.category for warning in shown] == [FlooredWarning]
    assert shown[0].filename == __file__


def test_the_random_floor_does_not_warn_but_notes():
    floor = random_floor(max_skew_at_k, np.repeat([0, 1, 2], [60, 39, 1]), k=10)
    assert floor.conventions["floored"] == [2]
    assert floor.conventions["target"] == "pool"
    assert floor.conventions["metric"] == "max_skew_at_k"


@pytest.mark.parametrize("metric", [partial(max_skew_at_k, k=7), ndkl])
def test_the_random_floor_in_blocks_is_the_one_at_once(metric, monkeypatch):
    groups = np.arange(50) % 3
    values = np.asarray(metric(np.random.default_rng(4).random((90, 50)), groups))
    for size in (1 << 23, 700, 10):
        monkeypatch.setattr(metrics.floors, "_DRAWN", size)
        floor = random_floor(metric, groups, repeats=90, seed=4)
        assert floor["mean"] == pytest.approx(values.mean(), abs=1e-15)
        assert (floor["low"], floor["high"]) == tuple(np.quantile(values, [0.025, 0.975]))
    seen = []

    def mean_of_five(scores, groups):
        seen.append(len(scores))
        return np.asarray(ndkl(scores, groups)).reshape(-1, 5).mean(axis=1)

    monkeypatch.setattr(metrics.floors, "_DRAWN", 700)
    random_floor(mean_of_five, groups, repeats=90, together=5)
    assert seen == [10] * 9


def test_the_random_floor_of_a_million_people_fits_into_memory():
    groups = np.arange(1_000_000) % 2
    tracemalloc.start()
    random_floor(lambda scores, groups: scores[:, 0], groups, repeats=40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6  # 320e6 at once


def test_the_random_floor_of_an_infinite_metric():
    floor = random_floor(min_skew_at_k, np.repeat([0, 1], [99, 1]), k=2, zero="-inf", repeats=20)
    assert (floor["mean"], floor["low"]) == (-np.inf, -np.inf)


def measured():
    scores, groups = cosine_scores(np.random.default_rng(0).random((9, 4)), np.eye(4)), np.arange(9) % 2
    return {
        "array": ndkl(scores, groups),
        "matrix": scores,
        "float": max_skew_at_k(scores[0], groups, 3),
        "dict": skew_at_k(scores[0], groups, 3),
        "floor": random_floor(max_skew_at_k, groups, k=3, repeats=10),
        "shift": attribute_shift(np.eye(2), np.eye(2)[::-1]),
    }


def through_joblib(x):
    file = io.BytesIO()
    joblib.dump(x, file)
    return joblib.load(io.BytesIO(file.getvalue()))


WAYS = {
    **{f"pickle {p}": partial(lambda x, p: pickle.loads(pickle.dumps(x, p)), p=p) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "joblib": through_joblib,
    "method": lambda x: x.copy() if hasattr(x, "copy") else x,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["array", "matrix", "float", "dict", "floor", "shift"])
def test_conventions_survive(way, kind):
    result = measured()[kind]
    twin = WAYS[way](result)
    assert type(twin) is type(result)
    assert np.array_equal(np.asarray(list(twin.values()) if isinstance(twin, dict) else twin),
                          np.asarray(list(result.values()) if isinstance(result, dict) else result))  # fmt: skip
    assert twin.conventions == result.conventions
    assert result.conventions


def test_conventions_survive_another_process():
    result = joblib.Parallel(n_jobs=2)(
        joblib.delayed(ndkl)(row[None], [0, 1, 0]) for row in np.random.default_rng(0).random((2, 3))
    )
    assert [r.conventions["metric"] for r in result] == ["NDKL", "NDKL"]


def test_copies_and_slices_have_conventions_of_their_own():
    result = ndkl(np.random.default_rng(0).random((4, 6)), np.arange(6) % 2)
    for twin in (result[:2], result.copy(), copy.deepcopy(result)):
        twin.conventions["k"] = "changed"
    assert result.conventions["k"] == 6


def test_conventions_of_scores_do_not_replace_those_of_the_metric():
    scores = np.array([[4.0, 3, 2, 1]]).view(MeasuredArray)
    scores.conventions = {
        "metric": "mine",
        "k": 99,
        "target": "uniform",
        "ties": "all",
        "floored": ["z"],
        "normalize_images": True,
    }
    for result in (max_skew_at_k(scores, list("abab"), 2), worst_group_recall(scores[0], [True] * 4, list("abab"), 2),
                   bias_at_k(scores, list("abab"), 2, positive="a", negative="b"), ndkl(scores, list("abab"), k=2)):  # fmt: skip
        assert result.conventions["metric"] != "mine"
        assert result.conventions["k"] == 2
        assert result.conventions["ties"] == "order"
        assert result.conventions.get("target", "pool") == "pool"
        assert "floored" not in result.conventions
        assert result.conventions["normalize_images"] is True


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_target_as_a_dictionary_or_a_column(kind):
    target = kind({"b": 0.25, "a": 0.75})
    assert skew_at_k(SCORES4, list("abab"), 4, target=target) == pytest.approx({"a": np.log(0.5 / 0.75), "b": np.log(2)})
    assert ndkl(SCORES4, list("abab"), target=target).conventions["shares"] == {"a": 0.75, "b": 0.25}


def test_able_takes_what_rounding_leaves():
    assert able(0.5, -2.2e-16) == able(0.5, 0.0)
    assert able(np.float32(1), np.float32(-1e-7)) == 1.0
    assert able(0.9, np.inf) == 0.0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 3, 30)
        assert 0 <= able(0.5, max_skew_at_k(rng.random(30), groups, 30)) <= 1


def test_probabilities_with_the_rounding_of_their_precision():
    logits = torch.randn(200, 9, generator=torch.Generator().manual_seed(0))
    exact = logits.double().softmax(dim=1)
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        assert attribute_shift(exact, exact.to(kind)).max() < 0.01
        assert attribute_shift(exact, logits.to(kind).softmax(dim=1)).max() < 0.02
    assert attribute_shift([[0.33, 0.33, 0.33]], [[1 / 3] * 3])[0] == pytest.approx(0.0058, abs=1e-4)
    assert attribute_shift(np.eye(2, dtype=bool), np.eye(2, dtype=np.uint8)).tolist() == [0, 0]
    assert attribute_shift(np.empty((0, 2)), np.empty((0, 2))).shape == (0,)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 4))
@pytest.mark.filterwarnings("ignore::debias_utils.metrics.FlooredWarning")
def test_the_order_of_distinct_scores_and_the_names_of_groups_change_nothing(seed, n, kinds):
    rng = np.random.default_rng(seed)
    scores, groups, k = rng.permutation(n).astype(float), rng.integers(0, kinds, n), int(rng.integers(1, n + 1))
    order, names = rng.permutation(n), np.array(["d", "c", "b", "a"], dtype=object)
    for metric in (partial(max_skew_at_k, k=k), partial(min_skew_at_k, k=k), partial(ndkl, k=k)):
        assert metric(scores[order], names[groups[order]].tolist()) == pytest.approx(float(metric(scores, groups)), abs=1e-12)


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
        (lambda: attribute_shift([[90, 10]], [[60, 40]]), r"before must be probabilities in \[0, 1\], got 10 to 90 in row 0"),
        (lambda: attribute_shift([[0.9, 0.1]], [[2.0, -1.0]]), "after must be probabilities"),
        (lambda: attribute_shift([[1, 0], [0.5, 0.4]], np.eye(2)), "sum to 1 in each row, got a sum of 0.9 in row 1"),
        (lambda: attribute_shift([["a", "b"]], np.eye(2)), "before must be numbers"),
        (lambda: worst_group_recall(GOOD[0], np.zeros(4, bool), GOOD[1], 2), "no item is relevant"),
        (lambda: worst_group_recall(GOOD[0], [1, np.nan, 0, 1], GOOD[1], 2), "relevant holds 1 NaN, the first at item 1"),
        (lambda: worst_group_recall(GOOD[0], [True, None, False, True], GOOD[1], 2), "relevant holds 1 NaN, the first at item 1"),
        (lambda: worst_group_recall(GOOD[0], [2, 0, 1, 1], GOOD[1], 2), "relevant must hold True or False, got 2 at item 0"),
        (lambda: ndkl([1.0, None, pd.NA, 2], GOOD[1]), "scores hold 2 NaN, the first at query 0, item 1"),
        (lambda: ndkl(pd.Series([1.0, None, 2, 3], dtype="Float64"), GOOD[1]), "scores hold 1 NaN, the first at query 0, item 1"),
        (lambda: ndkl(np.ma.masked_equal([1.0, 5, 2, 3], 5), GOOD[1]), "scores hold 1 NaN, the first at query 0, item 1"),
        (lambda: ndkl(["1", "2", "3", "4"], GOOD[1]), "scores must be numbers"),
        (lambda: ndkl([1j, 2, 3, 4], GOOD[1]), "scores must be numbers"),
        (lambda: ndkl(GOOD[0], [["a"], ["b"], ["a"], ["b"]]), r"groups must be \(4,\)"),
        (lambda: ndkl(*GOOD, target=None), "unknown target None; choose one of: 'pool', 'uniform', or a dictionary"),
        (lambda: ndkl(*GOOD, target="{group: share}"), "unknown target '{group: share}'; choose one of: 'pool', 'uniform'"),
        (lambda: ndkl(*GOOD, target=[0.5, 0.5]), r"unknown target \[0.5, 0.5\]"),
        (lambda: ndkl(*GOOD, target={"a": 0.5, "b": None}), "target shares hold 1 NaN"),
        (lambda: ndkl(*GOOD, target={"a": 50, "b": 50}), "sum to 1"),
        (lambda: bias_at_k(*GOOD, 2, positive="a", negative="a"), "two groups, got 'a' twice"),
        (lambda: cosine_scores([[np.inf, 1.0]], np.eye(2)), "images: 1 embeddings hold NaN .* infinity, the first in row 0"),
        (lambda: cosine_scores([[0.0, 1], [0, 0]], np.eye(2), normalize_images=False), "images: 1 embeddings .* in row 1"),
        (lambda: able(np.nan, 0.1), "fraction"),
        (lambda: able(0.9, np.nan), "at least 0"),
        (lambda: able(0.9, np.array([0.1, 0.2])), "max_skew must be one number"),
        (lambda: able(None, 0.1), "accuracy must be one number"),
        (lambda: random_floor(ndkl, GOOD[1], repeats=0), "repeats must be a whole number of at least 1"),
        (lambda: random_floor(ndkl, ["a", None, "b", "c"]), "groups hold 1 missing labels"),
        (lambda: random_floor(ndkl, ["a", np.nan, "b", "c"]), "groups hold 1 missing labels"),
        (lambda: bias_at_k(*GOOD, 2, positive=pd.NA, negative="a"), "unknown positive group <NA>"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_floor_needs_groups():
    for groups in (None, 3):
        with pytest.raises(ValueError, match="groups must be"):
            random_floor(ndkl, groups)
