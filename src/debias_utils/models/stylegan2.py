"""The StyleGAN2 generator (Karras et al. 2020, arXiv:1912.04958) with StyleSpace (Wu et al. 2021, arXiv:2011.12799) in sight.

    z --mapping--> ws --styles--> styles --synthesis--> images

`styles` are the scales of every input channel of every convolution: the space in which pictures are edited. Parameters
are named as in stylegan2-ada-pytorch, so that its weights load unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import check_whole
from ..tensors import is_number
from .loading import read_state
from .official_pickle import read_official

EPS = 1e-8
LR_MULTIPLIER = 0.01  # of the mapping network
State = tuple[Tensor, Tensor | None]  # what enters a layer, see `Generator.states`


class FullyConnected(nn.Module):
    """Linear layer with an equalised learning rate (Karras et al. 2018): weight and bias are scaled at run time."""

    def __init__(self, inputs: int, outputs: int, *, lr_multiplier: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs), never in half precision."""
        weight = self.weight * (self.lr_multiplier / math.sqrt(self.weight.shape[1]))
        with _no_autocast(x):
            return F.linear(x.to(weight.dtype), weight, self.bias * self.lr_multiplier)


class MappingNetwork(nn.Module):
    """z -> ws: what `Generator.mapping` calls."""

    def __init__(self, z_dim: int, w_dim: int, layers: int, num_ws: int):
        super().__init__()
        self.z_dim, self.layers, self.num_ws = z_dim, layers, num_ws
        for i in range(layers):
            self.add_module(f"fc{i}", FullyConnected(w_dim if i else z_dim, w_dim, lr_multiplier=LR_MULTIPLIER))
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, *, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Map latents to one w a layer.

        Args:
            z: (n, z_dim), usually from a standard normal distribution; only its direction matters.
            truncation: psi, how far w lies from its mean: w_avg + psi (w - w_avg). 1 changes nothing, 0 gives the mean.
            cutoff: truncate the first `cutoff` of the num_ws layers alone, 0..num_ws; None truncates all.

        Returns:
            (n, num_ws, w_dim).

        Raises:
            ValueError: z of another shape, truncation not finite, cutoff out of range.
        """
        _check_shape("z", z, (None, self.z_dim))
        if not is_number(truncation):
            raise ValueError(f"truncation must be finite, got {truncation!r}")
        if cutoff is not None:
            check_whole("cutoff", cutoff, at_least=0, at_most=self.num_ws, limit="num_ws = ")
        w = z.to(self.w_avg.dtype)
        w = w * (w.square().mean(dim=1, keepdim=True) + EPS).rsqrt()
        for i in range(self.layers):
            w = F.leaky_relu(self.get_submodule(f"fc{i}")(w), 0.2) * math.sqrt(2)
        near = torch.lerp(self.w_avg, w, truncation)
        layers = torch.arange(self.num_ws, device=w.device)[:, None]  # (num_ws, 1)
        return torch.where(layers < (self.num_ws if cutoff is None else cutoff), near[:, None], w[:, None])


class Conv(nn.Module):
    """3x3 convolution, modulated and demodulated by the style; `up` doubles the size of the picture first.

    Weights and style are brought to norm 1 and maximum 1 before the convolution and the output is scaled back, which
    changes nothing in the sum (demodulation undoes any scale) and keeps it inside the range of half precision.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, *, up: bool, clamp: float | None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.resample_filter: Tensor
        self.noise_const: Tensor
        self.register_buffer("resample_filter", _low_pass())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.up, self.clamp = up, clamp

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Features (n, inputs, h, w), style (n, inputs) -> (n, outputs, h, w); (n, outputs, 2h, 2w) with `up`."""
        with torch.no_grad():  # the result does not depend on these two, so no gradient is lost
            norm = torch.linalg.vector_norm(self.weight, dim=(1, 2, 3)).clamp_min(EPS)  # (outputs,)
            peak = style.abs().amax(dim=1, keepdim=True).clamp_min(EPS)  # (n, 1)
        weight, style = self.weight / norm[:, None, None, None], style / peak
        with _no_autocast(x):
            power = F.linear(style.square(), weight.square().sum(dim=(2, 3)))  # (n, outputs)
        gain = math.sqrt(2) * (power + EPS / (peak * norm).square()).rsqrt()
        shift = math.sqrt(2) * (self.noise_const * self.noise_strength + self.bias[:, None, None])  # (outputs, h, w)

        # scaling input and output per sample equals a kernel per sample, without slow grouped convolutions
        x = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (n, outputs, 2h + 1, 2w + 1)
            fir = (4 * self.resample_filter).expand(x.shape[1], 1, 4, 4)
            x = F.conv2d(x, fir, padding=1, groups=x.shape[1])
        else:
            x = F.conv2d(x, weight, padding=1)
        # sqrt(2) leaky(a) = leaky(sqrt(2) a): the gain is already in both terms
        x = torch.addcmul(shift.to(x.dtype), x, gain[:, :, None, None].to(x.dtype))
        x = F.leaky_relu(x, 0.2, inplace=True)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """1x1 convolution to a picture, modulated, not demodulated, added to the picture so far; never in half precision."""

    def __init__(self, inputs: int, w_dim: int, *, clamp: float | None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.clamp = clamp

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None, resample_filter: Tensor) -> Tensor:
        """Features (n, inputs, h, w), style (n, inputs), image (n, 3, h / 2, w / 2) or None -> (n, 3, h, w)."""
        with _no_autocast(x):
            weight = self.weight.flatten(1) * style[:, None] / math.sqrt(style.shape[1])  # (n, 3, inputs)
            rgb = (weight @ x.to(weight.dtype).flatten(2)).unflatten(2, x.shape[2:]) + self.bias[:, None, None]
            rgb = rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)
            if image is None:
                return rgb
            fir = (4 * resample_filter).expand(3, 1, 4, 4)
            return rgb + F.conv_transpose2d(image, fir, stride=2, padding=1, groups=3)  # twice the size


class Block(nn.Module):
    """The layers of one resolution; the first starts from a learned constant instead of conv0."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, *, clamp: float | None):
        super().__init__()
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(inputs, 4, 4))
        else:
            self.conv0 = Conv(inputs, outputs, w_dim, resolution, up=True, clamp=clamp)
        self.register_buffer("resample_filter", _low_pass())
        self.conv1 = Conv(inputs if resolution == 4 else outputs, outputs, w_dim, resolution, up=False, clamp=clamp)
        self.torgb = ToRGB(outputs, w_dim, clamp=clamp)


