import numpy as np
import pandas as pd
import pytest

from debias_utils import load_profile, metrics
from debias_utils.discover.intervals import mean_interval
from debias_utils.discover.uncertainty import bootstrap, permutation_test
from debias_utils.errors import check_choice, check_probabilities, check_unit_interval, check_whole, holds


@pytest.mark.parametrize("value", [pd.NA, np.array([1, 2]), np.nan, None, "z"])
def test_a_choice_that_cannot_even_be_compared(value):
    with pytest.raises(ValueError, match=r"unknown rule .*; choose one of: 'a', 'b'"):
        check_choice("rule", value, ["a", "b"])


@pytest.mark.parametrize("value", [0, -1, True, 2.0, 2.5, np.nan, np.inf, None, "3", np.float64(3), np.array([3, 4]), np.True_])
def test_what_is_no_positive_whole_number(value):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got "):
        check_whole("steps", value)


def test_positive_whole_numbers():
    for value in (1, 10**30, np.int8(3), np.uint64(2)):
        check_whole("steps", value)


@pytest.mark.parametrize("value", [np.nan, -1e-9, 1.1, 97, None, "0.5", np.array([0.1, 0.2])])
def test_what_is_not_in_the_unit_interval(value):
    with pytest.raises(ValueError, match=r"rho must lie in \[0, 1\], got "):
        check_unit_interval("rho", value)


@pytest.mark.parametrize(
    "rows", [[[90.0, 10.0]], [[1.2, -0.2]], [[0.5, 0.4]], [[0.6, 0.6]], [[np.nan, 1.0]], [[0.5, 0.5], [0.2, 0.2]]]
)
def test_what_is_no_distribution(rows):
    with pytest.raises(ValueError, match="p must be probabilities"):
        check_probabilities("p", np.array(rows))


def test_distributions():
    for rows in ([[0.25, 0.75]], [[1.0, 0.0]], [[0.33, 0.33, 0.33]], [[1.0000001, 0.0]], np.empty((0, 3))):
        check_probabilities("p", np.array(rows))


@pytest.mark.parametrize("value", [0, 6, True, np.True_, 2.0, "3", None, [2], np.array([3, 4])])
def test_what_is_no_whole_number_in_range(value):
    with pytest.raises(ValueError, match="k must be a whole number from 1 to n = 5, got "):
        check_whole("k", value, at_most=5, limit="n = ")


def test_whole_numbers_in_range_come_back_as_ints():
    for value in (0, np.int8(3), np.uint64(5), np.array(4)):
        assert check_whole("seed", value, at_least=0, at_most=5) == int(value)


def test_the_verb_fits_the_name():
    names = ("styles", "strata", "x", "set 1", "basis", "std of the statistics")
    assert [holds(name) for name in names] == ["hold"] * 2 + ["holds"] * 4


@pytest.mark.parametrize(
    "call",
    [
        lambda seed: metrics.random_floor(metrics.ndkl, ["a", "b"], seed=seed),
        lambda seed: mean_interval([0.1, 0.3], seed=seed),
        lambda seed: bootstrap(np.mean, [0.1, 0.3], seed=seed),
        lambda seed: permutation_test([True, False, False], [True, False, True], seed=seed),
        lambda seed: load_profile("mini", seed=seed),
    ],
)
@pytest.mark.parametrize("seed", [1.5, -1, "x", None])
def test_a_seed_is_a_whole_number_everywhere(call, seed):
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, got "):
        call(seed)
