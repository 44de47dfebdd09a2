"""What is loaded must be what was asked for: the right kind of model, no code from elsewhere, every weight in its place."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from .. import assets
from ..errors import check_choice

KINDS = {  # kind of packaged model: how its name begins, and a file that it has
    "CLIP": ("", "open_clip_config.json"),
    "InstructPix2Pix editor": ("", "model_index.json"),
    "attribute classifier": ("toonville-attributes", "model.safetensors"),
    "identity embedder": ("toonville-identity", "model.safetensors"),
    "inverter": ("toonville-inverter", "model.safetensors"),
}
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
OPENAI_KEYS = {"input_resolution", "context_length", "vocab_size"}  # in OpenAI's state dicts, and in no others


def packaged_names(kind: str) -> list[str]:
    """Names of the packaged models of one of `KINDS`."""
    start, file = KINDS[kind]
    return sorted({path.split("/")[0] for path in assets.manifest() if path.startswith(start) and path.endswith(f"/{file}")})


def packaged(kind: str, name: str) -> Path:
    """The folder of a packaged model of one of `KINDS`, checked by `assets.packaged_model`.

    Raises:
        ValueError: no model of that name, or one of another kind (lists those of this kind); a file was altered.
    """
    names = packaged_names(kind)
    if name not in names and any(path.startswith(f"{name}/") for path in assets.manifest()):
        raise ValueError(f"the packaged model {name!r} is no {kind}; choose one of: {', '.join(map(repr, names))}")
    check_choice("model", name, names)
    return assets.packaged_model(name)


def refuse_foreign_code(config: Any, where: str, *, local: bool) -> None:
    """Raise ``ValueError`` if a model's configuration asks for code, or, in a `local` folder, for files of other projects.

    open_clip passes such keys on: a tokenizer of Hugging Face with ``trust_remote_code`` runs what its folder says.
    """
    for key in _keys(config):
        if key in ("trust_remote_code", "auto_map") or (
            local and (key.startswith(("hf_", "timm_")) or key == "tokenizer_kwargs")
        ):
            raise ValueError(f"{where} asks for {key!r}, which can fetch and run code from elsewhere: it is not loaded")


def _keys(config: Any) -> Iterator[str]:
    children = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    yield from config if isinstance(config, dict) else ()
    for child in children:
        yield from _keys(child)


def read_config(folder: Path) -> dict[str, Any]:
    """The model part of a folder's open_clip_config.json, after `refuse_foreign_code`."""
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text("utf-8"))
    refuse_foreign_code(config, str(path), local=True)
    return config["model_cfg"]


def weights_file(pretrained: str | Path) -> Path | None:
    """The file that `pretrained` names, or None if it reads like a tag of open_clip.

    Raises:
        FileNotFoundError: there is no such file. ValueError: a folder, or a file of another kind than `SUFFIXES`.
    """
    if not isinstance(pretrained, (str, Path)):
        raise ValueError(f"pretrained must be a tag of open_clip or a file of weights, got {pretrained!r}")
    path = Path(pretrained).expanduser()
    if isinstance(pretrained, str) and len(path.parts) < 2 and path.suffix not in SUFFIXES and not path.exists():
        return None
    if path.is_dir():
        raise ValueError(f"pretrained={str(pretrained)!r} is a folder; give the file with the weights in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {str(path.absolute())!r}")
    check_choice("kind of weights file", path.suffix, SUFFIXES)
    return path


def read_weights(path: Path, *, openai_sha256: str) -> tuple[dict[str, torch.Tensor], bool]:
    """The state dict of a CLIP from a file, and whether it is known to be OpenAI's; never runs code out of it.

    OpenAI's own files are TorchScript archives, which are programs: one is read if its SHA-256 is the one that open_clip knows.

    Raises:
        ValueError: another program, or nothing that can be read as weights.
    """
    from open_clip.factory import load_state_dict

    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: it holds no weights")
    if zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        if assets.sha256_of(path) != openai_sha256:
            raise ValueError(f"{path} is a TorchScript archive, a program, and not OpenAI's of this name: save its state_dict()")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            state = dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    else:
        try:
            state = dict(load_state_dict(str(path), device="cpu", weights_only=True))
        except Exception as error:  # pickle, zip, safetensors and torch have one each
            raise ValueError(f"{path} holds no state dict that can be read without running code: {error}") from error
    if not state:
        raise ValueError(f"{path} holds no weights")
    known = state.keys() >= OPENAI_KEYS
    return {key: value for key, value in state.items() if key not in OPENAI_KEYS}, known


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, or in its "state_dict"; never runs code out of it.

    Raises:
        FileNotFoundError: no such file. ValueError: nothing that can be read as weights, or a kind of file other than `SUFFIXES`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {str(path.absolute())!r}")
    check_choice("kind of weights file", path.suffix, SUFFIXES)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, safetensors and torch have one each
        raise ValueError(f"{path} holds no state dict that can be read without running code: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, a table of tensors by name")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def fill(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, what: str) -> None:
    """Load a state dict into a module; ``ValueError`` that names the first misfit unless all names and shapes are the same."""
    own = module.state_dict()
    for key in [*own, *state]:
        expected, found = (list(tensors[key].shape) if key in tensors else None for tensors in (own, state))
        if expected != found:
            said = ["nothing" if shape is None else f"shape {shape}" for shape in (expected, found)]
            raise ValueError(f"{source} does not hold {what}: {key!r}: expected {said[0]}, found {said[1]}")
    module.load_state_dict(dict(state))


