"""What a bench is run on: embeddings that methods are fitted on, and others that they are measured on. A folder of arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import assets
from ..arrays import floats, labels
from ..debiasers.base import DATA
from ..errors import check_choice

ARRAYS, NAMES = "task.npz", "task.json"


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that one training of CLIP gives a bench.

    Attributes:
        fit: what methods are fitted on, by the names of `debiasers.DATA`.
        images: (n, d) embeddings of the pictures that are ranked. groups: (n,) the protected attribute's class of each.
        queries: (q, d) neutral queries. names: (q,) what they ask for.
        group_queries: (q, a, d) the same queries with each of the a classes in their wording; None if there are none. asked: the
            a classes, in that order.
        targets: (m,) which of `names` each picture of a task shows; None without a task. task_images, task_groups: (m, d) and
            (m,), of these pictures.
    """

    fit: Mapping[str, Any]
    images: np.ndarray
    groups: np.ndarray
    queries: np.ndarray
    names: tuple[str, ...]
    group_queries: np.ndarray | None = None
    asked: tuple[str, ...] = ()
    targets: np.ndarray | None = None
    task_images: np.ndarray | None = None
    task_groups: np.ndarray | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.fit:
            check_choice("data", name, DATA)
        images, queries = floats("images", self.images), floats("queries", self.queries)
        if images.ndim != 2 or queries.ndim != 2 or images.shape[1] != queries.shape[1]:
            raise ValueError(f"need images (n, d) and queries (q, d) of one width, got {images.shape} and {queries.shape}")
        if len(self.names) != len(queries):
            raise ValueError(f"need a name for each query: {len(self.names)} and {len(queries)}")
        labels("groups", self.groups, n=len(images))
        if (self.targets is None) != (self.task_images is None) or (self.targets is None) != (self.task_groups is None):
            raise ValueError("a task needs targets, task_images and task_groups, all three of them")
        if self.targets is not None and self.task_images is not None:
            for name in labels("targets", self.targets, n=len(self.task_images))[0]:
                check_choice("target", name, self.names)
        shape = None if self.group_queries is None else np.shape(self.group_queries)
        if shape is not None and shape != (len(queries), len(self.asked), queries.shape[1]):
            raise ValueError(f"group_queries must be ({len(queries)}, {len(self.asked)}, {queries.shape[1]}), got {shape}")

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by their names in the file, such as "images" or "fit/sets/0000"; what is none ("tower") is left out."""
        single = [name for name in self.fit if name not in ("sets", "helpful_sets", "tower")]
        found = {f"fit/{name}": np.asarray(self.fit[name]) for name in single}
        for name in ("sets", "helpful_sets"):
            found |= {f"fit/{name}/{i:04d}": np.asarray(one) for i, one in enumerate(self.fit.get(name, ()))}
        for name in ("images", "groups", "queries", "group_queries", "targets", "task_images", "task_groups"):
            if getattr(self, name) is not None:
                found[name] = np.asarray(getattr(self, name))
        return {key: x.astype(str) if x.dtype == object else x for key, x in found.items()}  # labels as text: no pickles

    def words(self) -> str:
        """What is no array, as JSON."""
        return json.dumps({"names": list(self.names), "asked": list(self.asked), "about": dict(self.about)}, indent=1)

    def digest(self) -> str:
        """A hash, 16 hex digits, of all that is saved."""
        found = hashlib.sha256(self.words().encode())
        for name, x in sorted(self.arrays().items()):
            found.update(f"{name} {x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
        return found.hexdigest()[:16]

    def save(self, folder: Path) -> Path:
        """Write `task.npz` and `task.json` into a folder, for other processes."""
        folder, arrays = Path(folder), self.arrays()
        folder.mkdir(parents=True, exist_ok=True)
        # NumPy's annotation takes every keyword for allow_pickle, a bool
        assets.write_whole(folder / ARRAYS, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        assets.write_whole(folder / NAMES, lambda file: file.write(self.words().encode()))
        return folder

    @classmethod
    def load(cls, folder: Path) -> Task:
        """What `save` wrote.

        Raises:
            ValueError: a file is missing or broken.
        """
        folder = Path(folder)
        try:
            with np.load(folder / ARRAYS, allow_pickle=False) as packed:
                arrays = {name: packed[name] for name in packed.files}
            text = json.loads((folder / NAMES).read_text("utf-8"))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} holds no task: {ARRAYS} and {NAMES} are needed, whole ({error})") from error
        fit: dict[str, Any] = {}
        for key in sorted(key for key in arrays if key.startswith("fit/")):
            _, name, *several = key.split("/")
            if several:
                fit.setdefault(name, []).append(arrays[key])
            else:
                fit[name] = arrays[key]
        own = {name: value for name, value in arrays.items() if not name.startswith("fit/")}
        return cls(fit, **own, names=tuple(text["names"]), asked=tuple(text["asked"]), about=text["about"])
