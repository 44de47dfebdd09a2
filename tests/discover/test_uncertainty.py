import numpy as np
import pandas as pd
import pytest
import torch

from debias_utils.discover.intervals import mean_interval
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


def test_the_mean_is_the_one_rule():
    flips = np.arange(40) < 2
    assert bootstrap(np.mean, flips) == mean_interval(flips)
    assert bootstrap(np.mean, np.zeros(40))[2] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_bootstrap_refuses_samples_that_are_not_pairs():
    def later(a, b):
        return b.mean() - a.mean()

    with pytest.raises(ValueError, match=r"paired: they need one length of at least 2, got \[4, 8\]"):
        bootstrap(later, np.zeros(4), np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"got \[\]"):
        bootstrap(later)
    with pytest.raises(ValueError, match="sample 1 holds 1 NaN, the first at item 2"):
        bootstrap(later, np.zeros(4), np.array([0, 0, np.nan, 0]))


def test_share_of_the_rest_mirrors_that_of_members():
    rng = np.random.default_rng(1)
    for missed, members in (
        (rng.random((3, 200)) < 0.01, np.arange(200) % 2 == 0),  # some resamples hold no misrank
        (np.arange(30)[None] < 2, np.arange(30) < 2),
        (np.arange(30)[None] < 1, np.arange(30) < 1),
    ):
        share, low, high = share_over_seeds(missed, members)
        assert share_over_seeds(missed, ~members) == pytest.approx((1 - share, 1 - high, 1 - low))
    assert share_over_seeds(np.arange(30)[None] < 2, np.arange(30) < 2) == pytest.approx((1, 0.025 ** (1 / 2), 1))


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
    with pytest.raises(ValueError, match="at least 2 finite values"):
        t_interval([1.0])
    with pytest.raises(ValueError, match="1 not finite, the first at 1"):
        t_interval([1.0, np.nan, 3.0])
    assert t_interval([0.8, 0.9, 1.0], support=(0, 1))[1:] == pytest.approx((0.9 - 0.2484, 1), abs=1e-4)
    assert t_interval([0.5] * 3)[1] < 0.5  # three equal values prove little


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


def test_the_difference_is_the_one_that_is_tested():
    """Within both strata members are missed less often; together, more often, since most are where most are missed."""
    members = np.repeat([True, False, True, False], [80, 20, 20, 80])
    missed = np.concatenate([np.arange(n) < d for n, d in ((80, 48), (20, 16), (20, 0), (80, 16))])
    strata = np.repeat(["often", "rarely"], 100)
    plain, _ = permutation_test(missed, members)
    assert plain == pytest.approx(48 / 100 - 32 / 100)
    difference, p = permutation_test(missed, members, strata=strata)
    assert difference == pytest.approx(-0.2)  # in both
    assert p < 0.02
    lone = permutation_test(np.append(missed, True), np.append(members, True), strata=np.append(strata, "alone"))
    assert lone == (difference, p)


