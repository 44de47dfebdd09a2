import numpy as np
import pytest
import torch
from scipy.spatial import distance_matrix
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif

from debias_utils.debias import information as module
from debias_utils.debias import kept_dimensions, mixed_ksg, mutual_information


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "clip_clip" / "clip_clip.npz")


labelled = pytest.mark.parametrize("labels", ["binary", "with_neutral"])


@labelled
def test_the_authors_histogram(official, labels):
    x, y = official[f"{labels}/image_features"], official[f"{labels}/gender"]
    for options, name in (({}, "mi"), ({"normalized": True}, "normalized_mi"), ({"sigma": 2.0}, "mi_sigma2_check")):
        assert mutual_information(x, y, **options) == pytest.approx(official[f"{labels}/wang/{name}"], abs=1e-10)
    order = official[f"{labels}/wang/order_ascending"]
    for m in (5, 12, 17, 20):
        assert np.array_equal(kept_dimensions(mutual_information(x, y), m), np.sort(order[:m]))


def test_the_histogram_does_not_mind_how_two_labels_are_written(official):
    x, y = official["binary/image_features"], official["binary/gender"]
    assert mutual_information(x, 2 * y - 3) == pytest.approx(official["binary/wang/mi_labels_pm1"], abs=1e-10)
    words = np.array(["none", "a man", "a woman"])[y]
    assert mutual_information(x, words) == pytest.approx(official["binary/wang/mi"], abs=1e-10)
    assert mutual_information(torch.tensor(x), y.tolist()) == pytest.approx(official["binary/wang/mi"], abs=1e-10)


@labelled
def test_the_official_nearest_neighbours(official, labels):
    x, y = official[f"{labels}/image_features"], official[f"{labels}/gender"]
    y = y - y.min()
    for k in (5, 10):
        found = mutual_information(x, y, estimator="ksg", n_neighbors=k)
        assert found == pytest.approx(official[f"{labels}/mixed_ksg/mi_k{k}"], abs=1e-10)
    for m in (5, 12, 17, 20):
        kept = kept_dimensions(mutual_information(x, y, estimator="ksg"), m)
        assert np.array_equal(kept, official[f"{labels}/mixed_ksg/keep{m}/keep_ind"])


@pytest.mark.parametrize("case", ["continuous", "discrete", "mixture", "two_dim"])
@pytest.mark.parametrize("k", [3, 5])
def test_nearest_neighbours_of_all_kinds_of_values(official, case, k):
    x, y = official[f"ksg_cases/{case}/x"], official[f"ksg_cases/{case}/y"]
    assert mixed_ksg(x, y, n_neighbors=k) == pytest.approx(float(official[f"ksg_cases/{case}/mi_k{k}"]), abs=1e-10)
    if x.ndim == 1:
        (found,) = mutual_information(x[:, None], y, estimator="ksg", n_neighbors=k)
        assert found == pytest.approx(float(official[f"ksg_cases/{case}/mi_k{k}"]), abs=1e-10)


def by_hand(x, y, k):
    """Every distance of every pair."""
    dx, dy = (distance_matrix(v.reshape(len(v), -1), v.reshape(len(v), -1), p=np.inf) for v in (x, y))
    both = np.maximum(dx, dy)
    total = 0.0
    for i in range(len(x)):
        r = np.sort(both[i])[k]
        reach = 1e-15 if r == 0 else min(r - 1e-15, np.nextafter(r, 0))
        count = (both[i] <= reach).sum() if r == 0 else k
        total += digamma(count) + np.log(len(x)) - digamma((dx[i] <= reach).sum()) - digamma((dy[i] <= reach).sum())
    return total / len(x)


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (RNG.standard_normal(80), RNG.integers(0, 3, 80)),  # few rows: neighbours lie in other classes
        (5 * RNG.standard_normal(80), np.r_[0, RNG.integers(1, 4, 79)]),  # a class with one member
        (30 * RNG.standard_normal(60), RNG.choice([-1.0, 0.25, 0.5, 7.0], 60)),
        (np.round(RNG.standard_normal(90), 1), RNG.integers(0, 2, 90)),  # ties everywhere
        (np.zeros(40), RNG.integers(0, 2, 40)),  # a constant feature
        (np.repeat(RNG.standard_normal(20), 4), RNG.integers(0, 7, 80)),
        (np.r_[np.zeros(30), RNG.standard_normal(30)].astype(np.float32).astype(float), RNG.integers(0, 2, 60)),
        (RNG.standard_normal(70), RNG.standard_normal(70)),
        (RNG.standard_normal((50, 2)), RNG.integers(0, 2, 50)),
        (1e3 + RNG.integers(0, 40, 60) / 8, RNG.integers(0, 2, 60)),
    ],
    ids=["far", "one member", "scales", "ties", "constant", "repeated", "half tied", "continuous", "two columns", "offset"],
)
@pytest.mark.parametrize("k", [1, 5])
def test_nearest_neighbours_by_hand_and_by_both_ways(x, y, k, monkeypatch):
    expected = by_hand(np.asarray(x, float), np.asarray(y, float), k)
    assert mixed_ksg(x, y, n_neighbors=k) == pytest.approx(expected, abs=1e-10)
    monkeypatch.setattr(module, "_MANY", 0)  # by trees
    assert mixed_ksg(x, y, n_neighbors=k) == pytest.approx(expected, abs=1e-10)


