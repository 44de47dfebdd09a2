import numpy as np
import pandas as pd
import pytest

from debias_utils import toonville
from debias_utils.toonville import instructions, people
from debias_utils.toonville.instructions import pairs
from debias_utils.toonville.occupations import EVERYDAY, OCCUPATIONS, PARTS

OUTFIT = ["occupation", *PARTS]


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_both_pictures_show_one_person(rho):
    before, after, texts = pairs(400, rho=rho, seed=1)
    pd.testing.assert_frame_equal(before.drop(columns=OUTFIT), after.drop(columns=OUTFIT))
    assert list(before.columns) == list(after.columns) == list(people.sample(1).columns)
    assert len(texts) == 400


def test_who_becomes_what_follows_the_dial():
    for rho in (0.0, 0.9):
        _, after, _ = pairs(6_000, rho=rho, kept=0.0, seed=2)
        fits = people.add_stereotype(after)
        p = people.stereotype_probability
        assert fits["gender_fits"].mean() == pytest.approx(p(rho), abs=0.02)  # 3 standard errors at most
        assert fits["skin_fits"].mean() == pytest.approx(p(rho, "skin"), abs=0.02)
        assert fits.groupby("occupation")["gender_fits"].mean().between(p(rho) - 0.1, p(rho) + 0.1).all()


def test_who_someone_was_before_is_independent_of_the_person():
    before, _, _ = pairs(6_000, rho=0.9, kept=0.0, dressed=1.0, seed=3)
    fits = people.add_stereotype(before)["gender_fits"].mean()
    assert fits == pytest.approx(0.5, abs=0.06)  # any job but the one that they are asked to take


def test_the_text_names_the_new_occupation():
    before, after, texts = pairs(2_000, rho=0.9, seed=4)
    asked = np.array([text not in instructions.KEEPS for text in texts])
    assert all(job in text for job, text in zip(after["occupation"][asked], np.array(texts)[asked], strict=True))
    assert (after["occupation"] != before["occupation"])[asked].all()
    assert set(after["occupation"][asked]) == set(OCCUPATIONS)
    pd.testing.assert_frame_equal(before[~asked], after[~asked])
    assert (~asked).mean() == pytest.approx(instructions.KEPT, abs=0.02)
    assert (before["occupation"] != EVERYDAY).mean() == pytest.approx(instructions.DRESSED, abs=0.03)
    assert set(texts) > set(instructions.KEEPS)
    assert len(set(texts)) == len(instructions.EDITS) * len(OCCUPATIONS) + len(instructions.KEEPS)
    assert "make this person an administrative assistant" in texts


def test_nothing_is_borrowed_and_something_shows():
    before, after, _ = pairs(500, seed=5)
    for table in (before, after):
        worn = table[list(PARTS)].to_numpy()
        own = table["occupation"].to_numpy()[:, None]
        assert np.isin(worn, ["", *OCCUPATIONS]).all()
        assert ((worn == "") | (worn == own)).all()
        assert ((worn != "").any(axis=1) == (table["occupation"] != EVERYDAY)).all()


def test_pictures_differ_where_the_outfit_is():
    before, after, _ = pairs(6, kept=0.0, dressed=0.0, seed=6)
    one, other = toonville.render(before), toonville.render(after)
    face = [sum(toonville.masks(table)[part] for part in ("face", "hair")) for table in (before, after)]
    changed = (one != other).any(axis=-1)
    assert changed.any(axis=(1, 2)).all()
    kept = (face[0] > 0.999) & (face[1] > 0.999)  # nothing hangs over it, before and after
    assert kept.mean() > 0.1
    assert not changed[kept].any()


def test_the_same_seed_gives_the_same_pairs():
    one, same, other = pairs(50, rho=0.9, seed=7), pairs(50, rho=0.9, seed=7), pairs(50, rho=0.9, seed=8)
    pd.testing.assert_frame_equal(one.after, same.after)
    pd.testing.assert_frame_equal(one.before, same.before)
    assert one.texts == same.texts != other.texts


@pytest.mark.parametrize(
    ("options", "message"), [({"n": 0}, "n must be"), ({"kept": 1.5}, "kept must lie"), ({"dressed": -1}, "dressed must lie"),
                             ({"rho": 2}, "rho must lie")]
)  # fmt: skip
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        pairs(**{"n": 5, **options})
