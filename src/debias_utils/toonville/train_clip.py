"""Train the mini CLIPs of Toonville: ``python -m debias_utils.toonville.train`` (``make mini-models``).

One model takes at most ten minutes on two cores. The seed decides the world that is drawn, its captions, the initial
weights and the order of the batches.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import time
from pathlib import Path

import numpy as np

from .. import assets
from ..errors import check_unit_interval
from . import captions as _captions
from . import people as _people
from .data import CaptionedPeople

RHOS = (0.0, 0.5, 0.9)
SEEDS = (0, 1, 2)
SHIPPED = (*itertools.product(("rn",), RHOS, SEEDS), ("vit", 0.9, 0))  # (tower, rho, seed)
EVERYDAY_SHARE = 0.30
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


def train_clip(tower: str, rho: float, seed: int, *, people: int, steps: int, batch: int = 64, lr: float = 8e-4, out: Path):
    """Train one mini CLIP and save it in open_clip's own folder layout (config and safetensors).

    Args:
        tower: a key of `TOWERS`. rho: the dial in [0, 1]. seed: decides everything that is random.
        people: pictures in the training world. steps, batch, lr: AdamW steps, pairs a step, peak learning rate.
        out: the folder that holds the models.
    """
    import open_clip
    import torch
    from open_clip.loss import ClipLoss
    from safetensors.torch import save_file
    from tqdm import tqdm

    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 5])
    tokenize = open_clip.SimpleTokenizer(str(out / "toonville-bpe.txt.gz"), context_length=TEXT["context_length"])
    text = TEXT | {"vocab_size": tokenize.vocab_size}
    config = {"embed_dim": EMBED_DIM, "vision_cfg": TOWERS[tower], "text_cfg": text}
    model = open_clip.model.CLIP(**config).to(memory_format=torch.channels_last)
    data = CaptionedPeople(_people.sample(people, rho=rho, everyday=EVERYDAY_SHARE, seed=100 + seed), seed=seed)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [(decay, lr, 0.1), (rest, lr, 0.0), ([model.logit_scale], 10 * lr, 0.0)]  # the scale has a long way to go
    optimizer = torch.optim.AdamW([{"params": p, "lr": rate, "weight_decay": wd} for p, rate, wd in groups])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [rate for _, rate, _ in groups], total_steps=steps, pct_start=0.1)
    loss_function, start, order, epoch = ClipLoss(), time.perf_counter(), np.empty(0, int), 0
    model.train()
    for _ in (bar := tqdm(range(steps), desc=model_name(tower, rho, seed), mininterval=5)):
        if len(order) < batch:
            data.set_epoch(epoch)
            order, epoch = rng.permutation(len(data)), epoch + 1
        index, order = order[:batch], order[batch:]
        images, texts = data.batch(index)
        if rng.random() < 0.5:
            images = images.flip(-1)
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        loss = loss_function(*model(images, tokenize(texts)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    folder = out / model_name(tower, rho, seed)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "unfinished.part"  # renamed when whole
    half = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(half, unfinished)
    unfinished.replace(folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1) + "\n", "utf-8"
    )
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    """Train the models that the package ships, or those that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m debias_utils.toonville.train", description=__doc__)
    parser.add_argument("--tower", choices=sorted(TOWERS), nargs="+", help="default, with --rho and --seed: what is shipped")
    parser.add_argument("--rho", type=float, nargs="+")
    parser.add_argument("--seed", type=int, nargs="+")
    parser.add_argument("--people", type=int, default=10_000, help="pictures in the training world")
    parser.add_argument("--steps", type=int, default=1_400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--out", type=Path, default=assets.WEIGHTS)
    options = parser.parse_args(arguments)
    plan = SHIPPED
    if options.tower or options.rho or options.seed:
        plan = tuple(itertools.product(options.tower or ["rn"], options.rho or RHOS, options.seed or SEEDS))
    for _, rho, _ in plan:
        check_unit_interval("rho", rho)
    build_tokenizer(options.out / "toonville-bpe.txt.gz")
    for tower, rho, seed in plan:
        seconds = train_clip(
            tower, rho, seed, people=options.people, steps=options.steps, batch=options.batch, lr=options.lr, out=options.out
        )
        print(f"{model_name(tower, rho, seed)}: {seconds:.0f} s")


if __name__ == "__main__":
    main()
