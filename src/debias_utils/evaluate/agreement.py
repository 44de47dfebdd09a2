"""Do the ways to a channel's relevance agree, and what does each cost? Measured on the same pictures, in one run."""

from __future__ import annotations

import copy
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
from .grid import folder_of
from .study import StyleClipStudy

if TYPE_CHECKING:
    from ..models.stylegan2 import Generator
    from ..profiles import Profile

PUBLISHED, FIVE = "differences, 5 σ, published", "differences, 5 σ, not normalised"
SMALL = {step: f"differences, {step:g} σ" for step in (0.25, 0.5, 1.0, 2.0)}  # around the pictures' own styles
ONE = SMALL[1.0]
SWITCH, OTHERS = "switching each channel", "differences, 5 σ, other pictures"
GRADIENT, ONE_TEXT, PROBES = "gradient", "gradient, one text", "gradient with probes"
EXPECTED, REGRESSION = "expected gradient", "regression"
PICTURES, MANY = 32, 256  # for differences and gradients; for the expected gradient
COPIES = (2, 4, 8, 16)  # how many channels share the work of one, see `share_work`


def relevances(parts: Profile, *, pictures: int = PICTURES, many: int = MANY, progress: bool = True) -> pd.DataFrame:
    """Relevance of every style channel to every occupation, by every way; computed once, then read from the cache.

    Returns:
        Columns way, seconds (for all texts; of "gradient, one text" for one), occupation, channel, relevance. Channels that
        never change are left out: their relevance is 0.
    """
    path = path_of(parts, pictures=pictures, many=many)
    return assets.cached_table(path, lambda: compute(parts, pictures=pictures, many=many, progress=progress))


