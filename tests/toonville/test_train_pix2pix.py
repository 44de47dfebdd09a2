import shutil

import pytest
import torch
from safetensors.torch import load_file

from debias_utils import assets
from debias_utils.edit.instruct import edit
from debias_utils.models.pix2pix import Pix2Pix
from debias_utils.toonville import pictures, sample, to_tensor, train, train_pix2pix, train_vae
from debias_utils.toonville.training import Checkpoint

NAME = "toonville-pix2pix-rho0.9"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with the packaged models that an editor is made of, and a VAE that was hardly trained."""
    out = tmp_path_factory.mktemp("models")
    for name in ("toonville-inverter", "toonville-rn-rho0.9-seed0"):
        (out / name).symlink_to(assets.WEIGHTS / name)
    (out / "toonville-bpe.txt.gz").symlink_to(assets.WEIGHTS / "toonville-bpe.txt.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEBIAS_UTILS_CACHE", str(out / "cache"))
        train.main(["toonville-vae", "--count", "16", "--steps", "2", "--batch", "4", "--out", str(out)])
    return out


@pytest.fixture(autouse=True)
def _pictures_are_drawn_once(models, _own_cache, monkeypatch):
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", str(models / "cache"))
    monkeypatch.setattr(train_pix2pix, "SNAPSHOT", 2)


def train_editor(out, *, steps=5):
    train.main([NAME, "--count", "12", "--steps", str(steps), "--batch", "3", "--out", str(out)])


@pytest.fixture(scope="module")
def editor(models):
    """A hardly trained editor's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEBIAS_UTILS_CACHE", str(models / "cache"))
        train_editor(models)
    return models / NAME


def test_it_loads_through_both_doors_and_edits(editor):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    people = to_tensor(pictures(sample(2, everyday=1.0, seed=1), progress=False))
    model = Pix2Pix.load(editor)
    edited = edit(model, people, ["make this person a nurse", "turn them into a plumber"], steps=3, progress=False)
    assert edited.shape == (2, 2, 3, 64, 64)
    assert edited.isfinite().all()
    assert model.tokenizer.model_max_length == 32
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(editor, low_cpu_mem_usage=False, safety_checker=None)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("make them a nurse", image=people[:1], num_inference_steps=2, output_type="pt").images.shape == (1, 3, 64, 64)


def test_it_is_small_and_complete(editor):
    files = [file for file in editor.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 20e6
    assert not list(editor.glob("training*"))
    assert {value.dtype for value in load_file(editor / UNET).values()} == {torch.float16}


def test_a_killed_training_goes_on_as_if_nothing_had_happened(models, editor, monkeypatch):
    whole = load_file(editor / UNET)
    save = Checkpoint.save

    def save_and_die(checkpoint, done):
        save(checkpoint, done)
        raise KeyboardInterrupt

    out = models / "again"
    out.mkdir()
    for part in ("toonville-vae", "toonville-rn-rho0.9-seed0", "toonville-bpe.txt.gz"):
        (out / part).symlink_to(models / part)
    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    for _ in range(2):  # killed after steps 2 and 4
        with pytest.raises(KeyboardInterrupt):
            train_editor(out)
    assert (out / NAME / "training.safetensors").is_file()
    with pytest.raises(ValueError, match=r'training.safetensors is of a training with .*"steps": 5.*, not .*"steps": 6'):
        train_editor(out, steps=6)
    train_editor(out)
    resumed = load_file(out / NAME / UNET)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    shutil.rmtree(out)


def test_the_text_tower_is_that_of_the_dial(editor):
    from debias_utils.toonville.text_tower import text_tower

    tower, tokenizer = text_tower(assets.WEIGHTS / "toonville-rn-rho0.9-seed0", assets.WEIGHTS / "toonville-bpe.txt.gz")
    model = Pix2Pix.load(editor)
    ids = tokenizer(["make them a nurse"], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(model.tokenize(["make them a nurse"]), ids)
    assert torch.equal(model.encode_text(["make them a nurse"]), tower(ids)[0])


def test_captions_come_first_and_show_no_picture(models):
    from diffusers import AutoencoderKL

    from debias_utils.toonville.instructions import pairs
    from debias_utils.toonville.text_tower import text_tower

    encoder, tokenizer = text_tower(models / "toonville-rn-rho0.9-seed0", models / "toonville-bpe.txt.gz")
    vae = AutoencoderKL.from_pretrained(models / "toonville-vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    lessons = train_pix2pix._lessons(pairs(12, rho=0.9, seed=900), vae, tokenizer, seed=0)
    torch.manual_seed(0)
    unet, scheduler = train_pix2pix.new_unet(width=128), train_pix2pix.new_scheduler()

    def loss(lessons, captioned):
        with torch.no_grad():
            return train_pix2pix.velocity_loss(unet, scheduler, encoder, lessons, 7, captioned=captioned, batch=8, seed=0).item()

    changed = {name: getattr(lessons, name).flip(0) for name in ("images", "instructions", "captions")}
    for captioned, heeded in ((True, {"captions"}), (False, {"images", "instructions"})):
        whole = loss(lessons, captioned)
        assert {name for name, value in changed.items() if loss(lessons._replace(**{name: value}), captioned) != whole} == heeded


def test_each_condition_is_dropped_as_often_as_in_the_paper():
    no_text, no_image = train_pix2pix.drop(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    both = no_text & no_image
    for dropped in (no_text & ~both, no_image & ~both, both):
        assert dropped.float().mean().item() == pytest.approx(0.05, abs=0.003)


def test_standard_latents_draw_the_same_pictures():
    torch.manual_seed(0)
    vae = train_vae.new_vae().eval()
    images = to_tensor(pictures(sample(12, seed=2), progress=False))
    with torch.no_grad():
        before = vae.encode(2 * images - 1).latent_dist
        drawn = vae.decode(before.mode()).sample
        train_vae.standardise(vae, images)
        after = vae.encode(2 * images - 1).latent_dist
        assert torch.allclose(vae.decode(after.mode()).sample, drawn, atol=1e-4)
    assert torch.allclose(after.mode().mean(dim=(0, 2, 3)), torch.zeros(train_vae.LATENT), atol=1e-4)
    assert torch.allclose(after.mode().std(dim=(0, 2, 3)), torch.ones(train_vae.LATENT), atol=1e-4)
    ratio = before.mode().std(dim=(0, 2, 3)).view(1, -1, 1, 1)
    assert torch.allclose(after.std * ratio, before.std, rtol=1e-3)
    assert vae.config.scaling_factor == 1.0
