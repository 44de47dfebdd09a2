import numpy as np
import pytest
import torch

from debias_utils import load_profile
from debias_utils.evaluate.instruct_study import InstructStudy
from debias_utils.evaluate.study import BETAS
from debias_utils.toonville import OCCUPATIONS


@pytest.fixture(scope="module")
def parts():
    return load_profile("mini", device="cpu")


@pytest.fixture(scope="module")
def study(parts):
    return InstructStudy(parts, rho=0.9, people=4)


@pytest.fixture(scope="module")
def before(study):
    return study.draw(study.conditions, progress=False)


def test_edits_show_the_occupation_and_the_person(study, before):
    assert before.shape == (14, 4, 3, 64, 64)
    rows = study.judge(before)
    assert rows["occupation_score"].mean() >= 0.5
    assert rows["identity"].mean() > 0.5
    assert rows["occupation"].tolist() == [job for job in OCCUPATIONS for _ in range(4)]


def test_whom_nothing_was_asked_to_change_is_kept(study):
    texts = study.model.encode_text(["change nothing"])
    kept = study.draw(texts, progress=False)[0]
    similarity = (study.parts.identity(kept) * study.parts.identity(study.originals)).sum(dim=1)
    assert similarity.mean() > 0.8


def test_everyone_has_the_same_noise_alone_and_with_others(study, before):
    alone = study.draw(study.conditions[:2], people=2, progress=False)
    assert torch.allclose(alone, before[:2, :2], atol=1e-4)


def test_without_a_picture_the_text_decides(study):
    drawn = study.imagine(study.conditions, draws=3)
    assert drawn.shape == (14, 3, 3, 64, 64)
    assert torch.allclose(study.imagine(study.conditions[4:5], draws=2)[0], drawn[4, :2], atol=1e-4)
    seen = study.parts.attributes.labels(drawn.flatten(0, 1))["occupation"]
    assert np.mean(seen == np.repeat(list(OCCUPATIONS), 3)) > 0.8
    shares = study.stereotypical(drawn)
    assert shares.shape == (14,)
    assert shares.mean() > 0.6


def test_text_based_debiasing_leaves_the_start_token_alone_and_nothing_of_the_subspace(study):
    space = study.subspace("gender", "skin")
    debiased = study.debiased(space)
    assert torch.equal(debiased[:, 0], study.conditions[:, 0])
    assert np.abs(debiased[:, 1:].numpy() @ space.basis.T).max() < 1e-4
    assert len(space.basis) > len(study.subspace("gender").basis)
    assert not torch.equal(study.debiased(space, skip_first=0)[:, 0], study.conditions[:, 0])


def test_gradient_based_debiasing_ends_no_worse_than_it_began(study):
    found, result = study.gradient_based(study.conditions, people=1, steps=2, progress=False)
    assert found.shape == (14, 1, *study.conditions.shape[1:])
    assert (result.loss <= result.traces["total"][0] + 1e-6).all()
    assert result.loss.mean() < result.traces["total"][0].mean()
    assert set(result.traces) == {*BETAS, "total"}
    assert study.draw(found, people=1, steps=2, progress=False).shape == (14, 1, 3, 64, 64)


def test_some_occupations_are_found_as_all_of_them_are(study):
    jobs = study.jobs[3:5]
    found, _ = study.gradient_based(study.conditions[3:5], jobs=jobs, people=1, steps=1, progress=False)
    assert found.shape == (2, 1, *study.conditions.shape[1:])
    every, _ = study.gradient_based(study.conditions, people=1, steps=1, progress=False)
    assert (found - every[3:5]).abs().max() < 1e-3 * study.conditions.std()


def test_another_seed_is_other_people_and_other_noise(study, parts):
    other = InstructStudy(parts, seed=1, people=len(study.people))
    assert not study.people.equals(other.people)
    assert not torch.equal(study.sampler(1).noise, other.sampler(1).noise)


def test_bad_input(study, parts):
    with pytest.raises(ValueError, match="unknown attribute 'height'; choose one of: 'gender', 'skin', 'age'"):
        study.subspace("gender", "height")
    with pytest.raises(ValueError, match=r"unknown rho 0.5; choose one of: 0.0, 0.9"):
        parts.editor(0.5)
