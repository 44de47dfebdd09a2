import copy
import json
import shutil
import warnings

import open_clip
import pytest
import torch

from debias_utils import assets
from debias_utils.models.attributes import AttributeClassifier
from debias_utils.models.clip import Clip
from debias_utils.models.identity import IdentityEmbedder
from debias_utils.models.inverter import Inverter
from debias_utils.models.loading import check_loaded, packaged_names
from debias_utils.models.pix2pix import Pix2Pix

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two architectures, "tiny-16" and "tiny-16-quickgelu", and a state dict that fits both."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, more in (("tiny-16", {}), ("tiny-16-quickgelu", {"quick_gelu": True})):
        (folder / f"{name}.json").write_text(json.dumps({**CONFIG, **more}))
        open_clip.add_model_config(folder / f"{name}.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.create_model("tiny-16").state_dict()


@pytest.fixture
def tagged(monkeypatch):
    """As if open_clip knew weights with QuickGELU for "tiny-16", as it does for ViT-B-32."""
    from open_clip import pretrained

    plain = {"url": "", "hf_hub": "", "mean": (0.1, 0.2, 0.3), "std": (0.3, 0.3, 0.3), "interpolation": "bicubic"}
    tags = {"openai": {**plain, "quick_gelu": True}, "laion": plain}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-16", tags)


def program(state, path):
    """Save a state dict as OpenAI does: a TorchScript archive of modules with these parameters, in half precision."""
    root = torch.nn.Module()
    for name, value in state.items():
        *way, last = name.split(".")
        module = root
        for step in way:
            if step not in dict(module.named_children()):
                module.add_module(step, torch.nn.Module())
            module = module.get_submodule(step)
        module.register_buffer(last, value.half() if value.is_floating_point() else value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(root).save(path)


def uses_quick_gelu(clip):
    return {type(m).__name__ for m in clip.model.modules()} & {"QuickGELU", "GELU"} == {"QuickGELU"}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_weights_from_a_file_of_every_kind(tiny, tmp_path, suffix, kind):
    from safetensors.torch import save_file

    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny, path)
    clip = Clip.load("tiny-16", pretrained=kind(path))
    assert all(torch.equal(value, tiny[name]) for name, value in clip.model.state_dict().items())
    assert not uses_quick_gelu(clip)
    assert uses_quick_gelu(Clip.load("tiny-16", pretrained=path, quick_gelu=True))
    assert uses_quick_gelu(Clip.load("tiny-16-quickgelu", pretrained=path))


def test_openai_weights_are_known_and_others_must_be_told(tiny, tagged, tmp_path):
    marks = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}
    torch.save({**tiny, **marks}, tmp_path / "openai.pt")
    torch.save(tiny, tmp_path / "other.pt")
    assert uses_quick_gelu(Clip.load("tiny-16", pretrained=tmp_path / "openai.pt"))
    with pytest.raises(ValueError, match=r"other.pt does not tell the activation .* quick_gelu=True .* or quick_gelu=False"):
        Clip.load("tiny-16", pretrained=tmp_path / "other.pt")
    clip = Clip.load("tiny-16", pretrained=tmp_path / "other.pt", quick_gelu=False)
    assert not uses_quick_gelu(clip)
    assert clip.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])  # as all tags say
    with pytest.raises(ValueError, match=r"quick_gelu=False contradicts tiny-16 .*openai.pt.*: True"):
        Clip.load("tiny-16", pretrained=tmp_path / "openai.pt", quick_gelu=False)


