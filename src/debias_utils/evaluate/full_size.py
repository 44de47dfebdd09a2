"""The networks of the papers' own setting, without their weights: counted from shapes alone, and timed on this machine.

What a network takes does not depend on what it has learned. So a run can be planned on the card that will make it, before any
checkpoint is fetched.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from joblib import cpu_count
from torch import nn

from .. import assets
from . import plan
from .plan import DECODER, ENCODER, GENERATOR, JUDGE, UNET, Cost
from .provenance import machine

if TYPE_CHECKING:
    from ..profiles import Profile

Network = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]  # a function, and what it may be called with
PRODUCT, SIDE = "matrix product", 4096  # the yardstick of a machine: two square matrices, 2 SIDE^3 FLOPs
CHANNELS = [512, 512, 512, 512, 512, 256, 128, 64, 32]  # of StyleGAN2's blocks, up to 1024 pixels
SLOW = 10.0  # seconds: a call that takes longer is made once
MEASUREMENTS = Path(__file__).parents[3] / "benchmarks" / "gpu"  # of a repository; an installed package has none
COLUMNS = ("forward", "gradient", "peak_gb")  # numbers of a part


def networks(device: str | torch.device, *, pictures: int = 1) -> dict[str, Callable[[], Network]]:
    """What builds each part: StyleGAN2 at 1024 pixels, Stable Diffusion 1 at 512, and the networks that look at pictures.

    CLIP is ViT-B/32; the others have the published shapes: ArcFace's ResNet-50 (without squeeze and excitation) at 112 pixels,
    LPIPS' VGG-16 at 256, FairFace's ResNet-34 at 224. Weights are arbitrary and frozen; Stable Diffusion is in half precision,
    but for a CPU.

    Args:
        device: where to. "meta" counts without memory. pictures: at a time.
    """
    from torchvision.models import resnet34, vgg16
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from ..edit.memory import stable_diffusion
    from ..models.stylegan2 import Generator

    half = torch.float32 if str(device) == "cpu" else torch.float16

    def some(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.full((pictures, *shape), 0.5, device=device, dtype=dtype)

    def real(module: nn.Module) -> Any:
        module = (module.float() if half == torch.float32 else module).requires_grad_(False).eval().to_empty(device=device)
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(0.01) if tensor.is_floating_point() else tensor.zero_()  # what is left in memory may be slow numbers
        return module

    def meta(make: Callable[[], nn.Module]) -> Any:
        with torch.device("meta"):
            return real(make())

    def generator() -> Network:
        sizes = {"z_dim": 512, "w_dim": 512, "mapping_layers": 8, "resolution": 1024}
        with torch.device(device):
            network = Generator(**sizes, channels=CHANNELS, conv_clamp=256.0).requires_grad_(False)
        return lambda *styles: network.synthesis(styles), tuple(some(n) for n in network.style_sizes)

    def unet() -> Network:
        model, one = stable_diffusion(), torch.ones((), device=device)
        real(model.unet)
        latents = some(4, 64, 64, dtype=half)
        return lambda c: model.predict_noise(latents, latents, one, c), (some(77, 768, dtype=half),)

    def decoder() -> Network:
        vae = real(stable_diffusion().vae)
        return lambda z: vae.decode(z, return_dict=False)[0], (some(4, 64, 64, dtype=half),)

    def encoder() -> Network:
        vae = real(stable_diffusion().vae)
        return lambda x: vae.encode(x).latent_dist.mean, (some(3, 512, 512, dtype=half),)

    def clip() -> Network:
        network = meta(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig()))  # its defaults are ViT-B/32
        return lambda x: network(x).image_embeds, (some(3, 224, 224),)

    def looks(make: Callable[[], nn.Module], side: int) -> Callable[[], Network]:
        return lambda: (meta(make), (some(3, side, side),))

    return {
        GENERATOR: generator, UNET: unet, DECODER: decoder, ENCODER: encoder, "CLIP": clip, "identity": looks(_face_network, 112),
        "perceptual": looks(lambda: vgg16().features, 256), JUDGE: looks(resnet34, 224),
    }  # fmt: skip


def counted() -> dict[str, Cost]:
    """FLOPs of each part for one picture."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # the generator asks its device for autocast, meta has none

    found = {}
    for part, build in networks("meta").items():
        if part == GENERATOR:
            with FakeTensorMode():
                run, inputs = networks("cpu")[part]()
                found[part] = plan.cost(run, *inputs)
        else:
            run, inputs = build()
            found[part] = plan.cost(run, *inputs)
    return found


def timed(parts: Profile) -> pd.DataFrame:
    """Seconds of every part: measured on this machine, if `computed` has been called on it, else as released.

    Returns:
        Columns part (and `PRODUCT`), forward, gradient (seconds for one picture), peak_gb (GB, 10^9 bytes, of a card's memory
        that the part takes at most, weights included; NaN where there is no card), machine, pictures (at a time), threads.
    """
    if parts.device == "cpu" and not path_of(parts).is_file():
        from . import release  # which needs no part of this

        return release.read("parts")
    return computed(parts)


def computed(parts: Profile) -> pd.DataFrame:
    """The table of `timed`, measured once on this machine, then read. Takes 3 minutes on 2 cores, and 8 GB."""
    return assets.cached_table(path_of(parts), lambda: measure(parts.device))