def test_estimates_of_what_is_known():
    rng = np.random.default_rng(1)
    n = 4000
    y = rng.integers(0, 2, n)
    x = np.column_stack([rng.standard_normal(n), y + 1e-3 * rng.standard_normal(n), rng.standard_normal(n) + y])
    for estimator, atol in (("histogram", 0.02), ("ksg", 0.03)):
        none, all_of_it, some = mutual_information(x, y, estimator=estimator)
        assert none == pytest.approx(0, abs=atol)
        assert all_of_it == pytest.approx(np.log(2), abs=atol)
        assert some == pytest.approx(0.11, abs=atol)  # one bit through a Gaussian channel one deviation wide
    judge = mutual_info_classif(x, y, n_neighbors=5, random_state=0)
    assert mutual_information(x, y, estimator="ksg") == pytest.approx(judge, abs=0.02)


def test_histogram_of_nothing_is_biased_upwards_and_constants_tell_nothing():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((360, 30)), rng.integers(0, 2, 360)
    assert mutual_information(x, y).mean() == pytest.approx(0.025, abs=0.005)
    assert mutual_information(x, y, estimator="ksg").mean() == pytest.approx(0, abs=0.01)
    x[:, 3] = 7
    x[:, 4] = x[:, 5]
    for estimator in ("histogram", "ksg"):
        found = mutual_information(x, y, estimator=estimator)
        assert found[3] == pytest.approx(0, abs=2e-3)  # by neighbours ln n - psi(n), which is 1 / 2n
        assert found[4] == found[5]


def test_kept_dimensions():
    information = [0.3, 0.1, 0.2, 0.1]
    assert kept_dimensions(information, 2).tolist() == [1, 3]
    assert kept_dimensions(information, 1).tolist() == [1]  # ties keep the first
    assert kept_dimensions(information, 0.75).tolist() == [1, 2, 3]
    assert kept_dimensions(information, 1.0).tolist() == [0, 1, 2, 3]
    for keep in (0, 5, 1.5, 0.0, True, "all"):
        with pytest.raises(ValueError, match="keep"):
            kept_dimensions(information, keep)


@pytest.mark.parametrize(
    ("x", "y", "options", "said"),
    [
        (np.ones((4, 2)), [0, 1, 0], {}, r"labels must be \(4,\)"),
        (np.ones((4, 2)), [0, 1, 0, None], {}, "missing"),
        (np.ones((4, 2)), ["a"] * 4, {}, "two classes"),
        (np.ones(4), [0, 1, 0, 1], {}, r"\(n, d\)"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], {}, "NaN"),
        (np.ones((4, 2)), [0, 1, 0, 1], {"estimator": "ksg"}, "more than 5 rows"),
        (np.ones((4, 2)), [0, 1, 0, 1], {"estimator": "knn"}, "histogram"),
        (np.ones((4, 2)), [0, 1, 0, 1], {"n_neighbors": 3}, "bins"),
        (np.ones((4, 2)), [0, 1, 0, 1], {"sigma": -1}, "sigma"),
        (np.ones((4, 2)), [0, 1, 0, 1], {"bins": 0}, "bins"),
    ],
)
def test_bad_input_is_refused(x, y, options, said):
    with pytest.raises(ValueError, match=said):
        mutual_information(x, y, **options)
    with pytest.raises(ValueError, match="as many rows"):
        mixed_ksg(np.ones(9), np.ones(8))
