import hashlib

import numpy as np
import pytest
import torch
from torchvision.models import resnet34

from debias_utils.models.fairface import AGES, FairFace


@pytest.fixture(scope="module")
def state():
    """The weights of the recipe in the fixture's README."""
    rng, drawn = np.random.RandomState(8001), {}
    for key, value in sorted(resnet34(num_classes=18).state_dict().items()):
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            drawn[key] = torch.tensor(1000)
            continue
        if len(shape) == 4:
            array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif key.startswith("fc."):
            array = rng.standard_normal(shape) * (0.035 if key == "fc.weight" else 0.5)
        elif key.endswith("running_mean"):
            array = rng.standard_normal(shape) * 0.1
        elif key.endswith("running_var"):
            array = 1 + 0.5 * rng.random_sample(shape)
        else:
            array = 0.1 * rng.standard_normal(shape)
            array += 0 if key.endswith("bias") else 0.4 if ".bn2." in key else 0.9
        drawn[key] = torch.from_numpy(np.asarray(array, np.float32))
    digest = hashlib.sha256()
    for key in sorted(drawn):
        digest.update(key.encode() + drawn[key].numpy().tobytes())
    assert digest.hexdigest() == "9caf2898c6a9c136705e4fc5c3658ea7c9ab1b9caaae9c4e0ec2efcaeb3c3f08"
    return drawn


@pytest.fixture(scope="module")
def fairface(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("fairface") / "weights.pt"
    torch.save(state, path)
    return FairFace.load(path)


@pytest.fixture(scope="module")
def reference(fixtures):
    return {name: torch.from_numpy(value) for name, value in np.load(fixtures / "fairface" / "reference.npz").items()}


def test_official_outputs_of_bytes(fairface, reference):
    images = reference["images"].permute(0, 3, 1, 2)
    assert torch.allclose(fairface.logits(images), reference["logits"], atol=1e-5)
    answers = fairface(images)
    for name in ("race", "gender", "age"):
        assert torch.allclose(answers[name], reference[name], atol=1e-5)


def test_pictures_in_0_to_1_give_nearly_the_same_and_a_gradient(fairface, reference):
    images = (reference["images"].permute(0, 3, 1, 2) / 255).requires_grad_(True)
    logits = fairface.logits(images)
    assert torch.allclose(logits, reference["logits"], atol=0.05)  # no rounding to bytes after the resizing
    logits[:, 7].sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0


def test_names_and_their_order(fairface, reference):
    assert [len(names) for names in fairface.classes.values()] == [7, 2, 9]
    assert fairface.classes["gender"][0] == "Male"
    images = reference["images"].permute(0, 3, 1, 2) / 255
    labels = fairface.labels(images)
    assert labels["age"].tolist() == [AGES[i] for i in reference["age"].argmax(dim=1)]


def test_four_races_read_the_first_four_outputs(state, tmp_path, reference):
    torch.save(state, tmp_path / "four.pth")
    fairface = FairFace.load(tmp_path / "four.pth", races=4)
    answers = fairface(reference["images"].permute(0, 3, 1, 2))
    assert torch.allclose(answers["race"], reference["logits"][:, :4].softmax(dim=1), atol=1e-5)
    assert torch.allclose(answers["gender"], reference["gender"], atol=1e-5)
    with pytest.raises(ValueError, match="unknown number of races 5; choose one of: 7, 4"):
        FairFace.load(tmp_path / "four.pth", races=5)


def test_weights_may_be_wrapped_and_of_a_parallel_model(state, tmp_path, fairface, reference):
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pt")
    images = reference["images"].permute(0, 3, 1, 2)
    assert torch.equal(FairFace.load(tmp_path / "wrapped.pt").logits(images), fairface.logits(images))


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda state: resnet34(num_classes=1000).state_dict(),
            r"'fc.weight': expected shape \[18, 512\], found shape \[1000, 512\]",
        ),
        (lambda state: {k: v for k, v in state.items() if k != "bn1.bias"}, r"'bn1.bias': expected shape \[64\], found nothing"),
        (lambda state: {**state, "extra": torch.zeros(2)}, r"'extra': expected nothing, found shape \[2\]"),
        (lambda state: {"evil": Evil()}, "holds no state dict that can be read without running code"),
        (lambda state: [1, 2], "holds no state dict, a table of tensors"),
    ],
)
def test_other_files_are_refused(state, tmp_path, made, message, capsys):
    torch.save(made(state), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        FairFace.load(tmp_path / "other.pt")
    assert "ran" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="there is no file of weights"):
        FairFace.load(tmp_path / "gone.pt")


@pytest.mark.parametrize(
    "images", [torch.rand(1, 1, 64, 64), torch.rand(1, 3, 64, 64) * 255, torch.zeros(1, 1, 9, 9, dtype=torch.uint8)]
)
def test_other_pictures_are_refused(fairface, images):
    with pytest.raises(ValueError, match="pictures"):
        fairface(images)
