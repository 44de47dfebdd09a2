import json

import numpy as np
import pytest
import torch

from debias_utils.debiasers import PRISM, PCASubspace, PRISMMini
from debias_utils.debiasers.prism import contrastive_loss, draw_samples, regularisation, train

D = 24


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def official(fixtures):
    found = dict(np.load(fixtures / "prism" / "prism.npz"))
    found["batches"] = found["sentence_embeddings"][:144].reshape(12, 3, 4, D)
    found["words"] = found["sentence_embeddings"][144:]
    return found


@pytest.fixture(scope="module")
def values(fixtures):
    return json.loads((fixtures / "prism" / "prism.json").read_text())


@pytest.fixture(scope="module")
def grid():
    """Five classes in the wording of three groups."""
    rng = np.random.default_rng(3)
    classes, groups = rng.standard_normal((5, 1, D)), rng.standard_normal((1, 3, D))
    return rows(classes + groups + 0.1 * rng.standard_normal((5, 3, D)))


def test_official_losses(official, values):
    batch = torch.tensor(official["batches"][0])
    assert contrastive_loss(torch.eye(D), batch).item() == pytest.approx(values["loss_identity_batch0"], abs=1e-6)
    a = torch.tensor(official["A"])
    assert contrastive_loss(a, batch).item() == pytest.approx(values["loss_A_batch0"], abs=1e-6)
    for kind, value in values["regularisers_A_batch0"].items():
        assert 1e-3 * regularisation(a, batch, kind).item() == pytest.approx(value, abs=1e-6), kind
    assert regularisation(a, batch, "none") == 0


@pytest.mark.parametrize(("run", "kind"), [("plain", "none"), ("regularised", "gramorth")])
def test_official_training(official, values, run, kind):
    trained = train(
        official[f"train_{run}/W0"],
        list(official["batches"]),
        learning_rate=values["lr"],
        margin=values["margin"],
        regulariser=kind,
    )
    assert trained == pytest.approx(official[f"train_{run}/W1"], abs=1e-4)


def test_official_predictions_and_what_renormalising_changes(official, values):
    images, text = rows(official["images"]), official["text"]
    assert np.array_equal((images @ text.T).argmax(axis=1), official["classify/none/preds"])
    mini = PRISMMini().fit(sets=[official["words"]])
    assert np.eye(D) - mini.basis_.T @ mini.basis_ == pytest.approx(official["mini/P"], abs=1e-6)
    scores = mini.transform_image(images) @ mini.transform_text(text).T
    assert np.array_equal(scores.argmax(axis=1), official["classify/mini/preds"])
    trained = official["train_regularised/W1"]
    after = text @ trained.T
    assert np.linalg.norm(after, axis=1) == pytest.approx(values["text_norms_after"]["trained"], abs=1e-4)
    assert np.array_equal((rows(images @ trained.T) @ after.T).argmax(axis=1), official["classify/trained/preds"])
    ours = PRISM()._fitted(D, weight=trained)  # renormalises texts, as the bench does
    predicted = (ours.transform_image(images) @ ours.transform_text(text).T).argmax(axis=1)
    assert np.array_equal(predicted, official["classify/trained/preds_if_text_renormalised"])
    assert (
        (predicted != official["classify/trained/preds"]).sum() == values["preds_changed_by_renormalising_text"]["trained"] == 1
    )


def test_mini_takes_what_the_words_share_too():
    rng = np.random.default_rng(0)
    person, axis = np.linalg.qr(rng.standard_normal((D, 2)))[0].T
    words = rows(np.array([person + 0.3 * axis, person - 0.3 * axis]))
    mini, differences = PRISMMini().fit(sets=[words]), PCASubspace(1).fit(sets=[words])
    x = rows(rng.standard_normal((7, D)))
    assert abs(mini.transform_image(x) @ np.array([person, axis]).T).max() < 1e-12
    assert abs(differences.transform_image(x) @ axis).max() < 1e-12
    assert abs(differences.transform_image(x) @ person).max() > 0.1
    again = mini.transform_image(mini.transform_image(x))
    assert again == pytest.approx(mini.transform_image(x))


