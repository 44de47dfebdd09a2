"""Table 1 of Tanjim et al. 2024: a view of the rows, as the paper lays it out, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..discover.intervals import mean_interval
from ..errors import check_choice
from .names import BEFORE, GRADIENT, INSTRUCT, STYLECLIP, TEXT

COLUMNS = (BEFORE, TEXT, GRADIENT)
LINES = {"Gender": "gender_shift", "Race / skin": "skin_shift", "Age": "age_shift", "Profession": "occupation_score"}
PAPER = {  # as printed: RMSE (lower is better) and prediction score (higher is better); FFHQ for StyleCLIP
    STYLECLIP: [(0.3007, 0.2359, 0.1766), (0.1092, 0.1124, 0.0846), (0.1382, 0.1332, 0.0973), (0.2033, 0.1812, 0.1561)],
    INSTRUCT: [(0.3505, 0.2898, 0.1262), (0.1942, 0.1740, 0.1516), (0.1252, 0.1003, 0.0896), (0.3463, 0.1511, 0.2385)],
}


def summary(rows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Means over the occupations of each person, the unit of all intervals: (method, seed, person) -> measures.

    Raises:
        ValueError: an unknown measure, values that are not finite, or an occupation that some of the people lack: a mean over
            other occupations would be compared with it.
    """
    for measure in measures:
        check_choice("measure", measure, rows.columns)
        wrong = int((~np.isfinite(rows[measure].to_numpy(float))).sum())
        if wrong:
            raise ValueError(f"{wrong} of {len(rows)} values of {measure!r} are NaN or infinite")
    index = ["method", "seed", "person"]
    edits, jobs = rows.groupby([*index, "occupation"]).size(), rows["occupation"].unique()
    full = edits.unstack("occupation").reindex(columns=jobs)
    lacking = full.isna().sum()
    if lacking.any():
        job = lacking.idxmax()
        raise ValueError(f"{lacking[job]} of {len(full)} people of a method have no edit for the occupation {job!r}")
    if (edits > 1).any():
        raise ValueError(f"there is more than one edit of {dict(zip(edits.index.names, edits.idxmax(), strict=True))}")
    return rows.groupby(index, sort=False)[list(measures)].mean()


def table1(rows: pd.DataFrame, *, methods: Sequence[str] = COLUMNS, seed: int = 0) -> pd.DataFrame:
    """Means and 95 % intervals (`mean_interval`) over people, for every editor, line and method.

    Each training has people of its own, and the interval counts all of them alike. It is one of **these trainings**: where the
    means of three trainings differ by twice as much as the choice of people explains, it covers the mean over all possible
    trainings in 70 % of simulations. In the book's rows (profile mini) the gender shifts at rho = 0.9 differ between trainings by
    no more than people explain. StyleCLIP's gender shift at rho = 0 differs by twice as much, the skin shift of its text-based
    edits by four times, and the occupation scores of its cures by two to nine times. Three trainings are too few to widen an
    interval by: `discover.uncertainty.t_interval` of their means is what they can say about others.

    Args:
        rows: of `grid.rows`, one strength and variant for each editor and method. methods: the columns. seed: of the bootstrap.

    Returns:
        editor, line (of `LINES`), method, n (people), mean, low, high.

    Raises:
        ValueError: as `summary`; an unknown method.
    """
    found = []
    for editor, block in rows.groupby("editor", sort=False):
        people = summary(block, list(LINES.values()))
        for name, measure in LINES.items():
            for method in methods:
                check_choice("method", method, people.index.unique("method"))
                values = people.loc[method][measure]
                found.append((editor, name, method, len(values), *mean_interval(values, seed=seed)))
    return pd.DataFrame(found, columns=["editor", "line", "method", "n", "mean", "low", "high"])


def paper() -> pd.DataFrame:
    """The paper's own Table 1: editor, line, method, mean. Another world, other people, another judge."""
    lines = [
        (editor, name, method, value)
        for editor, block in PAPER.items()
        for name, values in zip(LINES, block, strict=True)
        for method, value in zip(COLUMNS, values, strict=True)
    ]
    return pd.DataFrame(lines, columns=["editor", "line", "method", "mean"])
