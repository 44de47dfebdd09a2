import numpy as np
import pytest
import torch
from scipy.stats import binomtest, permutation_test

from debias_utils.metrics import association_scores, association_test, association_tests

EXACT = ("exact_small", "exact_252", "exact_negative", "exact_shifted", "exact_ties")


@pytest.fixture(scope="module")
def weat(fixtures):
    return np.load(fixtures / "weat" / "weat.npz")


def sets(weat, case):
    return [weat[f"{case}/{name}"] for name in "XYAB"]


@pytest.mark.parametrize("case", [*EXACT, "sampled"])
def test_effect_size_as_the_official_codes(weat, case):
    x, y, a, b = sets(weat, case)
    assert association_scores(np.concatenate([x, y]), a, b) == pytest.approx(weat[f"{case}/s_wAB"], abs=1e-12)
    size, p = association_test(x, y, a, b)
    assert size == pytest.approx(float(weat[f"{case}/sentbias/effect_size"]), abs=1e-12)
    assert size == pytest.approx(float(weat[f"{case}/ieat/effect_size"]), abs=1e-12)
    assert association_test(x, y, a, b, ddof=0)[0] == pytest.approx(
        float(weat[f"{case}/derived/effect_size_population_std"]), abs=1e-12
    )
    for kind in (np.float32, torch.tensor):
        single = association_test(*(kind(s) if kind is torch.tensor else s.astype(kind) for s in (x, y, a, b)))[0]
        assert single == pytest.approx(float(weat[f"{case}/ieat_float32/effect_size"]), abs=1e-6)
    if case in EXACT and case != "exact_ties":
        assert p == pytest.approx(float(weat[f"{case}/sentbias/p"]), abs=1e-15)


@pytest.mark.parametrize("case", [*EXACT, "sampled"])
def test_exact_p(weat, case):
    x, y, a, b = sets(weat, case)
    ways, greater, strictly, both = (
        int(weat[f"{case}/derived/{name}"])
        for name in ("partitions", "count_greater_or_equal", "count_greater", "count_two_sided")
    )
    found = {
        side: association_test(x, y, a, b, alternative=side, n_permutations=20_000)[1]
        for side in ("greater", "less", "two-sided")
    }
    assert found["greater"] == greater / ways
    assert found["two-sided"] == both / ways
    assert found["less"] == (ways - strictly) / ways
    assert found["two-sided"] == pytest.approx(2 * min(found["greater"], found["less"]))
    swapped = association_test(y, x, a, b, n_permutations=20_000)[1]
    assert swapped == found["less"]
    assert found["greater"].conventions == {
        "metric": "association p", "alternative": "greater", "p": "exact", "partitions": ways, "ddof": 1,
    }  # fmt: skip


def test_sampled_p_lies_around_the_exact_one(weat):
    x, y, a, b = sets(weat, "sampled")
    exact = float(weat["sampled/derived/count_greater_or_equal"] / weat["sampled/derived/partitions"])
    found = [association_test(x, y, a, b, seed=seed)[1] for seed in range(4)]
    assert found[0].conventions["p"] == "sampled"
    hits = sum(round(p * 10_000) - 1 for p in found)
    interval = binomtest(hits, 4 * 9_999).proportion_ci(0.999)
    assert interval.low < exact < interval.high
    assert association_test(x, y, a, b, seed=3)[1] == found[3]
    assert association_test(x, y, a, b, n_permutations=1)[1] == 1


