import numpy as np
import pytest
from scipy.stats import norm, t

from debias_utils.evaluate.estimates import estimate
from debias_utils.metrics import cosine_scores, max_skew_at_k, ndkl, random_floor, worst_group_accuracy

pytestmark = pytest.mark.filterwarnings("ignore::debias_utils.metrics.FlooredWarning")


def max_skew(scores, groups):
    return max_skew_at_k(scores, groups, 30)


def test_a_mean_has_the_interval_of_a_mean():
    rng = np.random.default_rng(0)
    trainings = rng.standard_normal((3, 400)) + 2
    found = estimate(lambda x: x.mean(), trainings, repeats=2000)
    by_person = trainings.mean(axis=0)
    error = by_person.std(ddof=1) / 20
    assert found["value"] == pytest.approx(trainings.mean())
    assert found["high"] - found["value"] == pytest.approx(norm.ppf(0.975) * error, rel=0.06)
    assert found["value"] - found["low"] == pytest.approx(found["high"] - found["value"])
    means = trainings.mean(axis=1)
    half = t.ppf(0.975, 2) * means.std(ddof=1) / np.sqrt(3)
    assert found["trainings_low"] == pytest.approx(means.mean() - half)
    assert found["trainings_high"] == pytest.approx(means.mean() + half)
    assert found.conventions["by_training"] == pytest.approx(means)
    assert (found.conventions["people"], found.conventions["failed"]) == (400, 0)


def world(rng, n=300, queries=10, lean=0.3):
    groups = rng.integers(0, 2, n)
    leans = np.linspace(-1, 1, queries)[:, None] * lean
    return rng.standard_normal((queries, n)) + 0.5 * rng.standard_normal(n) + leans * (groups == 0), groups


def test_intervals_of_skews_cover_where_percentiles_do_not():
    truth = {}
    for metric in (max_skew, ndkl):
        rng = np.random.default_rng(1)
        truth[metric] = np.mean([np.mean(metric(*world(rng))) for _ in range(300)])
    for metric in (max_skew, ndkl):
        rng = np.random.default_rng(2)
        hits = 0
        for _ in range(40):
            scores, groups = world(rng)
            found = estimate(metric, [scores], groups, repeats=40)
            hits += found["low"] <= truth[metric] <= found["high"]
        assert hits >= 34


def test_floor_excess_and_conventions_travel():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 100)
    trainings = [cosine_scores(rng.standard_normal((100, 8)), rng.standard_normal((4, 8))) for _ in range(2)]
    floor = random_floor(max_skew_at_k, groups, k=30)
    found = estimate(max_skew, trainings, groups, floor=floor, repeats=30)
    assert found["excess"] == pytest.approx(found["value"] - floor["mean"])
    expected = {"metric": "MaxSkew@k", "k": 30, "target": "pool", "normalize_images": True, "floor": dict(floor)}
    assert expected.items() <= found.conventions.items()
    assert estimate(max_skew, trainings, groups, floor=floor, repeats=30) == found


def test_one_training_has_no_interval_over_trainings():
    found = estimate(lambda x: x.mean(), [np.arange(9.0)])
    assert np.isnan([found["trainings_low"], found["trainings_high"]]).all()
    assert "excess" not in found


def test_labels_of_people_and_other_axes():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 3, 200), np.array(list("ab"))[rng.integers(0, 2, 200)]
    predicted = [np.where(rng.random(200) < 0.8, truth, 0) for _ in range(3)]
    found = estimate(worst_group_accuracy, predicted, truth, groups, support=(0, 1))
    assert found["value"] == pytest.approx(np.mean([worst_group_accuracy(p, truth, groups) for p in predicted]))
    assert 0 < found["low"] < found["high"] <= 1
    embeddings = rng.standard_normal((50, 3))
    assert estimate(lambda x: x[:, 0].mean(), [embeddings], axis=0)["value"] == pytest.approx(embeddings[:, 0].mean())
    assert estimate(lambda x: 1.0, [np.arange(9.0)], support=(0, 1))["high"] == 1.0


def only_with(label):
    def measure(x, groups):
        if label not in groups:
            raise ValueError(f"no {label}")
        return x.mean()

    return measure


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimate(np.mean, []), "at least one training"),
        (lambda: estimate(np.mean, [np.ones(4), np.ones(5)]), r"one number of people, at least 2, got \[4, 5\]"),
        (lambda: estimate(max_skew, [np.ones(40)], [0, 1]), r"got \[40, 2\]"),
        (lambda: estimate(np.mean, [np.ones(1)]), "at least 2"),
        (lambda: estimate(np.mean, [np.full(4, np.nan)]), "NaN"),
        (lambda: estimate(np.mean, [np.ones(4)], repeats=5), "repeats must be a whole number of at least 20"),
        (lambda: estimate(np.mean, [np.ones(4)], confidence=95), "confidence must lie between 0 and 1"),
        (lambda: estimate(np.mean, [np.full(4, 3.0)], support=(0, 1)), "leave the support"),
        (lambda: estimate(np.mean, [np.ones(4)], floor={"low": 0}), "unknown floor's entry 'mean'"),
        (lambda: estimate(only_with("b"), [np.arange(9.0)], list("aaaaaaaab")), r"no value for \d+ of 200 resamples of 9 people"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
