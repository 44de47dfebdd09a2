"""How methods look in every figure, and their shift over the occupation score along the strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..arrays import floats
from ..errors import check_choice
from ..evaluate.names import BEFORE, GRADIENT, GRADIENT_TEXT, ORACLE, ORTHOGONAL, TEXT
from .figures import COLORS

LOOKS: Mapping[str, tuple[str, str]] = {  # color, and marker with line
    BEFORE: (COLORS["rho=0.9"], "o-"),
    TEXT: (COLORS["rho=0.5"], "s-"),
    GRADIENT: (COLORS["fits"], "^-"),
    GRADIENT_TEXT: (COLORS["counter"], "v--"),
    ORTHOGONAL: (COLORS["lighter"], "d-"),
}
ORACLE_LOOK: Mapping[str, Any] = {"marker": "*", "ms": 11, "color": "black", "ls": "none", "label": ORACLE}


def curves(means: pd.DataFrame, oracle: pd.Series, *, attributes: Sequence[str] = ("gender", "skin", "age")) -> Any:
    """A panel for each attribute: shift over occupation score, a line for each method of `LOOKS`, a star for the oracle.

    Args:
        means: index (method, strength), columns `occupation_score` and `{attribute}_shift`. oracle: the same columns.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: a column that is absent, a value that is missing: no line is drawn with a silent gap.
    """
    import matplotlib.pyplot as plt

    columns = ["occupation_score", *(f"{attribute}_shift" for attribute in attributes)]
    for column in columns:
        check_choice("column", column, means.columns)
        check_choice("column", column, oracle.index)
    methods = [method for method in LOOKS if method in means.index.unique("method")]
    for name, drawn in (("means", means.loc[methods, columns]), ("oracle", oracle[columns])):
        floats(name, drawn)
    fig, panels = plt.subplots(1, len(attributes), figsize=(3 * len(attributes), 3.4), sharex=True, squeeze=False)
    for panel, attribute in zip(panels[0], attributes, strict=True):
        shift = f"{attribute}_shift"
        for method in methods:
            color, look = LOOKS[method]
            line = means.loc[method].sort_index()
            panel.plot(line["occupation_score"], line[shift], look, color=color, label=method, ms=5)
        panel.plot(oracle["occupation_score"], oracle[shift], **ORACLE_LOOK)
        panel.set(title=attribute, xlabel="occupation score", ylim=(0, None))
    panels[0, 0].set_ylabel("shift")
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
