"""Do the ways to a channel's relevance agree, and what does each cost? Measured on the same pictures, in one run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .. import assets
from ..edit.relevance import channel_statistics, expected_gradient, finite_difference, gradient
from ..models.share import share_work
from .grid import folder_of
from .study import StyleClipStudy

if TYPE_CHECKING:
    from ..profiles import Profile

PUBLISHED, FIVE = "differences, 5 σ, published", "differences, 5 σ, not normalised"
SMALL = {step: f"differences, {step:g} σ" for step in (0.25, 0.5, 1.0, 2.0)}  # around the pictures' own styles
ONE = SMALL[1.0]
SWITCH, OTHERS = "switching each element", "differences, 5 σ, other pictures"
GRADIENT, ONE_TEXT, PROBES = "gradient", "gradient, one text", "gradient with probes"
EXPECTED, REGRESSION = "expected gradient", "regression"
PICTURES, MANY = 32, 256  # for differences and gradients; for the expected gradient
COPIES = (1, 4, 8, 16, 24)  # how many channels share the work of one element, see `shared`
Measured = tuple[str, int | None]  # a way, and how many channels share; None: as in the packaged generator
WAYS: tuple[Measured, ...] = (
    *((way, None) for way in (ONE_TEXT, GRADIENT, PROBES, EXPECTED, REGRESSION, *SMALL.values(), PUBLISHED, FIVE, OTHERS)),
    *((way, k) for k in COPIES for way in (GRADIENT, PROBES, ONE, PUBLISHED)),
    (SWITCH, 1),
)


def relevances(parts: Profile, *, pictures: int = PICTURES, many: int = MANY, progress: bool = True) -> pd.DataFrame:
    """Relevance of every style channel to every occupation, by every way: as released, see `prove`, or computed once and kept.

    Returns:
        Columns way, seconds (for all texts; of "gradient, one text" for one), occupation, channel, copies, relevance. Of
        channels that draw the same thing together, which are equal, the first is measured; `copies` tells how many there
        are. Channels that never change are left out: their relevance is 0.
    """
    from . import prove, release  # these need this module

    if release.holds(parts) and (pictures, many) == (PICTURES, MANY):
        prove.ensure(parts, "relevance", progress=progress)
        return release.read("relevance")
    return computed(parts, pictures=pictures, many=many, progress=progress)


def computed(parts: Profile, *, pictures: int = PICTURES, many: int = MANY, progress: bool = True) -> pd.DataFrame:
    """The table of `relevances`, computed now or by an earlier run."""
    path = path_of(parts, pictures=pictures, many=many)
    return assets.cached_table(path, lambda: compute(parts, pictures=pictures, many=many, progress=progress))


def path_of(parts: Profile, *, pictures: int = PICTURES, many: int = MANY) -> Path:
    """Where the table is kept: beside the folder of the rows on editing, with its own code in the name."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = folder_of(parts)
    return folder.with_name(f"{folder.name}-relevances-{code}-{pictures}-{many}.parquet")


