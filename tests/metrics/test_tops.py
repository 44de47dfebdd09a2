import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.metrics import (
    RunningTop,
    bias_at_k,
    cosine_scores,
    explicit_query_precision,
    kl_at_k,
    max_skew_at_k,
    min_skew_at_k,
    ndkl,
    random_floor,
    retrieved,
    score_blocks,
    skew_at_k,
    tops,
)

pytestmark = pytest.mark.filterwarnings("ignore::debias_utils.metrics.FlooredWarning")


def cut(x, at):
    """An iterator of blocks, cut along the last axis."""
    return iter(np.split(np.asarray(x), at, axis=-1))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000), st.booleans(),
    st.sampled_from([np.float32, np.float64, np.int8, np.uint8]),
)  # fmt: skip
def test_blocks_give_what_the_whole_gives(n, m, kinds, seed, tied, precision):
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 4, (m, n)) if tied or precision in (np.int8, np.uint8) else rng.standard_normal((m, n))
    scores, groups = whole.astype(precision), rng.integers(0, kinds, n)
    at = np.sort(rng.integers(1, n, 3)) if n > 1 else []
    at = np.unique(at).astype(int)
    k = int(rng.integers(1, n + 1))
    for ties in ("order", "all"):
        expected = skew_at_k(scores, groups, k, ties=ties)
        found = skew_at_k(cut(scores, at), cut(groups, at), k, ties=ties)
        assert set(found) == set(expected)
        for group in expected:
            assert np.array_equal(found[group], expected[group])
        assert np.array_equal(
            max_skew_at_k(cut(scores, at), groups, k, ties=ties, target="uniform"),
            max_skew_at_k(scores, groups, k, ties=ties, target="uniform"),
        )
    assert np.allclose(ndkl(cut(scores, at), groups, k=k), ndkl(scores, groups, k=k), atol=1e-12)


@pytest.mark.parametrize("taken", [1 << 22, 64])
def test_one_pass_serves_every_metric_and_smaller_k(monkeypatch, taken):
    monkeypatch.setattr(tops, "_TAKEN", taken)
    rng = np.random.default_rng(0)
    scores, groups = rng.standard_normal((5, 3000)), np.array(list("abc"))[rng.integers(0, 3, 3000)]
    top = RunningTop(100)
    for block, own in zip(cut(scores, range(200, 3000, 200)), cut(groups, range(200, 3000, 200)), strict=True):
        assert top.add(block, own) is top
    assert (top.queries, top.items) == (5, 3000)
    for k in (1, 37, 100):
        for metric in (max_skew_at_k, min_skew_at_k, kl_at_k):
            assert np.array_equal(metric(top, None, k), metric(scores, groups, k))
        both = {"positive": "a", "negative": "c"}
        assert np.array_equal(bias_at_k(top, None, k, **both), bias_at_k(scores, groups, k, **both))
        assert np.array_equal(
            explicit_query_precision(top, None, k, asked=list("abcab")),
            explicit_query_precision(scores, groups, k, asked=list("abcab")),
        )
        assert np.allclose(ndkl(top, None, k=k), ndkl(scores, groups, k=k), atol=1e-13)


def test_one_query_gives_a_float_with_its_conventions():
    images, prompts = np.random.default_rng(0).standard_normal((2, 50, 8))
    whole = cosine_scores(images, prompts[:1])[0]
    found = max_skew_at_k(iter([whole[:20], whole[20:]]), np.arange(50) % 2, 10)
    assert type(found).__name__ == "MeasuredFloat"
    assert found.conventions == max_skew_at_k(whole, np.arange(50) % 2, 10).conventions
    assert found.conventions["normalize_images"] is True


@pytest.mark.parametrize("images_come", ["whole", "in blocks"])
def test_scores_of_embeddings_in_blocks(images_come):
    rng = np.random.default_rng(1)
    images, prompts, groups = rng.standard_normal((500, 8)).astype(np.float16), rng.standard_normal((3, 8)), np.arange(500) % 3
    given_ = images if images_come == "whole" else iter(np.split(images, [100, 450]))
    blocks = score_blocks(given_, prompts, block=64, normalize_images=False)
    expected = max_skew_at_k(cosine_scores(images, prompts, normalize_images=False), groups, 50)
    found = max_skew_at_k(blocks, groups, 50)
    assert np.array_equal(found, expected)
    assert found.conventions == expected.conventions


def test_memory_does_not_grow_with_the_images():
    def peak(images):
        rng = np.random.default_rng(0)
        top = RunningTop(50)
        tracemalloc.start()
        for _ in range(images // 2000):
            top.add(rng.random((10, 2000)), rng.integers(0, 3, 2000))
        max_skew_at_k(top, None, 50), ndkl(top, None, k=50)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2000)  # imports
    assert peak(80_000) < 1.1 * peak(8_000) < 2e6


