import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_utils.debias import kept_dimensions, mutual_information
from debias_utils.debiasers import CLIPClip


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "clip_clip" / "clip_clip.npz")


@pytest.mark.parametrize("labels", ["binary", "with_neutral"])
@pytest.mark.parametrize("m", [5, 12, 17, 20])
def test_the_authors_scores_recall_and_bias(official, labels, m):
    images, texts, gender = (official[f"{labels}/{name}"] for name in ("image_features", "text_features", "gender"))
    kept = kept_dimensions(mutual_information(images, gender), m)
    scores = unit(texts)[:, kept] @ unit(images)[:, kept].T  # unit before clipping, not after
    key = f"{labels}/wang/keep{m}"
    assert scores[:4] == pytest.approx(official[f"{key}/sim_first_4_queries"], abs=1e-6)
    ranked = np.argsort(scores, axis=1)[:, ::-1]
    place = (ranked == np.arange(len(ranked))[:, None]).argmax(axis=1)
    recall = [100 * (place < k).mean() for k in (1, 5, 10)]
    assert recall == pytest.approx(official[f"{key}/recall_1_5_10"])
    bias = []
    for k in range(1, 11):
        shown = gender[ranked[:, :k]]
        a, b = (shown == 1).sum(axis=1), (shown == 2).sum(axis=1)
        bias.append(((a - b) / (a + b + 1e-12)).mean())
    assert bias == pytest.approx(official[f"{key}/bias_at_1_to_10"])


@pytest.mark.parametrize("estimator", ["histogram", "ksg"])
def test_both_towers_lose_the_same_dimensions_and_are_unit_again(official, estimator):
    images, texts, gender = (official[f"binary/{name}"] for name in ("image_features", "text_features", "gender"))
    model = CLIPClip(keep=12, estimator=estimator).fit(images=images, groups=gender)
    assert model.information_ == pytest.approx(mutual_information(unit(images.astype(float)), gender, estimator=estimator))
    kept = kept_dimensions(model.information_, 12)
    assert np.array_equal(np.flatnonzero(model.mask_), kept)
    for x, result in ((images, model.transform_image(images)), (texts, model.transform_text(texts))):
        assert (result[:, model.mask_ == 0] == 0).all()
        assert result[:, kept] == pytest.approx(unit(x[:, kept]), abs=1e-6)
    dropped = set(range(20)) - set(kept.tolist())
    assert {3, 17, 8} <= dropped
    ours = model.transform_text(texts) @ model.transform_image(images).T
    theirs = unit(texts)[:, kept] @ unit(images)[:, kept].T  # a partial product, of whatever length is left
    top = [np.argsort(-s, axis=1)[:, :10] for s in (ours, theirs)]
    shared = np.mean([len(set(a) & set(b)) for a, b in zip(*top, strict=True)]) / 10
    assert 0.5 < shared < 0.98


def test_the_estimators_agree_on_what_is_planted_and_differ_on_the_rest(official):
    images, gender = official["binary/image_features"], official["binary/gender"]
    order = [
        np.argsort(-CLIPClip(estimator=estimator).fit(images=images, groups=gender).information_)
        for estimator in ("histogram", "ksg")
    ]
    assert set(order[0][:2]) == set(order[1][:2]) == {3, 17}
    assert order[0].tolist() != order[1].tolist()
    raw = mutual_information(images, gender)  # the authors' rows are raw
    ours = CLIPClip().fit(images=images, groups=gender).information_
    assert 1e-4 < abs(raw - ours).max() < 0.1


def test_an_attribute_in_one_dimension_goes_and_one_in_all_of_them_stays():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 1500)
    noise = rng.standard_normal((1500, 40))
    one, spread = noise.copy(), noise.copy()
    one[:, 7] += 4 * z
    spread += 4 / np.sqrt(40) * z[:, None]
    score = {}
    for name, x in (("one", one), ("spread", spread)):
        clipped = CLIPClip().fit(images=x, groups=z).transform_image(x)
        score[name] = LogisticRegression(max_iter=1000).fit(clipped, z).score(clipped, z)
    assert score["one"] < 0.65
    assert score["spread"] > 0.9


def test_keep_is_what_is_kept(official, tmp_path):
    images, gender = official["binary/image_features"], official["binary/gender"]
    for keep, kept in ((5, 5), (0.5, 10), (1.0, 20), (20, 20), (400 / 512, 16)):
        model = CLIPClip(keep=keep).fit(images=images, groups=gender)
        assert model.mask_.sum() == kept
        again = CLIPClip.load(model.save(tmp_path / str(keep)))
        assert type(again.keep) is type(keep)
    for keep in (0, 21, 1.5):
        with pytest.raises(ValueError, match="keep"):
            CLIPClip(keep=keep).fit(images=images, groups=gender)


def test_options_reach_their_estimator_and_bad_ones_are_refused(official):
    images, gender = official["binary/image_features"], official["binary/gender"]
    x = unit(images.astype(float))
    for settings in ({"bins": 16, "sigma": 2.0}, {"estimator": "ksg", "n_neighbors": 9}):
        found = CLIPClip(**settings).fit(images=images, groups=gender).information_
        assert found == pytest.approx(mutual_information(x, gender, **settings))
    for settings, said in (
        ({"estimator": "knn"}, "histogram"),
        ({"bins": 0}, "bins"),
        ({"estimator": "ksg", "n_neighbors": 0}, "n_n"),
    ):
        with pytest.raises(ValueError, match=said):
            CLIPClip(**settings).fit(images=images, groups=gender)
    with pytest.raises(ValueError, match="'rare' has 1"):
        CLIPClip().fit(images=images, groups=["rare"] + ["other"] * 359)


def test_constant_and_repeated_features_and_few_rows(official):
    images, gender = official["binary/image_features"].copy(), official["binary/gender"]
    images[:, 0] = 0
    images[:, 1] = images[:, 2]
    for estimator in ("histogram", "ksg"):
        model = CLIPClip(keep=1, estimator=estimator).fit(images=images, groups=gender)
        assert np.isfinite(model.information_).all()
        assert model.information_[1] == model.information_[2]
        few = CLIPClip(estimator=estimator).fit(images=images[:10], groups=[0, 1] * 5)
        assert few.mask_.sum() == 16
    with pytest.raises(ValueError, match="more than 5 rows"):
        CLIPClip(estimator="ksg").fit(images=images[:4], groups=[0, 1, 0, 1])