def test_the_difference_is_that_of_mantel_and_haenszel():
    rng = np.random.default_rng(8)
    members, missed, strata = rng.random(300) < 0.3, rng.random(300) < 0.4, rng.integers(5, size=300)
    top = bottom = 0.0
    for s in range(5):
        own = strata == s
        m, r = (members & own).sum(), (~members & own).sum()
        top += m * r / (m + r) * (missed[members & own].mean() - missed[~members & own].mean())
        bottom += m * r / (m + r)
    assert permutation_test(missed, members, strata=strata)[0] == pytest.approx(top / bottom)


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
    with pytest.raises(ValueError, match="no stratum has both"):
        permutation_test([True] * 4, [True, True, False, False], strata=[1, 1, 2, 2])
    with pytest.raises(ValueError, match=r"strata must be \(4,\), .* got \(3,\)"):
        permutation_test([True] * 4, [True, True, False, False], strata=[1, 1, 2])
    with pytest.raises(ValueError, match=r"strata hold 1 missing labels .*, the first at item 2"):
        permutation_test([True] * 4, [True, True, False, False], strata=["a", "a", None, "a"])
    with pytest.raises(ValueError, match="missed holds 1 NaN, the first at item 0"):
        permutation_test([np.nan, 1, 0, 0], [True, True, False, False])
    with pytest.raises(ValueError, match=r"members must hold True or False, got 0\.2"):
        share_over_seeds(np.eye(3), [0.2, 1, 0])
    with pytest.raises(ValueError, match="missed holds 1 NaN, the first at row 1, column 2"):
        share_over_seeds([[0, 1, 1], [0, 0, np.nan]], np.ones(3))
    with pytest.raises(ValueError, match="nobody is misranked"):
        share_over_seeds(np.zeros((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match="need missed"):
        share_over_seeds(np.zeros(3), np.ones(3))


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_a_stratum_is_not_missing(missing):
    missed, members = [True, False, True, False], [True, True, False, False]
    for strata in (["a", missing, "a", "a"], np.array(["a", missing, "a", "a"], object)):
        with pytest.raises(ValueError, match=r"strata hold 1 missing labels .*, the first at item 1"):
            permutation_test(missed, members, strata=strata)
    mixed = np.array(["a", 1, "a", 1], object)
    assert permutation_test(missed, members, strata=mixed) == permutation_test(missed, members, strata=[0, 1, 0, 1])


def test_masked_values_are_missing():
    masked = np.ma.masked_array([0.0, 1, 1, 0, 1], mask=[0, 0, 0, 0, 1])
    members = np.arange(5) % 2 == 0
    for call in (
        lambda: bootstrap(np.median, masked),
        lambda: t_interval(masked),
        lambda: permutation_test(masked, members),
        lambda: permutation_test(members, masked),
        lambda: share_over_seeds(masked[None], members),
        lambda: share_over_seeds([masked, masked], members),
        lambda: share_over_seeds(members[None], masked),
    ):
        with pytest.raises(ValueError, match=r"(item 4|at 4|column 4)$"):
            call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_tensors_of_any_kind(dtype):
    x = torch.tensor([0, 1, 1, 0, 1, 0], dtype=dtype, requires_grad=True)
    plain, members = [0.0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 0, 1]
    assert bootstrap(np.median, x) == bootstrap(np.median, plain)
    assert t_interval(x, support=np.array([0, 1])) == t_interval(plain, support=(0, 1))
    assert t_interval(x[1:3], support=np.array([0, 1])) == t_interval([1, 1], support=(0, 1))
    assert permutation_test(x, members) == permutation_test(plain, members)
    assert share_over_seeds([x, x], members) == share_over_seeds([plain, plain], members)


def test_rounding_is_no_spread_between_trainings():
    assert t_interval([0.5, 0.5 + 1e-7, 0.5]) == pytest.approx(t_interval([0.5] * 3), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence must lie between 0 and 1, got 95"),
        ({"confidence": np.nan}, "confidence must lie between"),
        ({"repeats": 2.0}, "repeats must be a whole number of at least 1, got 2.0"),
        ({"repeats": 0}, "repeats must be a whole number of at least 1, got 0"),
    ],
)
def test_bootstrap_checks_its_options(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(np.median, [1.0, 2.0, 3.0], **options)


def test_bootstrap_takes_finite_numbers_and_labels():
    with pytest.raises(ValueError, match="sample 1 must be finite, got 1 infinite values, the first at item 2"):
        bootstrap(lambda a, b: float(np.median(a + b)), [1.0, 2.0, 3.0], [1.0, 2.0, -np.inf])
    x, groups = np.arange(40.0), np.repeat(["a", "b"], 20)

    def apart(values, label):
        return values[label == "b"].mean() - values[label == "a"].mean()

    assert bootstrap(apart, x, groups) == bootstrap(apart, x, pd.Series(groups)) == bootstrap(apart, x, groups.tolist())
    with pytest.raises(ValueError, match="sample 1 holds 1 missing labels"):
        bootstrap(apart, x[:3], ["a", np.nan, "b"])
    flags = np.arange(40) < 9  # whole numbers and bools stay what they are
    assert bootstrap(lambda values, chosen: values[chosen].mean(), x, flags, repeats=50)[0] == 4


@pytest.mark.parametrize("trainings", [1, 3])
def test_one_member_more_never_lowers_the_limits(trainings):
    missed = np.ones((trainings, 40), bool)
    spans = [share_over_seeds(missed, np.arange(40) < k) for k in range(41)]
    assert (np.diff([low for _, low, _ in spans]) >= -0.01).all()  # but for the bootstrap's own chance
    assert (np.diff([high for _, _, high in spans]) >= -0.01).all()
    assert spans[1][2] >= spans[0][2] == pytest.approx(1 - 0.025 ** (1 / 40))
    assert spans[39][1] <= spans[40][1] == pytest.approx(0.025 ** (1 / 40))
