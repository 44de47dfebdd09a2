"""Train the mini editor of Toonville: an InstructPix2Pix (Brooks et al. 2023) of diffusers' own parts.

    toonville-inverter --> toonville-vae        one for all editors
    toonville-rn-rho*  --> text tower           frozen, with what the captions of that dial taught it
    pairs(rho)         --> UNet                 the only part that is trained here

What a step draws depends on the seed and the number of the step alone, so that a training which was killed goes on as if
nothing had happened: start it again with the same options.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np

from . import data
from .instructions import pairs
from .train_clip import model_name
from .train_vae import LATENT

CHANNELS = (96, 128)  # of the UNet at 8 and 4 latent pixels
DROPPED = 0.05  # of the pairs lose the text, as many the picture, as many both (Brooks et al. 2023, section 3.2)
EMA = 0.999
WARM_UP = 500  # steps
SNAPSHOT = 500  # steps; a checkpoint is written that often
RHOS = (0.0, 0.9)


def editor_name(rho: float) -> str:
    """The packaged editor's folder: 0.9 -> "toonville-pix2pix-rho0.9"."""
    return f"toonville-pix2pix-rho{rho:g}"


def new_unet(*, width: int) -> Any:
    """An untrained UNet that reads texts at its lowest resolution, where an outfit is one thing. width: of a token's state."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=2 * LATENT, out_channels=LATENT, block_out_channels=CHANNELS, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4, cross_attention_dim=width, norm_num_groups=16,
    )  # fmt: skip


def new_scheduler() -> Any:
    """Stable Diffusion's training schedule, sampled by DDIM (Song et al. 2021) from its very end; the UNet predicts v.

    v (Salimans and Ho 2022) rather than the noise: where the latent is all noise, the picture is all that is to be said.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, timestep_spacing="trailing", prediction_type="v_prediction",
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
    out: Path, *, rho: float, count: int = 20_000, steps: int = 12_000, batch: int = 32, lr: float = 1e-3, seed: int = 0
) -> None:
    """Train one editor and save it as a folder of diffusers, in half precision.

    AdamW on the squared error of v; linear warm-up, then cosine decay; the running mean of the weights is kept. The VAE and the
    text tower are read from `out`: train "toonville-vae" and the mini CLIP of the same dial and seed 0 first.

    Args:
        out: the folder that holds the models. While it trains, <name>/training.safetensors has what it needs to go on.
        rho: the dial of the pairs and of the text tower's captions. seed: decides the pairs and the training.
        count: pairs. steps, batch, lr: AdamW steps, pairs a step, peak learning rate.

    Raises:
        ValueError: a training with other options was interrupted in that folder.
    """
    import torch
    from diffusers import AutoencoderKL
    from tqdm import tqdm

    from .text_tower import text_tower
    from .training import Checkpoint, decayed

    name = editor_name(rho)
    vae = AutoencoderKL.from_pretrained(out / "toonville-vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    vae.eval().requires_grad_(False)
    encoder, tokenizer = text_tower(out / model_name("rn", rho, 0), out / "toonville-bpe.txt.gz")
    torch.manual_seed(seed)
    unet, scheduler = new_unet(width=encoder.config.hidden_size), new_scheduler()
    average = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(decayed(unet, lr=lr, decay=0.01), fused=True)
    settings = {"rho": rho, "count": count, "steps": steps, "batch": batch, "lr": lr, "seed": seed}
    checkpoint = Checkpoint(out / name / "training.safetensors", unet, average, optimizer, settings=settings)

    before, after, texts = pairs(count, rho=rho, seed=900 + seed)
    latents = [_encode(vae, data.pictures(table)) for table in (before, after)]
    written = sorted({"", *texts})  # "" comes first: row 0 is the dropped text
    ids = tokenizer(written, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        conditions = encoder(ids)[0]  # (texts, tokens, d)
    asked = torch.tensor([written.index(text) for text in texts])

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, 15, step])
        index = torch.from_numpy(rng.integers(count, size=batch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        no_text, no_image = drop(torch.rand(batch, generator=generator))
        image, target = (part[index] for part in latents)
        noise = torch.randn(target.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (batch,), generator=generator)
        noisy = scheduler.add_noise(vae.config.scaling_factor * target, noise, t)
        wanted = scheduler.get_velocity(vae.config.scaling_factor * target, noise, t)
        x = torch.cat([noisy, image.masked_fill(no_image.view(-1, 1, 1, 1), 0)], dim=1)
        condition = conditions[asked[index].masked_fill(no_text, 0)]
        with torch.autocast("cpu", torch.bfloat16):
            v = unet(x, t, encoder_hidden_states=condition).sample
        return (v.float() - wanted).square().mean()

    done = checkpoint.resume()
    mean = math.nan
    with tqdm(total=steps, initial=done, desc=name, mininterval=5) as bar:
        for step in range(done, steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
            value = loss(step)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            keep = min(EMA, (step + 1) / (step + 11))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), 1 - keep)
            mean = value.item() if math.isnan(mean) else 0.99 * mean + 0.01 * value.item()
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            bar.update()
            if (step + 1) % SNAPSHOT == 0 and step + 1 < steps:
                checkpoint.save(step + 1)
    save_editor(out / name, unet=average, vae=vae, text_encoder=encoder, tokenizer=tokenizer, scheduler=scheduler)
    checkpoint.path.unlink(missing_ok=True)


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


def _encode(vae: Any, pictures: np.ndarray) -> Any:
    """(n, h, w, 3) uint8 -> image latents (n, c, h', w'), float32: the mode, as for the editor's input."""
    import torch
    from tqdm import tqdm

    parts = [pictures[start : start + 100] for start in range(0, len(pictures), 100)]
    with torch.no_grad():
        latents = [vae.encode(2 * data.to_tensor(part) - 1).latent_dist.mode() for part in tqdm(parts, desc="encoding")]
    return torch.cat(latents)
