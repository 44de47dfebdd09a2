import hashlib

import numpy as np
import pandas as pd
import pytest

from debias_utils import toonville
from debias_utils.toonville.occupations import OCCUPATIONS, PARTS


def test_same_row_same_pixels_and_other_people_other_pixels():
    people = toonville.sample(6, seed=4)
    first, again = toonville.render(people), toonville.render(people)
    assert first.shape == (6, 64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert len({hashlib.sha256(image.tobytes()).digest() for image in first}) == 6


def test_each_attribute_and_part_changes_the_picture():
    person = toonville.dress(
        toonville.sample_faces(["feminine"], ["tan"], ["young"], seed=1), "nurse", shown=dict.fromkeys(PARTS, 1.0), borrowed=0.0
    )
    plain = toonville.render(person)
    changes = {
        "skin": "dark",
        "hair": "spiky",
        "beard": "fullBeard",
        "mouth": "agape",
        "wrinkles": True,
        **dict.fromkeys(PARTS, ""),
    }
    for column, value in changes.items():
        other = person.assign(**{column: value} | ({"lips": False} if column == "mouth" else {}))
        assert not np.array_equal(plain, toonville.render(other)), column


def test_everyday_keeps_the_person_and_drops_the_occupation():
    people = toonville.balanced(1, seed=2).head(20)
    plain = toonville.everyday(people)
    same = [c for c in people.columns if c not in ("occupation", *PARTS)]
    pd.testing.assert_frame_equal(people[same], plain[same])
    assert (plain[list(PARTS)] == "").all(axis=None)


def test_masks_cover_every_pixel_once_and_follow_what_is_drawn():
    people = toonville.balanced(1, seed=3).head(12)
    masks = toonville.masks(people)
    assert set(masks) == set(toonville.MASK_PARTS)
    assert np.allclose(sum(masks.values()), 1.0, atol=1e-5)
    for part in ("headgear", "tool"):
        area = masks[part].sum(axis=(1, 2))
        assert ((area > 0) == (people[part] != "").to_numpy()).all()
    assert (masks["face"].mean(axis=(1, 2)) > 0.05).all()


def test_masks_are_where_the_pixels_change():
    person = toonville.dress(
        toonville.sample_faces(["masculine"], ["dark"], ["older"]), "farmer", shown=dict.fromkeys(PARTS, 1.0), borrowed=0.0
    )
    with_tool, without = toonville.render(person).astype(int), toonville.render(person.assign(tool="")).astype(int)
    changed = np.abs(with_tool - without).sum(axis=-1) > 0
    assert not (changed & (toonville.masks(person)["tool"] == 0)).any()


@pytest.mark.parametrize("job", list(OCCUPATIONS))
def test_every_prop_draws_something_of_its_own(job):
    person = toonville.sample_faces(["feminine"], ["tan"], ["young"])
    bare = toonville.render(toonville.everyday(toonville.dress(person, job)))
    for part in PARTS:
        assert set(OCCUPATIONS[job].props) == set(PARTS)
        dressed = toonville.dress(person, job, shown={part: 1.0}, borrowed=0.0)
        assert (toonville.render(dressed) != bare).any(axis=-1).mean() > 0.01, part


def test_nobody():
    assert toonville.render(toonville.sample(3).head(0)).shape == (0, 64, 64, 3)
