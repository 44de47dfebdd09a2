import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_utils.debias import leace
from debias_utils.debiasers import LEACE

D = 24


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def people(seed, n=800, axes=9):
    """Three classes, of which the first is twice as frequent."""
    rng = np.random.default_rng(seed)
    z = rng.choice(3, n, p=[0.5, 0.25, 0.25])
    axes = np.random.default_rng(axes).standard_normal((3, D))
    mix = np.random.default_rng(8).standard_normal((D, D))
    return unit(rng.standard_normal((n, D)) @ mix / 5 + axes[z] + 1), np.array(["a", "b", "c"])[z]


IMAGES, GROUPS = people(0)
TEXTS, TEXT_GROUPS = people(1, axes=10)


def probe(x, z):
    return LogisticRegression(max_iter=3000, C=100).fit(x, z).score(x, z)


def test_each_tower_has_a_map_of_its_own():
    model = LEACE().fit(images=IMAGES, groups=GROUPS, texts=TEXTS, text_groups=TEXT_GROUPS)
    assert model.rank == {"image": 2, "text": 2}
    for tower, x, z in (("image", IMAGES, GROUPS), ("text", TEXTS, TEXT_GROUPS)):
        p, bias = leace(x, z[:, None] == np.unique(z))
        assert model.state[f"{tower}_map"] == pytest.approx(p)
        erased = bias + (x - bias) @ p.T
        assert getattr(model, f"transform_{tower}")(x) == pytest.approx(unit(erased))
        majority = (z == "a").mean()
        assert probe(erased, z) <= majority + 0.01 < probe(x, z) - 0.1
        assert probe(unit(erased), z) > majority + 0.005  # a part comes back
    crossed = model.text_bias_ + (IMAGES - model.text_bias_) @ model.text_map_.T
    assert probe(crossed, GROUPS) > (GROUPS == "a").mean() + 0.05  # a map of texts promises nothing for pictures


def test_without_labelled_texts_texts_stay():
    model = LEACE().fit(images=IMAGES, groups=GROUPS)
    assert model.rank == {"image": 2, "text": 0}
    assert model.transform_text(TEXTS) == pytest.approx(TEXTS)
    for given in ({"texts": TEXTS}, {"text_groups": TEXT_GROUPS}):
        with pytest.raises(ValueError, match="LEACE needs text"):
            LEACE().fit(images=IMAGES, groups=GROUPS, **given)


def test_options_are_passed_on_and_saved(tmp_path):
    for settings in ({"method": "orth"}, {"affine": False}, {"shrinkage": False}):
        model = LEACE(**settings).fit(images=IMAGES, groups=GROUPS)
        p, bias = leace(IMAGES, GROUPS[:, None] == np.unique(GROUPS), **settings)
        assert model.image_map_ == pytest.approx(p)
        assert model.transform_image(IMAGES) == pytest.approx(unit(bias + (IMAGES - bias) @ p.T))
        again = LEACE.load(model.save(tmp_path / str(settings)))
        assert (again.method, again.affine, again.shrinkage) == (model.method, model.affine, model.shrinkage)
    moved = {
        method: LEACE(method=method).fit(images=IMAGES, groups=GROUPS).transform_image(IMAGES) for method in ("leace", "orth")
    }
    assert ((moved["leace"] - IMAGES) ** 2).mean() < ((moved["orth"] - IMAGES) ** 2).mean()
    with pytest.raises(ValueError, match="orth"):
        LEACE(method="pca").fit(images=IMAGES, groups=GROUPS)


def test_half_precision_few_rows_constant_features_and_a_class_with_one_member():
    half = LEACE().fit(images=IMAGES.astype(np.float16), groups=GROUPS)
    assert half.transform_image(IMAGES) == pytest.approx(
        LEACE().fit(images=IMAGES, groups=GROUPS).transform_image(IMAGES), abs=0.01
    )
    few, z = IMAGES[:12], np.repeat(["a", "b"], 6)
    model = LEACE().fit(images=few, groups=z)
    assert model.rank["image"] == 1
    erased = model.image_bias_ + (few - model.image_bias_) @ model.image_map_.T
    assert erased[:6].mean(axis=0) == pytest.approx(erased[6:].mean(axis=0))
    constant = np.column_stack([IMAGES, IMAGES[:, 0], np.ones(len(IMAGES))])
    assert LEACE().fit(images=constant, groups=GROUPS).rank["image"] == 2
    with pytest.raises(ValueError, match="at least 2 members, 'z' has 1"):
        LEACE().fit(images=few, groups=["a"] * 11 + ["z"])
