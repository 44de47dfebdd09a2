"""Measure the packaged judges, generator and inverter by group, and write their card; called by `toonville.card`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .. import assets
from ..models.attributes import AttributeClassifier
from ..models.identity import IdentityEmbedder
from ..profiles import load_profile
from . import data
from . import people as _people
from .elements import TRAIT_CHANNELS
from .occupations import EVERYDAY, OCCUPATIONS

_TEXT = """# Model card: the judges and the generator of Toonville

*Written by `python -m debias_utils.toonville.card`, which measured every number of the tables.*

All four were trained on the balanced world by `python -m debias_utils.toonville.train`, each on its own 20,000 people, none of
whom is in a table below. They are for Toonville's drawings alone; a drawing's presentation, skin tone and age group are
drawing choices. Apache-2.0; the drawings contain a remix of "ToonHead" by Johan Melin, CC BY 4.0.

- **toonville-attributes** judges edits and is never optimised against. Four small convolutional stages, a softmax for each
  attribute, cross-entropy. {attributes_mb:.1f} MB.
- **toonville-identity** says who is in the picture, whatever they wear; a loss of the gradient-based method. Trained on the same
  face in two outfits against other faces (NT-Xent). {identity_mb:.1f} MB.
- **toonville-inverter** reads the drawn elements off a picture; its feature maps also make the perceptual distance.
  {inverter_mb:.1f} MB.
- **toonville-generator** is a StyleGAN2 that was told what to draw: L1 and perceptual distance. An item of an occupation is one
  style channel, {trait_channels} equal ones share the work of every other element. {generator_mb:.1f} MB.

## Attribute classifier: accuracy by group, n = {n:,}

{attributes}

No one can do better than the cues allow: see the ceilings for presentation and age in the chapter Meet Toonville.

## Identity embedder: verification by group, {pairs:,} pairs

The same person in two outfits, or two people of the same presentation and skin tone in two outfits, as often one as the other:
does the embedder tell? One threshold for all, chosen on half of the people, measured on the other half. *misses*: the same
person not recognised; *false matches*: two people taken for one.

{identity}

## Generator and inverter: what a redrawing keeps, n = {n:,}

How often the attribute classifier is right on the pictures, and on what the generator makes of them after inversion.

{redrawn}
"""


def groups_of(people: pd.DataFrame) -> dict[str, np.ndarray]:
    """{group: (n,) bool}: everyone, each presentation, each skin tone, each age group."""
    groups = {"all": np.ones(len(people), bool)}
    for column, names in (("gender", _people.GENDERS), ("skin", _people.SKIN_TONES), ("age", _people.AGES)):
        groups |= {name: (people[column] == name).to_numpy() for name in names}
    return groups


def right_answers(images: torch.Tensor, people: pd.DataFrame, judge: AttributeClassifier) -> dict[str, np.ndarray]:
    """{attribute: (n,) bool}: where the judge's answer is the truth."""
    return {name: seen == people[name].to_numpy() for name, seen in judge.labels(images).items()}


@torch.no_grad()
def verification(people: pd.DataFrame, identity: IdentityEmbedder, *, seed: int = 0) -> pd.DataFrame:
    """Who is recognised in other clothes, by group.

    Args:
        people: faces; each is drawn in two outfits.

    Returns:
        One row for each group of `groups_of`: accuracy, misses, false matches, as shares.
    """
    rng = np.random.default_rng([seed, 4])
    views = []
    for i in range(2):
        outfit = rng.choice([*OCCUPATIONS, EVERYDAY], len(people)).astype(object)
        images = data.to_tensor(data.pictures(_people.dress(people, outfit, seed=seed + i)))
        views.append(torch.cat([identity(part) for part in images.split(256)]))
    other = np.arange(len(people))
    for rows in people.groupby(["gender", "skin"]).indices.values():
        order = rng.permutation(rows)
        other[order] = np.roll(order, 1)  # nobody is compared with themselves
    same, different = ((views[0] * view).sum(dim=1).numpy() for view in (views[1], views[1][other]))
    half = rng.random(len(people)) < 0.5
    thresholds = np.sort(np.concatenate([same[half], different[half]]))
    threshold = thresholds[np.argmax([(same[half] >= t).mean() + (different[half] < t).mean() for t in thresholds])]
    rows = []
    for name, members in groups_of(people).items():
        tested = members & ~half
        misses, false = (same[tested] < threshold).mean(), (different[tested] >= threshold).mean()
        rows.append((name, int(tested.sum()), 1 - (misses + false) / 2, misses, false))
    return pd.DataFrame(rows, columns=["group", "people", "accuracy", "misses", "false matches"])


def by_group(right: dict[str, np.ndarray], people: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each attribute (columns) in each group (rows)."""
    groups = groups_of(people)
    return pd.DataFrame(
        [(name, *(hits[members].mean() for hits in right.values())) for name, members in groups.items()],
        columns=["group", *right],
    )


def write_card() -> str:
    """Write CARD_JUDGES.md beside the weights."""
    parts = load_profile("mini", device="cpu")
    people = parts.people()
    images = parts.portraits(people)
    redrawn = torch.cat([parts.draw(parts.invert(part)) for part in images.split(256)])
    on_pictures, on_redrawn = (right_answers(x, people, parts.attributes) for x in (images, redrawn))
    kept = by_group(on_redrawn, people)
    kept.insert(1, "occupation, of the pictures'", kept["occupation"] / by_group(on_pictures, people)["occupation"])
    verified = verification(people, parts.identity)
    size = {
        f"{name}_mb": (assets.WEIGHTS / f"toonville-{name}" / "model.safetensors").stat().st_size / 1e6
        for name in ("attributes", "identity", "inverter", "generator")
    }
    card = _TEXT.format(
        n=len(people),
        pairs=2 * int(verified["people"].iloc[0]),
        attributes=markdown(by_group(on_pictures, people)),
        identity=markdown(verified),
        redrawn=markdown(kept),
        trait_channels=TRAIT_CHANNELS,
        **size,
    )
    (assets.WEIGHTS / "CARD_JUDGES.md").write_text(card, "utf-8")
    return card


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, floats with three digits."""
    head = "| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns)
    rows = [
        "| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row) + " |" for row in table.itertuples(False)
    ]
    return "\n".join([head, *rows])
