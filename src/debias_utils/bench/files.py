"""A reader's own embeddings: a folder of files becomes a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import check_choice
from .task import Task

LAYOUT = """the folder holds (every table as .npy, .csv or .parquet, a row of numbers for each embedding):
  images         (n, d) embeddings of pictures
  labels.csv     n rows with the column group; if known also target (a query's name) and split ("fit" or "test")
  queries        (q, d) embeddings of neutral queries; queries.txt has their names, one in each line
and if you have them, for the methods that need them:
  group_queries  (q * a, d), the queries with each class in their wording, a rows for each; group_queries.txt has the a classes
  sets           (s, d) embeddings of words; sets.txt has for each row the name of its set
  texts          (m, d) embeddings of texts; texts.txt has for each row the class that it speaks of
  captions       (n, d) embeddings of the pictures' captions"""
KINDS = (".npy", ".csv", ".parquet")
SPLITS = ("fit", "test")


def task(folder: Path, *, seed: int = 0) -> Task:
    """Read a folder, see `LAYOUT`. Without a column `split`, half of the pictures, drawn with `seed`, are fitted on.

    Raises:
        ValueError: a file is missing, is no table of numbers, or has another number of rows than it must; says which.
    """
    folder = Path(folder)
    images = _table(folder, "images")
    path = folder / "labels.csv"
    if not path.is_file():
        raise ValueError(f"there is no {path}; {LAYOUT}")
    labels = pd.read_csv(path, dtype=str)
    check_choice("column of labels.csv", "group", labels.columns)
    if len(labels) != len(images):
        raise ValueError(f"labels.csv has {len(labels)} rows for {len(images)} images")
    if "split" in labels:
        for value in labels["split"].unique():
            check_choice("split", value, SPLITS)
        fitted = (labels["split"] == "fit").to_numpy()
    else:
        fitted = np.random.default_rng(seed).permutation(len(labels)) < len(labels) // 2
    queries, names = _table(folder, "queries"), _names(folder, "queries")
    if len(names) != len(queries):
        raise ValueError(f"need a name for each query: {len(names)} and {len(queries)}")
    groups = labels["group"].to_numpy(object)
    fit: dict[str, Any] = {"images": images[fitted], "groups": groups[fitted], "queries": queries}
    more: dict[str, Any] = {}
    if "target" in labels:
        targets = labels["target"].to_numpy(object)
        for name in set(targets):
            check_choice("target", name, names)
        fit["targets"] = np.array([names.index(name) for name in targets[fitted]])
        more = {"targets": targets[~fitted], "task_images": images[~fitted], "task_groups": groups[~fitted]}
    if _there(folder, "group_queries"):
        asked, table = _names(folder, "group_queries"), _table(folder, "group_queries")
        if len(table) != len(queries) * len(asked):
            raise ValueError(f"group_queries has {len(table)} rows, and not {len(queries)} queries x {len(asked)} classes")
        fit["group_queries"] = table.reshape(len(queries), len(asked), -1)
        more |= {"group_queries": fit["group_queries"], "asked": asked}
    if _there(folder, "sets"):
        of = np.array(_names(folder, "sets", rows=len(_table(folder, "sets"))))
        fit["sets"] = [_table(folder, "sets")[of == name] for name in dict.fromkeys(of.tolist())]
    if _there(folder, "texts"):
        fit["texts"] = _table(folder, "texts")
        fit["text_groups"] = np.array(_names(folder, "texts", rows=len(fit["texts"])), object)
    if _there(folder, "captions"):
        fit["captions"] = _table(folder, "captions")[fitted]
    return Task(
        fit, images=images[~fitted], groups=groups[~fitted], queries=queries, names=names, **more, about={"folder": folder.name}
    )


def _there(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{kind}").is_file() for kind in KINDS)


def _table(folder: Path, name: str) -> np.ndarray:
    found = [folder / f"{name}{kind}" for kind in KINDS if (folder / f"{name}{kind}").is_file()]
    if len(found) != 1:
        raise ValueError(f"need one of {', '.join(f'{name}{kind}' for kind in KINDS)} in {folder}, found {len(found)}; {LAYOUT}")
    (path,) = found
    try:
        if path.suffix == ".npy":
            table = np.load(path, allow_pickle=False)
        else:
            table = (pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)).to_numpy(float)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no table of numbers: {error}") from error
    if table.ndim != 2:
        raise ValueError(f"{path} must hold rows of numbers, got shape {table.shape}")
    return table


def _names(folder: Path, name: str, *, rows: int | None = None) -> tuple[str, ...]:
    path = folder / f"{name}.txt"
    if not path.is_file():
        raise ValueError(f"there is no {path}; {LAYOUT}")
    lines = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    if rows is not None and len(lines) != rows:
        raise ValueError(f"{path} has {len(lines)} lines for {rows} rows")
    return lines