def path_of(parts: Profile, *, pictures: int = PICTURES, many: int = MANY) -> Path:
    """Where the table is kept: beside the folder of the rows on editing, with its own code in the name."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = folder_of(parts)
    return folder.with_name(f"{folder.name}-relevances-{code}-{pictures}-{many}.parquet")


def compute(parts: Profile, *, pictures: int, many: int, progress: bool = True) -> pd.DataFrame:
    """The table of `relevances`, computed now."""
    from tqdm import tqdm

    study = StyleClipStudy(parts, people=1)
    statistics, deltas = study.statistics, study.deltas
    common = (parts.generator, study.clip.encode_image)
    same, others, more = study.styles[:pictures], study.styles[-pictures:], study.styles[:many]
    live = statistics.std > 0

    def differences(styles: torch.Tensor, **options: Any) -> torch.Tensor:
        return deltas @ finite_difference(*common, styles, statistics, channels=live, **options).T

    ways: dict[str, Callable[[], torch.Tensor]] = {
        ONE_TEXT: lambda: gradient(*common, same, statistics, deltas[:1]),
        EXPECTED: lambda: expected_gradient(*common, more, statistics, deltas),
        REGRESSION: lambda: study.relevance(deltas),
        **{
            name: partial(differences, same, step=step, around="sample", normalize=False)
            for step, name in SMALL.items()
            if name != ONE
        },
        FIVE: lambda: differences(same, normalize=False),
        OTHERS: lambda: differences(others, normalize=False),
        SWITCH: lambda: differences(same, step=1e3, clamp=True, normalize=False),
    }
    for copies in (1, *COPIES):
        ways |= {shared(way, copies): measure for way, measure in _shared_ways(study, same, live, copies).items()}
    ways[ONE_TEXT]()  # warm up
    blocks = []
    for way, measure in tqdm(ways.items(), desc="relevance", unit="way", disable=not progress):
        begin = time.perf_counter()
        kept = measure()[:, live].cpu().numpy()  # (t, live); a GPU has finished when it is there
        seconds = time.perf_counter() - begin
        blocks.append(
            pd.DataFrame(
                {
                    "way": way,
                    "seconds": seconds,
                    "occupation": np.repeat(study.jobs[: len(kept)], kept.shape[1]),
                    "channel": np.tile(live.nonzero()[:, 0].cpu().numpy(), len(kept)),
                    "relevance": kept.ravel(),
                }
            )
        )
    return pd.concat(blocks, ignore_index=True)


def shared(way: str, copies: int) -> str:
    """What `way` is called where several channels share the work of one."""
    return way if copies == 1 else f"{way}; {copies} channels for one"


def share_work(generator: Generator, copies: int) -> Generator:
    """A generator of the same pictures in which `copies` equal channels do the work of each that enters the first layer.

    The constant and its kernels are divided by sqrt(copies). As long as all copies have the same style, convolution and
    demodulation give what they gave; a copy that moves by itself moves the convolution by one part in `copies`, and the
    demodulation by somewhat more where the step is large.

    Returns:
        A generator whose first style is that of `generator`, each channel repeated `copies` times.
    """
    finer: Any = copy.deepcopy(generator)
    first = finer.synthesis.b4
    layer = first.conv1
    for module, name, dim, share in (
        (first, "const", 0, copies**-0.5), (layer, "weight", 1, copies**-0.5), (layer.affine, "weight", 0, 1.0),
        (layer.affine, "bias", 0, 1.0),
    ):  # fmt: skip
        weight = getattr(module, name).detach().repeat_interleave(copies, dim) * share
        setattr(module, name, torch.nn.Parameter(weight, requires_grad=False))
    finer.style_sizes[0] *= copies  # the list is the synthesis network's as well
    return finer


def _shared_ways(
    study: StyleClipStudy, same: torch.Tensor, live: torch.Tensor, copies: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways in question where copies share the work, each (t, S): of the first copy, for all are equal.

    Differences are measured, and timed, for that copy alone: all would take `copies` times as long. Gradients cover all.
    """
    common, first = (share_work(study.parts.generator, copies), study.clip.encode_image), study.parts.generator.style_sizes[0]

    def repeat(styles: torch.Tensor) -> torch.Tensor:
        return torch.cat([styles[:, :first].repeat_interleave(copies, dim=1), styles[:, first:]], dim=1)

    index = repeat(torch.arange(len(live), device=same.device)[None])[0]
    one = torch.ones_like(index, dtype=torch.bool)
    one[1:] = index[1:] != index[:-1]  # the first copy of each
    statistics, styles, deltas = channel_statistics(repeat(study.styles)), repeat(same), study.deltas

    def differences(**options: Any) -> torch.Tensor:
        return (deltas @ finite_difference(*common, styles, statistics, channels=one & live[index], **options).T)[:, one]

    return {
        GRADIENT: lambda: gradient(*common, styles, statistics, deltas)[:, one],
        PROBES: lambda: gradient(*common, styles, statistics, deltas, probes=16)[:, one],
        ONE: lambda: differences(step=1, around="sample", normalize=False),
        PUBLISHED: differences,
    }


def spearman(table: pd.DataFrame, one: str, other: str) -> np.ndarray:
    """Rank correlation of two ways over the channels, (occupations,)."""
    from scipy.stats import spearmanr

    a, b = (_matrix(table, way) for way in (one, other))
    return np.array([spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])


def own_elements(table: pd.DataFrame, way: str, names: Sequence[str], *, count: int = 4) -> float:
    """How many of an occupation's elements are among its `count` most relevant channels, mean over occupations.

    Args:
        names: what each channel draws (`Profile.channel_names`), "headgear: nurse" for an element of the nurse's.
    """
    found = []
    for occupation, block in table[table["way"] == way].groupby("occupation"):
        top = block.nlargest(count, "relevance")["channel"]
        found.append(sum(names[channel].endswith(f": {occupation}") for channel in top))
    return float(np.mean(found))


def matrix(table: pd.DataFrame, way: str, *, channels: int) -> torch.Tensor:
    """(occupations, channels) relevance by one way, 0 for channels that never change, as `styleclip.direction` takes it."""
    block = table[table["way"] == way]
    full = torch.zeros(block["occupation"].nunique(), channels)
    full[:, torch.as_tensor(block["channel"].unique().tolist())] = torch.from_numpy(_matrix(table, way)).float()
    return full


def _matrix(table: pd.DataFrame, way: str) -> np.ndarray:
    block = table[table["way"] == way]
    return block["relevance"].to_numpy(copy=True).reshape(block["occupation"].nunique(), -1)
