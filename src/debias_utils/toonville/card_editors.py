"""Measure the packaged InstructPix2Pix editors, and write their card; called by `toonville.card`."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F

from .. import assets
from ..evaluate.grid import PEOPLE
from ..evaluate.instruct_study import GUIDANCE, SAMPLER_STEPS, InstructStudy
from ..evaluate.judge import flips
from ..profiles import Profile, load_profile
from .card_judges import markdown
from .instructions import KEEPS
from .occupations import OCCUPATIONS
from .train_pix2pix import CAPTIONED, editor_name

_TEXT = """# Model card: the InstructPix2Pix editors of Toonville

*Written by `python -m debias_utils.toonville.card`, which measured every number of the tables.*

- **What.** Editors that follow an instruction, in diffusers' own classes and folders: a VAE (64 x 64 pictures to 16 x 16
  latents), the text tower of a mini CLIP, frozen, and a UNet of {parameters:.1f} million parameters that predicts v. `rho` in
  the name is the dial of the people in the training pairs and of the text tower's captions; rho0 is the control.
- **Trained on.** 12,000 pairs of pictures, before and after an instruction, both of the same person. The first {captioned:.0%} of
  the 8,000 steps are text to picture, from captions of the pictures after, as Stable Diffusion came before InstructPix2Pix.
  AdamW, 32 pairs a step, bfloat16; text, picture and both are left out for 5 % of the pairs each. One thread each: about 30
  minutes for a UNet, 11 for the VAE. A training that is interrupted goes on where it was.
- **For.** Teaching and testing. The editor with rho 0.9 is **biased on purpose**: by captions, and by who is asked for what.
- **Not for.** Anything about real people. A drawing's presentation, skin tone and age group are drawing choices.
- **Licence.** Apache-2.0. The drawings contain a remix of "ToonHead" by Johan Melin, CC BY 4.0.

## Edits, n = {n} people x {jobs} occupations

Guidance scales {guidance}, {steps} steps of DDIM. *occupation score*: the judge's probability of what was asked for. *kept*:
cosine of identity embeddings between a person and the edit that asks for nothing; *VAE alone*: the same for the latents, decoded
again. *towards*, *away*: share of those who do not (do) fit the gender coding of the occupation, and do (do not) after the edit.
*drawn stereotypical*: of {draws} pictures for each occupation from the text alone, with no picture, the share with the coded
presentation.

{table}
"""
DRAWS = 40


def measure(parts: Profile, rho: float) -> dict[str, object]:
    """The card's row of one editor."""
    study = InstructStudy(parts, rho=rho, people=PEOPLE)
    rows = study.judge(study.draw(study.conditions))
    originals = study.originals
    same = parts.identity(originals)
    kept = study.draw(study.model.encode_text(KEEPS[:1]))[0]
    with torch.no_grad():
        latents = study.model.encode_image(originals) * study.model.vae.config.scaling_factor
        again = study.model.decode(latents).clamp(0, 1)
    toward, away = flips(rows)
    folder = assets.WEIGHTS / editor_name(rho)
    return {
        "model": editor_name(rho),
        "MB": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        "occupation score": rows["occupation_score"].mean(),
        "kept": float(F.cosine_similarity(parts.identity(kept), same).mean()),
        "VAE alone": float(F.cosine_similarity(parts.identity(again), same).mean()),
        **{f"{name} shift": rows[f"{name}_shift"].mean() for name in ("gender", "skin", "age")},
        "towards": toward,
        "away": away,
        "drawn stereotypical": float(study.stereotypical(study.imagine(study.conditions, draws=DRAWS)).mean()),
    }


def write_card() -> str:
    """Write CARD_EDITORS.md beside the weights."""
    parts = load_profile("mini", device="cpu")
    unet = parts.editor().unet
    card = _TEXT.format(
        parameters=sum(p.numel() for p in unet.parameters()) / 1e6,
        captioned=CAPTIONED,
        n=PEOPLE,
        jobs=len(OCCUPATIONS),
        guidance=GUIDANCE,
        steps=SAMPLER_STEPS,
        draws=DRAWS,
        table=markdown(pd.DataFrame([measure(parts, rho) for rho in parts.editor_rhos])),
    )
    (assets.WEIGHTS / "CARD_EDITORS.md").write_text(card, "utf-8")
    return card
