import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from debias_utils.evaluate.names import BEFORE, GRADIENT_TEXT, ORACLE
from debias_utils.show import LOOKS, curves


def test_a_line_for_each_method_in_the_order_of_strength_and_the_oracle_as_the_bound():
    index = pd.MultiIndex.from_tuples(
        [(GRADIENT_TEXT, 1.0), (BEFORE, 2.0), (BEFORE, 1.0), ("Control", 1.0)], names=["method", "strength"]
    )
    columns = ["occupation_score", "gender_shift", "skin_shift"]
    means = pd.DataFrame(np.arange(12).reshape(4, 3) / 12, index=index, columns=columns)
    oracle = pd.Series([0.99, 0.01, 0.02], index=columns)
    fig = curves(means, oracle, attributes=("gender", "skin"))
    assert len(fig.axes) == 2
    lines = {line.get_label(): line for line in fig.axes[1].lines}
    assert list(lines) == [BEFORE, GRADIENT_TEXT, ORACLE]  # what has no look of its own is not drawn
    np.testing.assert_allclose(lines[BEFORE].get_xdata(), [6 / 12, 3 / 12])
    np.testing.assert_allclose(lines[BEFORE].get_ydata(), [8 / 12, 5 / 12])
    assert (lines[ORACLE].get_xdata()[0], lines[ORACLE].get_ydata()[0]) == (0.99, 0.02)
    assert lines[BEFORE].get_color() == LOOKS[BEFORE][0]
    plt.close(fig)


def test_no_gap_is_drawn_in_silence():
    columns = ["occupation_score", "gender_shift"]
    index = pd.MultiIndex.from_product([[BEFORE], [1.0, 2.0]], names=["method", "strength"])
    means, oracle = pd.DataFrame(0.5, index=index, columns=columns), pd.Series(0.5, index=columns)
    broken = means.copy()
    broken.iloc[1, 1] = np.nan
    with pytest.raises(ValueError, match="means hold 1 NaN, the first at row 1, column 1"):
        curves(broken, oracle, attributes=["gender"])
    with pytest.raises(ValueError, match="oracle holds 2 NaN"):
        curves(means, oracle * np.nan, attributes=["gender"])
    with pytest.raises(ValueError, match="unknown column 'age_shift'"):
        curves(means, oracle, attributes=["gender", "age"])