def test_projecting_the_texts_too_keeps_every_text_s_ranking():
    rng = np.random.default_rng(1)
    x, text, words = rows(rng.standard_normal((50, D))), rows(rng.standard_normal((3, D))), rows(rng.standard_normal((2, D)))
    mini = PRISMMini().fit(sets=[words])
    scores = mini.transform_image(x) @ text.T
    both = mini.transform_image(x) @ mini.transform_image(text).T
    assert np.array_equal(scores.argsort(axis=0), both.argsort(axis=0))
    assert scores / both == pytest.approx(np.tile((scores / both)[:1], (50, 1)))


def test_the_rank_is_told_and_near_collinear_words_count_once():
    rng = np.random.default_rng(2)
    word = rows(rng.standard_normal(D))
    nearly = rows(np.array([word, word + 1e-6 * rng.standard_normal(D), -word]))
    assert len(PRISMMini().fit(sets=[nearly]).basis_) == 1
    sets = [rows(rng.standard_normal((2, D))) for _ in range(3)]
    assert [len(PRISMMini(n).fit(sets=sets).basis_) for n in (1, 2, 3, 9)] == [2, 4, 6, 6]
    with pytest.raises(ValueError, match="n_sets"):
        PRISMMini(0).fit(sets=sets)
    with pytest.raises(ValueError, match="at least one set"):
        PRISMMini().fit(sets=[])


def test_an_explicit_query_keeps_its_wording_but_pictures_lose_it():
    """A picture has nothing left that "a photo of a woman" asks for: the ranking is of what else the text says."""
    rng = np.random.default_rng(4)
    words = rows(rng.standard_normal((2, D)))
    mini = PRISMMini().fit(sets=[words])
    assert mini.transform_text(words) == pytest.approx(words)
    assert abs(mini.transform_image(rng.standard_normal((9, D))) @ words.T).max() < 1e-12


def test_samples_are_negatives_and_positives(grid):
    drawn = draw_samples(grid, 200, np.random.default_rng(0))
    assert drawn.shape == (200, 4, D)
    where = np.array([[np.argwhere((grid == one).all(axis=-1))[0] for one in sample] for sample in drawn])  # (200, 4, 2)
    classes, groups = where[..., 0], where[..., 1]
    assert (classes[:, 0] != classes[:, 1]).all()
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (classes[:, 2] == classes[:, 3]).all()
    assert (groups[:, 2] != groups[:, 3]).all()
    assert len(np.unique(where.reshape(-1, 2), axis=0)) == 15


@pytest.mark.parametrize("start", ["random", "identity"])
def test_groups_of_a_class_come_together(grid, start):
    model = PRISM(learning_rate=0.03, n_samples=600, start=start).fit(group_queries=grid)
    after = model.transform_text(grid.reshape(-1, D)).reshape(grid.shape)

    def gap(x):
        return np.mean([1 - x[c, 0] @ x[c, g] for c in range(5) for g in (1, 2)])

    assert gap(after) < 0.2 * gap(grid)
    assert gap(model.transform_image(grid.reshape(-1, D)).reshape(grid.shape)) == pytest.approx(gap(after))


def test_a_random_start_leaves_clip_s_space_and_the_identity_stays_near(grid):
    x = rows(np.random.default_rng(8).standard_normal((40, D)))
    near, far = (PRISM(n_samples=100, start=start).fit(group_queries=grid).transform_image(x) for start in ("identity", "random"))
    assert (near * x).sum(axis=1).min() > 0.7
    assert abs((far * x).sum(axis=1)).mean() < 0.4


def test_bad_settings(grid):
    for x in (grid[:1], grid[:, :1]):
        with pytest.raises(ValueError, match="at least 2 queries"):
            PRISM().fit(group_queries=x)
    for name, wrong in (
        ("start", "zero"), ("regulariser", "l3"), ("learning_rate", 0), ("margin", "wide"), ("n_samples", 0), ("batch_size", 0),
        ("epochs", 0), ("strength", float("nan")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            PRISM(**{name: wrong}).fit(group_queries=grid)
