import numpy as np
import pytest

from debias_utils.debias.subspace import BiasSubspace
from debias_utils.debias.words import AGE_SETS, GENDER_SETS, RACE_SETS
from debias_utils.discover.geometry import lean
from debias_utils.toonville import AGE_WORDS, AGES, GENDER_WORDS, GENDERS, OCCUPATIONS, SKIN_TONES, SKIN_WORDS

SETS = {
    (attribute, source): (sets, size)
    for attribute, lists, sizes in (("gender", GENDER_SETS, (2, 2)), ("race", RACE_SETS, (4, 3)), ("age", AGE_SETS, (3, 3)))
    for (source, sets), size in zip(lists.items(), sizes, strict=True)
}


@pytest.mark.parametrize("key", SETS, ids="-".join)
def test_each_set_holds_one_other_word_for_each_group(key):
    sets, size = SETS[key]
    assert len(sets) >= 3
    assert len(set(sets)) == len(sets)
    assert all(len(set(words)) == len(words) == size for words in sets)


def test_the_published_lists_have_their_length():
    assert len(GENDER_SETS["bolukbasi2016"]) == 10
    assert len(RACE_SETS["manzini2019"]) == 6


def test_toonville_sets_are_words_of_its_captions_in_the_order_of_the_groups():
    for pair in GENDER_SETS["toonville"]:
        for word, group in zip(pair, GENDERS, strict=True):
            assert word in {w for kind in ("noun", "pronoun", "family", "title") for w in GENDER_WORDS[group][kind]}
    assert {("woman", "man"), ("she", "he"), ("mother", "father")} <= set(GENDER_SETS["toonville"])
    for sets, said, groups in ((RACE_SETS, SKIN_WORDS, SKIN_TONES), (AGE_SETS, AGE_WORDS, AGES)):
        for phrases in sets["toonville"]:
            for phrase, group in zip(phrases, groups, strict=True):
                assert phrase.removesuffix(" person") in said[group]
                assert phrase.endswith(" person")
                assert not phrase.startswith(("with ", "in "))


def test_on_a_biased_clip_they_take_the_lean_out_of_occupations(clip):
    jobs, groups = clip.encode_prompts(list(OCCUPATIONS)), [clip.encode_prompts([w]) for w in ("woman", "man")]
    before = np.abs(lean(jobs, *groups)).mean()
    gender = BiasSubspace.fit([clip.encode_prompts(words) for words in GENDER_SETS["toonville"]], n_components=0.9)
    race = BiasSubspace.fit([clip.encode_prompts(words) for words in RACE_SETS["toonville"]], n_components=0.9)
    assert np.abs(lean(gender.project_out(jobs), *groups)).mean() < before / 4
    joint = gender.join(race)
    assert max(len(gender.basis), len(race.basis)) < len(joint.basis) <= len(gender.basis) + len(race.basis)
    assert np.abs(lean(joint.project_out(jobs), *groups)).mean() < before / 4
    skins = [clip.encode_prompts([phrase]) for phrase in RACE_SETS["toonville"][0]]
    light, dark = skins[0], skins[-1]
    assert np.abs(lean(joint.project_out(jobs), light, dark)).mean() < np.abs(lean(jobs, light, dark)).mean() / 2
