import numpy as np
import pytest
from scipy.stats import norm

from debias_utils.evaluate.leakage import leakage


def planted(n=600, d=12, size=1.0, seed=0, kinds=2):
    """Embeddings whose first coordinates tell the group, with unit noise."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, kinds, n)
    x = rng.standard_normal((n, d))
    x[:, 0] += size * (2 * groups / (kinds - 1) - 1)
    return x, groups


def test_a_probe_reads_what_is_there():
    x, groups = planted(size=1.0, n=4000)
    found = leakage(x, groups, renormalise=False)
    assert found["accuracy"] == pytest.approx(norm.cdf(1), abs=0.02)  # of the best rule
    assert found["low"] < norm.cdf(1) < found["high"]
    assert found["floor"] == pytest.approx(max(np.bincount(groups)) / 4000)
    assert found["balanced_floor"] == 0.5


def test_noise_is_not_read_even_with_more_dimensions_than_rows():
    x, groups = planted(n=80, d=200, size=0)
    found = leakage(x, groups)
    assert found["low"] < 0.5 < found["high"]
    rng = np.random.default_rng(0)
    uneven = np.where(rng.random(600) < 0.9, "a", "b")
    found = leakage(rng.standard_normal((600, 4)), uneven)
    assert found["accuracy"] == pytest.approx(found["floor"], abs=0.01)
    assert found["balanced"] == pytest.approx(0.5, abs=0.03)


def test_renormalising_brings_an_attribute_back():
    """As LEACE's fixture: no linear probe reads it from the erased rows, but one does from their directions."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 2000)
    noise = rng.standard_normal((2000, 12))
    x = np.concatenate([np.ones((2000, 1)), noise * (1 + groups[:, None])], axis=1)  # one mean, two spreads
    raw = leakage(x, groups, renormalise=False)
    unit = leakage(x, groups)
    assert raw["low"] < 0.5 + 0.03
    assert unit["low"] > 0.8
    assert unit.conventions["renormalise"] is True


def test_another_domain():
    x, groups = planted(size=1.0, n=3000)
    same, turned = planted(size=1.0, n=800, seed=1), planted(size=-1.0, n=800, seed=1)
    found = leakage(x, groups, test=same[0], test_groups=same[1], renormalise=False)
    assert found["accuracy"] == pytest.approx(norm.cdf(1), abs=0.03)
    assert leakage(x, groups, test=turned[0], test_groups=turned[1], renormalise=False)["accuracy"] < 0.3
    assert found.conventions["judged"] == "test"
    assert found.conventions["rows"] == 800


def test_pictures_of_one_person_are_held_out_together():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 10)
    groups = (np.arange(40) % 2)[who]
    x = 5 * rng.standard_normal((40, 60))[who] + 0.1 * rng.standard_normal((400, 60))  # faces, and no attribute at all
    assert leakage(x, groups)["accuracy"] > 0.95  # the same faces in fit and test
    found = leakage(x, groups, people=who)
    assert found["low"] < 0.5 < found["high"]
    assert found["high"] - found["low"] > 0.1  # 40 people, not 400 rows


def test_seven_groups_and_any_labels():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 7, 700)
    x = rng.standard_normal((700, 10)) + 3 * np.eye(10)[codes]
    found = leakage(x.astype(np.float16), np.array(list("abcdefg"))[codes])
    assert found["accuracy"] > 0.8
    assert found["balanced_floor"] == pytest.approx(1 / 7)
    assert found.conventions["groups"] == list("abcdefg")
    constant = np.concatenate([x, np.ones((700, 2))], axis=1)  # features that say nothing do no harm
    assert leakage(constant, codes)["accuracy"] > 0.8


X, GROUPS = planted(n=40)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leakage(X, np.zeros(40)), "a probe needs at least two groups"),
        (lambda: leakage(X, [*["a"] * 36, *["b"] * 4]), r"each group needs at least folds = 5 members, got {'a': 36, 'b': 4}"),
        (lambda: leakage(X, GROUPS, people=GROUPS), "folds = 5 people"),
        (lambda: leakage(X, [None, *GROUPS[1:]]), "groups hold 1 missing"),
        (lambda: leakage(X, GROUPS[:-1]), r"groups must be \(39,\)|groups must be \(40,\)"),
        (lambda: leakage(X * np.nan, GROUPS), "NaN"),
        (lambda: leakage(X * 0, GROUPS), "embeddings: 40 embeddings hold NaN or have length 0"),
        (lambda: leakage(X[:, 0], GROUPS), r"embeddings must be \(n, d\)"),
        (lambda: leakage(X, GROUPS, test=X), "need one another"),
        (lambda: leakage(X, GROUPS, test=X[:, 1:], test_groups=GROUPS), r"one width, got \(40, 12\) and test \(40, 11\)"),
        (lambda: leakage(X, GROUPS, test=X, test_groups=GROUPS + 1), "unknown test group 2; choose one of: 0, 1"),
        (lambda: leakage(X, GROUPS, test=X, test_groups=GROUPS, people=GROUPS), "either people or test"),
        (lambda: leakage(X, GROUPS, folds=1), "folds must be a whole number of at least 2"),
        (lambda: leakage(X, GROUPS, strength=0), "strength must be above 0, got 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
