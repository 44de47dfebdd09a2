"""What every embedding debiaser is: settings, what it needs, `fit`, `transform_text`, `transform_image`, `save` and `load`."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as packed

from .. import assets
from ..errors import check_choice
from ..tensors import at_least_float32, check_finite, floats, like

# The data that a method can ask `fit` for, and what each is. A table of methods prints these words.
DATA = {
    "images": "(n, d) embeddings of pictures",
    "groups": "(n,) the protected attribute's class of each picture",
    "targets": "(n,) the class that a task asks for of each picture, such as its occupation",
    "captions": "(n, d) embeddings of the pictures' captions, row by row",
    "counterfactuals": "(n, d) embeddings of the same captions with another class of the attribute in their wording",
    "caption_texts": "the pictures' n captions as texts",
    "texts": "(m, d) embeddings of texts that speak of people",
    "text_groups": "(m,) the protected attribute's class of each of these texts",
    "sets": "arrays (m_i, d): embeddings of texts that differ in the attribute alone, such as (woman, man)",
    "helpful_sets": "arrays (m_i, d): embeddings of texts that differ in what a task asks for, such as (wings, fins)",
    "queries": "(q, d) embeddings of neutral queries, such as occupations",
    "group_queries": "(q, a, d) embeddings of the same queries with each of the attribute's a classes put into the wording",
    "tower": "a CLIP model, whose text tower is used",
    "prompts": "q neutral queries as texts, for a method that reads their words",
}
_FILES = ("debiaser.json", "state.safetensors")
_FORMAT = 1
Self = TypeVar("Self", bound="Debiaser")


@dataclasses.dataclass(eq=False)
class Debiaser(ABC):
    """A way to take an attribute out of CLIP's embeddings.

    A method is a dataclass of its settings. What `fit` finds ends in an underscore and is listed in `STATE`.

    Class attributes:
        NAME: the method's short name, the key of `METHODS` in the package.
        SOURCE: paper and equation.
        NEEDS: what `fit` must be given, keys of `DATA`. OPTIONAL: what it can use.
        TOWERS: whose embeddings it changes, "text", "image" or both.
        TRAINED: whether `fit` runs an optimiser.
        PER_QUERY: whether `transform_text` needs the queries' own `group_queries`.
        WITH_TEXTS: what else `transform_text` must be given besides the embeddings, keys of `DATA`, of these very texts.
        STATE: names of the fitted arrays, each an attribute of that name plus "_".
    """

    NAME: ClassVar[str]
    SOURCE: ClassVar[str]
    NEEDS: ClassVar[tuple[str, ...]]
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    TOWERS: ClassVar[tuple[str, ...]]
    TRAINED: ClassVar[bool] = False
    PER_QUERY: ClassVar[bool] = False
    WITH_TEXTS: ClassVar[tuple[str, ...]] = ()
    STATE: ClassVar[tuple[str, ...]]

    @abstractmethod
    def fit(self: Self, **data: Any) -> Self:
        """Learn from data, which keyword arguments name as `DATA` does; more than the method needs may be given.

        Raises:
            ValueError: something that it needs is missing or malformed.
        """

    def transform_text(self, x: Any, **data: Any) -> Any:
        """Embeddings of texts, (n, d) or (d,), debiased: unit rows of the same shape, kind, dtype and device.

        A method that does not touch texts returns them at length 1.

        Raises:
            ValueError: not fitted, another width, NaN, a row of zeros, or nothing left of a row.
        """
        return self._transform("text", x, **data)

    def transform_image(self, x: Any, **data: Any) -> Any:
        """The same of pictures."""
        return self._transform("image", x, **data)

    def _transform(self, tower: str, x: Any, /, **data: Any) -> Any:
        state = self.state
        given = floats("x", x)
        if given.ndim not in (1, 2) or given.shape[-1] != self.width_:
            raise ValueError(f"{self.NAME} was fitted on embeddings of width {self.width_}, got x of shape {tuple(given.shape)}")
        check_finite("x", given)
        work = unit(torch.atleast_2d(at_least_float32(given)))
        if tower in self.TOWERS:
            tensors = {name: torch.as_tensor(value, device=work.device) for name, value in state.items()}
            tensors = {name: t.to(work.dtype) if t.is_floating_point() else t for name, t in tensors.items()}
            work = unit(self._apply(tower, work, tensors, **data))
        return like(x, work.reshape(given.shape).to(given.dtype))

    @abstractmethod
    def _apply(self, tower: str, x: torch.Tensor, state: dict[str, torch.Tensor], /, **data: Any) -> torch.Tensor:
        """The method itself: unit rows x (n, d) of a tower in `TOWERS`, float32 or more, to (n, d), which need not be unit.

        `state` holds the fitted arrays by their names in `STATE`, on x's device and in its precision. Differentiable in x.
        """

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The fitted arrays by their names in `STATE`. Raises ``ValueError`` before `fit`."""
        if not hasattr(self, "width_"):
            raise ValueError(f"{self.NAME} is not fitted: call fit first; it needs {', '.join(self.NEEDS)}")
        return {name: getattr(self, f"{name}_") for name in self.STATE}

    def _fitted(self: Self, width: int, **state: np.ndarray) -> Self:
        self.width_ = int(width)
        for name in self.STATE:
            setattr(self, f"{name}_", np.ascontiguousarray(state[name]))
        return self

    def save(self, folder: str | Path) -> Path:
        """Write `debiaser.json` (method, settings, width) and `state.safetensors` into a folder, which is made.

        Raises:
            ValueError: not fitted.
        """
        state = self.state
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"format": _FORMAT, "method": self.NAME, "width": self.width_, "settings": dataclasses.asdict(self)}
        assets.write_whole(folder / _FILES[1], lambda file: file.write(packed(state)))
        assets.write_whole(folder / _FILES[0], lambda file: file.write((json.dumps(about, indent=1) + "\n").encode()))
        return folder

    @classmethod
    def load(cls: type[Self], folder: str | Path) -> Self:
        """Read what `save` wrote, with the same settings.

        Raises:
            ValueError: no such files, a file that was altered or cut short, another method, or another version of the format.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _FILES[0]).read_text("utf-8"))
            state = load_file(folder / _FILES[1])
            method, version, width, settings = (about[key] for key in ("method", "format", "width", "settings"))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ValueError(f"{folder} holds no saved debiaser: {' and '.join(_FILES)} are needed, whole ({error})") from error
        if version != _FORMAT:
            raise ValueError(f"{folder} has format {version!r}, this version of the module reads {_FORMAT}")
        if method != cls.NAME:
            raise ValueError(f"{folder} holds the method {method!r}, not {cls.NAME!r}")
        fields = {field.name for field in dataclasses.fields(cls)}
        if set(settings) != fields or set(state) != set(cls.STATE):
            raise ValueError(
                f"{folder} does not hold what {cls.NAME} saves: settings {sorted(fields)}, arrays {sorted(cls.STATE)}"
            )
        return cls(**settings)._fitted(width, **state)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows at length 1. Raises ``ValueError`` if a row is zero or nothing but rounding (squares that vanish)."""
    length = x.norm(dim=-1, keepdim=True)
    if not (length > 1e-12).all():
        rows = (length[..., 0] <= 1e-12).nonzero().flatten().tolist()
        raise ValueError(f"rows of length 0 have no direction: {rows[:5]}{' and more' if len(rows) > 5 else ''} of {len(x)}")
    return x / length