def test_p_against_scipy_also_for_unequal_sets(weat):
    x, y, a, b = sets(weat, "unequal")
    size, p = association_test(x, y, a, b)
    assert size == pytest.approx(float(weat["unequal/ieat/effect_size"]), abs=1e-12)
    s = association_scores(np.concatenate([x, y]), a, b)
    for side in ("greater", "less", "two-sided"):
        if side == "two-sided":  # scipy's two-sided p is twice the smaller one, which is another test for unequal sets
            statistic, alternative = lambda u, v: abs(np.mean(u) - np.mean(v)), "greater"
        else:
            statistic, alternative = lambda u, v: np.mean(u) - np.mean(v), side
        expected = permutation_test((s[: len(x)], s[len(x) :]), statistic, alternative=alternative, n_resamples=np.inf).pvalue
        assert association_test(x, y, a, b, alternative=side)[1] == pytest.approx(expected)
    assert p.conventions["partitions"] == 56


def test_chance_finds_effects_of_few_targets(weat):
    floor = association_test(*sets(weat, "exact_252"))[0].conventions["floor"]
    assert floor["mean"] == pytest.approx(0, abs=1e-12)
    assert floor["high"] == pytest.approx(-floor["low"])
    assert 1 < floor["high"] < 2


def test_p_is_valid():
    rng = np.random.default_rng(0)
    for side in ("greater", "two-sided"):
        p = np.array(
            [association_test(*rng.standard_normal((4, 4, 6)), alternative=side, n_permutations=100)[1] for _ in range(400)]
        )
        assert binomtest(int((p <= 0.1).sum()), 400, 0.1, alternative="greater").pvalue > 0.001


def test_within_and_across_modalities():
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 4, 5, 8))
    found = association_tests(images, texts, alternative="two-sided")
    assert list(found) == ["ii", "tt", "it", "ti"]
    assert found["it"] == association_test(images[0], images[1], texts[2], texts[3], alternative="two-sided")
    assert found["ti"] == association_test(texts[0], texts[1], images[2], images[3], alternative="two-sided")


def test_scale_and_duplicates_change_nothing():
    rng = np.random.default_rng(0)
    x, y, a, b = rng.standard_normal((4, 5, 8))
    size, p = association_test(x, y, a, b)
    scaled = association_test(7 * x, y * rng.uniform(0.1, 9, (5, 1)), 0.1 * a, np.repeat(b, 3, axis=0))
    assert scaled[0] == pytest.approx(size)
    assert scaled[1] == p
    assert association_test(x, x, a, b)[0] == pytest.approx(0, abs=1e-12)


FOUR = np.random.default_rng(0).standard_normal((4, 3, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: association_test(*FOUR, alternative="both"),
         "unknown alternative 'both'; choose one of: 'greater', 'less', 'two-sided'"),
        (lambda: association_test(*FOUR[:3], np.ones((2, 4))), "embeddings must have one width"),
        (lambda: association_test(FOUR[0], np.ones((2, 4)), *FOUR[2:]),
         r"of one width and not empty, got x \(3, 5\), y \(2, 4\)"),
        (lambda: association_test(FOUR[0], FOUR[1][0], *FOUR[2:]), r"y \(5,\)"),
        (lambda: association_test(FOUR[0], np.empty((0, 5)), *FOUR[2:]), "not empty"),
        (lambda: association_test(*FOUR[:3], np.zeros((2, 5))), "length 0"),
        (lambda: association_test(FOUR[0] * np.nan, *FOUR[1:]), "hold NaN"),
        (lambda: association_test(np.ones((2, 5)), 2 * np.ones((2, 5)), *FOUR[2:]), "all 4 targets are associated equally"),
        (lambda: association_test(FOUR[0], FOUR[1], FOUR[2], FOUR[2]), "associated equally"),
        (lambda: association_test(*FOUR, n_permutations=0), "n_permutations must be a whole number of at least 1"),
        (lambda: association_test(*FOUR, ddof=2), "ddof must be a whole number from 0 to 1"),
        (lambda: association_test(*FOUR, seed=-1), "seed must be"),
        (lambda: association_tests(FOUR, FOUR[:3]), r"texts must be four sets \(x, y, a, b\), got 3"),
        (lambda: association_scores([["a"]], *FOUR[2:]), "words must be numbers"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
