import numpy as np
import pandas as pd
import pytest

from debias_utils.evaluate.compare import mean_interval
from debias_utils.evaluate.names import BEFORE, EDITORS, GRADIENT, INSTRUCT, STYLECLIP, TEXT
from debias_utils.evaluate.table import LINES, paper, summary, table1


@pytest.fixture
def rows():
    """Two editors x three methods x two seeds x five people x three occupations."""
    index = pd.MultiIndex.from_product(
        [EDITORS, [BEFORE, TEXT, GRADIENT], [0, 1], range(5), ["nurse", "plumber", "writer"]],
        names=["editor", "method", "seed", "person", "occupation"],
    )
    rng = np.random.default_rng(0)
    return pd.DataFrame({measure: rng.random(len(index)) for measure in LINES.values()}, index=index).reset_index()


def test_means_are_taken_over_the_occupations_of_each_person(rows):
    one = rows[rows["editor"] == STYLECLIP]
    found = summary(one, ["gender_shift"])
    block = one[(one["method"] == TEXT) & (one["seed"] == 1) & (one["person"] == 3)]
    assert found.loc[(TEXT, 1, 3), "gender_shift"] == pytest.approx(block["gender_shift"].mean())
    assert len(found) == 3 * 2 * 5


def test_table_1_has_the_paper_s_lines_and_columns(rows):
    found, printed = table1(rows), paper()
    keys = ["editor", "line", "method"]
    assert set(map(tuple, found[keys].to_numpy())) == set(map(tuple, printed[keys].to_numpy()))
    assert (found["n"] == 10).all()
    cell = found[(found["editor"] == INSTRUCT) & (found["line"] == "Profession") & (found["method"] == GRADIENT)].iloc[0]
    block = rows[(rows["editor"] == INSTRUCT) & (rows["method"] == GRADIENT)]
    mean, low, high = mean_interval(block.groupby(["seed", "person"])["occupation_score"].mean())
    assert tuple(cell[["mean", "low", "high"]]) == pytest.approx((mean, low, high))
    assert cell["mean"] == pytest.approx(block["occupation_score"].mean())


def test_the_interval_is_of_these_trainings():
    """Three trainings x 40 people, whose means differ by twice as much as people explain: what the docstring says."""
    rng, inside = np.random.default_rng(0), {"these": [], "all": []}
    for trial in range(500):
        training = rng.normal(0, np.sqrt(3 / 40), 3)
        values = np.concatenate([rng.normal(mean, 1, 40) for mean in training])
        _, low, high = mean_interval(values, repeats=200, seed=trial)
        inside["these"].append(low <= training.mean() <= high)
        inside["all"].append(low <= 0 <= high)
    assert np.mean(inside["these"]) >= 0.93
    assert np.mean(inside["all"]) == pytest.approx(0.70, abs=0.06)


def test_the_paper_s_order_as_printed():
    wide = paper().pivot(index=["editor", "line"], columns="method", values="mean")
    assert (wide[GRADIENT] < wide[BEFORE]).all()
    assert wide.loc[(STYLECLIP, "Race / skin"), TEXT] > wide.loc[(STYLECLIP, "Race / skin"), BEFORE]


def test_bad_input(rows):
    one = rows[rows["editor"] == STYLECLIP]
    with pytest.raises(ValueError, match="unknown measure 'height'"):
        summary(one, ["height"])
    with pytest.raises(ValueError, match="5 of 30 people of a method have no edit for the occupation 'nurse'"):
        summary(one[~((one["method"] == TEXT) & (one["seed"] == 0) & (one["occupation"] == "nurse"))], ["gender_shift"])
    with pytest.raises(ValueError, match=r"more than one edit of .*'Before'"):
        summary(pd.concat([one, one.head(1)]), ["gender_shift"])
    with pytest.raises(ValueError, match="1 of 90 values of 'age_shift' are NaN or infinite"):
        summary(one.assign(age_shift=np.where(one.index == one.index[4], np.nan, 0.5)), ["age_shift"])
    with pytest.raises(ValueError, match="unknown method 'Oracle'"):
        table1(rows, methods=["Oracle"])
