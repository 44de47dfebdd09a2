import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom, binomtest, multinomial, t

from debias_utils.discover.intervals import difference_interval, mean_interval
from debias_utils.evaluate.compare import sign_flip_test

SIZES = (16, 40, 100)


def flips(rng, shape, p):
    return (rng.random(shape) < p).astype(float)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("p", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("support", [None, (0, 1)])
def test_coverage_of_flips_is_counted(n, p, support):
    """Of shares: every count, with its probability."""
    spans = [mean_interval(np.arange(n) < k, repeats=1, support=support)[1:] for k in range(n + 1)]
    inside = binom.pmf(np.arange(n + 1), n, p) @ [low <= p <= high for low, high in spans]
    assert 0.93 <= inside <= (0.995 if (n, p, support) == (16, 0.05, None) else 0.97)


@pytest.mark.parametrize(
    ("n", "p", "most"), [(16, 0.05, 1), (16, 0.1, 0.98), (40, 0.05, 0.975), (40, 0.1, 0.97), (100, 0.05, 0.97)]
)
def test_coverage_of_paired_differences_of_flips_is_counted(n, p, most):
    """Flips of p before and after: every number of +1 and -1 that is not rarer than 1e-5, with its probability."""
    one, inside, counted = p * (1 - p), 0.0, 0.0
    for up in range(n + 1):
        for down in range(up + 1):
            chance = multinomial.pmf([up, down, n - up - down], n, [one, one, 1 - 2 * one]) if up + down <= n else 0
            chance *= 1 + (up > down)  # and its mirror
            if chance > 1e-5:
                x = np.repeat([1.0, -1.0, 0.0], [up, down, n - up - down])
                low, high = mean_interval(x, repeats=500)[1:]
                counted += chance
                inside += chance * (low <= 0 <= high)
    assert counted > 0.999
    assert 0.93 <= inside <= most


SHAPES = {  # (values, their mean)
    "normal": (lambda rng, shape: rng.standard_normal(shape), 0.0),
    "heavy tails": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
    "lognormal": (lambda rng, shape: rng.lognormal(0, 1, shape), np.exp(0.5)),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "rare flips of 14": (lambda rng, shape: rng.binomial(14, 0.05, shape) / 14, 0.05),
    "flips of 14": (lambda rng, shape: rng.binomial(14, 0.3, shape) / 14, 0.3),
    "many zeros": (lambda rng, shape: np.where(rng.random(shape) < 0.3, rng.normal(1, 0.5, shape), 0), 0.3),
    "unlike flips": (lambda rng, shape: flips(rng, shape, 0.15) - flips(rng, shape, 0.05), 0.1),
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_coverage_in_simulations(name, n):
    draw, truth = SHAPES[name]
    trials, support = 500, (-1, 1) if name == "unlike flips" else None
    x = draw(np.random.default_rng(1), (trials, n))
    spans = np.array([mean_interval(row, repeats=300, seed=i, support=support)[1:] for i, row in enumerate(x)])
    inside = np.mean((spans[:, 0] <= truth) & (truth <= spans[:, 1]))
    error = 2.5 * np.sqrt(0.05 * 0.95 / trials)  # of this small simulation
    least, most = {"lognormal": (0.92, 0.97), "many zeros": (0.93, 0.985)}.get(name, (0.93, 0.97))  # as the docstring says
    assert least - error <= inside <= most + error


@pytest.mark.parametrize("n", [6, 12])
def test_few_values_are_covered_less(n):
    x = np.random.default_rng(3).exponential(size=(500, n))
    spans = [mean_interval(row, repeats=300, seed=i)[1:] for i, row in enumerate(x)]
    assert np.mean([low <= 1 <= high for low, high in spans]) >= 0.85


def test_equal_values_have_an_honest_width():
    assert mean_interval(np.zeros(40)) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 40)))
    assert mean_interval(np.zeros(40))[2] == pytest.approx(binomtest(0, 40).proportion_ci().high)
    assert mean_interval(np.ones(40)) == pytest.approx((1, 0.025 ** (1 / 40), 1))
    assert mean_interval(np.zeros(40), support=(-1, 1)) == pytest.approx((0, -0.0881, 0.0881), abs=1e-4)
    assert mean_interval([0.5] * 3) == pytest.approx((0.5, 0.5 - 0.5 * 0.708, 0.5 + 0.5 * 0.708), abs=1e-3)
    assert mean_interval(np.full(20, -1.0))[1:] == pytest.approx((-1, -1 + 2 * (1 - 0.025**0.05)))
    mean, low, high = mean_interval(np.full(20, 7.0))
    assert low < mean == 7 < high
    noise = np.array([0.1 + 0.2 - 0.3, 0.0] * 20)  # 6e-17: rounding
    assert mean_interval(noise)[2] == pytest.approx(0.0881, abs=1e-4)


