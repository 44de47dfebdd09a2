import dataclasses
import itertools

import numpy as np
import pytest

import debias_utils
from debias_utils import profiles, toonville


def test_mini_is_the_default():
    parts = debias_utils.load_profile()
    assert (parts.name, parts.seed) == ("mini", 0)
    people = parts.people()
    assert people.groupby(["occupation", "gender", "skin"]).size().unique().tolist() == [parts.per_cell]
    assert {"gender_fits", "skin_fits", "skin_half"} <= set(people.columns)


def test_embeddings_are_computed_once_and_then_read(monkeypatch):
    parts = debias_utils.load_profile("mini", device="cpu")
    people = parts.people().head(20)
    first = parts.image_embeddings(people, rho=0.9)
    assert first.shape == (20, parts.clip().embed_dim)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    monkeypatch.setattr(type(parts.clip()), "encode_image", None)
    assert np.array_equal(parts.image_embeddings(people, rho=0.9), first)


@pytest.mark.parametrize("tower", ["rn", "vit"])
def test_job_scores_are_cosines_that_find_the_occupation(tower):
    parts = debias_utils.load_profile("mini", device="cpu")
    people, jobs = parts.people().head(40), list(toonville.OCCUPATIONS)
    scores = parts.job_scores(people, tower=tower)
    assert scores.shape == (40, 14)
    assert np.abs(scores).max() <= 1 + 1e-6
    text = parts.clip(tower=tower).encode_prompts(["nurse"]).numpy()[0]
    nurse = parts.image_embeddings(people, tower=tower) @ text
    assert np.allclose(scores[:, jobs.index("nurse")], nurse, atol=1e-6)
    assert np.mean([jobs[i] == job for i, job in zip(scores.argmax(axis=1), people["occupation"], strict=True)]) > 0.7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: debias_utils.load_profile("huge"), "unknown profile 'huge'; choose one of: 'mini'"),
        (lambda: debias_utils.load_profile(device="tpu"), "unknown device 'tpu'; choose one of: 'auto', 'cpu'"),
        (lambda: debias_utils.load_profile().clip(0.3), "unknown rho 0.3; choose one of: 0.0, 0.5, 0.9"),
        (lambda: debias_utils.load_profile().clip(0.9, training_seed=9), "unknown training seed 9; choose one of: 0, 1, 2"),
        (lambda: debias_utils.load_profile().job_scores(None, rho=0.3), "unknown rho 0.3; choose one of: 0.0, 0.5, 0.9"),
        (lambda: debias_utils.load_profile().clip(0.9, tower="mlp"), "unknown tower 'mlp'; choose one of: 'rn', 'vit'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", sorted(profiles.PROFILES))
def test_every_profile_offers_what_chapters_use(name):
    own = {field.name for field in dataclasses.fields(profiles.Profile)} - {"name", "device", "seed"}
    assert set(profiles.PROFILES[name]) == own
    parts = debias_utils.load_profile(name, device="cpu")
    assert all(callable(getattr(parts, part)) for part in ("generator", "attributes", "identity", "perceptual"))
    styles = parts.sample_styles(2)
    assert parts.invert(parts.draw(styles)).shape == styles.shape
    clips = [parts.clip_name(*which) for which in itertools.product(parts.towers, parts.rhos, parts.training_seeds)]
    editors = [parts.editor_name(rho) for rho in parts.editor_rhos]
    assert len(set(clips + editors)) == len(clips) + len(editors)
    assert len({parts.instruction(job) for job in toonville.OCCUPATIONS}) == len(toonville.OCCUPATIONS)
    assert all(len(words) > 1 for sets in parts.definitional_sets.values() for words in sets)
