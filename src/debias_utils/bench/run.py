"""Fit each method on a task, measure what it leaves, and say which methods were left out and why."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..debiasers import METHODS
from ..discover.uncertainty import t_interval
from ..errors import check_choice
from ..evaluate.leakage import leakage
from ..measured import FlooredWarning
from ..metrics import (
    cosine_scores,
    equal_opportunity_gap,
    explicit_query_precision,
    max_skew_at_k,
    ndkl,
    random_floor,
    worst_group_accuracy,
    zero_shot,
    zero_shot_accuracy,
)
from .task import Task

ORIGINAL = "none"  # no debiasing
MEASURES = {  # column: what it is
    "max skew": "mean MaxSkew@k over the neutral queries, target: the pool; less is better",
    "excess max skew": "MaxSkew@k above that of random rankings; less is better",
    "NDKL": "mean NDKL@k over the neutral queries, target: the pool; less is better",
    "accuracy": "zero-shot accuracy of the task; more is better",
    "worst group": "accuracy of the group for which it is lowest; more is better",
    "equal opportunity gap": "mean over classes of the difference in recall between groups; less is better",
    "explicit": "share of the first k that show the class which a query names; more is better",
    "leakage": "balanced accuracy of a fresh linear probe on renormalised pictures; less is better",
}


def measured(task: Task, method: str, *, k: int = 100, seed: int = 0, probe: bool = True) -> dict[str, Any]:
    """Fit one method and measure it.

    Args:
        task: the data. method: a key of `METHODS`, or `ORIGINAL`. k: of the rankings, at most the number of pictures. probe:
            measure leakage, which takes longest.

    Returns:
        {"method", "seconds" of the fit, "left out": why, or ""} and the measures of `MEASURES`; NaN where a task has no data for
        one. A method is left out if the task lacks what it needs, or if it refuses the data.

    Raises:
        ValueError: an unknown method, k out of range.
    """
    check_choice("method", method, (ORIGINAL, *METHODS))
    row: dict[str, Any] = {"method": method, "seconds": 0.0, "left out": "", **dict.fromkeys(MEASURES, float("nan"))}
    model = None
    if method != ORIGINAL:
        kind = METHODS[method]
        lacking = [name for name in kind.NEEDS if name not in task.fit]
        if kind.PER_QUERY and task.group_queries is None:
            lacking.append("group_queries of the queries")
        if lacking:
            return row | {"left out": f"needs {', '.join(lacking)}"}
        given = {name: task.fit[name] for name in (*kind.NEEDS, *kind.OPTIONAL) if name in task.fit}
        start = time.perf_counter()
        try:
            model = kind().fit(**given)
        except ValueError as error:
            return row | {"left out": str(error)}
        row["seconds"] = time.perf_counter() - start
    try:
        return row | _scores(task, model, k=k, seed=seed, probe=probe)
    except ValueError as error:
        if model is None:
            raise
        return row | {"left out": str(error)}


def _scores(task: Task, model: Any, *, k: int, seed: int, probe: bool) -> dict[str, float]:
    def texts(x: np.ndarray, **more: Any) -> np.ndarray:
        if model is None:
            return x
        return np.asarray(model.transform_text(x, **(more if model.PER_QUERY else {})))

    def images(x: np.ndarray) -> np.ndarray:
        return x if model is None else np.asarray(model.transform_image(x))

    ranked = images(task.images)
    queries = texts(task.queries, group_queries=task.group_queries)
    found: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlooredWarning)
        scores = cosine_scores(ranked, queries)  # (q, n)
        found["max skew"] = float(np.mean(max_skew_at_k(scores, task.groups, k)))
        floor = random_floor(max_skew_at_k, task.groups, k=k, seed=seed)
        found["excess max skew"] = found["max skew"] - floor["mean"]
        found["NDKL"] = float(np.mean(ndkl(scores, task.groups, k=k)))
        if task.group_queries is not None:
            q, a, d = task.group_queries.shape
            explicit = task.group_queries.reshape(q * a, d)
            own = np.repeat(task.group_queries, a, axis=0)  # each explicit query's own family, (q * a, a, d)
            asked = np.tile(np.asarray(task.asked), q)
            named = cosine_scores(ranked, texts(explicit, group_queries=own))
            found["explicit"] = float(np.mean(explicit_query_precision(named, task.groups, k, asked=asked)))
    if task.targets is not None and task.task_images is not None:
        shown = cosine_scores(images(task.task_images), queries)
        predicted = zero_shot(shown, task.names)
        found["accuracy"] = float(zero_shot_accuracy(shown, task.targets, classes=task.names))
        found["worst group"] = float(worst_group_accuracy(predicted, task.targets, task.task_groups))
        found["equal opportunity gap"] = float(equal_opportunity_gap(predicted, task.targets, task.task_groups))
    if probe:
        found["leakage"] = float(leakage(ranked, task.groups, seed=seed)["balanced"])
    return found


def compute(cell: Mapping[str, Any], *, folder: str) -> pd.DataFrame:
    """The row of one cell of `run`, for the engine: task, its data (a folder in `folder`), method, k, seed, probe."""
    settings = {name: cell[name] for name in ("k", "seed", "probe")}
    row = measured(_task(str(Path(folder) / cell["data"])), cell["method"], **settings)
    return pd.DataFrame([{"task": cell["task"], "k": cell["k"], **row}])


@lru_cache(maxsize=4)  # a folder is named after what it holds, so none is ever stale
def _task(folder: str) -> Task:
    return Task.load(Path(folder))


def run(
    tasks: Mapping[str, Task],
    *,
    folder: Path,
    methods: Sequence[str] | None = None,
    k: int = 100,
    seed: int = 0,
    probe: bool = True,
    **engine: Any,
) -> pd.DataFrame:
    """A row for each task (such as a training of CLIP) and method. Kept in a folder: what is finished is not computed again.

    Args:
        tasks: {name: task}. folder: of this bench alone. methods: default, all, after the original embeddings. k, seed, probe:
            see `measured`. engine: as `evaluate.engine.sweep` takes them (engine="ray", workers=2, progress=False).

    Returns:
        Columns task, k, method, seconds, left out, and those of `MEASURES`.

    Raises:
        ValueError: no task, an unknown method, k out of range; as `engine.sweep`.
    """
    from ..evaluate.engine import sweep
    from ..evaluate.provenance import libraries

    methods = [ORIGINAL, *(METHODS if methods is None else methods)]
    if not tasks:
        raise ValueError("need at least one task")
    folder, settings = Path(folder), {"k": k, "seed": seed, "probe": probe}
    cells = []
    for name, task in tasks.items():
        data = task.digest()
        task.save(folder / "tasks" / data)
        cells += [{"task": name, "data": data, "method": method, **settings} for method in dict.fromkeys(methods)]
    about = {"code": _code(), "libraries": libraries()}
    rows = partial(compute, folder=str(folder / "tasks"))
    return sweep(cells, rows, folder=folder / "rows", description=about, name="bench", **engine)


def _code() -> str:
    """A hash of the module's code: rows of another version are not mixed with these."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def leaderboard(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the tasks, with Student's interval where there are several, grouped by what a method needs.

    Returns:
        A row for each method that was not left out everywhere: needs, method, towers, and for each measure its mean, and
        "... low" and "... high".
    """
    lines = []
    for method, block in rows[rows["left out"] == ""].groupby("method", sort=False):
        kind = METHODS.get(method)
        line: dict[str, Any] = {
            "needs": ", ".join(kind.NEEDS) if kind else "-",
            "method": method,
            "towers": " and ".join(kind.TOWERS) if kind else "-",
            "seconds": block["seconds"].mean(),
        }
        for name in MEASURES:
            values = block[name].to_numpy(float)
            values = values[np.isfinite(values)]
            if len(values) > 1:
                mean, low, high = t_interval(values)
            else:
                mean, low, high = (*values, *3 * [float("nan")])[:3]  # one training has no interval
            line |= {name: mean, f"{name} low": low, f"{name} high": high}
        lines.append(line)
    return pd.DataFrame(lines)