def test_rates_stay_in_their_bounds_and_differences_need_not():
    rng = np.random.default_rng(0)
    for n in SIZES:
        for x in (rng.binomial(14, 0.02, n) / 14, 1 - rng.binomial(14, 0.02, n) / 14, np.arange(n) == 3, np.arange(n) != 3):
            mean, low, high = mean_interval(x)
            assert 0 <= low <= mean <= high <= 1
    assert mean_interval([0.9, 1.3, 1.4], support=(0, np.sqrt(2)))[2] == pytest.approx(np.sqrt(2))
    assert mean_interval([0.1, 0.2, 0.6], support=(-1, 1))[1] < 0
    assert difference_interval([0.3, 0.4, 0.8], [0.2, 0.2, 0.2])[1] < 0


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("ones", [1, 2, 3])
def test_a_few_ones_may_be_differences_or_a_share(n, ones):
    x = (np.arange(n) < ones).astype(float)
    assert mean_interval(x)[1] == 0
    assert mean_interval(x, support=(-1, 1))[1] < 0  # as the sign-flip test says: p = 2 / 2 ** ones
    share = binomtest(ones, n).proportion_ci(method="wilson")
    assert mean_interval(x, support=(0, 1))[1:] == pytest.approx((share.low, share.high))


def test_it_is_never_shorter_than_students_t():
    x = np.random.default_rng(2).lognormal(size=30)
    low, high = t.interval(0.9, 29, x.mean(), x.std(ddof=1) / np.sqrt(30))
    found = mean_interval(x, confidence=0.9)
    assert found[1] <= low + 1e-12
    assert found[2] > high
    assert found[2] < mean_interval(x, confidence=0.95)[2]


def test_interval_is_seeded_and_turns_round_with_its_values():
    x = np.random.default_rng(0).exponential(size=30)
    mean, low, high = mean_interval(x, seed=1)
    assert mean == pytest.approx(x.mean())
    assert low < mean < high
    assert mean_interval(x, seed=1) == (mean, low, high)
    assert mean_interval(-x, seed=1) == pytest.approx((-mean, -high, -low))
    assert mean_interval(10 * x + 2, seed=1) == pytest.approx((10 * mean + 2, 10 * low + 2, 10 * high + 2))
    one = np.array([0.0] * 39 + [1.0])
    mean, low, high = mean_interval(one, support=(-1, 1))
    assert mean_interval(-one, support=(-1, 1)) == pytest.approx((-mean, -high, -low))


def test_many_values_are_resampled_in_parts():
    x = np.random.default_rng(1).random(30_000)
    mean, low, high = mean_interval(x, repeats=300)
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / np.sqrt(len(x)), rel=0.15)
    assert mean == pytest.approx(x.mean())


