import pytest
import torch

from debias_utils.models.attributes import AttributeClassifier
from debias_utils.models.convnet import ConvNet
from debias_utils.models.identity import IdentityEmbedder
from debias_utils.models.inverter import Z_DIM, Inverter, elements_to_z


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ConvNet(6, width=4, image_size=32).eval()


def test_features_halve_and_outputs_fit(network):
    images = torch.rand(2, 3, 32, 32)
    assert [tuple(m.shape[1:]) for m in network.features(images)] == [(4, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2)]
    assert network(images).shape == (2, 6)
    with pytest.raises(ValueError, match=r"\(n, 3, 32, 32\).*64"):
        network(torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match="multiple of 16"):
        ConvNet(6, image_size=40)


def test_attributes_are_probabilities_in_the_order_of_their_classes(network):
    judge = AttributeClassifier(network, {"gender": ["f", "m"], "skin": ["a", "b", "c", "d"]})
    images = torch.rand(3, 3, 32, 32, requires_grad=True)
    seen = judge(images)
    assert {k: tuple(v.shape) for k, v in seen.items()} == {"gender": (3, 2), "skin": (3, 4)}
    assert all(torch.allclose(v.sum(dim=1), torch.ones(3)) for v in seen.values())
    assert torch.allclose(seen["skin"].log().diff(dim=1), network(images)[:, 2:].diff(dim=1), atol=1e-5)
    with pytest.raises(ValueError, match=r"6 outputs.*2"):
        AttributeClassifier(network, {"gender": ["f", "m"]})


def test_identities_have_length_one_and_pass_gradients(network):
    images = torch.rand(3, 3, 32, 32, requires_grad=True)
    embedded = IdentityEmbedder(network)(images)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(3))
    embedded.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_latents_have_one_length_and_tell_the_elements():
    on = (torch.rand(5, 20, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    z = elements_to_z(on)
    assert z.shape == (5, Z_DIM)
    assert torch.allclose(z.norm(dim=1), torch.full((5,), Z_DIM**0.5))
    assert torch.equal(z[:, :20] > 0, on > 0)
    with pytest.raises(ValueError, match=r"at most"):
        elements_to_z(torch.ones(1, 40))


def test_the_inverter_switches_elements_on_where_its_logits_are_positive(network):
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(Inverter(network)(images)[:, :6] > 0, network(images) > 0)
