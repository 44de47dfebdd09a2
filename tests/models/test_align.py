import math

import numpy as np
import pytest
import torch

from debias_utils.models.align import ARCFACE, align_faces, missing_faces, similarity

TEMPLATE = torch.tensor(ARCFACE, dtype=torch.float64)


def turned(scale, degrees, shift):
    """A similarity as (2, 3), y downwards."""
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[a, -b, shift[0]], [b, a, shift[1]]], dtype=torch.float64)


def moved(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def ramp(h, w):
    """Pictures that bilinear reading reproduces exactly between pixels: the first two channels are x and y."""
    y, x = torch.meshgrid(torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64), indexing="ij")
    return torch.stack([x, y, x + 2 * y])[None]


@pytest.mark.parametrize("known", [turned(1, 0, (0, 0)), turned(0.4, 30, (5, -7)), turned(3, -170, (100, 20))])
def test_a_known_rotation_scale_and_shift_is_recovered(known):
    assert torch.allclose(similarity(TEMPLATE[None], moved(known, TEMPLATE)[None])[0], known, atol=1e-12)


def test_noisy_landmarks_give_the_least_squares_solution():
    """Against NumPy's solver for the four unknowns a, b, c, d of x' = a x - b y + c, y' = b x + a y + d."""
    source = TEMPLATE + torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 8
    found = similarity(source[None], TEMPLATE[None])[0].numpy()
    x, y = source.numpy().T
    one, zero = np.ones(5), np.zeros(5)
    equations = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, c, d = np.linalg.lstsq(equations, TEMPLATE.numpy().T.ravel(), rcond=None)[0]
    assert found == pytest.approx(np.array([[a, -b, c], [b, a, d]]), abs=1e-10)


def test_it_never_mirrors():
    mirrored = TEMPLATE * torch.tensor([-1.0, 1.0])
    found = similarity(mirrored[None], TEMPLATE[None])[0]
    assert torch.linalg.det(found[:, :2]) >= 0


def test_a_face_that_lies_on_the_template_stays_as_it_is():
    picture = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    assert torch.allclose(align_faces(picture, TEMPLATE[None]), picture, atol=1e-9)


@pytest.mark.parametrize("size", [112, 56])
def test_each_pixel_of_the_crop_is_read_where_the_transform_says(size):
    known = turned(1.3, 20, (40, 30))  # of the template's points in a picture of 300 x 280
    picture, landmarks = ramp(300, 280), moved(known, TEMPLATE)[None]
    crop = align_faces(picture, landmarks, size=size)[0]
    scale = 112 / size
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) * scale] * 2, indexing="ij")
    expected = moved(known, torch.stack([x, y], dim=-1))
    edge = 2 * 1.3 * scale if 1.3 * scale > 2 else 0  # where pixels are averaged, the last one mixes with what lies beyond
    inside = (expected > edge).all(dim=-1) & (expected[..., 0] < 279 - edge) & (expected[..., 1] < 299 - edge)
    assert inside.float().mean() > 0.8
    assert torch.allclose(crop[:2].permute(1, 2, 0)[inside], expected[inside], atol=1e-8)


def test_beyond_the_picture_is_black():
    landmarks = moved(turned(1, 0, (-56, 0)), TEMPLATE)[None]  # the left half of the crop lies outside
    crop = align_faces(torch.ones(1, 3, 112, 112, dtype=torch.float64), landmarks)
    assert crop[..., :55].abs().max() == 0
    assert crop[..., 57:].min() == pytest.approx(1)


def test_the_gradient_flows_to_the_pictures_and_rows_are_their_own():
    landmarks = torch.stack([moved(turned(0.1, d, (3, 2)), TEMPLATE) for d in (0, 15)])
    pictures = torch.rand(2, 3, 16, 15, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: align_faces(x, landmarks, size=6), (pictures,))
    alone = align_faces(pictures[1:], landmarks[1:], size=6)
    assert torch.equal(align_faces(pictures, landmarks, size=6)[1:], alone)


def test_half_precision_keeps_the_places():
    pictures = torch.rand(1, 3, 300, 300)
    landmarks = moved(turned(1.5, 10, (60, 40)), TEMPLATE)[None].float()
    assert torch.allclose(align_faces(pictures.half(), landmarks), align_faces(pictures, landmarks), atol=1e-3)


def test_bad_input():
    picture, landmarks = torch.rand(1, 3, 112, 112), TEMPLATE[None].float()
    nowhere = torch.full((2, 5, 2), torch.nan)
    nowhere[0] = landmarks
    assert missing_faces(nowhere) == [1]
    for call, message in [
        (lambda: align_faces(picture.expand(2, -1, -1, -1), nowhere), r"no landmarks in rows \[1\]"),
        (lambda: align_faces(picture, landmarks[:, :4]), r"\(1, 5, 2\), \(x, y\) in pixels, got \(1, 4, 2\)"),
        (lambda: align_faces(picture, landmarks.long()), "int64"),
        (lambda: align_faces(picture, torch.ones(1, 5, 2)), r"rows \[0\] are one point"),
        (lambda: align_faces(picture, landmarks, size=0), "size must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