def test_difference_of_independent_samples():
    rng = np.random.default_rng(4)
    a, b = rng.normal(1, 1, (400, 20)), rng.normal(0, 3, (400, 35))
    spans = [difference_interval(x, y, paired=False, repeats=300, seed=i) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    assert 0.92 <= np.mean([low <= 1 <= high for _, low, high in spans]) <= 0.985
    found, low, high = difference_interval([0, 0, 1, 1] * 5, [0] * 40, paired=False)
    assert found == 0.5
    wilson = binomtest(10, 20).proportion_ci(method="wilson")
    assert low == pytest.approx(0.5 - np.hypot(0.5 - wilson.low, 1 - 0.025 ** (1 / 40)))
    assert high == pytest.approx(wilson.high)
    with pytest.raises(ValueError, match="one length, got 4 and 8"):
        difference_interval(np.arange(4), np.arange(8))


@pytest.mark.parametrize(
    "values", [[1, 2, None, np.nan], pd.Series([1, 2, np.nan, np.nan]), pd.array([1, 2, None, None], "Float64")]
)
def test_missing_values_are_counted(values):
    with pytest.raises(ValueError, match=r"got shape \(4,\) with 2 not finite, the first at 2"):
        mean_interval(values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), r"need at least 2 finite values \(n,\), got shape \(1,\)"),
        (lambda: mean_interval(["a", "b"]), "values must be numbers"),
        (lambda: mean_interval([1, 2], confidence=95), "confidence must lie between 0 and 1, got 95"),
        (lambda: mean_interval([1, 2], support=(0, 1)), "values from 1 to 2 leave the support"),
        (lambda: mean_interval([1, 2], support=(3, 0)), "low < high"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rounding_of_float32_is_no_spread():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(40)
    equal, zeros = mean_interval([0.3] * 40), mean_interval([0] * 40)
    assert mean_interval(0.3 + 1e-7 * noise) == pytest.approx(equal, abs=1e-6)
    assert mean_interval([0] * 39 + [1e-7]) == pytest.approx(zeros, abs=1e-6)
    assert mean_interval([0] * 39 + [-1e-7]) == pytest.approx(zeros, abs=1e-6)
    assert mean_interval(700 + 1e-5 * noise)[1:] == pytest.approx(mean_interval([700] * 40)[1:], rel=1e-6)
    x = rng.random(40)
    assert difference_interval(x, x + 1e-8 * noise) == pytest.approx(difference_interval(x, x), abs=1e-6)
    share = mean_interval(np.arange(40) < 12)
    assert mean_interval((np.arange(40) < 12) + 1e-7 * noise) == pytest.approx(share, abs=1e-6)
    assert mean_interval(1e-3 * noise)[2] < 1e-3  # small, but no rounding


def test_differences_are_those_of_difference_interval():
    """The sign-flip test says .06 and .125, and the interval that mean_interval gives for a share says far less."""
    few, five = np.arange(40) < 4, np.arange(40) < 5
    assert difference_interval(five, np.zeros(40)) == pytest.approx((0.125, 0.018, 0.337), abs=1e-3)
    assert 0 < difference_interval(few, np.zeros(40))[1] < 0.01
    assert sign_flip_test(five) == pytest.approx(0.0625, abs=0.01)
    assert mean_interval(five)[1] > 0.05
    assert "For paired samples use `difference_interval`" in mean_interval.__doc__.splitlines()[0]


def test_masked_values_are_missing():
    masked = np.ma.masked_array([0.0, 1, 1, 0, 99], mask=[0, 0, 0, 0, 1])
    for call in (mean_interval, lambda x: difference_interval(np.zeros(5), x), lambda x: mean_interval(list(x))):
        with pytest.raises(ValueError, match=r"got shape \(5,\) with 1 not finite, the first at 4"):
            call(masked)
    assert mean_interval(masked[:4]) == mean_interval([0, 1, 1, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool])
def test_tensors_of_any_kind(dtype):
    x = torch.tensor([0, 1, 1, 0]).to(dtype)
    x = x.requires_grad_() if x.is_floating_point() else x
    assert mean_interval(x) == mean_interval([0, 1, 1, 0])
    assert mean_interval(list(x)) == mean_interval([0, 1, 1, 0])
    assert difference_interval(x, x) == difference_interval([0, 1, 1, 0], [0, 1, 1, 0])


def test_a_support_in_any_form():
    for x in ([0, 1, 1, 0], [1, 1, 1], [0.1, 0.2, 0.6]):
        wanted = mean_interval(x, support=(0, 1))
        for support in ([0, 1], np.array([0, 1]), torch.tensor([0.0, 1.0]), np.float32([0, 1])):
            assert mean_interval(x, support=support) == wanted
    for support in ([0, 1, 2], 3, (), (0, np.nan), ("a", "b"), (None, 1)):
        with pytest.raises(ValueError, match="support"):
            mean_interval([0, 1], support=support)
    for confidence in (None, "0.95", np.array([0.9, 0.95])):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            mean_interval([0, 1], confidence=confidence)
