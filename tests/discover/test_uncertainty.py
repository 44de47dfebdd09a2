import numpy as np
import pytest

from debias_utils.discover.uncertainty import bootstrap, permutation_test, share_over_seeds, t_interval


def test_bootstrap_interval_has_the_known_width():
    values = np.random.default_rng(0).standard_normal(400)
    estimate, low, high = bootstrap(np.mean, values, repeats=800, seed=1)
    assert estimate == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.15)
    assert bootstrap(np.mean, values, repeats=100, seed=1) == bootstrap(np.mean, values, repeats=100, seed=1)


def test_bootstrap_keeps_rows_together():
    x = np.arange(50.0)
    estimate, low, high = bootstrap(lambda a, b: float((a - b).mean()), x, x + 1, repeats=100)
    assert (estimate, low, high) == (-1.0, -1.0, -1.0)


def test_bootstrap_coverage():
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(150):
        _, low, high = bootstrap(np.mean, rng.standard_normal(40), repeats=300, seed=trial)
        inside += low <= 0 <= high
    assert 0.88 <= inside / 150 <= 0.99


def test_share_over_seeds():
    rng = np.random.default_rng(4)
    members = np.arange(600) % 2 == 0
    rate = np.where(members, 0.16, 0.04)
    missed = rng.random((3, 600)) < rate
    estimate, low, high = share_over_seeds(missed, members)
    assert estimate == pytest.approx(missed[:, members].sum() / missed.sum())
    assert 0.5 < low < estimate < high < 1
    single = share_over_seeds(missed[:1], members)
    assert single[2] - single[1] > high - low


def test_t_interval_by_hand_and_its_coverage():
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert (high - low) / 2 == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    rng = np.random.default_rng(6)
    inside = [low <= 0 <= high for _, low, high in (t_interval(rng.standard_normal(3)) for _ in range(1500))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    with pytest.raises(ValueError, match="at least 2 values"):
        t_interval([1.0])


def test_permutation_is_exact_on_a_case_that_can_be_counted():
    # 2 missed, both members, of 2 members and 2 others: 1 of 6 splits is as one-sided, and its mirror
    difference, p = permutation_test([True, True, False, False], [True, True, False, False], repeats=40_000)
    assert difference == 1.0
    assert p == pytest.approx(2 / 6, abs=0.01)


def test_permutation_respects_strata():
    # members are missed more often only because their stratum is
    missed = np.array([True] * 40 + [False] * 40)
    members = np.array([True] * 30 + [False] * 10 + [True] * 10 + [False] * 30)
    strata = np.repeat([0, 1], 40)
    assert permutation_test(missed, members)[1] < 0.01
    assert permutation_test(missed, members, strata=strata)[1] == 1.0


def test_permutation_level_under_the_null():
    rng = np.random.default_rng(5)
    claims = [
        permutation_test(rng.random(240) < 0.15, rng.permutation(np.arange(240) % 2 == 0), repeats=400, seed=i)[1] < 0.05
        for i in range(300)
    ]
    assert np.mean(claims) <= 0.075


def test_bad_input():
    with pytest.raises(ValueError, match="4 members of 4"):
        permutation_test([True] * 4, [True] * 4)
    with pytest.raises(ValueError, match="nobody is misranked"):
        share_over_seeds(np.zeros((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match="need missed"):
        share_over_seeds(np.zeros(3), np.ones(3))