def test_openai_archives_are_known_by_their_checksum(tiny, tagged, tmp_path):
    from open_clip import pretrained

    path = tmp_path / "tiny.pt"
    program(
        {**tiny, "input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(9)}, path
    )
    with pytest.raises(ValueError, match="is a TorchScript archive, a program, and not OpenAI's of this name"):
        Clip.load("tiny-16", pretrained=path)
    pretrained._PRETRAINED["tiny-16"]["openai"]["url"] = f"https://openaipublic/{assets.sha256_of(path)}/tiny.pt"
    clip = Clip.load("tiny-16", pretrained=path)
    assert uses_quick_gelu(clip)
    assert all(torch.equal(value, tiny[name].half().float()) for name, value in clip.model.state_dict().items())


def test_programs_and_strangers_are_not_read(tiny, tmp_path):
    program({"weight": torch.ones(2)}, tmp_path / "program.pt")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"state_dict": {"other": torch.ones(2)}}, tmp_path / "other.pt")
    longer = {**tiny, "positional_embedding": torch.zeros(90, 16)}
    torch.save(longer, tmp_path / "longer.pt")
    for name, message in [
        ("program.pt", "is a TorchScript archive, a program"),
        ("text.pt", "holds no state dict that can be read"),
        ("other.pt", "other.pt does not hold the weights of tiny-16"),
        ("longer.pt", "positional_embedding in .*longer.pt is of another length than in tiny-16"),
        ("", "is a folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            Clip.load("tiny-16", pretrained=tmp_path / name)
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"unknown kind of weights file '.npz'; choose one of: '.pt'"):
        Clip.load("tiny-16", pretrained=tmp_path / "weights.npz")
    for missing in (tmp_path / "gone.pt", "gone.pth", "gone.safetensors", "some/where"):
        with pytest.raises(FileNotFoundError, match="there is no file of weights"):
            Clip.load("tiny-16", pretrained=missing)


def test_an_architecture_needs_weights():
    with pytest.raises(ValueError, match=r"'RN50' is an architecture of open_clip: pretrained= must be 'openai', .*'cc12m'"):
        Clip.load("RN50")
    with pytest.raises(ValueError, match="open_clip has no tags for coca_base: pretrained= must be a file"):
        Clip.load("coca_base", pretrained="openai")
    with pytest.raises(ValueError, match=r"'coca_base' is an architecture of open_clip: .*file of weights"):
        Clip.load("coca_base")


@pytest.mark.parametrize(
    ("load", "kind", "right"),
    [
        (Clip.load, "CLIP", "toonville-vit-rho0.9-seed0"),
        (AttributeClassifier.load, "attribute classifier", "toonville-attributes"),
        (IdentityEmbedder.load, "identity embedder", "toonville-identity"),
        (Inverter.load, "inverter", "toonville-inverter"),
    ],
)
def test_models_of_another_kind_are_refused_and_not_listed(load, kind, right):
    every = {path.split("/")[0] for path in assets.manifest() if "/" in path}
    own = set(packaged_names(kind))
    assert right in own
    for other in every - own:
        with pytest.raises(ValueError, match=f"'{other}' is no {kind}; choose one of") as refused:
            load(other)
        listed = str(refused.value).split("choose one of")[1]
        assert [name for name in every if f"'{name}'" in listed] == [name for name in every if name in own]
    with pytest.raises(ValueError, match="unknown model 'nobody'; choose one of"):
        load("nobody")


def test_editors_by_name():
    assert Pix2Pix.load("toonville-pix2pix-rho0").width == Pix2Pix.load(assets.WEIGHTS / "toonville-pix2pix-rho0").width
    with pytest.raises(ValueError, match=r"nor a packaged editor: 'toonville-pix2pix-rho0', 'toonville-pix2pix-rho0.9'$"):
        Pix2Pix.load("toonville-attributes")


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("text_cfg", "hf_tokenizer_name", "here"),
        ("text_cfg", "hf_model_name", "somewhere/else"),
        ("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}),
        ("vision_cfg", "timm_model_name", "hf-hub:somewhere/else"),
        ("model_cfg", "auto_map", {}),
    ],
)
def test_a_rewritten_config_cannot_ask_for_code(monkeypatch, tmp_path, place, key, value):
    """The hostile folder and its manifest agree; its tokenizer would leave a file behind if it ran."""
    name, ran = "toonville-rn-rho0.9-seed0", tmp_path / "ran"
    folder = tmp_path / name
    shutil.copytree(assets.WEIGHTS / name, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    model = config["model_cfg"]
    (model if place == "model_cfg" else model[place])[key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr(assets, "packaged_model", lambda name: folder)
    with pytest.raises(ValueError, match=rf"open_clip_config.json asks for '{key}', which can fetch and run code"):
        Clip.load(name)
    assert not ran.exists()


def test_a_packaged_folder_without_weights_is_no_random_model(monkeypatch, tmp_path):
    name = "toonville-rn-rho0.9-seed0"
    shutil.copytree(assets.WEIGHTS / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(assets, "packaged_model", lambda name: tmp_path / name)
    with pytest.raises(RuntimeError, match="could not be loaded"):
        Clip.load(name)


def test_a_text_tower_that_was_filled_in_at_random_is_an_error(monkeypatch):
    """What transformers 4.57 and 5.0.0 do with the packaged editors, with a line in the log only."""
    from transformers import CLIPTextConfig, CLIPTextModel

    source = assets.WEIGHTS / "toonville-pix2pix-rho0"
    made = CLIPTextModel(CLIPTextConfig.from_pretrained(source / "text_encoder"))
    monkeypatch.setattr(CLIPTextModel, "from_pretrained", classmethod(lambda *_, **__: made))
    with pytest.raises(
        ValueError, match=r"transformers \S+ did not read .*text_encoder as it was saved: .*weight.* not from there"
    ):
        Pix2Pix.load(source)


def test_loaded_weights_are_compared_by_value_under_any_name(tmp_path):
    from safetensors.torch import save_file

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    state = {f"renamed.{name}": value.clone() for name, value in module.state_dict().items()}
    save_file({**state, "position_ids": torch.arange(5)}, tmp_path / "model.safetensors")
    check_loaded(module, tmp_path, reader="here")
    check_loaded(copy.deepcopy(module).half(), tmp_path, reader="here")  # rounding is not a difference
    torch.nn.init.zeros_(module[0].weight)
    with pytest.raises(ValueError, match=r"1 \(0.weight\) of 7 weights are not from there, and 1 \(renamed.0.weight\) of 7"):
        check_loaded(module, tmp_path, reader="here")
    save_file({"0.weight": state["renamed.0.weight"]}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="here did not read"):
        check_loaded(module, tmp_path, reader="here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_editors_saved_in_half_precision(instruct_files, tmp_path, dtype):
    """As the hub keeps a second, smaller set of weights: .fp16.safetensors."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    folder = instruct_files / "pipeline"
    options = {"safety_checker": None, "requires_safety_checker": False, "local_files_only": True, "low_cpu_mem_usage": False}
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(str(folder), **options).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    assert not (tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    whole, half = Pix2Pix.load(folder, dtype=torch.float32), Pix2Pix.load(tmp_path / "half", dtype=dtype)
    assert half.dtype == dtype
    for name, value in half.unet.state_dict().items():
        assert torch.equal(value.half(), whole.unet.state_dict()[name].half())
    torch.nn.init.zeros_(half.unet.conv_in.weight)
    with pytest.raises(ValueError, match=r"did not read .*unet as it was saved"):
        check_loaded(half.unet, tmp_path / "half" / "unet", reader="it", variant="fp16")
    with pytest.raises(ValueError, match="has no weights as safetensors"):
        check_loaded(half.unet, tmp_path / "half" / "unet", reader="it")
