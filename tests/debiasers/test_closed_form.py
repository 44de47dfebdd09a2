import numpy as np
import pytest

from debias_utils.debias import soft_projection
from debias_utils.debiasers import ClosedForm, ClosedFormPerQuery, FullProjection

D = 32


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


RNG = np.random.default_rng(0)
AXES = np.linalg.qr(RNG.standard_normal((D, 3)))[0].T
QUERIES = unit(RNG.standard_normal((4, D)))
GROUP_QUERIES = unit(QUERIES[:, None] + 0.4 * AXES + 0.05 * RNG.standard_normal((4, 3, D)))
IMAGES = unit(QUERIES[RNG.integers(0, 4, 60)] + 0.4 * AXES[RNG.integers(0, 3, 60)])


def test_the_codes_shared_prototypes_and_both_towers(fixtures):
    official = np.load(fixtures / "closed_form" / "closed_form.npz")
    prototypes = [[official[f"prototypes/class {c}/{g}"] for g in ("male", "female")] for c in range(3)]
    model = ClosedForm().fit(group_queries=prototypes)
    assert model.basis_.T @ model.basis_ == pytest.approx(official["projector"], abs=1e-6)
    assert model.transform_text(official["text/e"]) == pytest.approx(official["text/u"], abs=1e-5)
    assert model.transform_image(official["image/e"]) == pytest.approx(official["image/u"], abs=3e-5)
    spanned = FullProjection(span="prototypes").fit(group_queries=prototypes)
    assert spanned.basis_.T @ spanned.basis_ == pytest.approx(official["projector_of_prototype_span_S"], abs=1e-6)
    per_query = ClosedFormPerQuery().fit(group_queries=prototypes)
    for c in range(3):
        u = per_query.transform_text(official["text/e"][c], group_queries=np.stack(prototypes[c])[None])
        a = np.linalg.eigh(official[f"per_prompt/class {c}/projector"])[1][:, -1:]
        assert u == pytest.approx(soft_projection(official["text/e"][c], a), abs=1e-5)
    own = per_query.transform_text(official["text/e"][:3], group_queries=prototypes)
    shared = model.transform_text(official["text/e"][:3])
    assert 0.003 < abs(own - shared).max() < 0.5  # what the paper says and what its code does


def test_what_each_rule_keeps():
    p = FullProjection().fit(group_queries=GROUP_QUERIES).basis_
    before = np.linalg.norm(IMAGES @ p.T, axis=1)
    kept = {}
    for factor in ("full", "printed problem", "closed form", "fixed"):
        model = ClosedForm(factor=factor).fit(group_queries=GROUP_QUERIES)
        kept[factor] = (np.linalg.norm(model.transform_image(IMAGES) @ p.T, axis=1) / before).mean()
        assert model.rank == 2
    assert kept["full"] == pytest.approx(0, abs=1e-9)
    assert 0.02 < kept["printed problem"] < 0.3
    assert 0.38 < kept["closed form"] < 0.45
    assert kept["fixed"] == pytest.approx(kept["closed form"], abs=0.03)
    full = FullProjection().fit(group_queries=GROUP_QUERIES)
    assert full.transform_image(IMAGES) == pytest.approx(
        ClosedForm(factor="full").fit(group_queries=GROUP_QUERIES).transform_image(IMAGES)
    )


def test_the_span_of_prototypes_takes_what_the_groups_share_as_well():
    model = FullProjection(span="prototypes").fit(group_queries=GROUP_QUERIES)
    assert model.rank == 3
    shared = unit(GROUP_QUERIES.mean(axis=(0, 1)))
    assert FullProjection().fit(group_queries=GROUP_QUERIES).transform_image(shared) @ shared > 0.8
    with pytest.raises(ValueError, match="nothing is left of 1 of 1 rows"):
        model.transform_image(shared)
    texts = model.transform_text(QUERIES)
    assert texts @ model.basis_.T == pytest.approx(np.zeros((4, 3)), abs=1e-9)


def test_a_query_of_its_own_makes_it_equally_far_from_its_own_groups():
    full = ClosedFormPerQuery(factor="full").fit(group_queries=GROUP_QUERIES)
    own = full.transform_text(QUERIES, group_queries=GROUP_QUERIES)
    assert np.ptp(np.einsum("nd,nad->na", own, GROUP_QUERIES), axis=1) == pytest.approx(np.zeros(4), abs=1e-9)
    shared = FullProjection().fit(group_queries=GROUP_QUERIES).transform_text(QUERIES)
    assert np.ptp(np.einsum("nd,nad->na", shared, GROUP_QUERIES), axis=1).max() > 0.01
    images = full.transform_image(IMAGES, group_queries=GROUP_QUERIES[2:3])
    assert np.ptp(images @ GROUP_QUERIES[2].T, axis=1) == pytest.approx(np.zeros(60), abs=1e-9)
    alike = GROUP_QUERIES.copy()
    alike[1] = alike[1, :1]  # no direction tells these apart: the text stays
    assert full.transform_text(QUERIES, group_queries=alike)[1] == pytest.approx(QUERIES[1])


def test_the_rank_is_told_and_bad_data_are_refused(tmp_path):
    twice = GROUP_QUERIES[:, [0, 1, 2, 0]]
    assert ClosedForm().fit(group_queries=twice).rank == 2
    assert ClosedForm.load(ClosedForm(factor="fixed").fit(group_queries=twice).save(tmp_path / "saved")).rank == 2
    for model in (FullProjection(), ClosedForm(), ClosedFormPerQuery()):
        for given, said in (
            (GROUP_QUERIES[:, :1], "two classes"),
            (GROUP_QUERIES[:, [0, 0]], "same embeddings"),
            (GROUP_QUERIES[0], r"\(q, a, d\)"),
        ):
            with pytest.raises(ValueError, match=said):
                model.fit(group_queries=given)
    with pytest.raises(ValueError, match="closed form"):
        ClosedForm(factor="half").fit(group_queries=GROUP_QUERIES)
    with pytest.raises(ValueError, match="span"):
        FullProjection(span="both").fit(group_queries=GROUP_QUERIES)
    model = ClosedFormPerQuery().fit(group_queries=GROUP_QUERIES)
    for given, said in (
        ({}, "needs group_queries"),
        ({"group_queries": GROUP_QUERIES[:2]}, r"\(4, at least 2, 32\)"),
        ({"group_queries": GROUP_QUERIES[:, :1]}, "at least 2"),
        ({"group_queries": np.full_like(GROUP_QUERIES, np.nan)}, "NaN"),
    ):
        with pytest.raises(ValueError, match=said):
            model.transform_text(QUERIES, **given)
    with pytest.raises(ValueError, match=r"\(1 or 60, at least 2, 32\)"):
        model.transform_image(IMAGES, group_queries=GROUP_QUERIES)
    axis = FullProjection().fit(group_queries=GROUP_QUERIES)
    with pytest.raises(ValueError, match="nothing is left of"):
        axis.transform_text(axis.basis_)
