"""The rows behind the book's tables on InstructPix2Pix, computed and kept as those of `table` are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from .. import assets
from .instruct_study import GUIDANCE, LAST, RATE, SAMPLER_STEPS, STEPS, InstructStudy
from .study import BETAS, PROTECTED
from .table import BEFORE, GRADIENT, GRADIENT_TEXT, ORACLE, TEXT, oracle, path_of

if TYPE_CHECKING:
    from ..profiles import Profile

PEOPLE, GRADIENT_PEOPLE, CURVE_PEOPLE = 40, 12, 12  # in the table, of them optimised, and in the curves over the strength
FEWER_STEPS = 25  # of Adam, for the sake of time; what the paper's 50 change is measured on `VARIANT_PEOPLE`
VARIANT_PEOPLE, VARIANT = 3, f"{GRADIENT}: {STEPS} steps"
SCALES = (1.0, 3.0, GUIDANCE[0], 10.0)  # of the text
METHODS = (BEFORE, TEXT, GRADIENT, GRADIENT_TEXT, ORACLE)
SETTINGS = {
    "betas": BETAS, "curve_people": CURVE_PEOPLE, "gradient_people": GRADIENT_PEOPLE, "guidance": GUIDANCE, "last": LAST,
    "people": PEOPLE, "protected": PROTECTED, "rate": RATE, "sampler_steps": SAMPLER_STEPS, "scales": SCALES,
    "steps": (FEWER_STEPS, STEPS), "variant_people": VARIANT_PEOPLE,
}  # fmt: skip


def rows(parts: Profile, *, rho: float = 0.9, progress: bool = True) -> pd.DataFrame:
    """All edits of one editor: computed and kept if no run has done so before, which takes minutes.

    Args:
        parts: the profile. rho: which editor. progress: show bars.

    Returns:
        A row for each edited picture: the columns of `judge.judge`, and rho, method and scale (s_T). Methods are `METHODS` and,
        for some people, `VARIANT`; with rho = 0, the control, only "Before" and the oracle.

    Raises:
        OSError: the cache folder cannot be written.
    """
    path = path_of(parts, f"instructions-rho{rho:g}", SETTINGS)
    return assets.cached_table(path, lambda: compute(parts, rho=rho, progress=progress))


def compute(parts: Profile, *, rho: float, people: int = PEOPLE, progress: bool = True) -> pd.DataFrame:
    """The rows of one editor, computed now; see `rows`."""
    study = InstructStudy(parts, rho=rho, people=people)
    blocks = [oracle(study).assign(method=ORACLE, scale=np.nan)]
    conditions = {BEFORE: study.conditions}
    if rho > 0:
        conditions[TEXT] = study.debiased(study.subspace(*PROTECTED))
    grid = [(scale, method) for scale in SCALES for method in conditions]
    for scale, method in tqdm(grid, desc=f"instructions, rho {rho:g}", disable=not progress):
        count = people if scale == GUIDANCE[0] else min(people, CURVE_PEOPLE)
        edited = study.draw(conditions[method], people=count, guidance=(scale, GUIDANCE[1]), progress=progress)
        blocks.append(study.judge(edited).assign(method=method, scale=scale))
    count = min(people, GRADIENT_PEOPLE)
    for method, start in ((GRADIENT, BEFORE), (GRADIENT_TEXT, TEXT)) if rho > 0 else ():
        found, _ = study.gradient_based(conditions[start], people=count, steps=FEWER_STEPS, progress=progress)
        for scale in SCALES:  # found at one scale, drawn at all
            edited = study.draw(found, guidance=(scale, GUIDANCE[1]), people=count, progress=progress)
            blocks.append(study.judge(edited).assign(method=method, scale=scale))
    if rho > 0:
        count = min(people, VARIANT_PEOPLE)
        found, _ = study.gradient_based(study.conditions, people=count, progress=progress)
        edited = study.draw(found, people=count, progress=progress)
        blocks.append(study.judge(edited).assign(method=VARIANT, scale=GUIDANCE[0]))
    return pd.concat(blocks, ignore_index=True).assign(rho=rho)
