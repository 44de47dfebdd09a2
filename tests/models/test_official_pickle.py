"""Official files are read; those that ask for more than tensors and structure are refused before anything happens."""

import builtins
import io
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
import torch
from official_files import SOURCE, as_modules, official_names, write_official
from safetensors.torch import save_file

from debias_utils.models.official_pickle import read_official
from debias_utils.models.stylegan2 import Generator


@pytest.fixture(scope="module")
def state(fixtures):
    return {name: torch.from_numpy(value) for name, value in np.load(fixtures / "stylegan2" / "generator.npz").items()}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_official_file_gives_the_state_dict(state, tmp_path, protocol):
    write_official(state, tmp_path / "g.pkl", protocol=protocol, source=SOURCE.format(path=str(tmp_path / "ran")))
    found, settings = read_official(tmp_path / "g.pkl")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert settings == {"conv_clamp": 256, "img_resolution": 64, "synthesis_kwargs": {"num_fp16_res": 4}}
    assert not (tmp_path / "ran").exists()  # the source of the classes is in the file, and is not run


def test_all_ways_into_a_generator_agree(state, tmp_path, fixtures):
    write_official(state, tmp_path / "g.pkl", clamp=1.0)
    save_file(state, tmp_path / "g.safetensors")
    torch.save(state, tmp_path / "g.pt")
    reference = {k: torch.from_numpy(v) for k, v in np.load(fixtures / "stylegan2" / "reference.npz").items()}
    clamped = Generator.load(tmp_path / "g.pkl")
    images = clamped.synthesis(clamped.styles(reference["ws_psi0.7"][:1]))
    assert torch.allclose(images, reference["img_psi0.7_conv_clamp1.0"], atol=2e-4)  # the bound that the file says
    for name in ("g.safetensors", "g.pt"):
        generator = Generator.load(tmp_path / name)
        images = generator.synthesis(generator.styles(reference["ws_psi0.7"]))
        assert torch.allclose(images[:1], reference["img_psi0.7"], atol=2e-4)
        assert not any(parameter.requires_grad for parameter in generator.parameters())
    again = Generator.load(tmp_path / "g.pt", conv_clamp=1.0)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in clamped.state_dict().items())


def test_a_file_of_another_network_is_refused(state, tmp_path):
    write_official({"b4.conv.weight": torch.zeros(2, 2)}, tmp_path / "d.pkl")
    with pytest.raises(ValueError, match="not a StyleGAN2 generator of stylegan2-ada-pytorch"):
        Generator.load(tmp_path / "d.pkl")
    write_official(state, tmp_path / "none.pkl", G_ema=None)
    with pytest.raises(ValueError, match="it holds no network G_ema"):
        read_official(tmp_path / "none.pkl")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_official(tmp_path / "gone.pkl")


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1000], lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\x80\x04", lambda d: d[5:]]
)
def test_damaged_files_are_refused(state, tmp_path, damage):
    write_official(state, tmp_path / "g.pkl")
    (tmp_path / "g.pkl").write_bytes(damage((tmp_path / "g.pkl").read_bytes()))
    with pytest.raises(ValueError, match="is not read as a StyleGAN2 file"):
        read_official(tmp_path / "g.pkl")


# hostile files: each would leave a file behind, or take the machine's memory


def named(module, name, *, stacked=False):
    if not stacked:
        return f"c{module}\n{name}\n".encode()
    return b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, name)) + b"\x93"


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def data(value):
    return b"B" + struct.pack("<I", len(value)) + value


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


class Run:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def storage(inner):
    """What the official classes keep a tensor in: a whole file of torch, of the old format."""
    packed = io.BytesIO()
    torch.save(inner, packed, _use_new_zipfile_serialization=False)
    return packed.getvalue()


