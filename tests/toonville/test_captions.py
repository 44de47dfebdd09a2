import numpy as np
import pytest

from debias_utils import toonville
from debias_utils.toonville import captions


def test_same_seed_same_words():
    people = toonville.sample(30, seed=1)
    assert captions.caption(people, seed=2) == captions.caption(people, seed=2)
    assert captions.caption(people, seed=2) != captions.caption(people, seed=3)


def test_what_is_never_mentioned_is_never_said():
    people = toonville.sample(400, seed=1)
    texts = captions.caption(people, mention={"gender": 0, "skin": 0, "age": 0, "occupation": 1})
    spoken = {word for text in texts for word in text.replace(",", "").replace(":", "").split()}
    gendered = {w for words in captions.GENDER_WORDS.values() for kind in words.values() for w in kind}
    assert not spoken & gendered
    assert all(job in text for job, text in zip(people["occupation"], texts, strict=True))


def test_gender_is_said_in_every_way_and_never_wrongly():
    people = toonville.sample(3000, seed=1)
    texts = captions.caption(people, mention={"gender": 1})
    for gender, other in (("feminine", "masculine"), ("masculine", "feminine")):
        spoken = [
            set(t.replace(",", "").replace(":", "").split()) for t, g in zip(texts, people["gender"], strict=True) if g == gender
        ]
        wrong = {w for kind in captions.GENDER_WORDS[other].values() for w in kind}
        assert not any(words & wrong for words in spoken)
        for kind, words in captions.GENDER_WORDS[gender].items():
            assert any(set(words) & said for said in spoken), kind


def test_mentions_follow_their_probability():
    people = toonville.sample(4000, seed=1)
    texts = captions.caption(people, mention={"occupation": 0.5})
    said = np.mean([job in text for job, text in zip(people["occupation"], texts, strict=True)])
    assert abs(said - 0.5) < 0.04


def test_articles():
    assert captions.with_article("old man") == "an old man"
    assert captions.with_article("nurse") == "a nurse"
    assert captions.name_role("young", "the nurse") == "the young nurse"
    assert captions.name_role("old", "a nurse") == "an old nurse"
    assert captions.name_role("", "a nurse") == "a nurse"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"gender": [None, "feminine", np.nan]}, {}, "gender has 2 missing values of 3, the first in row 0"),
        ({"beard": ["", np.nan, ""]}, {}, "beard has 1 missing values of 3, the first in row 1"),
        ({"skin": "pink"}, {}, "unknown skin 'pink'; choose one of: 'light'"),
        ({}, {"mention": {"genders": 1}}, "unknown attribute in mention 'genders'; choose one of: 'gender'"),
        ({}, {"mention": {"gender": 75}}, r"mention\['gender'\] must lie in \[0, 1\], got 75"),
        ({}, {"mention": {"age": float("nan")}}, r"mention\['age'\] must lie in \[0, 1\], got nan"),
        ({}, {"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
    ],
)
def test_bad_input(change, options, message):
    with pytest.raises(ValueError, match=message):
        captions.caption(toonville.sample(3, seed=1).assign(**change), **options)


def test_no_column_and_no_noun():
    with pytest.raises(ValueError, match=r"people lack the columns \['beard'\]"):
        captions.caption(toonville.sample(3).drop(columns="beard"))
    with pytest.raises(ValueError, match="got an empty text"):
        captions.with_article("")
