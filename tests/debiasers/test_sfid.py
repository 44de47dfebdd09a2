import numpy as np
import pytest

from debias_utils.debiasers import SFID
from debias_utils.debiasers.sfid import count, fit_forest, important_coordinates, impute, unsure

D, N = 16, 600
QUICK = {"n_trees": 30}


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def planted(coordinates=(3, 11), n=N, seed=0, strength=0.5):
    """Rows in which two coordinates tell two groups apart, with some overlap."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 2, n)
    x = rng.standard_normal((n, D))
    x[:, coordinates] += strength * 2 * (2 * groups - 1)[:, None]
    return rows(x), groups


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "sfid" / "sfid.npz")


@pytest.mark.parametrize("tower", ["image", "text"])
def test_official_coordinates_rows_and_values(official, tower):
    chosen = important_coordinates(official[f"{tower}/importances"], 8)
    assert np.array_equal(chosen, official[f"{tower}/important_indices"])
    low = unsure(official[f"{tower}/probabilities"], threshold=0.7)
    assert np.array_equal(low, official[f"{tower}/low_confidence_mask"])
    mean = official[f"{tower}/X_val"][low].mean(axis=0)
    assert mean == pytest.approx(official[f"{tower}/low_confidence_mean"], abs=1e-6)
    x = official[f"query/{tower}"]
    assert impute(x, chosen, mean[chosen]) == pytest.approx(official[f"query/{tower}_imputed"], abs=1e-6)


def test_own_forest_finds_about_the_same_as_the_official_one(official):
    x, y = (np.concatenate([official[f"image/{kind}_{part}"] for part in ("train", "val")]) for kind in "Xy")
    forest, held_out = fit_forest(x, y, 1 / 3, 100, 5000, 0)
    assert len(held_out) == 200
    ours = important_coordinates(forest.feature_importances_, 8)
    assert set(official["image/important_indices"][-4:]) <= set(ours)  # the rest are close to each other
    assert np.corrcoef(forest.feature_importances_, official["image/importances"])[0, 1] > 0.8


def test_texts_that_are_not_unit_drown_the_ranking_as_in_the_release(official):
    """The released texts are fitted at their own length and written into unit rows: all texts then rank pictures much alike."""
    chosen, low = official["text/important_indices"], official["text/low_confidence_mask"]
    images = rows(official["query/image_imputed"])

    def alike(texts):
        scores = images @ rows(texts).T  # (48, 12)
        return np.corrcoef(scores.T)[np.triu_indices(12, 1)].mean()

    val, x = official["text/X_val"], official["query/text"]
    raw, unit = (impute(x, chosen, values[low].mean(axis=0)[chosen]) for values in (val, rows(val)))
    cosines = official["query/image_imputed"] @ official["query/text_imputed"].T
    lengths = [np.linalg.norm(official[f"query/{tower}_imputed"], axis=1) for tower in ("image", "text")]
    assert cosines / np.outer(*lengths) == pytest.approx(official["query/cosine_imputed"], abs=1e-5)
    assert alike(raw) > 0.7
    assert alike(unit) < 0.35


def test_without_renormalising_lengths_decide_ranks(official):
    images, texts = official["query/image_imputed"], official["query/text_imputed"]
    released, ours = ([set(column) for column in (x @ texts.T).argsort(axis=0)[-10:].T] for x in (images, rows(images)))
    assert sum(a != b for a, b in zip(released, ours, strict=True)) == 11  # of 12 queries: their ten nearest pictures


def test_the_planted_coordinates_go_and_become_the_same_in_all_rows():
    x, groups = planted()
    model = SFID(2, **QUICK).fit(images=x, groups=groups)
    assert set(model.image_coordinates_) == {3, 11}
    imputed = impute(x, model.image_coordinates_, model.image_values_)
    assert model.transform_image(x) == pytest.approx(rows(imputed))
    assert np.ptp(imputed[:, [3, 11]], axis=0) == pytest.approx(0)
    gap = abs(np.diff([model.transform_image(x)[groups == g].mean(axis=0) for g in (0, 1)], axis=0)).max()
    assert gap < 0.3 * abs(np.diff([x[groups == g].mean(axis=0) for g in (0, 1)], axis=0)).max()


def test_it_works_on_coordinates_not_on_directions():
    x, groups = planted()
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((D, D)))[0]
    plain = SFID(2, **QUICK).fit(images=x, groups=groups).transform_image(x)
    turned = SFID(2, **QUICK).fit(images=x @ turn, groups=groups).transform_image(x @ turn) @ turn.T
    assert abs(plain - turned).max() > 0.3
    means = [[y[groups == g].mean(axis=0) for g in (0, 1)] for y in (plain, turned)]
    kept = [np.linalg.norm(np.subtract(*pair)) for pair in means]
    assert kept[1] > 3 * kept[0]  # spread over all coordinates, the attribute stays


def test_each_tower_has_its_own_forest_and_texts_stay_without_texts():
    x, groups = planted()
    texts, text_groups = planted((1, 6), seed=1)
    both = SFID(2, **QUICK).fit(images=x, groups=groups, texts=texts, text_groups=text_groups)
    assert set(both.text_coordinates_) == {1, 6}
    assert set(both.image_coordinates_) == {3, 11}
    assert SFID(2, **QUICK).fit(images=x, groups=groups).transform_text(texts) == pytest.approx(texts)
    with pytest.raises(ValueError, match="text_groups"):
        SFID().fit(images=x, groups=groups, texts=texts)


def test_unsure_rows():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.31, 0.69], [0.3, 0.7], [0.0, 1.0]])
    assert unsure(p, threshold=0.7).tolist() == [False, True, True, False, False]  # strictly below
    assert unsure(p, threshold=0.4, rule="share").tolist() == [False, True, True, False, False]
    assert unsure(p, threshold=0.2, rule="share").tolist() == [False, True, False, False, False]
    assert unsure(p, threshold=0.5, at_least=0.5).tolist() == [False, True, True, True, False]
    with pytest.raises(ValueError, match=r"no row is unsure.*0\.6"):
        unsure(p, threshold=0.5)
    with pytest.raises(ValueError, match="share"):
        unsure(p, threshold=0.5, rule="other")
    with pytest.raises(ValueError, match="threshold"):
        unsure(p, threshold=70)


def test_no_unsure_row_raises_or_the_least_sure_count():
    x, groups = planted(strength=3)
    with pytest.raises(ValueError, match="no row is unsure"):
        SFID(at_least=0, threshold=0.5, **QUICK).fit(images=x, groups=groups)
    SFID(threshold=0.5, **QUICK).fit(images=x, groups=groups)


def test_how_many():
    assert count(50 / 512, 512) == 50
    assert count(0.001, 24) == 1
    assert count(8, 24) == 8
    for wrong in (0, 25, 2.0, "some"):
        with pytest.raises(ValueError, match="n_coordinates"):
            count(wrong, 24)


def test_odd_data():
    x, groups = planted()
    x[:, 5], x[:, 7] = 0.1, x[:, 3]  # a constant feature and a copy
    model = SFID(3, **QUICK).fit(images=x.astype(np.float16), groups=groups)
    assert 5 not in model.image_coordinates_
    few = SFID(**QUICK).fit(images=x[:12], groups=np.arange(12) % 2)  # fewer rows than dimensions
    assert np.isfinite(few.transform_image(x)).all()
    lonely = np.array(["a"] * (N - 1) + ["b"])
    with pytest.raises(ValueError, match=r"2 rows of each class.*'b' has 1"):
        SFID().fit(images=x, groups=lonely)
    for validation in (0, 1, 1.5, 1e-6, "half"):
        with pytest.raises(ValueError, match="validation"):
            SFID(validation=validation).fit(images=x, groups=groups)
    with pytest.raises(ValueError, match="n_trees"):
        SFID(n_trees=0).fit(images=x, groups=groups)