def compute(
    parts: Profile,
    *,
    pictures: int = PICTURES,
    many: int = MANY,
    only: Sequence[Measured] | None = None,
    elements: Sequence[int] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of `relevances`, computed now.

    only: ways to measure, of `WAYS`; where channels share, one channel for each element must be among them. elements: of some
    elements alone, by their place among those that change.
    """
    from tqdm import tqdm

    study = StyleClipStudy(parts, people=1)
    statistics, deltas = study.statistics, study.deltas
    common = (parts.generator, study.clip.encode_image)
    same, others, more = study.styles[:pictures], study.styles[-pictures:], study.styles[:many]
    drawn, _ = pd.factorize(np.array(parts.channel_names()))  # (S,) what each channel draws, as numbers
    one = torch.from_numpy(~pd.Series(drawn).duplicated().to_numpy()).to(same.device) & (statistics.std > 0)
    if elements is not None:
        some = one.nonzero()[list(elements), 0]
        one = torch.zeros_like(one).index_fill(0, some, True)
    copies = np.bincount(drawn)[drawn[one.cpu().numpy()]]  # (e,) of the elements that change
    traits = copies > 1

    def differences(styles: torch.Tensor, **options: Any) -> torch.Tensor:
        return deltas @ finite_difference(*common, styles, statistics, channels=one, **options).T

    def around(step: float) -> torch.Tensor:
        return differences(same, step=step, around="sample", normalize=False)

    ways: dict[str, Callable[[], torch.Tensor]] = {
        ONE_TEXT: lambda: gradient(*common, same, statistics, deltas[:1]),
        GRADIENT: lambda: gradient(*common, same, statistics, deltas),
        PROBES: lambda: gradient(*common, same, statistics, deltas, probes=16),
        EXPECTED: lambda: expected_gradient(*common, more, statistics, deltas),
        REGRESSION: lambda: study.relevance(deltas),
        **{name: partial(around, step) for step, name in SMALL.items()},
        PUBLISHED: lambda: differences(same),
        FIVE: lambda: differences(same, normalize=False),
        OTHERS: lambda: differences(others, normalize=False),
    }
    todo: list[tuple[str, int | None, Callable[[], torch.Tensor]]] = [(way, None, measure) for way, measure in ways.items()]
    for k in COPIES:
        todo += [(way, k, measure) for way, measure in _ways_where_all_share(study, same, drawn, one, k).items()]
    todo = [(way, k, measure) for way, k, measure in todo if only is None or (way, k) in only]
    ways[ONE_TEXT]()  # warm up
    blocks: list[pd.DataFrame] = []
    uniform: dict[tuple[str, int], tuple[np.ndarray, float]] = {}

    def keep(way: str, values: np.ndarray, seconds: float, channels: np.ndarray) -> None:
        index = {"occupation": np.repeat(study.jobs[: len(values)], values.shape[1])}
        index |= {k: np.tile(v, len(values)) for k, v in (("channel", np.flatnonzero(one.cpu())), ("copies", channels))}
        blocks.append(pd.DataFrame({"way": way, "seconds": seconds, **index, "relevance": values.ravel()}))

    for way, k, measure in tqdm(todo, desc="relevance", unit="way", disable=not progress):
        begin = time.perf_counter()
        found = measure()  # (t, S), or (t, e) of the elements that change
        values = (found[:, one] if k is None else found).cpu().numpy()  # (t, e); a GPU has finished when it is there
        seconds = time.perf_counter() - begin
        if k is None or way == SWITCH:
            keep(way, values, seconds, copies)
        else:
            uniform[way, k] = values, seconds
    for (way, k), (values, seconds) in uniform.items():
        for items in (False, True):
            channels = np.where(traits | items, k, 1)
            keep(shared(way, k, items=items), np.where(channels == k, values, uniform[way, 1][0]), seconds, channels)
    return pd.concat(blocks, ignore_index=True)


def shared(way: str, copies: int, *, items: bool = False) -> str:
    """What `way` is called where `copies` channels share the work of each trait, or of everything.

    Traits are what several channels draw in the packaged generator, items what one channel draws.
    """
    return f"{way}; {copies} channel{'s' * (copies > 1)} for each {'element' if items else 'trait'}"


def _ways_where_all_share(
    study: StyleClipStudy, same: torch.Tensor, drawn: np.ndarray, one: torch.Tensor, copies: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways in question where `copies` channels share the work of each element, (t, e): of the first of them.

    The others are equal. Differences are measured, and timed, for that channel alone; gradients cover all. What a channel
    does by itself does not depend on how many share the work of another, so generators that share in other ways are put
    together from these.
    """
    first = study.parts.generator.style_sizes[0]
    common = (share_work(study.parts.generator, drawn[:first].tolist(), copies), study.clip.encode_image)
    work = pd.Series(drawn)
    index = np.concatenate([np.flatnonzero(~work[:first].duplicated()).repeat(copies), np.arange(first, len(work))])
    chosen = one[index] & torch.from_numpy(~pd.Series(index).duplicated().to_numpy()).to(one.device)
    statistics, styles, deltas = channel_statistics(study.styles[:, index]), same[:, index], study.deltas

    def differences(**options: Any) -> torch.Tensor:
        return (deltas @ finite_difference(*common, styles, statistics, channels=chosen, **options).T)[:, chosen]

    ways: dict[str, Callable[[], torch.Tensor]] = {
        GRADIENT: lambda: gradient(*common, styles, statistics, deltas)[:, chosen],
        PROBES: lambda: gradient(*common, styles, statistics, deltas, probes=16)[:, chosen],
        ONE: lambda: differences(step=1, around="sample", normalize=False),
        PUBLISHED: differences,
    }
    whole: dict[str, Callable[[], torch.Tensor]] = {SWITCH: lambda: differences(step=1e3, clamp=True, normalize=False)}
    return ways | whole if copies == 1 else ways


def spearman(
    table: pd.DataFrame, one: str, other: str, *, each_once: bool = False, of: Sequence[bool] | None = None
) -> np.ndarray:
    """Rank correlation of two ways over the channels, (occupations,).

    Args:
        table: of `relevances`. one, other: ways; how many channels draw an element is as for `one`.
        each_once: count each element once, however many channels draw it.
        of: (elements,) over which of them; default all.
    """
    from scipy.stats import spearmanr

    a, b = (_matrix(table, way) for way in (one, other))
    counts = np.ones(a.shape[1], int) if each_once else _first(table, one)["copies"].to_numpy()
    index = np.repeat(np.arange(a.shape[1]), counts if of is None else counts * np.asarray(of))
    return np.array([spearmanr(x[index], y[index]).statistic for x, y in zip(a, b, strict=True)])


def own_elements(table: pd.DataFrame, way: str, names: Sequence[str], *, count: int = 4) -> float:
    """How many of an occupation's elements are among its `count` most relevant elements, mean over occupations.

    Args:
        names: what each channel draws (`Profile.channel_names`), "headgear: nurse" for an element of the nurse's.
    """
    found = []
    for occupation, block in table[table["way"] == way].groupby("occupation"):
        top = block.nlargest(count, "relevance")["channel"]
        found.append(sum(names[channel].endswith(f": {occupation}") for channel in top))
    return float(np.mean(found))


def matrix(table: pd.DataFrame, way: str, *, names: Sequence[str]) -> torch.Tensor:
    """(occupations, S) relevance by one way, 0 for channels that never change, as `styleclip.direction` takes it.

    Args:
        names: what each of the S channels draws (`Profile.channel_names`); those of one name have the same relevance.
    """
    by_name = {names[channel]: column for column, channel in enumerate(_first(table, way)["channel"])}
    values = np.pad(_matrix(table, way), ((0, 0), (0, 1)))  # the last column is 0
    return torch.from_numpy(values[:, [by_name.get(name, -1) for name in names]]).float()


def _first(table: pd.DataFrame, way: str) -> pd.DataFrame:
    """What stands in the table of the first occupation: one row for each element."""
    block = table[table["way"] == way]
    return block[block["occupation"] == block["occupation"].iloc[0]]


def _matrix(table: pd.DataFrame, way: str) -> np.ndarray:
    block = table[table["way"] == way]
    return block["relevance"].to_numpy(copy=True).reshape(block["occupation"].nunique(), -1)