class Synthesis(nn.Module):
    """styles -> images: what `Generator.synthesis` calls."""

    def __init__(self, w_dim: int, const_channels: int, channels: Sequence[int], *, clamp: float | None):
        super().__init__()
        layers: dict[str, int] = {}  # name: channels that it takes in
        for i, (inputs, outputs) in enumerate(zip([const_channels, *channels], channels, strict=False)):
            name = f"b{4 * 2**i}"
            self.add_module(name, Block(inputs, outputs, w_dim, 4 * 2**i, clamp=clamp))
            layers |= {f"{name}.conv0": inputs} if i else {}
            layers |= {f"{name}.conv1": outputs if i else inputs, f"{name}.torgb": outputs}
        self.layer_names, self.style_sizes = list(layers), list(layers.values())

    def forward(self, styles: Sequence[Tensor], *, start: int = 0, state: State | None = None) -> Tensor:
        """Draw the pictures of the styles; differentiable.

        Args:
            styles: list of (n, channels), one a layer, in the order of `layer_names`.
            start: first layer to compute, 0..len(layer_names) - 1; only styles[start:] are read.
            state: what enters layer `start`, from `Generator.states`, of the n samples or of one sample for all n.
                Needed when start > 0.

        Returns:
            (n, 3, resolution, resolution), nominally in [-1, 1], not clamped; with the network's own constant noise.

        Raises:
            ValueError: styles of wrong number or shape, start out of range, state absent or of another layer.
        """
        x, image = self.enter(styles, start, state)
        for i in range(start, len(styles)):
            x, image = self.step(i, styles[i], x, image)
        assert image is not None  # the last layer is a torgb
        return image

    def enter(self, styles: Sequence[Tensor], start: int = 0, state: State | None = None) -> State:
        """Check the arguments of `forward`; returns what enters layer `start`."""
        if len(styles) != len(self.layer_names):
            raise ValueError(f"need {len(self.layer_names)} styles, one a layer, got {len(styles)}")
        if start not in range(len(styles)):
            raise ValueError(f"start must be a layer from 0 to {len(styles) - 1}, got {start!r}")
        n = len(styles[start]) if isinstance(styles[start], Tensor) and styles[start].ndim else None
        for i in range(start, len(styles)):
            _check_shape(f"style of {self.layer_names[i]}", styles[i], (n, self.style_sizes[i]))
        name, channels = self.layer_names[start], self.style_sizes[start]
        if state is None:
            if start > 0:
                raise ValueError(f"start={start} needs the state that enters {name}; see `Generator.states`")
            return self.get_parameter("b4.const").expand(len(styles[0]), -1, -1, -1), None
        resolution = int(name[1:].split(".")[0])
        side = resolution // 2 if name.endswith("conv0") else resolution
        n = 1 if isinstance(state[0], Tensor) and len(state[0]) == 1 else n
        _check_shape(f"features in the state of {name}", state[0], (n, channels, side, side))
        if resolution > 4:
            _check_shape(f"image in the state of {name}", state[1], (n, 3, resolution // 2, resolution // 2))
        return state

    def step(self, index: int, style: Tensor, x: Tensor, image: Tensor | None) -> State:
        """Apply one layer to what enters it; returns what enters the next."""
        name = self.layer_names[index]
        layer, style = self.get_submodule(name), style.to(self.get_parameter("b4.const").dtype)
        if isinstance(layer, ToRGB):
            return x, layer(x, style, image, self.get_buffer(f"{name.split('.')[0]}.resample_filter"))
        return layer(x, style), image


class Generator(nn.Module):
    """StyleGAN2 generator with skip connections, unconditional, 3 colours, a power of two pixels wide.

    Works on any device in float32 or float64. Half precision: run it under `torch.autocast` with the parameters left in
    float32 (do not call `.half()`). Then the 3x3 convolutions and their activations are half; mapping, styles,
    demodulation and the picture stay float32. float16 is safe with conv_clamp=256, as the published networks were built:
    weights and styles are normalised before the products; bfloat16 needs no bound.

    Parameters ask for gradients: `requires_grad_(False)` saves time where only styles are optimised.

    Args:
        z_dim, w_dim: lengths of z and w. mapping_layers: fully connected layers from z to w.
        resolution: side of the picture, 4, 8, 16, ...
        channels: of the blocks of 4, 8, 16, ... pixels, log2(resolution) - 1 numbers.
        const_channels: of the constant that enters the first layer; None, as in the official networks, for channels[0].
        conv_clamp: bound on the absolute output of every layer; None for no bound.
        seed: of the initial weights and the constant noise: standard normal, biases of the styles 1, other biases, the
            noise's strengths and w_avg 0 (Karras et al. 2020).

    Attributes:
        layer_names: ["b4.conv1", "b4.torgb", "b8.conv0", ...], the order of `styles`. style_sizes: channels of each.
        is_torgb: which of them draw a picture. num_ws: number of w's, 2 log2(resolution) - 2; a torgb shares its w with
        the next block's conv0.
        mapping: `mapping(z, truncation=1.0, cutoff=None)`, z (n, z_dim) -> ws (n, num_ws, w_dim); see `MappingNetwork`.
        synthesis: `synthesis(styles, start=0, state=None)`, list of (n, channels) -> (n, 3, h, w); see `Synthesis`.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        w_dim: int,
        mapping_layers: int,
        resolution: int,
        channels: Sequence[int],
        const_channels: int | None = None,
        conv_clamp: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        sizes = {"z_dim": z_dim, "w_dim": w_dim, "mapping_layers": mapping_layers}
        sizes |= {} if const_channels is None else {"const_channels": const_channels}
        for name, value in [*sizes.items(), *(("number of channels", c) for c in channels)]:
            check_whole(name, value)
        check_whole("seed", seed, at_least=0)
        if not channels or resolution != 4 * 2 ** (len(channels) - 1):
            raise ValueError(f"need channels for each of 4, 8, ..., resolution = {resolution!r}; got {list(channels)}")
        if conv_clamp is not None and not conv_clamp > 0:
            raise ValueError(f"conv_clamp must be positive or None, got {conv_clamp!r}")
        self.resolution, self.w_dim, self.num_ws = resolution, w_dim, 2 * len(channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.synthesis = Synthesis(w_dim, const_channels or channels[0], channels, clamp=conv_clamp)
            self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers, self.num_ws)
        self.layer_names, self.style_sizes = self.synthesis.layer_names, self.synthesis.style_sizes
        self.is_torgb = [name.endswith("torgb") for name in self.layer_names]

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], *, conv_clamp: float | None = None) -> Generator:
        """Rebuild a generator from the state dict of a stylegan2-ada-pytorch `Generator`; all sizes are inferred.

        The result lives on the device of the tensors; half precision is widened to float32.

        Args:
            state: official names ("synthesis.b8.conv0.affine.weight", ...) to tensors or arrays, buffers included.
            conv_clamp: not part of a state dict: 256 for the published networks.

        Raises:
            ValueError: another architecture; names the first key that does not fit.
        """
        state = {key: torch.as_tensor(value) if isinstance(value, np.ndarray) else value for key, value in state.items()}
        resolution = max([4, *_numbers(r"synthesis\.b(\d+)\.", state)])
        blocks = [2**i for i in range(2, resolution.bit_length())]
        channels = [_size(state, f"synthesis.b{r}.conv1.weight", 0, of=4) for r in blocks]
        generator = cls(
            z_dim=_size(state, "mapping.fc0.weight", 1, of=2),
            w_dim=_size(state, "synthesis.b4.conv1.affine.weight", 1, of=2),
            mapping_layers=1 + max(_numbers(r"mapping\.fc(\d+)\.", state)),
            resolution=blocks[-1],
            channels=channels,
            const_channels=_size(state, "synthesis.b4.const", 0, of=3),
            conv_clamp=conv_clamp,
        )
        expected = generator.state_dict()
        for key in [*expected, *state]:
            if key not in expected or _shape(state, key) != _shape(expected, key):
                raise _misfit(state, key, f"shape {_shape(expected, key)}" if key in expected else "no such key")
        const = state["synthesis.b4.const"]
        generator.load_state_dict(state)
        return generator.to(const.device, torch.promote_types(const.dtype, torch.float32))

    @classmethod
    def load(cls, path: str | Path, *, conv_clamp: float | None = None, device: str | torch.device = "cpu") -> Generator:
        """Read a generator from a file, frozen; no code in the file is run.

        Args:
            path: an official .pkl of stylegan2-ada-pytorch, or a state dict as .pt, .pth, .bin or .safetensors.
            conv_clamp: as in `from_state_dict`; None takes what the .pkl says, and no bound for a state dict.
            device: where to put it.

        Raises:
            FileNotFoundError: no such file. ValueError: another kind of file or another architecture; a pickle that asks for
                more than tensors and structure.
        """
        if (path := Path(path)).suffix == ".pkl":
            state, settings = read_official(path)
            conv_clamp = settings["conv_clamp"] if conv_clamp is None else conv_clamp
        else:
            state = read_state(path)
        return cls.from_state_dict(state, conv_clamp=conv_clamp).to(device).requires_grad_(False)

    def styles(self, ws: Tensor) -> list[Tensor]:
        """StyleSpace coordinates: ws (n, num_ws, w_dim) -> list of (n, channels), conv and torgb in order.

        They are the outputs of the layers' affine maps; for torgb before the factor 1 / sqrt(channels).
        """
        _check_shape("ws", ws, (None, self.num_ws, self.w_dim))
        convs, styles = 0, []
        for name, is_torgb in zip(self.layer_names, self.is_torgb, strict=True):
            styles.append(self.synthesis.get_submodule(f"{name}.affine")(ws[:, convs]))
            convs += not is_torgb
        return styles

    def states(self, styles: Sequence[Tensor]) -> list[State]:
        """What enters each layer: a list of states in the order of `layer_names`.

        The state of a layer is (x, image): x, (n, channels, h, w), are the features that it convolves; image,
        (n, 3, h, w), is the sum of the pictures of all earlier blocks, at the resolution of the block before (None in
        the first block). `synthesis(styles, start=l, state=states[l])` gives the same picture as `synthesis(styles)`.
        """
        states = [self.synthesis.enter(styles)]
        for i, style in enumerate(styles[:-1]):
            states.append(self.synthesis.step(i, style, *states[-1]))
        return states

    def split(self, flat: Tensor) -> list[Tensor]:
        """Undo `torch.cat(styles, dim=1)`: (n, sum of style_sizes) -> list of (n, channels)."""
        _check_shape("flat styles", flat, (None, sum(self.style_sizes)))
        return list(flat.split(self.style_sizes, dim=1))


def _low_pass() -> Tensor:
    """The 4x4 binomial filter of up-sampling, sum 1; symmetric, so convolution and correlation agree."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(row, row)


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _check_shape(name: str, value: Any, shape: tuple[int | None, ...]) -> None:
    """Refuse anything but a float tensor of this shape; None fits any length."""
    fits = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == len(shape)
    if not fits or not all(s in (None, v) for s, v in zip(shape, value.shape, strict=True)):
        got = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        wanted = ", ".join("n" if s is None else str(s) for s in shape)
        raise ValueError(f"{name} must be a float tensor ({wanted}), got {got}")


def _numbers(pattern: str, state: Mapping[str, Tensor]) -> list[int]:
    return [int(match[1]) for key in state if (match := re.match(pattern, str(key)))]


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    value = state.get(key)
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _size(state: Mapping[str, Tensor], key: str, dim: int, *, of: int) -> int:
    shape = _shape(state, key)
    if shape is None or len(shape) != of:
        raise _misfit(state, key, f"{of} dimensions")
    return shape[dim]


def _misfit(state: Mapping[str, Tensor], key: str, expected: str) -> ValueError:
    found = f"shape {_shape(state, key)}" if _shape(state, key) is not None else type(state.get(key)).__name__
    found = found if key in state else f"nothing (the first of {len(state)} keys is {next(iter(state), None)!r})"
    return ValueError(f"not a StyleGAN2 generator of stylegan2-ada-pytorch: {key!r}: expected {expected}, found {found}")
