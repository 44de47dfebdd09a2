import numpy as np
import pytest
import torch
from torch import nn

from debias_utils.debias.losses import Perceptual, identity_loss, perceptual_loss
from debias_utils.models.attributes import AttributeClassifier
from debias_utils.models.clip import Clip
from debias_utils.models.identity import IdentityEmbedder
from debias_utils.models.inverter import Inverter, elements_to_z

DOORS = ("clip", "attributes", "labels", "identity", "inverter", "perceptual", "identity_loss", "perceptual_loss")


@pytest.fixture(scope="module")
def doors(clip):
    """{name: pictures of 64 x 64 -> tensor or array}."""
    attributes, identity, inverter = AttributeClassifier.load(), IdentityEmbedder.load(), Inverter.load()
    perceptual = Perceptual(inverter.network.features)
    grey, index = torch.full((2, 3, 64, 64), 0.5), torch.arange(2)
    return {
        "clip": clip.encode_image,
        "attributes": lambda x: torch.cat(list(attributes(x).values()), dim=1),
        "labels": lambda x: attributes.labels(x)["gender"],
        "identity": identity,
        "inverter": inverter,
        "perceptual": lambda x: perceptual(x, grey),
        "identity_loss": lambda x: identity_loss(identity, grey)(x, index),
        "perceptual_loss": lambda x: perceptual_loss(perceptual, grey)(x, index),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", DOORS)
def test_every_precision_passes_every_door(doors, world, name, dtype):
    images = world[1][:2].to(dtype)
    found, right = doors[name](images), doors[name](images.float())
    assert np.array_equal(found, right) if name == "labels" else torch.allclose(found, right, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x * 255, r"must lie in \[0, 1\], got values from 0 to 255"),
        (lambda x: 2 * x - 1, r"must lie in \[0, 1\], got values from -1 to 1"),
        (lambda x: x * torch.nan, "got values from nan"),
        (lambda x: (x * 255).byte(), "torch.uint8"),
        (lambda x: x.numpy(), "as a float tensor .* got ndarray"),
        (lambda x: x[0], r"need float .* got \(3, 64, 64\)"),
        (lambda x: x.permute(0, 2, 3, 1), r"got \(2, 64, 64, 3\)"),
    ],
)
@pytest.mark.parametrize("name", DOORS)
def test_every_door_refuses_what_is_no_picture_in_0_to_1(doors, world, name, spoil, message):
    images = world[1][:2].clone()
    images[:, :, 0, 0], images[:, :, 0, 1] = 0, 1
    with pytest.raises(ValueError, match=message):
        doors[name](spoil(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_every_precision_take_float32_pictures(clip, world, dtype):
    images = world[1][:2]
    model = Clip.load(clip.name).to(dtype)
    assert (model.encode_image(images) * clip.encode_image(images)).sum(dim=1).min() > 0.99
    assert (model.encode_image(torch.rand(2, 3, 80, 70)).norm(dim=1) - 1).abs().max() < 1e-3
    assert (model.encode_text(["a nurse"]) * clip.encode_text(["a nurse"])).sum() > 0.99
    identity = IdentityEmbedder.load()
    right = identity(images)
    assert ((identity.to(dtype)(images) * right).sum(dim=1) > 0.99).all()


def test_a_network_that_can_be_seen_gets_its_own_precision():
    network, plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    index = torch.arange(2)
    assert identity_loss(network, plain)(plain, index).abs().max() < 1e-6
    perceptual = Perceptual(lambda x: [torch.conv2d(x, torch.ones(2, 3, 1, 1))], weights=[torch.ones(2)])
    assert perceptual_loss(perceptual, plain)(plain.half(), index).abs().max() < 1e-5


def test_a_decoder_in_training_may_overshoot():
    perceptual = Perceptual(lambda x: [x])
    drawn = torch.full((1, 3, 8, 8), 3.0, requires_grad=True)
    perceptual(drawn, torch.zeros(1, 3, 8, 8)).sum().backward()
    with pytest.raises(ValueError, match="got values from 3 to 3"):
        perceptual(drawn.detach(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="got values from 3 to 3"):
        perceptual_loss(perceptual, torch.zeros(1, 3, 8, 8))(drawn, torch.arange(1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
def test_elements_of_any_dtype_make_latents(dtype):
    on = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    assert torch.allclose(elements_to_z(on.to(dtype)).float(), elements_to_z(on.float()))


def test_labels_need_a_whole_batch_size(doors):
    with pytest.raises(ValueError, match="batch_size must be"):
        AttributeClassifier.load().labels(torch.rand(1, 3, 64, 64), batch_size=0)
