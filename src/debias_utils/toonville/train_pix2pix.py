"""Train the mini editor of Toonville: an InstructPix2Pix (Brooks et al. 2023) of diffusers' own parts.

    toonville-inverter --> toonville-vae        one for all editors
    toonville-rn-rho*  --> text tower           frozen, with what the captions of that dial taught it
    pairs(rho)         --> UNet                 the only part that is trained here: text to picture first, then to edit

Brooks et al. start from Stable Diffusion, which has learned from captions what people of an occupation look like. So does this
UNet: for the first `CAPTIONED` of its steps it sees captions of the pictures after, and no picture before. Afterwards it sees
pairs alone, in which both pictures show one person. How long it does decides how much of the stereotype is left, see `CAPTIONED`.

What a step draws depends on the seed and the number of the step alone, so that a training which was killed goes on as if
nothing had happened: start it again with the same options.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import assets
from . import data
from .captions import caption
from .instructions import Pairs, pairs
from .train_clip import model_name
from .train_vae import LATENT

CHANNELS = (48, 96, 128)  # of the UNet at 16, 8 and 4 latent pixels
# Of the steps. With a dial of 0.9, 500 steps on pairs give edits whose presentation flips in 39 %, 1,000 in 27 % and 2,000 in 7 %
# (control: 21, 6 and 0 %), while identity rises from .37 to .62 and .77 (16 people x 14 occupations, scales 7.5 and 1.5).
CAPTIONED = 0.75
DROPPED = 0.05  # of the pairs lose the text, as many the picture, as many both (Brooks et al. 2023, section 3.2)
EMA = 0.999
WARM_UP = 500  # steps
SNAPSHOT = 500  # steps; a checkpoint is written that often
RHOS = (0.0, 0.9)
VAE_FILE, CLIP_FILE = "diffusion_pytorch_model.safetensors", "open_clip_model.safetensors"


def editor_name(rho: float) -> str:
    """The packaged editor's folder: 0.9 -> "toonville-pix2pix-rho0.9"."""
    return f"toonville-pix2pix-rho{rho:g}"


def new_unet(*, width: int) -> Any:
    """An untrained UNet that reads texts at its lowest resolution, where an outfit is one thing. width: of a token's state."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=2 * LATENT,
        out_channels=LATENT,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=4,  # heads, in spite of its name
        cross_attention_dim=width,
        norm_num_groups=16,
    )


def new_scheduler() -> Any:
    """Stable Diffusion's training schedule, sampled by DDIM (Song et al. 2021) from its very end; the UNet predicts v.

    v (Salimans and Ho 2022) rather than the noise: where the latent is all noise, the picture is all that is to be said.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing",
        prediction_type="v_prediction",
    )  # fmt: skip


def drop(chance: Any) -> tuple[Any, Any]:
    """Which rows lose the text, and which the picture: `DROPPED` of them one, as many the other, as many both.

    Args:
        chance: (n,) tensor, uniform in [0, 1).

    Returns:
        Two (n,) bool tensors.
    """
    return (chance < 2 * DROPPED), (chance >= DROPPED) & (chance < 3 * DROPPED)


def train_pix2pix(
    out: Path, *, rho: float, count: int = 12_000, steps: int = 8_000, batch: int = 32, lr: float = 1e-3, seed: int = 0
) -> None:
    """Train one editor and save it as a folder of diffusers, in half precision.

    AdamW on the squared error of v; linear warm-up, then cosine decay to a quarter of the peak; the running mean of the weights
    is kept. The VAE and the text tower are read from `out`: train "toonville-vae" and the mini CLIP of the same dial and
    seed 0 first.

    Args:
        out: the folder that holds the models. While it trains, <name>/training.safetensors has what it needs to go on.
        rho: the dial of the pairs and of the text tower's captions. seed: decides the pairs and the training.
        count: pairs. steps, batch, lr: AdamW steps, pairs a step, peak learning rate.

    Raises:
        ValueError: a training with other options, or of other parts, was interrupted in that folder.
    """
    import torch
    from diffusers import AutoencoderKL
    from tqdm import tqdm

    from ..models.loading import check_loaded
    from .text_tower import text_tower
    from .training import Checkpoint, decayed

    name, clip = editor_name(rho), out / model_name("rn", rho, 0)
    vae = AutoencoderKL.from_pretrained(out / "toonville-vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    check_loaded(vae, out / "toonville-vae", reader="diffusers")
    vae.eval().requires_grad_(False)
    encoder, tokenizer = text_tower(clip, out / "toonville-bpe.txt.gz")
    torch.manual_seed(seed)
    unet, scheduler = new_unet(width=encoder.config.hidden_size), new_scheduler()
    average = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(decayed(unet, lr=lr, decay=0.01), fused=True)
    settings = {"rho": rho, "count": count, "steps": steps, "batch": batch, "lr": lr, "seed": seed, "captioned": CAPTIONED}
    made_of = [assets.sha256_of(folder / file) for folder, file in ((out / "toonville-vae", VAE_FILE), (clip, CLIP_FILE))]
    checkpoint = Checkpoint(out / name / "training.safetensors", unet, average, optimizer, settings={**settings, "of": made_of})
    done = checkpoint.resume()  # before the pictures are drawn, which takes minutes: it may refuse
    lessons = _lessons(pairs(count, rho=rho, seed=900 + seed), vae, tokenizer, seed=seed)

    smooth = math.nan
    with tqdm(total=steps, initial=done, desc=name, mininterval=5) as bar:
        for step in range(done, steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / (1.5 * steps))) / 2
            captioned = step < CAPTIONED * steps
            loss = velocity_loss(unet, scheduler, encoder, lessons, step, captioned=captioned, batch=batch, seed=seed)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            keep = min(EMA, (step + 1) / (step + 11))  # early on the mean must not hold on to where it began
            with torch.no_grad():
                for mean, value in zip(average.parameters(), unet.parameters(), strict=True):
                    mean.lerp_(value, 1 - keep)
            smooth = loss.item() if math.isnan(smooth) else 0.99 * smooth + 0.01 * loss.item()
            bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            bar.update()
            if (step + 1) % SNAPSHOT == 0 and step + 1 < steps:
                checkpoint.save(step + 1)
    save_editor(out / name, unet=average, vae=vae, text_encoder=encoder, tokenizer=tokenizer, scheduler=scheduler)
    checkpoint.path.unlink(missing_ok=True)


