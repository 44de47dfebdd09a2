import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from debias_utils.evaluate.tradeoff import compare_curves, least_shift

unit = st.floats(0, 1).map(lambda v: round(v, 6))  # nearer scores are one to the walk below
curve = st.integers(1, 6).flatmap(lambda s: st.tuples(arrays(float, s, elements=unit), arrays(float, s, elements=unit)))


def test_between_two_strengths_the_curve_is_straight():
    found = least_shift([0.2, 0.6, 0.8], [0.1, 0.3, 0.5], [0.0, 0.2, 0.4, 0.7, 0.8, 0.9])
    np.testing.assert_allclose(found, [0.1, 0.1, 0.2, 0.4, 0.5, np.nan])


def test_the_best_edit_counts_at_whatever_strength():
    found = least_shift([0.2, 0.9, 0.5], [0.3, 0.4, 0.1], [0.1, 0.5, 0.7])  # too strong: less of everything
    np.testing.assert_allclose(found, [0.1, 0.1, 0.25])


@given(curve, arrays(float, 9, elements=unit))
def test_asking_for_more_never_gives_less(points, asked):
    asked = np.sort(asked)
    found = least_shift(*points, asked)
    reached = asked <= points[0].max()
    assert (np.isnan(found) == ~reached).all()
    assert (np.diff(found[reached]) >= -1e-9).all()
    assert (found[reached] >= points[1].min() - 1e-9).all()
    assert (found[reached] <= points[1].max() + 1e-9).all()


@given(curve, st.integers(2, 40))
def test_it_is_what_a_fine_walk_along_the_curve_finds(points, q):
    x, y = points
    if len(x) == 1:
        return
    t = np.union1d(np.linspace(0, len(x) - 1, 4001), np.arange(len(x)))
    walk = [np.interp(t, np.arange(len(x)), v) for v in (x, y)]
    asked = np.linspace(0, x.max(), q)
    by_walk = np.array([walk[1][walk[0] >= a - 1e-12].min() for a in asked])
    assert (least_shift(x, y, asked) <= by_walk + 1e-9).all()
    near = np.array([walk[1][walk[0] >= a - 1e-3].min() for a in asked])
    assert (least_shift(x, y, asked) >= near - 2e-3).all()


