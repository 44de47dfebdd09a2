"""What the trainings of Toonville's models share: the loop, the order of the pictures, the file that is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.convnet import ConvNet


def fit(groups: Any, loss: Callable[[], torch.Tensor], *, steps: int, name: str, after: Callable[[], None] | None = None) -> None:
    """Minimise with AdamW: one-cycle learning rate (10 % warm-up), gradient norm clipped at 1, a progress bar.

    Args:
        groups: AdamW's parameter groups; each has its own peak learning rate under "lr".
        loss: draws a batch and returns its loss, a scalar.
        steps: how many. name: shown beside the bar. after: called after every step.
    """
    from tqdm import tqdm

    groups = list(groups)
    optimizer = torch.optim.AdamW(groups)
    peak = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=max(0.1, 1.5 / steps))
    parameters = [parameter for group in groups for parameter in group["params"]]
    for _ in (bar := tqdm(range(steps), desc=name, mininterval=5)):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if after:
            after()
        bar.set_postfix(loss=f"{value.item():.3f}", refresh=False)


def decayed(model: torch.nn.Module, *, lr: float, decay: float = 0.1) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for matrices and kernels, none for biases and norms; single numbers are left out."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "lr": lr, "weight_decay": decay},
        {"params": [p for p in trained if p.ndim == 1], "lr": lr, "weight_decay": 0.0},
    ]


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Endless (epoch, (size,) indices): every epoch goes through all n in a new order."""
    epoch = 0
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield epoch, order[start : start + size]
        epoch += 1


def flipped(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each picture of (n, 3, h, w) mirrored with probability 1/2, channels last."""
    mirror = torch.from_numpy(rng.random(len(images)) < 0.5)
    return torch.where(mirror.view(-1, 1, 1, 1), images.flip(-1), images).contiguous(memory_format=torch.channels_last)


def save_network(network: ConvNet, folder: Path, **config: Any) -> None:
    """Save a network as `models.convnet.load` reads it; `config` goes into its config.json."""
    save_half(network.state_dict(), folder / "model.safetensors")
    shape = {"outputs": network.outputs, "width": network.width, "image_size": network.image_size}
    (folder / "config.json").write_text(json.dumps({"network": shape, **config}, indent=1) + "\n", "utf-8")


def save_half(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write safetensors in half precision, whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")  # renamed when whole
    save_file({k: v.detach().half().contiguous() if v.is_floating_point() else v for k, v in state.items()}, unfinished)
    unfinished.replace(path)


class Checkpoint:
    """What a long training needs to go on after it was killed: weights, their running mean, and AdamW's moments.

    Args:
        path: the file, safetensors. model, average, optimizer: saved and restored. settings: a training that was started with
            others is refused.
    """

    def __init__(
        self,
        path: Path,
        model: torch.nn.Module,
        average: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        settings: dict[str, Any],
    ):
        self.path, self.model, self.average, self.optimizer = path, model, average, optimizer
        self.settings = json.dumps(settings, sort_keys=True)

    def save(self, done: int) -> None:
        """Write everything as it is after `done` steps, whole or not at all."""
        from safetensors.torch import save_file

        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        save_file(tensors, unfinished, metadata={"settings": self.settings, "done": str(done)})
        unfinished.replace(self.path)

    def resume(self) -> int:
        """Restore what was saved; returns the steps that are done, 0 if nothing was.

        Raises:
            ValueError: it was saved by a training with other settings.
        """
        from safetensors import safe_open
        from safetensors.torch import load_file

        if not self.path.is_file():
            return 0
        with safe_open(self.path, framework="pt") as file:
            kept = file.metadata()
        if kept["settings"] != self.settings:
            raise ValueError(
                f"{self.path} is of a training with {kept['settings']}, not {self.settings}: start that again, or delete the file"
            )
        tensors = load_file(self.path)
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".")
                state.setdefault(int(i), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        return int(kept["done"])