class Lessons(NamedTuple):
    """n pairs as the UNet and the text tower see them."""

    images: Any  # (n, c, h', w') image latents of the pictures before
    targets: Any  # (n, c, h', w') scaled latents of the pictures after
    instructions: Any  # (n, tokens) ids
    captions: Any  # (n, tokens) ids, of the pictures after
    empty: Any  # (tokens,) ids of the empty text


def _lessons(drawn: Pairs, vae: Any, tokenizer: Any, *, seed: int) -> Lessons:
    import torch

    def tokens(texts: list[str]) -> Any:
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    with torch.no_grad():
        images, targets = (_encode(vae, data.pictures(table)) for table in (drawn.before, drawn.after))
    captions = caption(drawn.after, seed=seed)
    return Lessons(images, vae.config.scaling_factor * targets, tokens(drawn.texts), tokens(captions), tokens([""])[0])


def _encode(vae: Any, pictures: np.ndarray) -> Any:
    """(n, h, w, 3) uint8 -> image latents (n, c, h', w'): the mode, as an editor's input is encoded."""
    import torch
    from tqdm import tqdm

    parts = [pictures[start : start + 100] for start in range(0, len(pictures), 100)]
    bar = tqdm(parts, desc="encoding", mininterval=5)
    return torch.cat([vae.encode(2 * data.to_tensor(part) - 1).latent_dist.mode() for part in bar])


def velocity_loss(
    unet: Any, scheduler: Any, encoder: Any, lessons: Lessons, step: int, *, captioned: bool, batch: int, seed: int
) -> Any:
    """Mean squared error of the predicted v, in bfloat16; pairs, noise, times and what is dropped come from (seed, step).

    captioned: text to picture: captions for instructions, and no picture before.
    """
    import torch

    rng = np.random.default_rng([seed, 15, step])
    index = torch.from_numpy(rng.integers(len(lessons.targets), size=batch))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    no_text, no_image = drop(torch.rand(batch, generator=generator))
    target = lessons.targets[index]
    noise = torch.randn(target.shape, generator=generator)
    t = torch.randint(scheduler.config.num_train_timesteps, (batch,), generator=generator)
    image = lessons.images[index].masked_fill((no_image | captioned).view(-1, 1, 1, 1), 0)
    ids = (lessons.captions if captioned else lessons.instructions)[index]
    with torch.no_grad():
        condition = encoder(torch.where(no_text.view(-1, 1), lessons.empty, ids))[0]  # (batch, tokens, d)
    x = torch.cat([scheduler.add_noise(target, noise, t), image], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        v = unet(x, t, encoder_hidden_states=condition).sample
    return (v.float() - scheduler.get_velocity(target, noise, t)).square().mean()


def save_editor(folder: Path, **parts: Any) -> None:
    """Save unet, vae, text_encoder, tokenizer and scheduler as diffusers does.

    UNet and VAE in half precision, which diffusers brings back to the precision that is asked for. transformers would keep
    what it finds, and an editor of mixed precision does not run: the small text tower stays in float32.
    """
    from diffusers import StableDiffusionInstructPix2PixPipeline

    for name in ("unet", "vae"):
        parts[name].half()
    pipeline: Any = StableDiffusionInstructPix2PixPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)
