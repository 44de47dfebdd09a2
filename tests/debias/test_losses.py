import math

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from debias_utils.debias.gradient import debias_latent
from debias_utils.debias.losses import Perceptual, clip_loss, identity_loss, perceptual_loss
from debias_utils.models.align import ARCFACE, align_faces

SEEDS = {"alex": 5001, "squeeze": 5002}  # of the trunks' weights, tests/fixtures/lpips/README.md
TAPS = {"alex": (1, 4, 7, 9, 11), "squeeze": (1, 4, 7, 9, 10, 11, 12)}  # after which torchvision layers LPIPS reads


class Linear:
    """A linear encoder of pictures: stands for CLIP and for the identity net."""

    def __init__(self, seed, d=6):
        self.matrix = torch.randn(3 * 8 * 8, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.seen = 0

    def encode_image(self, images):
        self.seen += len(images)
        return nn.functional.normalize((images.flatten(1) - 0.5) @ self.matrix.to(images), dim=1)


def pictures(n, seed=0, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolutions(seed=0):
    """Two feature maps: a linear one, and one after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(5, c, 3, 3, generator=generator, dtype=torch.float64) for c in (3, 5))

    def network(images):
        first = nn.functional.conv2d(images, a.to(images))
        return first, nn.functional.conv2d(first, b.to(images)).relu()

    return network


def lpips(folder, name, dtype=torch.float32):
    """LPIPS from the package's own weights over torchvision's layers, as its documentation in `Perceptual` says."""
    state = {k: torch.from_numpy(v).to(dtype) for k, v in np.load(folder / f"{name}.npz").items()}
    with torch.device("meta"):
        layers = (torchvision.models.alexnet() if name == "alex" else torchvision.models.squeezenet1_1()).features
    layers, rng = layers[: TAPS[name][-1] + 1], np.random.RandomState(SEEDS[name])
    trunk = {}
    for key, value in layers.state_dict().items():
        scale = math.sqrt(2 / math.prod(value.shape[1:])) if value.ndim == 4 else 0.1
        trunk[key] = torch.from_numpy((rng.standard_normal(value.shape) * scale).astype(np.float16)).to(dtype)
    layers.load_state_dict(trunk, assign=True)

    def network(images):
        x = (2 * images - 1 - state["scaling_layer.shift"]) / state["scaling_layer.scale"]
        for i, layer in enumerate(layers):
            x = layer(x)
            if i in TAPS[name]:
                yield x.clone()  # the next layer may write over it

    return Perceptual(lambda x: list(network(x)), weights=[state[f"lin{i}.model.1.weight"] for i in range(len(TAPS[name]))])


@pytest.mark.parametrize("shape", ["square", "rect"])
@pytest.mark.parametrize("name", ["alex", "squeeze"])
def test_official_lpips(fixtures, name, shape):
    folder = fixtures / "lpips"
    inputs, reference = np.load(folder / "inputs.npz"), np.load(folder / f"{name}.npz")
    a, b = ((torch.from_numpy(inputs[f"{shape}/{k}"]) + 1) / 2 for k in ("in0", "in1"))
    official, slope = reference[f"{shape}/distance"].ravel(), reference[f"{shape}/grad_in0_every_second"]
    perceptual = lpips(folder, name)
    distance = perceptual(a.requires_grad_(), b)
    (gradient,) = torch.autograd.grad(distance.sum(), a)
    assert np.allclose(distance.detach(), official, rtol=1e-4, atol=0)
    largest = np.abs(slope).max()
    assert np.allclose(gradient[..., ::2, ::2] / 2, slope, rtol=1e-3, atol=1e-4 * largest)  # d[-1, 1] / d[0, 1] = 2
    loss = perceptual_loss(perceptual, b)
    assert np.allclose(loss(a, torch.arange(len(a))).detach(), official, rtol=1e-4, atol=0)


def test_perceptual_by_hand():
    perceptual = Perceptual(lambda images: [images])  # the features are the channels themselves
    a, b = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    a[0, 0], b[0, 0] = 0.2, 0.7  # unit length: no distance
    b[0, 1, 0, 1] = 0.7  # at one of two places 45 degrees
    root = 0.5**0.5
    square = (1 - root) ** 2, root**2, 0.0
    assert perceptual(a, b).tolist() == pytest.approx([sum(square) / 3 / 2])
    weighted = Perceptual(lambda images: [images, images], weights=[torch.tensor([1.0, 0, 5]), torch.tensor([0, 2.0, 0])])
    assert weighted(a, b).tolist() == pytest.approx([(square[0] + 2 * square[1]) / 2])


def test_perceptual_of_equal_pictures_is_zero_and_black_ones_have_a_gradient():
    perceptual = Perceptual(convolutions())
    black = torch.zeros(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)  # every feature is 0
    assert perceptual(black, black).tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(perceptual(black, pictures(2)).sum(), black)
    assert gradient.isfinite().all()


def test_perceptual_in_half_precision_is_finite():
    perceptual = Perceptual(lambda images: [images, images * 1e-4])
    assert perceptual(pictures(2).half() * 1e-3, pictures(2, 1).half()).isfinite().all()


def test_losses_by_hand():
    index, images, originals = torch.tensor([2, 0]), pictures(2), pictures(3, seed=1)
    clip, identity, perceptual = Linear(0), Linear(1), Perceptual(convolutions())
    one, three = torch.randn(6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    cos = nn.functional.cosine_similarity
    assert torch.allclose(clip_loss(clip, 5 * one)(images, index), 1 - cos(clip.encode_image(images), one))
    assert torch.allclose(clip_loss(clip, three)(images, index), 1 - cos(clip.encode_image(images), three[index]))
    embeddings = identity.encode_image(images), identity.encode_image(originals[index])
    loss = identity_loss(lambda x: 7 * identity.encode_image(x), originals)
    assert torch.allclose(loss(images, index), 1 - cos(*embeddings))
    assert torch.allclose(perceptual_loss(perceptual, originals)(images, index), perceptual(originals[index], images))


@pytest.mark.parametrize("make", [identity_loss, perceptual_loss])
def test_the_originals_themselves_cost_nothing(make):
    originals = pictures(4).float()
    network = Linear(0).encode_image if make is identity_loss else Perceptual(convolutions())
    assert make(network, originals)(originals[1:3], torch.tensor([1, 2])).abs().max() < 1e-6


def test_originals_are_encoded_once_for_the_rows_at_hand():
    identity, originals = Linear(0), pictures(6)
    loss = identity_loss(identity.encode_image, originals)
    fresh = [1 - (identity.encode_image(pictures(1)) @ identity.encode_image(originals[i : i + 1]).T).item() for i in range(6)]
    expected = {0: 0, 1: 4, 2: 4, 3: 4, 4: 6}  # originals encoded so far
    identity.seen, asked = 0, 0
    for call, rows in enumerate([[], [0, 1, 2, 3], [0, 1, 2, 3], [3, 1], [4, 5]]):
        if rows:
            values = loss(pictures(1).expand(len(rows), -1, -1, -1), torch.tensor(rows))
            assert values.tolist() == pytest.approx([fresh[i] for i in rows])
        asked += len(rows)
        assert identity.seen - asked == expected[call]


def test_losses_agree_with_finite_differences():
    index, originals = torch.tensor([0, 1]), pictures(2, seed=1)
    text = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    losses = (
        clip_loss(Linear(0), text),
        identity_loss(Linear(1).encode_image, originals),
        perceptual_loss(Perceptual(convolutions()), originals),
    )
    for loss in losses:
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, index), (pictures(2).requires_grad_(),), fast_mode=True)


def test_a_real_clip_in_float32_and_under_autocast(clip, world):
    images = world[1][:4].clone().requires_grad_()
    text = clip.encode_text(["a nurse"])[0]
    exact = clip_loss(clip, text)(images, torch.arange(4))
    assert torch.allclose(exact, 1 - clip.encode_image(images) @ text, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = clip_loss(clip, text)(images, torch.arange(4))
        (gradient,) = torch.autograd.grad(half.sum(), images)
    assert gradient.isfinite().all()
    assert (half - exact).abs().max() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_loss(Linear(0), torch.zeros(6)), "rows of length 0"),
        (lambda: clip_loss(Linear(0), torch.full((2, 6), torch.nan)), "without NaN"),
        (lambda: clip_loss(Linear(0), torch.tensor([1, torch.inf, 1, 1, 1, 1])), r"text holds 1 NaN or infinite values .* \[1\]"),
        (lambda: clip_loss(Linear(0), torch.full((6,), 1e30)), "the length of text holds 1 NaN or infinite"),
        (lambda: clip_loss(Linear(0), torch.ones(1, 2, 6)), r"got shape \(1, 2, 6\)"),
        (lambda: identity_loss(Linear(0).encode_image, 255 * pictures(2)), r"must lie in \[0, 1\], got values from .* to 25"),
        (
            lambda: identity_loss(Linear(0).encode_image, pictures(2)[0]),
            r"float originals \(n, 3, h, w\) in \[0, 1\], got \(3, 8, 8\)",
        ),
        (lambda: identity_loss(crops, 3, landmarks=torch.ones(3, 5, 2)), "need originals as a float tensor .* got int"),
        (lambda: identity_loss(crops, None), "need originals as a float tensor .* got NoneType"),
        (lambda: perceptual_loss(Perceptual(convolutions()), pictures(2).byte()), "torch.uint8"),
        (lambda: perceptual_loss(Perceptual(convolutions()), pictures(2) * torch.nan), "from nan"),
        (lambda: Perceptual(convolutions(), weights=[torch.ones(5), -torch.ones(5)]), "layer 1 go down to -1"),
        (lambda: Perceptual(convolutions(), weights=[torch.ones(5)])(pictures(1), pictures(1)), r"\[5\] .* maps of \[5, 5\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def faces(n=3):
    """Pictures of 24 x 24 with landmarks in them, each turned a little more."""
    turns = [torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) for a in (0, 0.2, 0.4, 0.6)]
    landmarks = torch.stack([(torch.tensor(ARCFACE) - 56) @ turn / 8 + 12 for turn in turns[:n]]).double()
    return pictures(n, size=24), landmarks


def crops(images):
    """An identity network that takes aligned faces alone."""
    assert images.shape[1:] == (3, 112, 112)
    return images[:, :, 20:100:8, 20:100:8].flatten(1) - 0.5


def test_identity_is_compared_in_crops_at_the_landmarks_of_the_original():
    originals, landmarks = faces()
    loss, index = identity_loss(crops, originals, landmarks=landmarks), torch.tensor([2, 0])
    edited = (originals + 0.2 * pictures(3, seed=1, size=24)).clamp(0, 1)[index].requires_grad_()
    a, b = (nn.functional.normalize(crops(align_faces(x, landmarks[index])), dim=1) for x in (originals[index], edited))
    assert torch.allclose(loss(edited, index), 1 - (a * b).sum(dim=1))
    assert loss(originals, torch.arange(3)).abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(loss(edited, index).sum(), edited)
    assert gradient.flatten(1).norm(dim=1).min() > 0
    assert loss.absent == ()


def test_rows_without_a_face_are_counted_and_left_out():
    originals, landmarks = faces()
    landmarks[1] = torch.nan
    with pytest.warns(UserWarning, match=r"no face in 1 of 3 originals, rows \[1\]"):
        loss = identity_loss(crops, originals, landmarks=landmarks)
    assert loss.absent == (1,)
    edited, index = pictures(3, seed=1, size=24).requires_grad_(), torch.arange(3)
    values = loss(edited, index)
    (gradient,) = torch.autograd.grad(values.sum(), edited)
    assert values[1] == 0
    assert gradient.flatten(1).norm(dim=1).gt(0).tolist() == [True, False, True]
    assert torch.allclose(
        values[[0, 2]], identity_loss(crops, originals[[0, 2]], landmarks=landmarks[[0, 2]])(edited[[0, 2]], index[:2])
    )


def test_landmarks_of_detectors_with_a_missing_face():
    originals, landmarks = faces()
    whole = landmarks.round().long()
    with pytest.warns(UserWarning, match=r"no face in 1 of 3 originals, rows \[1\]"):
        loss = identity_loss(crops, originals, landmarks=[whole[0].tolist(), None, whole[2].numpy()])
    assert loss.absent == (1,)
    edited, index = pictures(3, seed=1, size=24), torch.arange(3)
    right = identity_loss(crops, originals, landmarks=whole.double())(edited, index)
    assert torch.equal(loss(edited, index), right * torch.tensor([1, 0, 1]))


def test_the_optimiser_goes_on_without_them_and_their_traces_are_empty():
    originals, landmarks = faces()
    landmarks[1] = torch.nan
    with pytest.warns(UserWarning, match="no face"):
        identity = identity_loss(crops, originals, landmarks=landmarks)
    losses = {"identity": identity, "keep": lambda images, index: (images - 0.5).square().mean(dim=(1, 2, 3))}
    start = pictures(3, seed=1, size=24)
    result = debias_latent(
        start, lambda x, _: x, losses, betas={"identity": 1, "keep": 1}, steps=5, lr=0.01, chunk_size=2, progress=False
    )
    assert np.isnan(result.traces["identity"]).sum(axis=0).tolist() == [0, 6, 0]
    assert result.traces["total"][:, 1] == pytest.approx(result.traces["keep"][:, 1])
    assert (result.loss < result.traces["total"][0]).all()
    with pytest.raises(ValueError, match="no face in any of the 3 originals"):
        identity_loss(crops, originals, landmarks=torch.full((3, 5, 2), torch.nan))
    with pytest.raises(ValueError, match=r"\(3, 5, 2\).* got \(2, 5, 2\)"):
        identity_loss(crops, originals, landmarks=landmarks[:2])


@pytest.mark.parametrize("with_landmarks", [True, False])
def test_generated_and_original_pictures_have_one_size(with_landmarks):
    originals, landmarks = faces()
    network = crops if with_landmarks else (lambda images: images.mean(dim=(2, 3)))
    identity = identity_loss(network, originals, landmarks=landmarks if with_landmarks else None)
    twice = nn.functional.interpolate(originals, scale_factor=2)
    for loss in (identity, perceptual_loss(Perceptual(convolutions()), originals)):
        assert loss(originals, torch.arange(3)).abs().max() < 1e-9
        with pytest.raises(ValueError, match="generated and original pictures must have one size, got 48 x 48 and 24 x 24"):
            loss(twice, torch.arange(3))
    with pytest.raises(ValueError, match="two pictures that are compared must have one size, got 24 x 24 and 48 x 48"):
        Perceptual(convolutions())(originals, twice)


def test_arrays_are_named_where_tensors_are_meant(clip):
    for call, message in [
        (lambda: clip_loss(clip, torch.ones(7)), r"length of CLIP's embeddings, 128, got shape \(7,\)"),
        (lambda: clip_loss(clip, torch.ones(2, 1)), r"length of CLIP's embeddings, 128, got shape \(2, 1\)"),
        (lambda: clip_loss(clip, np.ones(128)), "text must be a float tensor, got ndarray"),
        (lambda: clip_loss(clip, torch.ones(128, dtype=torch.int64)), "text must be a float tensor, got torch.int64"),
        (lambda: perceptual_loss(Perceptual(convolutions()), pictures(2).numpy()), "originals as a float tensor .* got ndarray"),
        (lambda: identity_loss(crops, faces()[0])(faces()[0].numpy(), torch.arange(3)), "generated pictures as a float tensor"),
        (lambda: identity_loss(crops, faces()[0])(255 * faces()[0], torch.arange(3)), r"generated pictures must lie in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
