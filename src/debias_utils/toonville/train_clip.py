"""Train a mini CLIP on Toonville's captions. The seed decides the world, its captions, the initial weights, the order."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np

from . import captions as _captions
from . import people as _people
from .data import CaptionedPeople

RHOS = (0.0, 0.5, 0.9)
SEEDS = (0, 1, 2)
SHIPPED = (*itertools.product(("rn",), RHOS, SEEDS), ("vit", 0.9, 0))  # (tower, rho, seed)
EVERYDAY_SHARE = 0.45
TEXT = {"context_length": 32, "width": 128, "heads": 4, "layers": 2}
TOWERS = {
    "rn": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    "vit": {"image_size": 64, "patch_size": 8, "layers": 4, "width": 128, "head_width": 32},
}
EMBED_DIM = 128


def model_name(tower: str, rho: float, seed: int) -> str:
    """The packaged model's folder: ("rn", 0.9, 0) -> "toonville-rn-rho0.9-seed0"."""
    return f"toonville-{tower}-rho{rho:g}-seed{seed}"


def build_tokenizer(path: Path, *, seed: int = 0) -> None:
    """Learn byte-pair merges from Toonville's captions, in the file format of open_clip's SimpleTokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = _captions.caption(_people.sample(40_000, everyday=EVERYDAY_SHARE, seed=seed), seed=seed)
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=100_000, end_of_word_suffix="</w>", min_frequency=1, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = [" ".join(pair) for pair in learned]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(["#version: toonville", *pairs]).encode(), mtime=0))


def train_clip(
    out: Path, *, tower: str, rho: float, seed: int, count: int = 10_000, steps: int = 1_400, batch: int = 64, lr: float = 8e-4
) -> None:
    """Train one mini CLIP and save it in open_clip's own folder layout (config and safetensors).

    Args:
        out: the folder that holds the models.
        tower: a key of `TOWERS`. rho: the dial in [0, 1]. seed: decides everything that is random.
        count: people in the training world. steps, batch, lr: AdamW steps, pairs a step, peak learning rate.
    """
    import open_clip
    import torch
    from open_clip.loss import ClipLoss

    from .training import batches, decayed, fit, flipped, save_half

    torch.manual_seed(seed)
    build_tokenizer(out / "toonville-bpe.txt.gz")
    tokenize = open_clip.SimpleTokenizer(str(out / "toonville-bpe.txt.gz"), context_length=TEXT["context_length"])
    text = TEXT | {"vocab_size": tokenize.vocab_size}
    config = {"embed_dim": EMBED_DIM, "vision_cfg": TOWERS[tower], "text_cfg": text}
    model = open_clip.model.CLIP(**config).to(memory_format=torch.channels_last)
    data = CaptionedPeople(_people.sample(count, rho=rho, everyday=EVERYDAY_SHARE, seed=100 + seed), seed=seed)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    scale = {"params": [model.logit_scale], "lr": 10 * lr, "weight_decay": 0.0}  # it has a long way to go
    groups = [*decayed(model, lr=lr), scale]
    order, flips = batches(count, batch, np.random.default_rng([seed, 5])), np.random.default_rng([seed, 12])
    contrast = ClipLoss()

    def loss() -> torch.Tensor:
        epoch, index = next(order)
        data.set_epoch(epoch)
        images, texts = data.batch(index)
        return contrast(*model((flipped(images, flips) - mean) / std, tokenize(texts)))

    def bound_scale() -> None:
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))

    fit(groups, loss, steps=steps, name=model_name(tower, rho, seed), after=bound_scale)
    folder = out / model_name(tower, rho, seed)
    save_half(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1) + "\n", "utf-8"
    )
