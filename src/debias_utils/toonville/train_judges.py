"""Train Toonville's judges.

The attribute classifier measures edits and is never optimised against; the identity embedder is a loss of the
gradient-based method. They see different people, who are not those of the CLIPs or of the generator either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import data, people
from .occupations import EVERYDAY, OCCUPATIONS

CLASSES = {
    "gender": list(people.GENDERS),
    "skin": list(people.SKIN_TONES),
    "age": list(people.AGES),
    "occupation": [*OCCUPATIONS, EVERYDAY],
}
TEMPERATURE = 0.1  # of the identity embedder's contrast


def train_attributes(out: Path, *, count: int = 20_000, steps: int = 2_000, batch: int = 96, seed: int = 0) -> None:
    """Cross-entropy on the known attributes of balanced people, 20 % of them in everyday clothes."""
    import torch
    from torch.nn import functional as F

    from ..models.convnet import ConvNet
    from .training import batches, decayed, fit, flipped, save_network

    torch.manual_seed(seed)
    table = people.sample(count, everyday=0.2, seed=300 + seed)
    pictures = data.pictures(table)
    labels = torch.tensor(np.stack([[names.index(v) for v in table[a]] for a, names in CLASSES.items()], axis=1))
    sizes = [len(names) for names in CLASSES.values()]
    network = ConvNet(sum(sizes)).to(memory_format=torch.channels_last)
    order, flips = batches(count, batch, np.random.default_rng([seed, 6])), np.random.default_rng([seed, 7])

    def loss() -> torch.Tensor:
        _, index = next(order)
        logits = network(flipped(data.to_tensor(pictures[index]), flips)).split(sizes, dim=1)
        return torch.stack([F.cross_entropy(part, labels[index, i]) for i, part in enumerate(logits)]).sum()

    fit(decayed(network, lr=2e-3), loss, steps=steps, name="toonville-attributes")
    save_network(network, out / "toonville-attributes", classes=CLASSES)


def train_identity(out: Path, *, count: int = 20_000, steps: int = 1_000, batch: int = 96, seed: int = 0) -> None:
    """NT-Xent (Chen et al. 2020): the same face in two outfits against all other faces of the batch."""
    import torch
    from torch.nn import functional as F

    from ..models.convnet import ConvNet
    from .training import batches, decayed, fit, flipped, save_network

    torch.manual_seed(seed)
    one = people.sample(count, everyday=0.3, seed=400 + seed)
    outfits = people.sample(count, everyday=0.3, seed=500 + seed)["occupation"].to_numpy(dtype=object)
    views = [data.pictures(table) for table in (one, people.dress(one, outfits, seed=600 + seed))]
    network = ConvNet(128).to(memory_format=torch.channels_last)
    order, flips = batches(count, batch, np.random.default_rng([seed, 8])), np.random.default_rng([seed, 9])

    def loss() -> torch.Tensor:
        _, index = next(order)
        both = torch.cat([flipped(data.to_tensor(view[index]), flips) for view in views])  # (2 b, 3, h, w)
        embedded = F.normalize(network(both), dim=1)
        similarity = (embedded @ embedded.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        return F.cross_entropy(similarity, torch.arange(2 * len(index)).roll(len(index)))  # the other view

    fit(decayed(network, lr=2e-3), loss, steps=steps, name="toonville-identity")
    save_network(network, out / "toonville-identity")
