import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.toonville import people as p
from debias_utils.toonville.occupations import EVERYDAY, OCCUPATIONS, PARTS


def test_the_papers_occupations_coded_in_balance():
    assert len(OCCUPATIONS) == 14
    for attribute in ("gender", "skin"):
        assert sorted(pd.Series([getattr(job, attribute) for job in OCCUPATIONS.values()]).value_counts()) == [7, 7]


def test_same_seed_same_people():
    pd.testing.assert_frame_equal(p.sample(50, rho=0.5, seed=3), p.sample(50, rho=0.5, seed=3))
    assert not p.sample(50, seed=3).equals(p.sample(50, seed=4))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_the_dial(rho):
    n = 20_000
    people = p.add_stereotype(p.sample(n, rho=rho, seed=1))
    for attribute in ("gender", "skin"):
        expected = p.stereotype_probability(rho, attribute)
        spread = 4 * np.sqrt(expected * (1 - expected) / n) + 1e-12
        assert abs(people[f"{attribute}_fits"].mean() - expected) <= spread
    # the two follow their coding independently, and the marginals do not move
    both = (people["gender_fits"] & people["skin_fits"]).mean()
    assert abs(both - people["gender_fits"].mean() * people["skin_fits"].mean()) < 0.02
    assert abs((people["gender"] == "feminine").mean() - 0.5) < 0.02
    assert abs((people["skin_half"] == "darker").mean() - 0.5) < 0.02


def test_everyday_people_are_balanced_and_wear_nothing_of_an_occupation():
    people = p.sample(8_000, rho=1.0, everyday=0.5, seed=2)
    plain = people[people["occupation"] == EVERYDAY]
    assert abs(len(plain) / len(people) - 0.5) < 0.03
    assert (plain[list(PARTS)] == "").all(axis=None)
    assert abs((plain["gender"] == "feminine").mean() - 0.5) < 0.04


def test_balanced_has_every_cell_equally_often():
    people = p.balanced(2, seed=0)
    assert len(people) == 14 * 2 * 4 * 2
    assert people.groupby(["occupation", "gender", "skin"]).size().unique().tolist() == [2]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_outfits(seed, borrowed):
    faces = p.sample_faces(["feminine"] * 40, ["tan"] * 40, ["young"] * 40, seed=seed)
    people = p.dress(faces, "nurse", borrowed=borrowed, seed=seed)
    drawn = people[list(PARTS)]
    own = (drawn == "nurse").sum(axis=1)
    other = ((drawn != "nurse") & (drawn != "")).sum(axis=1)
    assert own.min() >= 1
    assert other.max() <= 1
    if borrowed == 0:
        assert other.max() == 0


def test_shown_parts_can_be_chosen():
    faces = p.sample_faces(["feminine"] * 5, ["tan"] * 5, ["young"] * 5)
    people = p.dress(faces, "nurse", shown={"tool": 1.0}, borrowed=0.0)
    assert (people["tool"] == "nurse").all()
    assert (people[["background", "clothing", "headgear"]] == "").all(axis=None)


def test_fit():
    people = pd.DataFrame(
        {
            "occupation": ["plumber", "plumber", EVERYDAY],
            "gender": ["masculine", "feminine", "feminine"],
            "skin": ["dark", "light", "tan"],
        }
    )
    fits = p.add_stereotype(people)
    assert fits["gender_fits"].tolist() == [True, False, pd.NA]
    assert fits["skin_fits"].tolist() == [True, False, pd.NA]


