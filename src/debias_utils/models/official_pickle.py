"""The official StyleGAN2 files (.pkl of stylegan2-ada-pytorch) without running the code in them: tensors and structure only.

Such a file pickles whole modules, each as a call of `torch_utils.persistence._reconstruct_persistent_obj` with the source of its
class, which the official loader executes. Here that call hands back its argument, the few other names of such a file stand for
builders of our own, and everything else is refused before it is called: other names, other opcodes, calls of anything else.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

NETWORK = "G_ema"  # of the three in a file: the average over training
DEPTH = 20  # modules in modules, at most


def read_official(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The generator in an official file: its state dict, and how it was built.

    Args:
        path: a .pkl of stylegan2-ada-pytorch.

    Returns:
        (state, settings): parameters and buffers by their official names; "conv_clamp" and the arguments it was built with, such
        as "img_resolution" and "synthesis_kwargs", as plain numbers, texts and tables.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such file as that, a damaged one, or one that asks for anything but tensors and structure: nothing is run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path.absolute())!r}")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's typed storages are deprecated, and in every such file
        try:
            found = _Reader(file).load()
            network: Any = found.get(NETWORK) if isinstance(found, dict) else None
            if not _is_module(network):
                raise pickle.UnpicklingError(f"it holds no network {NETWORK}")
            state, layers = dict(_tensors(network)), list(_modules(network))
        except (MemoryError, OSError):
            raise
        except Exception as error:  # a damaged pickle raises whatever it likes
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path} is not read as a StyleGAN2 file of stylegan2-ada-pytorch: {reason}") from error
    clamps = {layer["state"]["conv_clamp"] for layer in layers if isinstance(layer["state"].get("conv_clamp"), (int, float))}
    if len(clamps) > 1:
        raise ValueError(f"the layers of {path} have several bounds, {sorted(clamps)}; one is needed")
    arguments = network["state"].get("_init_kwargs")
    return state, {**(arguments if isinstance(arguments, dict) else {}), "conv_clamp": clamps.pop() if clamps else None}


def _is_module(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "class" and isinstance(value.get("state"), dict)


def _modules(module: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    """A module and all modules in it."""
    yield module
    for child in _children(module, depth).values():
        yield from _modules(child, depth + 1)


def _tensors(module: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by their names, in the order of a state dict."""
    state = module["state"]
    for name, value in {**_table(state, "_parameters"), **_table(state, "_buffers")}.items():
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            raise pickle.UnpicklingError(f"{prefix}{name} is no tensor but a {type(value).__name__}")
        yield f"{prefix}{name}", value
    for name, child in _children(module, depth).items():
        yield from _tensors(child, f"{prefix}{name}.", depth + 1)


def _children(module: dict[str, Any], depth: int) -> dict[str, dict[str, Any]]:
    children = {name: child for name, child in _table(module["state"], "_modules").items() if child is not None}
    if depth > DEPTH or not all(_is_module(child) for child in children.values()):
        raise pickle.UnpicklingError("its modules hold something else than modules, or hold each other")
    return children


def _table(state: dict[str, Any], name: str) -> dict[str, Any]:
    table = state.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise pickle.UnpicklingError(f"{name} is no table of names")
    return table


# what the names in a file stand for


def _same(meta: Any) -> Any:
    """_reconstruct_persistent_obj: the module as a table. The source of its class is in it and is not looked at."""
    if not _is_module(meta):
        raise pickle.UnpicklingError("a module without a state")
    return meta


def _storage(data: Any) -> torch.storage.TypedStorage:
    """torch.storage._load_from_bytes, which would run code: each storage is one whole file of torch, of the old format."""
    if not isinstance(data, bytes) or data[:2] == b"PK":
        raise pickle.UnpicklingError("a storage in another form")
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError(f"a storage that is a {type(storage).__name__}")
    return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """torch._utils._rebuild_tensor_v2; its further arguments, hooks among them, are not used."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    if math.prod(size) > storage.size():  # one place shown a million times takes a million places when it is copied
        raise pickle.UnpicklingError("a tensor that is larger than its storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, tuple(size), tuple(stride)).clone()


def _parameter(data: Any, *_: Any) -> torch.Tensor:
    """torch._utils._rebuild_parameter; whether it asks for a gradient, and its hooks, are not used."""
    if not isinstance(data, torch.Tensor):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


class _Dtype:
    """numpy.dtype: of single numbers, such as the gains of layers."""

    def __init__(self, code: Any, *_: Any):
        if code not in ("f8", "f4", "f2", "i8", "i4", "u1", "b1"):
            raise pickle.UnpicklingError(f"numbers of type {code!r}")
        self.kind = np.dtype(f"<{code}")


def _number(dtype: Any, data: Any) -> Any:
    """Numpy's scalar."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or len(data) != dtype.kind.itemsize:
        raise pickle.UnpicklingError("a number that is none")
    return np.frombuffer(data, dtype.kind)[0].item()


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _same,
    ("dnnlib.util", "EasyDict"): dict,
    ("collections", "OrderedDict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
}
REFUSED = (
    *("INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER"),
    "BYTEARRAY8",
)
Unpickler: Any = vars(pickle)["_Unpickler"]  # the one in Python, whose opcodes can be taken away


class _Reader(Unpickler):
    """Unpickles with the builders above; an opcode, a name or a call beyond them is an error before anything happens."""

    dispatch: ClassVar[dict[int, Any]] = dict(Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """The builder for a name."""
        if module.startswith("dnnlib.tflib"):
            raise pickle.UnpicklingError("it is of the TensorFlow version: convert it with legacy.py of stylegan2-ada-pytorch")
        if (module, name) not in BUILDERS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no such file needs; nothing was run")
        return BUILDERS[module, name]

    def load_reduce(self) -> None:
        """Call a builder, and nothing else."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if not any(function is builder for builder in BUILDERS.values()) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls something that is no builder; nothing was run")
        self.stack[-1] = function(*arguments)

    def load_newobj(self) -> None:
        """An empty table."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if kind is not dict or arguments != ():
            raise pickle.UnpicklingError("it makes an object of another kind; nothing was run")
        self.append({})

    def load_build(self) -> None:
        """Set the state of an object: only the byte order of a dtype, which must be the usual one."""
        state, thing = self.stack.pop(), self.stack[-1]
        if not isinstance(thing, _Dtype) or not isinstance(state, tuple) or state[1:2] not in (("<",), ("|",)):
            raise pickle.UnpicklingError("it sets the state of an object; nothing was run")

    def load_refused(self) -> None:
        """An opcode that no such file needs."""
        raise pickle.UnpicklingError("it has an opcode that no such file needs; nothing was run")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    for _name in REFUSED:
        dispatch[getattr(pickle, _name)[0]] = load_refused
