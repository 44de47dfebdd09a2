"""Measure the packaged models and write their checksums and model cards: ``python -m debias_utils.toonville.card``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from .. import assets
from ..discover.ranking import indices, misranked
from ..models.clip import TOKENIZER, Clip
from . import card_editors, data
from . import people as _people
from .captions import AGE_WORDS, SKIN_WORDS
from .card_judges import markdown, write_card
from .occupations import OCCUPATIONS

_TEXT = """# Model card: the mini CLIPs of Toonville

*Written by `python -m debias_utils.toonville.card`, which measured every number of the table.*

- **What.** Small CLIP models (open_clip's own model class, configuration and file layout), trained from scratch on
  captioned drawings of Toonville (see its data sheet). `rn`: modified ResNet, `vit`: vision transformer with 8 x 8 patches;
  both with a two-layer text transformer and 128-dimensional embeddings. Weights are stored in half precision.
- **Trained on.** 10,000 drawn people (45 % of them in everyday clothes and balanced), with new captions in every epoch; a
  world drawn with the dial `rho` in the name. 1,400 steps of 64 pairs, AdamW, at most ten minutes on two CPU cores. The
  seed in the name decides the world, its captions, the initial weights and the order. The shipped weights were trained with
  one thread; another number of threads, or another processor, rounds differently and gives a model that is equal in kind, not
  in its last digits.
- **For.** Teaching and testing: to show, measure and remove bias where its cause and amount are known. The models with
  rho above 0 are **biased on purpose**.
- **Not for.** Anything about real people. A drawing's presentation, skin tone and age group are drawing choices.
- **Measured on.** {n:,} pictures of the balanced world (every occupation x presentation x skin tone equally often), which
  no model was trained on. *fits / neither*: people who fit both stereotypes of their occupation, or none of them. *counter
  share*: share of the counter-stereotypical presentation, or skin half, among R-precision misranks (0.5: no bias).
- **Known limits.** They read Toonville's words only; other words fall apart into letters. The presentation is read off
  the picture less well than the drawing allows (see the ceilings in the chapter Meet Toonville).
- **Trainings whose words *woman* and *man* do not match the pictures** (accuracy below 0.7): {failed}. The seeds
  were chosen beforehand and none was replaced. As a control for presentation such a training is weak.
- **Licence.** Apache-2.0. The drawings that they were trained on contain a remix of "ToonHead" by Johan Melin, CC BY 4.0.

{table}
"""


def measure(name: str, people: pd.DataFrame) -> dict[str, object]:
    """The card's numbers for one packaged model."""
    clip = Clip.load(name)
    images = np.concatenate(
        [
            clip.encode_image(data.to_tensor(batch)).numpy()
            for batch in np.array_split(data.pictures(people), len(people) // 256 + 1)
        ]
    )

    def zero_shot(words: list[str], labels: pd.Series, choices: list[str]) -> np.ndarray:
        return (images @ clip.encode_prompts(words).numpy().T).argmax(axis=1) == indices(labels, choices)

    jobs = list(OCCUPATIONS)
    scores = images @ clip.encode_prompts(jobs).numpy().T
    right = scores.argmax(axis=1) == indices(people["occupation"], jobs)
    missed = misranked(scores, indices(people["occupation"], jobs))
    gender_fits, skin_fits = people["gender_fits"].to_numpy(bool), people["skin_fits"].to_numpy(bool)
    weights = assets.WEIGHTS / name / "open_clip_model.safetensors"
    return {
        "model": name,
        "MB": round(weights.stat().st_size / 1e6, 2),
        "occupation": right.mean(),
        "fits / neither": f"{right[gender_fits & skin_fits].mean():.3f} / {right[~gender_fits & ~skin_fits].mean():.3f}",
        "presentation": zero_shot(["woman", "man"], people["gender"], list(_people.GENDERS)).mean(),
        "skin tone": zero_shot(
            [f"{SKIN_WORDS[s][0]} person" for s in _people.SKIN_TONES], people["skin"], list(_people.SKIN_TONES)
        ).mean(),
        "age": zero_shot([f"{AGE_WORDS[a][0]} person" for a in _people.AGES], people["age"], list(_people.AGES)).mean(),
        "misranks": int(missed.sum()),
        "counter share": f"{(~gender_fits)[missed].mean():.2f} / {(~skin_fits)[missed].mean():.2f}",
        "SHA-256 of the file": assets.sha256_of(weights)[:12],
    }


def write_manifest(root: Path = assets.WEIGHTS) -> None:
    """List the SHA-256 of every file that a model is loaded from."""
    found = sorted([*root.glob("*/**/*.safetensors"), *root.glob("*/**/*.json"), root / TOKENIZER])
    listed = {path.relative_to(root).as_posix(): assets.sha256_of(path) for path in found}
    (root / "manifest.json").write_text(json.dumps(listed, indent=1) + "\n", "utf-8")
    assets.manifest.cache_clear()


def main() -> None:
    """Write manifest.json, MODEL_CARD.md, CARD_JUDGES.md and CARD_EDITORS.md beside the weights."""
    write_manifest()
    print(write_card())
    print(card_editors.write_card())
    people = _people.add_stereotype(_people.balanced(_people.PER_CELL, seed=_people.EVALUATION_SEED))
    rows = [measure(file.parent.name, people) for file in sorted(assets.WEIGHTS.glob("*/open_clip_config.json"))]
    failed = ", ".join(str(row["model"]) for row in rows if float(str(row["presentation"])) < 0.7) or "none"
    card = _TEXT.format(n=len(people), failed=failed, table=markdown(pd.DataFrame(rows)))
    (assets.WEIGHTS / "MODEL_CARD.md").write_text(card, "utf-8")
    print(card)


if __name__ == "__main__":
    main()