def test_cue_ceiling_by_hand():
    assert p.cue_ceiling({"cue": {"a": 0.9, "b": 0.2}}) == pytest.approx((0.9 + 0.8) / 2)
    assert p.cue_ceiling({"x": {"a": 1, "b": 0}, "y": {"a": 0.5, "b": 0.5}}) == 1.0
    assert p.cue_ceiling(p.GENDER_CUES) > 0.975
    assert p.cue_ceiling(p.AGE_CUES) > 0.94


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p.sample(10, rho=1.2), r"rho must lie in \[0, 1\], got 1.2"),
        (lambda: p.sample(10, rho=-0.1), "got -0.1"),
        (lambda: p.sample(10, rho=float("nan")), "got nan"),
        (lambda: p.sample(0), "n must be a whole number of at least 1, got 0"),
        (lambda: p.sample(10, everyday=2), "everyday must lie"),
        (lambda: p.balanced(0), "per_cell must be a whole number"),
        (
            lambda: p.sample_faces(["female"], ["tan"], ["young"]),
            "unknown gender 'female'; choose one of: 'feminine', 'masculine'",
        ),
        (lambda: p.sample_faces(["feminine"], ["pink"], ["young"]), "unknown skin 'pink'; choose one of: 'light'"),
        (lambda: p.sample_faces(["feminine"], ["tan"], ["teen"]), "unknown age 'teen'"),
        (lambda: p.sample_faces(["feminine"], ["tan", "tan"], ["young"]), "need one length"),
        (lambda: p.dress(p.sample(2), "astronaut"), "unknown occupation 'astronaut'; choose one of: 'plumber'"),
        (lambda: p.dress(p.sample(2), "nurse", shown={"shoes": 1.0}), "unknown part 'shoes'; choose one of: 'background'"),
        (lambda: p.dress(p.sample(2), "nurse", shown={"tool": 0.0}), "every part of the outfit has probability 0"),
        (lambda: p.stereotype_probability(0.5, "age"), "unknown attribute 'age'"),
        (lambda: p.sample(10.0), "n must be a whole number of at least 1, got 10.0, a float"),
        (lambda: p.sample(10, seed=1.5), "seed must be a whole number of at least 0, got 1.5"),
        (lambda: p.balanced(2.0), "per_cell must be a whole number .* got 2.0"),
        (lambda: p.sample_faces("feminine", ["tan"], ["young"]), r"gender must be \(n,\) labels, got 'feminine'"),
        (
            lambda: p.sample_faces(["feminine", None, np.nan], ["tan"] * 3, ["young"] * 3),
            "gender has 2 missing .* of 3, .* row 1",
        ),
        (
            lambda: p.sample_faces(["feminine"] * 2, pd.Series(["tan", pd.NA], dtype="string"), ["young"] * 2),
            "skin has 1 missing values of 2, the first in row 1",
        ),
        (lambda: p.dress(p.sample(2), ["nurse", None]), "occupation has 1 missing values of 2, the first in row 1"),
        (lambda: p.dress(p.sample(3), ["nurse", "writer"]), "one for each of 3 people, got 2"),
        (lambda: p.dress(p.sample(3), ["nurse"]), "one for each of 3 people, got 1"),
        (lambda: p.add_stereotype(p.sample(3).assign(gender=["feminine", np.nan, None])), "gender has 2 missing .* row 1"),
        (lambda: p.add_stereotype(p.sample(3).assign(skin=pd.Categorical([None, "tan", "tan"]))), "skin has 1 missing .* row 0"),
        (lambda: p.add_stereotype(p.sample(3).assign(occupation="doktor")), "unknown occupation 'doktor'"),
        (lambda: p.add_stereotype(p.sample(3).drop(columns="skin")), "lack the column 'skin'"),
        (lambda: p.cue_ceiling({}), "need at least one cue"),
        (lambda: p.cue_ceiling({"x": {"a": 90, "b": 20}}), r"P\(x \| a\) must lie in \[0, 1\], got 90"),
        (lambda: p.cue_ceiling({"x": {"a": 0.9, "b": float("nan")}}), r"P\(x \| b\) must lie"),
        (lambda: p.cue_ceiling({"x": {"a": 0.9, "b": 0.1}, "y": {"a": 0.9}}), "every cue needs the same groups"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