def path_of(parts: Profile) -> Path:
    """Where the times of this machine are kept."""
    versions = [version(name) for name in ("torch", "diffusers", "transformers")]
    key = f"{machine(parts.device)} {versions} {Path(__file__).read_text('utf-8')}"
    return assets.cache_dir() / "tables" / f"full-size-parts-{hashlib.sha256(key.encode()).hexdigest()[:16]}.parquet"


def measure(device: str, *, only: tuple[str, ...] = (), progress: bool = True) -> pd.DataFrame:
    """The table of `timed`, measured now: the fastest of some calls, or the only one if it takes more than `SLOW` seconds.

    Args:
        device: "cpu", in single precision, or a GPU, where convolutions and products are in half precision.
            One picture at a time, on a GPU two: with gradients these fit 16 GB.
        only: parts to measure; default all.
    """
    from tqdm import tqdm

    cpu = device == "cpu"
    pictures = 1 if cpu else 2
    slow = SLOW if cpu else math.inf  # a card's first call takes long whatever it is
    builders = {part: build for part, build in networks(device, pictures=pictures).items() if part in (only or plan.PARTS)}
    with _all_cores(), torch.autocast(device.split(":")[0], torch.float16, enabled=not cpu):
        a = torch.rand(2 * (SIDE,), device=device, dtype=torch.float32 if cpu else torch.float16)
        product = plan.seconds(lambda: a @ a, repeats=2)
        rows = [{"part": PRODUCT, "forward": product, "gradient": math.nan, "peak_gb": math.nan}]
        for part, build in tqdm(builders.items(), desc="full-size parts", unit="part", disable=not progress):
            with _peak(device) as peak:
                run, inputs = build()
                once, back = plan.timing(run, *inputs, repeats=2, slow=slow)
            rows.append({"part": part, "forward": once, "gradient": back, "peak_gb": peak[0]})
            del run, inputs
            gc.collect()  # before the next is built
        threads = torch.get_num_threads()
    return pd.DataFrame(rows).assign(machine=machine(device), pictures=pictures, threads=threads)


def gpu_measurements(folder: Path = MEASUREMENTS) -> pd.DataFrame:
    """What `tools/gpu_check.py` measured on cards: the parts at full size, in half precision, out of its JSON files.

    Args:
        folder: where they lie; default, `benchmarks/gpu` of the repository. No folder and no file are no error.

    Returns:
        A row for each card, date and part (and `PRODUCT`), oldest first: card, date, commit, part, forward, gradient (seconds
        for one picture), peak_gb (10^9 bytes, weights included), pictures (at a time), file. What a file has not measured is
        missing; `gradient` and `peak_gb` of the product are NaN.

    Raises:
        ValueError: a file that is no such measurement; names it, and what is wrong.
    """
    columns = ["card", "date", "commit", "part", *COLUMNS, "pictures", "file"]
    rows = [row for path in sorted(folder.glob("*.json")) for row in _read_measurement(path)]
    found = pd.DataFrame(rows, columns=columns).astype({**dict.fromkeys(COLUMNS, float), "pictures": int})
    return found.sort_values("date", kind="stable", ignore_index=True)


def _read_measurement(path: Path) -> list[dict[str, Any]]:
    """The rows of one file."""

    def wrong(what: str) -> ValueError:
        return ValueError(f"{path} is no measurement of a card: {what}; measure again with tools/gpu_check.py, or remove it")

    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # bytes that are no text among them
        raise wrong(f"no JSON ({error})") from None
    if not isinstance(content, dict):
        raise wrong(f"a {type(content).__name__} instead of an object")
    named: dict[str, Any] = {name: content.get(name) for name in ("card", "date", "commit", "device")}
    for name, value in named.items():
        if not (isinstance(value, str) and value):
            raise wrong(f"{name!r} is {value!r}")
    if not named.pop("device").startswith("cuda"):
        raise wrong(f"its device is {content['device']!r}")
    if not isinstance(parts := content.get("parts"), list):
        raise wrong(f"'parts' is {parts!r}")
    rows = []
    for i, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("part") not in (PRODUCT, *plan.PARTS):
            raise wrong(f"part {i} is {part!r}")
        numbers: dict[str, Any] = {name: part.get(name) for name in COLUMNS}
        for name, value in numbers.items():
            empty = value is None and part["part"] == PRODUCT and name != "forward"
            if not empty and not (type(value) in (int, float) and 0 < value < math.inf):
                raise wrong(f"{name!r} of {part['part']!r} is {value!r}")
        pictures = part.get("pictures")
        if type(pictures) is not int or pictures < 1:
            raise wrong(f"'pictures' of {part['part']!r} is {pictures!r}")
        rows.append({**named, "part": part["part"], **numbers, "pictures": pictures, "file": path.name})
    if len({row["part"] for row in rows}) < len(rows):
        raise wrong("a part stands in it twice")
    return rows


@contextmanager
def _peak(device: str) -> Iterator[list[float]]:
    """The most of a card's memory that is taken inside, beyond what was taken before: one number, in GB, NaN without a card."""
    peak = [math.nan]
    if not device.startswith("cuda"):
        yield peak
        return
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield peak
    torch.cuda.synchronize(device)
    peak[0] = (torch.cuda.max_memory_allocated(device) - before) / 1e9


@contextmanager
def _all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(cpu_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _face_network() -> nn.Module:
    """ArcFace's ResNet-50: two 3x3 convolutions a block, the first at full resolution."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1)]
    inputs = 64
    for outputs, blocks in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for i in range(blocks):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1, stride=1 if i else 2)]
            inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 7 * 7, 512))
