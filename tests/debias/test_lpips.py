import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from debias_utils.debias.lpips import load_lpips

SEEDS = {"alex": 5001, "squeeze": 5002}  # of the trunks' weights, tests/fixtures/lpips/README.md
NETS = {"alex": torchvision.models.alexnet, "squeeze": torchvision.models.squeezenet1_1, "vgg": torchvision.models.vgg16}
LAST = {"alex": 12, "squeeze": 13, "vgg": 30}  # layers of the trunk that LPIPS keeps


def backbone(name, seed=0):
    """All weights of torchvision's network, classifier included; those of the trunk as in the fixture's recipe."""
    with torch.device("meta"):
        state = NETS[name]().state_dict()
    rng, made = np.random.RandomState(SEEDS.get(name, seed)), {}
    for key, value in state.items():
        if key.startswith("features.") and int(key.split(".")[1]) < LAST[name]:
            scale = math.sqrt(2 / math.prod(value.shape[1:])) if value.ndim == 4 else 0.1
            made[key] = torch.from_numpy((rng.standard_normal(value.shape) * scale).astype(np.float16)).float()
        elif key.startswith("features."):
            made[key] = torch.zeros(value.shape)
        else:
            made[key] = torch.zeros(1)  # the classifier is not read
    return made


@pytest.fixture(scope="module")
def files(fixtures, tmp_path_factory):
    """As torchvision and the lpips package save them."""
    import lpips

    folder = tmp_path_factory.mktemp("lpips")
    for name in NETS:
        torch.save(backbone(name), folder / f"{name}-backbone.pth")
    own = Path(lpips.__file__).parent / "weights" / "v0.1"
    return lambda name: (folder / f"{name}-backbone.pth", own / f"{name}.pth")


@pytest.mark.parametrize("shape", ["square", "rect"])
@pytest.mark.parametrize("name", ["alex", "squeeze"])
def test_official_distances(files, fixtures, name, shape):
    inputs, reference = np.load(fixtures / "lpips" / "inputs.npz"), np.load(fixtures / "lpips" / f"{name}.npz")
    a, b = ((torch.from_numpy(inputs[f"{shape}/{k}"]) + 1) / 2 for k in ("in0", "in1"))
    distance = load_lpips(*files(name), network=name)(a, b)
    assert np.allclose(distance, reference[f"{shape}/distance"].ravel(), rtol=1e-4, atol=0)


def test_it_agrees_with_the_package_over_vgg(files):
    import warnings

    import lpips

    perceptual = load_lpips(*files("vgg"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    trunk = {key.split(".", 1)[1]: value for key, value in torch.load(files("vgg")[0]).items() if key.startswith("features.")}
    for key, value in package.net.named_parameters():
        value.data = trunk[key.split(".", 1)[1]]
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(perceptual(a, b), package(a, b, normalize=True).flatten(), rtol=1e-4)
    assert perceptual(a, a).tolist() == [0, 0]


def test_large_pictures_are_made_smaller(files):
    perceptual = load_lpips(*files("alex"), network="alex", side=64)
    a, b = torch.rand(2, 1, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    small = [torchvision.transforms.functional.resize(x, [64], antialias=True) for x in (a, b)]
    assert torch.allclose(perceptual(a, b), perceptual(*small))
    a.requires_grad_(True)
    perceptual(a, b).sum().backward()
    assert a.grad.shape == a.shape
    assert a.grad.abs().max() > 0


def test_pictures_out_of_range_are_refused(files):
    perceptual = load_lpips(*files("alex"), network="alex")
    with pytest.raises(ValueError, match=r"pictures must lie in \[0, 1\]"):
        perceptual(torch.rand(1, 3, 64, 64) * 2 - 1, torch.rand(1, 3, 64, 64))


def test_weights_of_another_network_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"squeeze-backbone\.pth does not hold torchvision's features of alex"):
        load_lpips(files("squeeze")[0], files("alex")[1], network="alex")
    with pytest.raises(ValueError, match=r"squeeze\.pth does not hold LPIPS's layers over alex: 'lin1"):
        load_lpips(files("alex")[0], files("squeeze")[1], network="alex")
    with pytest.raises(ValueError, match="unknown network 'resnet'; choose one of: 'alex', 'vgg', 'squeeze'"):
        load_lpips(*files("alex"), network="resnet")
    with pytest.raises(FileNotFoundError, match="there is no file of weights"):
        load_lpips(tmp_path / "gone.pth", files("alex")[1], network="alex")
