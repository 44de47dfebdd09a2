"""Train the packaged models of Toonville anew: ``python -m debias_utils.toonville.train`` (``make mini-models``).

Every model is trained by itself, with its own seed: any of them can be left out, but for what others are made of. The
generator and the VAE need the inverter, whose feature maps make the perceptual distance; an editor needs the VAE and a mini
CLIP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .. import assets
from . import train_clip, train_editor, train_judges, train_pix2pix, train_vae

MODELS: dict[str, Callable[..., None]] = {
    "toonville-inverter": train_editor.train_inverter,
    "toonville-generator": train_editor.train_generator,
    "toonville-attributes": train_judges.train_attributes,
    "toonville-identity": train_judges.train_identity,
    **{
        train_clip.model_name(tower, rho, seed): partial(train_clip.train_clip, tower=tower, rho=rho, seed=seed)
        for tower, rho, seed in train_clip.SHIPPED
    },
    "toonville-vae": train_vae.train_vae,
    **{train_pix2pix.editor_name(rho): partial(train_pix2pix.train_pix2pix, rho=rho) for rho in train_pix2pix.RHOS},
}


def main(arguments: list[str] | None = None) -> None:
    """Train all packaged models, or those that were named."""
    parser = argparse.ArgumentParser(prog="python -m debias_utils.toonville.train", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all of " + ", ".join(MODELS))
    for name, meaning in (("count", "people in the training world"), ("steps", "of the optimiser"), ("batch", "people a step")):
        parser.add_argument(f"--{name}", type=int, help=f"{meaning}; default: each model's own")
    parser.add_argument("--out", type=Path, default=assets.WEIGHTS, help="folder of the models")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.models if name not in MODELS]:
        parser.error(f"unknown model {unknown[0]!r}; choose out of {', '.join(MODELS)}")
    given = {name: value for name in ("count", "steps", "batch") if (value := getattr(options, name)) is not None}
    for name in options.models or MODELS:
        start = time.perf_counter()
        MODELS[name](options.out, **given)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
