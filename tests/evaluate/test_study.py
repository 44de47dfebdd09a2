import numpy as np
import pytest
import torch

from debias_utils import load_profile
from debias_utils.evaluate.judge import ATTRIBUTES
from debias_utils.evaluate.study import BETAS, StyleClipStudy


@pytest.fixture(scope="module")
def study():
    return StyleClipStudy(load_profile("mini", device="cpu"), rho=0.9, people=4, samples=96)


@pytest.fixture(scope="module")
def directions(study):
    return study.directions(study.relevance(study.deltas), channels=20)


def test_it_starts_from_drawings_of_the_people(study):
    portraits = study.parts.portraits(study.people)
    assert study.originals.shape == portraits.shape == (4, 3, 64, 64)
    assert (study.originals - portraits).abs().mean() < 0.06
    assert set(study.people["occupation"]) == {"everyday"}
    assert study.people["gender"].nunique() == 2


def test_edits_stay_in_the_range_of_the_samples(study, directions):
    edited = study.apply(directions, alpha=10)
    assert edited.shape == (14, 4, study.start.shape[1])
    assert bool((edited >= torch.minimum(study.statistics.low, study.start)).all())
    assert bool((edited <= torch.maximum(study.statistics.high, study.start)).all())
    moved = (edited != study.start).any(dim=(0, 1))
    assert 20 <= moved.sum() <= 14 * 20
    assert torch.equal(study.apply(directions, alpha=0)[0], study.start)


def test_edits_show_more_of_the_occupation_than_the_originals(study, directions):
    before, after = (study.judge(study.apply(directions, alpha=a))["occupation_score"].mean() for a in (0, 8))
    assert after > before + 0.2


def test_text_based_debiasing_leaves_nothing_of_the_subspace(study):
    space = study.subspace("gender", "skin")
    assert np.abs(study.debiased(space).numpy() @ space.basis.T).max() < 1e-5
    assert len(space.basis) > len(study.subspace("gender").basis)


def test_orthogonal_edits_do_not_move_the_protected_scores(study, directions):
    space = study.subspace("gender", n_components=1)
    basis = torch.as_tensor(space.basis, dtype=torch.float32)
    protected = study.relevance(basis)
    first_order = (study.orthogonal(directions, space) / study.statistics.std.clamp_min(1e-9)) @ protected.T
    assert first_order.abs().max() < 1e-4 * ((directions / study.statistics.std.clamp_min(1e-9)) @ protected.T).abs().max()


def test_gradient_based_debiasing_ends_no_worse_than_it_began(study, directions):
    edited = study.apply(directions, alpha=8)[:2]
    result = study.gradient_based(edited, study.texts[:2], steps=3, progress=False)
    assert result.latent.shape == (8, edited.shape[2])
    assert (result.loss <= result.traces["total"][0] + 1e-6).all()
    assert result.loss.mean() < result.traces["total"][0].mean()
    assert set(result.traces) == {*BETAS, "total"}
    unchanged = study.statistics.std == 0
    assert torch.equal(result.latent[:, unchanged], edited.flatten(0, 1)[:, unchanged])


def test_rows(study, directions):
    rows = study.judge(study.apply(directions, alpha=8), more=True)
    assert len(rows) == 14 * 4
    assert rows[["identity", "clip_score"]].stack().between(-1, 1 + 1e-6).all()
    assert (rows["perceptual"] > 0).all()
    assert all(rows[f"{a}_shift"].between(0, 2**0.5 + 1e-6).all() for a in ATTRIBUTES)


def test_the_first_people_can_be_edited_alone(study, directions):
    edited = study.apply(directions, alpha=8)
    rows = study.judge(edited)
    few = rows[rows["person"] < 2].reset_index(drop=True)
    alone = study.judge(edited[:, :2])
    assert alone["person"].tolist() == few["person"].tolist()
    assert np.allclose(alone["gender_shift"], few["gender_shift"], atol=1e-5)
    both, one = (study.gradient_based(edited[:1, :m], study.texts[:1], steps=2, progress=False) for m in (2, 1))
    assert torch.allclose(both.latent[0], one.latent[0], atol=1e-4)


def test_bad_input(study):
    with pytest.raises(ValueError, match="unknown attribute 'height'; choose one of: 'gender', 'skin', 'age'"):
        study.subspace("gender", "height")
    with pytest.raises(ValueError, match="choose one of: 'gender'"):
        study.subspace()
