import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from debias_utils.evaluate.compare import compare, holm, mean_interval, sign_flip_test


def test_sign_flips_by_hand():
    x = np.array([1.0, 2.0, -0.5, 3.0])
    means = [np.dot(signs, x) / 4 for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip_test(x) == pytest.approx(np.mean(np.abs(means) >= abs(x.mean()) - 1e-12))
    assert sign_flip_test(np.ones(12)) == pytest.approx(2 / 2**12)
    assert sign_flip_test(np.full(12, 1e-17)) == 1  # rounding


def test_level_of_the_test_where_nothing_differs():
    rng = np.random.default_rng(5)
    claims = [sign_flip_test(rng.standard_normal(40) ** 3, repeats=499, seed=i) < 0.05 for i in range(1500)]
    assert np.mean(claims) <= 0.06


def test_holm_by_hand_and_its_family_wise_level():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0
    p = np.random.default_rng(2).random((4000, 8))
    assert np.mean([(holm(row) < 0.05).any() for row in p]) == pytest.approx(0.05, abs=0.012)


def people(**means):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, 40)  # of the person, the same for every method
    blocks = [
        pd.DataFrame(
            {"method": name, "seed": 0, "person": range(40), "shift": mean + noise + rng.normal(0, 0.02, 40), "score": 0.5}
        )
        for name, mean in means.items()
    ]
    return pd.concat(blocks).set_index(["method", "seed", "person"])


def test_differences_are_paired_over_people():
    found = compare(people(before=0.3, cure=0.25), [("cure", "before")], ["shift", "score"]).set_index("measure")
    assert found.loc["shift", "n"] == 40
    assert found.loc["shift", "low"] < -0.05 < found.loc["shift", "high"] < -0.03  # far less than the people differ
    assert found.loc["shift", "p_holm"] == pytest.approx(2 * found.loc["shift", "p"])
    unseen = 1 - 0.025 ** (1 / 40)  # no difference was seen, which does not prove that there is none
    assert tuple(found.loc["score", ["difference", "low", "high", "p"]]) == pytest.approx((0, -unseen, unseen, 1))
    few = people(before=0.3, cure=0.25).query("method == 'before' or person < 12")
    assert compare(few, [("cure", "before")], ["shift"])["n"].tolist() == [12]


@pytest.mark.parametrize("flips", [1, 2, 3])
def test_a_few_flips_are_no_difference_by_interval_and_test(flips):
    table = people(before=0, cure=0)
    table["flip"] = 0.0
    table.loc[("cure", 0, 0) : ("cure", 0, flips - 1), "flip"] = 1
    r = compare(table, [("cure", "before")], ["flip"]).iloc[0]
    assert r["low"] < 0 < r["difference"] < r["high"]
    assert r["p"] == pytest.approx(2 / 2**flips, abs=0.02)


def test_mean_interval_is_the_one_of_the_book():
    from debias_utils.discover import intervals

    assert mean_interval is intervals.mean_interval


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), r"need at least 2 finite values \(n,\), got shape \(1,\)"),
        (lambda: sign_flip_test([1.0, np.nan]), "with 1 not finite"),
        (lambda: holm([0.1, np.nan, None]), r"p-values \(m,\) hold 2 NaN, the first at 1"),
        (
            lambda: compare(pd.concat([people(a=0, b=0)] * 2), [("a", "b")], ["shift"]),
            "'a', 'seed': '0', 'person': '0'} more than once",
        ),
        (lambda: holm([0.1, 1.2]), r"need p-values \(m,\) in \[0, 1\], got \[0.1, 1.2\]"),
        (lambda: compare(people(a=0), [("a", "b")], ["shift"]), "unknown method 'b'; choose one of: 'a'"),
        (
            lambda: compare(people(a=0, b=0), [("a", "b")], ["height"]),
            "unknown measure 'height'; choose one of: 'shift', 'score'",
        ),
        (
            lambda: compare(people(a=0, b=0).query("(method == 'a') == (person < 5)"), [("a", "b")], ["shift"]),
            "'a' and 'b' have nobody in common",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rounding_of_float32_is_no_difference():
    y = np.random.default_rng(0).random(40)
    x = y + 1e-8 * np.random.default_rng(1).random(40)  # all of one sign
    assert sign_flip_test(x - y) == 1
    assert sign_flip_test(1000 * np.ones(12) + 1e-3) == pytest.approx(2 / 2**12)


def test_masks_and_half_precision_at_the_door():
    masked = np.ma.masked_array([0.01, 0.02, 0.9], mask=[0, 0, 1])
    with pytest.raises(ValueError, match="1 not finite, the first at 2"):
        sign_flip_test(masked)
    with pytest.raises(ValueError, match="hold 1 NaN, the first at 2"):
        holm(masked)
    found = torch.tensor([0.25, 0.5], dtype=torch.bfloat16, requires_grad=True)
    assert holm(found).tolist() == [0.5, 0.5]
    assert sign_flip_test(found) == 0.5


def test_a_missing_measure_is_named():
    table = people(a=0, b=0.1).astype({"shift": "Float64"})
    table.iloc[3, 0] = pd.NA
    with pytest.raises(ValueError, match="1 not finite, the first at 3"):
        compare(table, [("a", "b")], ["shift"])
