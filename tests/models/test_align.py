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


def test_landmarks_of_detectors():
    """Whole pixels, arrays, lists, and None where there is no face."""
    picture, whole = torch.rand(1, 3, 112, 112), TEMPLATE.round().long()[None]
    expected = align_faces(picture, whole.double())
    for landmarks in (
        whole,
        whole.int(),
        whole.numpy(),
        whole.tolist(),
        [whole[0].numpy()],
        list(whole),
        whole.numpy().astype(object),
    ):
        assert torch.equal(align_faces(picture, landmarks), expected)
    face = whole[0].tolist()
    faces = np.empty(3, dtype=object)
    faces[0], faces[2] = face, face
    for landmarks in ([face, None, face], [whole[0], None, whole[0].float()], faces, [face, [[None, None]] * 5, face]):
        assert missing_faces(landmarks) == [1]


def test_bad_input():
    picture, landmarks = torch.rand(1, 3, 112, 112), TEMPLATE[None].float()
    nowhere = torch.full((2, 5, 2), torch.nan)
    nowhere[0] = landmarks
    assert missing_faces(nowhere) == [1]
    for call, message in [
        (lambda: align_faces(picture.expand(2, -1, -1, -1), nowhere), r"no landmarks in rows \[1\]"),
        (lambda: align_faces(picture, landmarks[:, :4]), r"\(1, 5, 2\), \(x, y\) in pixels, got \(1, 4, 2\)"),
        (lambda: align_faces(picture, [landmarks[0], landmarks[0, :4]]), r"\(5, 2\) of each face.* got \[\(4, 2\), \(5, 2\)\]"),
        (lambda: align_faces(picture, [None]), r"no landmarks in rows \[0\]"),
        (lambda: align_faces(picture, "face"), "landmarks must be numbers"),
        (lambda: align_faces(picture, landmarks + 1j), "landmarks must hold real numbers"),
        (lambda: align_faces(picture, torch.ones(1, 5, 2)), r"rows \[0\] are one point"),
        (lambda: align_faces(picture, landmarks, size=0), "size must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_crops_of_insightface(fixtures):
    """Landmarks that no similarity fits exactly, pictures up to 1.3 pixels for one of the crop."""
    given = np.load(fixtures / "arcface" / "crops.npz")
    landmarks = torch.from_numpy(given["align_landmarks"]).double()
    assert np.allclose(similarity(landmarks, TEMPLATE.expand_as(landmarks)).numpy(), given["align_matrix"], atol=1e-4)
    picture = torch.from_numpy(given["align_picture_bgr"]).permute(2, 0, 1)[None].double()
    crops = align_faces(picture.expand(4, -1, -1, -1), landmarks).permute(0, 2, 3, 1)
    assert np.abs(crops.numpy() - given["align_crops"]).max() <= 1  # these are rounded to whole grey levels


def test_a_squeezed_face_is_fitted_in_the_crop():
    """The zoom is the one that fits landmarks to the template, as in insightface; the other way round it is 8 % tighter."""
    squeezed = TEMPLATE * torch.tensor([0.5, 1.0]) + torch.tensor([20.0, 10.0])
    source, target = (points - points.mean(dim=0) for points in (squeezed, TEMPLATE))
    left, stretch, right = np.linalg.svd((target.T @ source).numpy())  # Umeyama (1991), equations 40 to 42
    rotation, scale = left @ right, float(stretch.sum() / source.square().sum())
    crop = align_faces(ramp(140, 110), squeezed[None])[0]
    y, x = 60, 50  # of the crop; solve scale * rotation @ place + shift = (x, y)
    shift = TEMPLATE.mean(dim=0).numpy() - scale * rotation @ squeezed.mean(dim=0).numpy()
    place = np.linalg.solve(scale * rotation, np.array([x, y]) - shift)
    assert crop[:2, y, x].numpy() == pytest.approx(place, abs=1e-8)


@pytest.mark.parametrize("side", [400, 1024])
def test_large_pictures_are_antialiased(side):
    """Axis-aligned: as torchvision's antialiased resizing of the whole picture to the crop."""
    from torchvision.transforms.functional import resize

    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    landmarks = (TEMPLATE + 0.5) * (side / 112) - 0.5
    crop, right = align_faces(picture, landmarks[None]), resize(picture, [112, 112], antialias=True)
    inner = slice(2, -2)  # what lies beyond is black in the one, left out in the other
    difference = (crop - right)[..., inner, inner].abs()
    assert difference.max() < 0.02
    skipping = resize(picture, [112, 112], antialias=False)
    assert (skipping - right)[..., inner, inner].abs().max() > 0.3


def test_antialiased_crops_of_turned_faces_pass_gradients_and_rows_stay_their_own():
    landmarks = torch.stack([moved(turned(s, 15, (3, 2)), TEMPLATE) for s in (0.1, 0.3)])
    pictures = torch.rand(2, 3, 36, 35, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: align_faces(x, landmarks, size=7), (pictures,), fast_mode=True)
    for row in range(2):
        alone = align_faces(pictures[row : row + 1], landmarks[row : row + 1], size=7)
        assert torch.equal(align_faces(pictures, landmarks, size=7)[row], alone[0])
    grey = align_faces(torch.full((1, 3, 900, 900), 0.7), moved(turned(6, 33, (400, 60)), TEMPLATE)[None], size=28)
    assert torch.allclose(grey[..., 8:20, 8:20], torch.tensor(0.7), atol=1e-6)


def test_what_is_no_picture_or_no_face_is_named():
    for call, message in [
        (lambda: align_faces(np.zeros((1, 3, 9, 9)), TEMPLATE[None]), "pictures must be a float tensor, got ndarray"),
        (lambda: align_faces(torch.zeros(1, 3, 9, 9).byte(), TEMPLATE[None]), "got torch.uint8"),
        (lambda: align_faces(torch.zeros(3, 9, 9), TEMPLATE[None]), r"need pictures \(n, 3, h, w\), got \(3, 9, 9\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