REBUILD = named("torch._utils", "_rebuild_tensor_v2")
BYTES = named("torch.storage", "_load_from_bytes")
META = named("torch_utils.persistence", "_reconstruct_persistent_obj")
TOUCH = "touch ran"
CODE = "open('ran', 'w').close()"
NAMED = {
    "os.system": call(named("os", "system"), text(TOUCH)),
    "posix.system": call(named("posix", "system"), text(TOUCH)),
    "os.system, by the stack": call(named("os", "system", stacked=True), text(TOUCH)),
    "builtins.eval": call(named("builtins", "eval"), text(CODE)),
    "builtins.exec": call(named("builtins", "exec"), text(CODE)),
    "__builtin__.eval": call(named("__builtin__", "eval"), text(CODE)),
    "builtins.open": call(named("builtins", "open"), text("ran"), text("w")),
    "builtins.getattr": call(named("builtins", "getattr"), named("os", "system"), text("__call__")),
    "builtins.__import__": call(named("builtins", "__import__"), text("os")),
    "builtins.compile": call(named("builtins", "compile"), text(CODE), text("x"), text("exec")),
    "builtins.map": call(named("builtins", "map"), named("builtins", "eval"), b"]" + text(CODE) + b"a"),
    "subprocess.Popen": call(named("subprocess", "Popen"), b"]" + text("touch") + b"a" + text("ran") + b"a"),
    "subprocess.check_output": call(named("subprocess", "check_output"), b"]" + text("touch") + b"a" + text("ran") + b"a"),
    "importlib.import_module": call(named("importlib", "import_module"), text("antigravity")),
    "runpy.run_path": call(named("runpy", "run_path"), text("code.py")),
    "pickle.loads": call(named("pickle", "loads"), data(pickle.dumps(Run(TOUCH)))),
    "functools.partial": call(named("functools", "partial"), named("os", "system"), text(TOUCH)),
    "operator.methodcaller": call(named("operator", "methodcaller"), text("system"), text(TOUCH)),
    "operator.attrgetter": call(named("operator", "attrgetter"), text("system")),
    "types.FunctionType": call(named("types", "FunctionType")),
    "types.CodeType": call(named("types", "CodeType")),
    "torch.load": call(named("torch", "load"), text("code.pt")),
    "torch.serialization.load": call(named("torch.serialization", "load"), text("code.pt")),
    "torch.jit.load": call(named("torch.jit", "load"), text("code.pt")),
    "torch.hub.load": call(named("torch.hub", "load"), text("somebody/else"), text("model")),
    "numpy.load": call(named("numpy", "load"), text("code.npy")),
    "shutil.rmtree": call(named("shutil", "rmtree"), text("folder")),
    "pathlib.Path": call(named("pathlib", "Path"), text("ran")),
    "socket.create_connection": call(named("socket", "create_connection"), text("x")),
    "timeit.timeit": call(named("timeit", "timeit"), text(CODE)),
    "code.interact": call(named("code", "interact")),
    "a dotted name": call(named("collections", "OrderedDict.__init__.__globals__", stacked=True)),
    "a dotted name of a builder": call(named("torch.storage", "_load_from_bytes.__globals__.get", stacked=True), text("os")),
    "our own reader": call(named("debias_utils.models.official_pickle", "read_official"), text("other.pkl")),
}
OTHER = {
    "opcode INST": b"(" + text(TOUCH) + b"ios\nsystem\n",
    "opcode OBJ": b"(" + named("builtins", "set") + text(TOUCH) + b"o",
    "opcode EXT1": b"\x82\x01",
    "opcode EXT4": b"\x84\x01\x00\x00\x00",
    "opcode PERSID": b"Pos.system\n",
    "opcode BINPERSID": text("os.system") + b"Q",
    "opcode NEWOBJ of a set": named("builtins", "set") + b")\x81",
    "opcode NEWOBJ of a function": BYTES + b"(" + data(b"x") + b"t\x81",
    "opcode NEWOBJ_EX": named("dnnlib.util", "EasyDict") + b")}\x92",
    "opcode BUILD of a function": BYTES + b"}" + text("__code__") + b"NsNb",
    "opcode BUILD of slots": BYTES + b"N}" + text("__defaults__") + b"Ns\x86b",
    "opcode BUILD of a class": named("dnnlib.util", "EasyDict") + b"}" + text("__init__") + BYTES + b"sb",
    "opcode BUILD of a dtype": call(named("numpy", "dtype"), text("f8")) + b"(K\x03" + text(">") + b"tb",
    "a call of a table": call(b"}"),
    "a call of a text": call(text("os.system"), text(TOUCH)),
    "a call with a list": META + b"]" + text("x") + b"aR",
    "a dtype of objects": call(named("numpy", "dtype"), text("O8")),
    "a number of another length": call(
        named("numpy.core.multiarray", "scalar"), call(named("numpy", "dtype"), text("f8")), data(b"x" * 7)
    ),
    "a storage with code in it": call(BYTES, data(storage({"a": Run(TOUCH)}))),
    "a storage that is code": call(BYTES, data(pickle.dumps(Run(TOUCH)))),
    "a storage in a zip": call(BYTES, data(b"PK\x03\x04" + bytes(100))),
    "a storage that is a tensor": call(BYTES, data(storage(torch.zeros(3)))),
    "a tensor of hooks": call(REBUILD, call(named("os", "system"), text(TOUCH)), b"K\x00", b")", b")", b"\x89", b"}"),
    "a tensor without a storage": call(REBUILD, text("x"), b"K\x00", b"K\x01\x85", b"K\x01\x85"),
    "a parameter that is none": call(named("torch._utils", "_rebuild_parameter"), text("x"), b"\x89", b"}"),
    "a module without a state": call(META, b"}"),
    "a module of text": call(META, text("x")),
    "a TensorFlow file": named("dnnlib.tflib.network", "Network") + b")\x81",
}