def take(data: dict[str, Any], *, needs: tuple[str, ...], method: str) -> list[Any]:
    """The named data out of `fit`'s keyword arguments, embeddings as float64 unit rows and labels as arrays.

    Raises:
        ValueError: a name that is no key of `DATA`, missing data, no numbers, NaN, a row of zeros, embeddings of two widths,
            or labels that are missing or not one for each row.
    """
    for name in data:
        check_choice("data", name, DATA)
    missing = [name for name in needs if data.get(name) is None]
    if missing:
        raise ValueError(f"{method} needs {', '.join(f'{name}: {DATA[name]}' for name in missing)}")
    found = {name: _read(name, data[name]) for name in needs}
    widths = {name: _width(value) for name, value in found.items() if _width(value)}
    if len(set(widths.values())) > 1:
        raise ValueError(f"embeddings must have one width, got {widths}")
    for rows, labels in (
        ("images", ("groups", "targets", "captions", "counterfactuals", "caption_texts")),
        ("texts", ("text_groups",)),
    ):
        for name in labels:
            if name in found and rows in found and len(found[name]) != len(found[rows]):
                raise ValueError(f"need one of {name} for each of {rows}: {len(found[name])} and {len(found[rows])}")
    return [found[name] for name in needs]


def classes(name: str, labels: np.ndarray, *, at_least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The different labels in order, and the place of each row's among them, (n,).

    Raises:
        ValueError: a class with fewer members than `at_least`.
    """
    values, codes = np.unique(labels, return_inverse=True)
    size = np.bincount(codes)
    if (size < at_least).any():
        c = int((size < at_least).argmax())
        raise ValueError(f"each class of {name} needs at least {at_least} members, {values[c].item()!r} has {size[c]}")
    return values, codes


def _read(name: str, value: Any) -> Any:
    if name in ("tower", "prompts", "caption_texts"):
        return value
    if name in ("groups", "targets", "text_groups"):
        labels = np.asarray(value)
        if labels.ndim != 1 or not len(labels):
            raise ValueError(f"{name} must be labels (n,), n of at least 1, got shape {labels.shape}")
        absent = np.array([label is None or label != label for label in labels.tolist()])  # NaN differs from itself
        if absent.any():
            raise ValueError(f"{name} misses {absent.sum()} of {len(labels)} labels; the first is row {absent.argmax()}")
        if len(np.unique(labels)) < 2:
            raise ValueError(f"{name} must have at least two classes, got only {labels[0]!r}")
        return labels
    if name in ("sets", "helpful_sets"):
        return [_embeddings(f"set {i}", one, 2) for i, one in enumerate(value)]
    return _embeddings(name, value, 3 if name == "group_queries" else 2)


def _embeddings(name: str, value: Any, ndim: int) -> np.ndarray:
    x = floats(name, value)
    if x.ndim != ndim or not x.numel():
        raise ValueError(f"{name} must be embeddings {'(n, d)' if ndim == 2 else '(q, a, d)'}, got shape {tuple(x.shape)}")
    check_finite(name, x)
    rows: np.ndarray = unit(x.detach().cpu().double()).numpy()
    return rows


def _width(value: Any) -> int:
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        widths = {x.shape[-1] for x in value}
        if len(widths) > 1:
            raise ValueError(f"sets must have one width, got {sorted(widths)}")
        return widths.pop()
    return value.shape[-1] if isinstance(value, np.ndarray) and value.ndim > 1 else 0