def test_many_curves_at_once_and_asked_of_each():
    rng = np.random.default_rng(0)
    x, y, asked = rng.random((3, 4, 5)), rng.random((3, 4, 5)), rng.random((3, 4, 7))
    each = [[least_shift(x[i, j], y[i, j], asked[i, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(least_shift(x, y, asked), each)


@pytest.fixture
def rows():
    """Before shifts by score; "less" is the same edit at half the strength; "better" shifts half as much at equal score."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [["before", "less", "better"], [0], range(30), [1.0, 2.0, 3.0], ["nurse", "writer"]],
        names=["method", "seed", "person", "strength", "occupation"],
    )
    table = pd.DataFrame(index=index).reset_index()
    factor = table["method"].map({"before": 1.0, "less": 0.6, "better": 1.0})
    table["occupation_score"] = 0.3 * table["strength"] * factor
    own = rng.normal(1, 0.1, 30)[table["person"]]
    table["gender_shift"] = table["occupation_score"] * own * table["method"].map({"before": 0.4, "less": 0.4, "better": 0.2})
    return table


def test_no_method_wins_by_editing_less(rows):
    found = compare_curves(rows, "gender_shift", "before").set_index("method")
    less, better = found.loc["less"], found.loc["better"]
    assert less["low"] - 1e-9 <= 0 <= less["high"] + 1e-9
    assert abs(less["difference"]) < 1e-9
    assert better["p"] < 0.001
    assert rows[rows["method"] == "less"]["gender_shift"].mean() < rows[rows["method"] == "before"]["gender_shift"].mean()
    assert better["high"] < 0
    assert better["difference"] == pytest.approx(-found.loc["before", "area"] / 2, rel=0.05)
    assert better["dominates"] == 1.0
    assert found.loc["before", "dominates"] == 0.0
    assert tuple(found.loc["before", ["difference", "low", "high", "p"]]) == (0, 0, 0, 1)  # itself
    assert less["p"] == 1  # no difference but rounding
    assert (found["from_score"].iloc[0], found["to_score"].iloc[0]) == pytest.approx((0.3, 0.54))


def test_a_difference_that_is_the_same_for_everybody_is_one(rows):
    rows["gender_shift"] = rows["method"].map({"before": 0.5, "less": 0.5, "better": 0.3})
    found = compare_curves(rows, "gender_shift", "before").set_index("method")
    assert found.loc["better", "difference"] == pytest.approx(-0.2)
    assert found.loc["better", "p"] < 0.001
    assert found.loc["better", "low"] < -0.2 < found.loc["better", "high"]  # thirty people, not all there are
    assert found.loc["less", "p"] == 1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Sixteen people, of whom a few shift much: as rare flips do."""
    rng = np.random.default_rng(1)

    def people(n):
        score = np.clip(np.array([0.3, 0.6, 0.9]) + rng.normal(0, 0.05, (n, 1)), 0, 1)
        flips = rng.random((n, 1)) < np.array([0.2, 0.3, 0.5])
        before = score * (0.05 + 0.6 * flips * rng.random((n, 3)))
        return {"before": (score, before), "cure": (score, before * rng.uniform(0.1, 0.9, (n, 1)))}

    def table(sample):
        n, blocks = len(sample["before"][0]), []
        for method, (score, shift) in sample.items():
            for i, strength in enumerate((1.0, 2.0, 3.0)):
                columns = {"occupation_score": score[:, i], "gender_shift": shift[:, i], "person": range(n)}
                blocks.append(pd.DataFrame(columns).assign(method=method, seed=0, strength=strength, occupation="nurse"))
        return pd.concat(blocks)

    truth = compare_curves(table(people(4000)), "gender_shift", "before", repeats=1).set_index("method").loc["cure", "difference"]
    found = [
        compare_curves(table(people(16)), "gender_shift", "before", repeats=1).set_index("method").loc["cure"] for _ in range(80)
    ]
    inside = np.mean([r["low"] <= truth <= r["high"] for r in found])
    assert inside >= 0.88


def test_rows_in_any_order_give_the_same(rows):
    mixed = rows.sample(frac=1, random_state=1)
    one, two = (compare_curves(t, "gender_shift", "before").set_index("method").sort_index() for t in (rows, mixed))
    pd.testing.assert_frame_equal(one, two)


def test_bad_input(rows):
    with pytest.raises(ValueError, match=r"need scores and shifts \(..., s\) alike"):
        least_shift([0.1, 0.2], [0.1], [0.1])
    with pytest.raises(ValueError, match="scores hold 1 NaN, the first at item 1"):
        least_shift([0.1, np.nan], [0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="unknown measure 'height'"):
        compare_curves(rows, "height", "before")
    with pytest.raises(ValueError, match="unknown method 'none'"):
        compare_curves(rows, "gender_shift", "none")
    with pytest.raises(ValueError, match="'better' lacks some of the people at strength 1: all methods need the same"):
        compare_curves(rows.drop(rows.index[(rows["method"] == "better") & (rows["person"] == 3)]), "gender_shift", "before")
    with pytest.raises(ValueError, match=r"'less' lacks \['nurse'\] at strength 1"):
        compare_curves(rows[(rows["method"] != "less") | (rows["occupation"] != "nurse")], "gender_shift", "before")
    with pytest.raises(ValueError, match="'less' has no strength, and so no curve"):
        compare_curves(rows.assign(strength=rows["strength"].where(rows["method"] != "less")), "gender_shift", "before")
    apart = rows.assign(occupation_score=rows["occupation_score"] + (rows["method"] == "better"))
    with pytest.raises(ValueError, match=r"share no occupation score: one begins at 1\.300"):
        compare_curves(apart, "gender_shift", "before")


@pytest.mark.parametrize("place", range(3))
def test_masked_and_infinite_points_are_refused(place):
    points = [[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]]
    name = ("scores", "shifts", "asked")[place]
    for bad, message in (
        (np.ma.masked_array([0.1, 99], mask=[0, 1]), "holds? 1 NaN, the first at item 1"),
        ([0.1, np.inf], "must be finite, got 1 infinite values, the first at item 1"),
    ):
        with pytest.raises(ValueError, match=f"{name} {message}"):
            least_shift(*points[:place], bad, *points[place + 1 :])