def test_rising_and_equal_scores_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(tops, "_TAKEN", 1 << 12)
    for scores in (np.arange(100_000.0), np.zeros(100_000)):
        for ties in ("order", "all"):
            top = RunningTop(10, ties=ties)
            tracemalloc.start()
            for start in range(0, 100_000, 1000):
                top.add(scores[start : start + 1000], np.zeros(1000, np.int8))
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert found < 5e5
            assert skew_at_k(top, None, 10, ties=ties) == skew_at_k(scores, np.zeros(100_000, int), 10, ties=ties)


def test_the_floor_of_a_pool_is_that_of_its_labels():
    groups = np.repeat(["a", "b", "c"], [3000, 1500, 500])
    top = RunningTop(100).add(np.random.default_rng(0).random(5000), groups)
    for metric, options in ((max_skew_at_k, {"k": 100}), (ndkl, {"k": 100}), (min_skew_at_k, {"k": 50})):
        drawn = random_floor(metric, groups, repeats=2000, seed=1, **options)
        found = random_floor(metric, top, repeats=10_000, seed=2, **options)
        assert found["mean"] == pytest.approx(drawn["mean"], rel=0.05)
        assert found["high"] == pytest.approx(drawn["high"], rel=0.1)
        assert found.conventions["shares"] == drawn.conventions["shares"]


def test_retrieved_marks_the_first_k():
    scores = np.array([[0.1, 0.9, 0.5, 0.9], [1, 1, 1, 0]])
    assert retrieved(scores, 2).tolist() == [[False, True, False, True], [True, True, False, False]]
    assert retrieved(scores[0], 1).tolist() == [False, True, False, False]


def half(**options):
    return RunningTop(2, **options).add([3.0, 1, 2, 0], list("abab"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_skew_at_k(half(), list("abab"), 2), "give None in place of groups"),
        (lambda: max_skew_at_k(RunningTop(3), None, 2), "no item was added"),
        (lambda: max_skew_at_k(half(), None, 3), "this top holds k = 2 with ties='order', got k = 3"),
        (lambda: max_skew_at_k(half(), None, 2, ties="all"), "this top holds k = 2 with ties='order', got k = 2 with ties='all'"),
        (lambda: max_skew_at_k(half(ties="all"), None, 1, ties="all"), "got k = 1"),
        (lambda: ndkl(half(ties="all"), None, k=2, ties="all"), "ties='order' alone"),
        (
            lambda: max_skew_at_k(RunningTop(9).add([1.0, 2], list("ab")), None, 9),
            "k must be a whole number from 1 to n = 2, got 9",
        ),
        (lambda: random_floor(ndkl, RunningTop(9).add([1.0, 2], list("ab")), k=2), "from 1 to n = 2, got 9"),
        (lambda: half().add([[1.0], [2.0]], ["a"]), "same 1 queries, got 2"),
        (lambda: half().add([1.0, np.nan], ["a", "b"]), "scores hold 1 NaN"),
        (lambda: half().add([1.0, 2], ["a", None]), "groups hold 1 missing"),
        (lambda: ndkl(iter([[1.0, 2]]), ["a", np.nan], k=1), "groups hold 1 missing"),
        (lambda: half().add([1.0, 2], ["a"]), r"groups must be \(2,\)"),
        (lambda: RunningTop(0), "k must be a whole number of at least 1, got 0"),
        (lambda: RunningTop(2, ties="random"), "unknown tie rule 'random'; choose one of: 'order', 'all'"),
        (lambda: ndkl(iter([[1.0, 2]]), list("ab")), "scores in blocks need k"),
        (lambda: ndkl(iter([]), [], k=1), "got no block"),
        (lambda: ndkl(iter([[1.0, 2]]), list("abc"), k=1), r"groups must be \(2,\), one label for each score, got \(3,\)"),
        (lambda: ndkl(iter([[1.0, 2]]), list("a"), k=1), r"groups must be \(2,\)"),
        (lambda: ndkl(iter([[1.0, 2]]), iter([list("ab"), list("a")]), k=1), "groups go on"),
        (lambda: ndkl(iter([[1.0, 2], [1.0]]), iter([list("ab")]), k=1), "groups end before"),
        (lambda: list(score_blocks(np.eye(3), np.eye(3), block=0)), "block must be a whole number"),
        (lambda: list(score_blocks(np.eye(3), np.eye(4))), "need one d"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