def public_model(name: str, pretrained: str | Path, *, quick_gelu: bool | None) -> tuple[Any, bool]:
    """One of open_clip's architectures with weights, and whether it uses QuickGELU; see `Clip.load`."""
    import open_clip

    config = open_clip.get_model_config(name)
    refuse_foreign_code(config, f"the configuration of {name}", local=False)
    tags = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    file = None if isinstance(pretrained, str) and pretrained in tags else weights_file(pretrained)
    if file is None:
        if not tags:
            raise ValueError(f"open_clip has no tags for {name}: pretrained= must be a file of weights, got {pretrained!r}")
        check_choice(f"pretrained tag of {name}", pretrained, tags)
        quick = bool(tags[str(pretrained)].get("quick_gelu", False))
        options = {"precision": "fp32", "force_quick_gelu": quick, "require_pretrained": True}
        return open_clip.create_model(name, pretrained=str(pretrained), **options), quick
    url = open_clip.get_pretrained_url(name, "openai")
    state, from_openai = read_weights(file, openai_sha256=url.split("/")[-2] if url else "")
    if from_openai or config.get("quick_gelu", False):
        quick = True
    elif quick_gelu is not None:
        quick = quick_gelu
    elif any(tag.get("quick_gelu", False) for tag in tags.values()):
        raise ValueError(
            f"{file} does not tell the activation that its weights were trained with: pass quick_gelu=True (OpenAI, MetaCLIP, "
            "DFN) or quick_gelu=False (most of LAION and DataComp)"
        )
    else:
        quick = False
    looks = [{key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag} for tag in tags.values()]
    shared = looks[0] if looks and all(look == looks[0] for look in looks) and not from_openai else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"  # what was checked and no other bytes
        torch.save(state, path)
        options = {"precision": "fp32", "force_quick_gelu": quick, "force_preprocess_cfg": shared, "require_pretrained": True}
        try:
            model = open_clip.create_model(name, pretrained=str(path), **options)
        except (RuntimeError, KeyError, AttributeError) as error:
            raise ValueError(f"{file} does not hold the weights of {name}: {error}") from error
    sizes = {key: value.numel() for key, value in model.state_dict().items()}
    resized = [key for key, value in state.items() if value.numel() != sizes.get(key, value.numel())]
    if resized:
        raise ValueError(
            f"{resized[0]} in {file} is of another length than in {name}, and would be stretched: take its architecture"
        )
    return model, quick


def check_loaded(module: nn.Module, folder: Path, *, reader: str, variant: str | None = None) -> None:
    """Raise ``ValueError`` unless all weights of a module are those of the safetensors in its folder, and all of those are used.

    Libraries rename weights when they read them, fill in random ones where a name does not fit and only log it. So weights are
    compared by up to 1,000 of their values, under whatever name, and under the same name where there is one.

    Args:
        module: what was loaded. folder: where diffusers or transformers saved it. reader: named in the error. variant: which of
            several sets of weights, such as "fp16".
    """
    own = {k: v for k, v in module.state_dict().items() if not k.endswith("position_ids")}
    dtype = next(v.dtype for v in own.values() if v.is_floating_point())
    found = {name: _sample(value) for name, value in own.items()}
    stored: dict[str, tuple[int, bytes]] = {}
    files = weight_files(folder, variant)
    if not files:
        raise ValueError(f"{folder} has no weights as safetensors")
    for file in files:
        with safe_open(file, "pt") as tensors:
            names = [name for name in tensors.keys() if not name.endswith("position_ids")]  # noqa: SIM118
            stored |= {name: _sample(tensors.get_tensor(name), dtype) for name in names}
    values, kept = set(stored.values()), set(found.values())
    lost = [k for k, v in found.items() if v not in values or stored.get(k, v) != v]
    unused = [k for k, v in stored.items() if v not in kept]
    if lost or unused:
        raise ValueError(
            f"{reader} did not read {folder} as it was saved: {_few(lost)} of {len(found)} weights are not from there, and "
            f"{_few(unused)} of {len(stored)} in it were not used; install another version of it (see pyproject.toml)"
        )


def _few(names: Sequence[str]) -> str:
    return f"{len(names)}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")


def _sample(value: torch.Tensor, dtype: torch.dtype | None = None) -> tuple[int, bytes]:
    flat = value.detach().reshape(-1)
    some = flat[:: max(1, len(flat) // 1000)].cpu()
    return len(flat), some.to(dtype or value.dtype).double().numpy().tobytes()


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The files that are read: the whole one, or the parts that its index lists; none where there are none."""
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
        if index.is_file():
            return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
        if (whole := folder / f"{stem}{f'.{variant}' if variant else ''}.safetensors").is_file():
            return [whole]
    return []