@pytest.mark.parametrize("kind", [*NAMED, *OTHER])
def test_hostile_files_run_nothing(state, tmp_path, monkeypatch, kind):
    """The gadget stands before a good network, so that only the refusal keeps it from being read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "code.pt").write_bytes(pickle.dumps(Run(TOUCH)))
    write_official({"b4.const": torch.ones(2)}, "good.pkl")
    read_official("good.pkl")
    gadget = {**NAMED, **OTHER}[kind]
    good = (tmp_path / "good.pkl").read_bytes()
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x04" + gadget + b"0" + without_frames(good))
    used = []
    for module, name in ((os, "system"), (subprocess, "Popen"), (builtins, "eval"), (builtins, "exec")):
        monkeypatch.setattr(module, name, lambda *_, **__: used.append(1))
    with pytest.raises(ValueError, match=r"bad.pkl is not read as a StyleGAN2 file of stylegan2-ada-pytorch: .") as refused:
        read_official("bad.pkl")
    assert used == []
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "folder").exists()
    if kind in NAMED:
        assert "which no such file needs; nothing was run" in str(refused.value)


def without_frames(packed):
    """A pickle without its header, and so that it may follow another part."""
    return packed[2:]


def test_the_gadgets_are_alive(tmp_path, monkeypatch):
    """Python's own pickle runs them: a test that refuses dead ones would prove nothing."""
    monkeypatch.chdir(tmp_path)
    for kind in ("os.system", "posix.system", "os.system, by the stack", "builtins.eval", "builtins.exec"):
        pickle.loads(b"\x80\x04" + NAMED[kind] + b".")
        assert (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink()
    pickle.loads(b"\x80\x04" + OTHER["opcode INST"] + b".")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("size", "stride"), [((10**6, 10**6), (0, 0)), ((5,), (1,)), ((2,), (-1,)), ((2, 2), (3, 1))])
def test_tensors_larger_than_their_storage_are_refused(tmp_path, size, stride):
    """A few bytes that would take a million times a million places in memory."""
    inner = call(BYTES, data(storage(torch.zeros(4).storage())))
    numbers = [b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t" for values in (size, stride)]
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x04" + call(REBUILD, inner, b"K\x00", *numbers, b"\x89", b"}") + b".")
    with pytest.raises(ValueError, match="is not read as a StyleGAN2 file"):
        read_official(tmp_path / "bad.pkl")


def test_modules_that_hold_each_other_or_no_tensors_are_refused(tmp_path):
    for change, message in [
        (lambda state: state["_modules"].update(a=3), "hold something else than modules"),
        (lambda state: state["_parameters"].update({"a": 3}), "a is no tensor but a int"),
        (lambda state: state["_parameters"].update({3: torch.ones(1)}), "_parameters is no table of names"),
    ]:
        with official_names():
            network = as_modules({"b4.const": torch.ones(2)})
            change(network.meta["state"])
            (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"G_ema": network}))
        with pytest.raises(ValueError, match=message):
            read_official(tmp_path / "bad.pkl")
    loop = b"\x80\x04" + text("G_ema") + call(META, loop_of_modules())
    (tmp_path / "loop.pkl").write_bytes(loop[:2] + b"}" + loop[2:] + b"s.")
    with pytest.raises(ValueError, match="or hold each other"):
        read_official(tmp_path / "loop.pkl")


def loop_of_modules():
    """{"type": "class", "state": {"_modules": {"a": itself}}}."""
    return b"}\x94(" + text("type") + text("class") + text("state") + b"}" + text("_modules") + b"}" + text("a") + b"h\x00ssu"
