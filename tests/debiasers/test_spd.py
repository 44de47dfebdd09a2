import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_utils.debiasers import SPD
from debias_utils.debiasers.spd import probe_directions, sample

D, N = 16, 900
QUICK = {"n_trees": 20}


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def planted(classes=2, seed=0):
    """Unit rows with one mean for each class, a corner of a simplex."""
    rng = np.random.default_rng(seed)
    groups = np.arange(N) % classes
    means = np.linalg.qr(rng.standard_normal((D, classes)))[0].T
    return rows(1.5 * means[groups] + 0.5 * rng.standard_normal((N, D))), groups


def accuracy(x, y):
    """Of a fresh probe, on rows that it has not seen."""
    return LogisticRegression(C=100, max_iter=2000).fit(x[: N // 2], y[: N // 2]).score(x[N // 2 :], y[N // 2 :])


def test_the_affine_form():
    x, groups = planted()
    model = SPD(3, **QUICK).fit(images=x, groups=groups)
    u, centre = model.image_basis_, model.image_centre_
    assert u @ u.T == pytest.approx(np.eye(3))
    projected = x - x @ u.T @ u
    reinjected = projected + centre @ u.T @ u
    assert reinjected @ u.T == pytest.approx(np.tile(u @ centre, (N, 1)))
    assert model.transform_image(x) == pytest.approx(rows(reinjected))
    assert SPD(3, reinject=False, **QUICK).fit(images=x, groups=groups).transform_image(x) == pytest.approx(rows(projected))


def test_a_fresh_probe_finds_less_and_renormalising_lets_a_little_back():
    x, groups = planted()
    model = SPD(4, **QUICK).fit(images=x, groups=groups)
    u = model.image_basis_
    affine = x - (x - model.image_centre_) @ u.T @ u
    assert accuracy(x, groups) > 0.95
    assert accuracy(affine, groups) < 0.6
    after = model.transform_image(x)
    assert np.ptp(affine @ u.T, axis=0) == pytest.approx(0, abs=1e-12)
    assert np.ptp(after @ u.T, axis=0).max() > 0.001  # lengths differ, so what was constant is not
    assert accuracy(after, groups) < 0.65


def test_a_softmax_gives_one_direction_less_than_classes_where_qr_adds_one_of_chance():
    x, groups = planted(3)
    one_round = probe_directions(x, groups, 1, count="rounds")
    assert one_round.shape == (2, D)
    weights = LogisticRegression(max_iter=1000).fit(x, groups).coef_
    released = np.linalg.qr(weights.T)[0].T  # three rows, the last of them rounding
    assert np.linalg.matrix_rank(weights, tol=1e-6) == 2
    assert np.linalg.norm(released @ one_round.T) ** 2 == pytest.approx(2, abs=1e-6)
    assert np.linalg.norm(released) ** 2 == pytest.approx(3)


def test_rounds_and_directions():
    x, groups = planted(3)
    assert probe_directions(x, groups, 3, count="directions").shape == (3, D)
    rounds = probe_directions(x, groups, 3, count="rounds")
    assert rounds.shape == (6, D)
    assert rounds @ rounds.T == pytest.approx(np.eye(6))
    assert probe_directions(x, groups, 1).shape == (1, D)
    span = probe_directions(x, groups, 2)
    one_round = probe_directions(x, groups, 1, count="rounds")
    assert span.T @ span == pytest.approx(one_round.T @ one_round, abs=1e-6)
    left = [accuracy(x - x @ u.T @ u, groups) for u in (probe_directions(x, groups, 1), one_round, rounds)]
    assert left[0] > left[1] + 0.1 > left[2]


def test_a_rotation_of_the_space_rotates_the_result():
    x, groups = planted()
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((D, D)))[0]
    plain, turned = probe_directions(x, groups, 2), probe_directions(x @ turn, groups, 2) @ turn.T
    assert turned.T @ turned == pytest.approx(plain.T @ plain, abs=1e-3)


def test_threshold_and_share_differ_and_are_stated():
    x, groups = planted()
    centres = [
        SPD(1, rule=rule, threshold=t, **QUICK).fit(images=x, groups=groups).image_centre_
        for rule, t in (("threshold", 0.7), ("share", 0.7), ("share", 0.007))
    ]
    assert np.linalg.norm(centres[0] - centres[1]) > 0.01
    assert np.linalg.norm(centres[1] - centres[2]) > 0.01
    with pytest.raises(ValueError, match="rule"):
        SPD(rule="confidence").fit(images=x, groups=groups)


def test_samples_hold_every_class():
    labels = np.array([0] * 5000 + [1] * 3 + [2])
    rng = np.random.default_rng(0)
    drawn = sample(labels, 50, rng)
    assert len(drawn) == len(set(drawn)) == 50
    assert set(labels[drawn]) == {0, 1, 2}
    assert np.array_equal(sample(labels, 10_000, rng), np.arange(5004))
    x = np.concatenate([np.random.default_rng(1).standard_normal((5004, D))])
    assert probe_directions(rows(x), labels, 1, max_rows=50).shape == (1, D)


def test_bad_settings_and_odd_data():
    x, groups = planted()
    for n in (0, D, 2.5):
        with pytest.raises(ValueError, match="n must be"):
            probe_directions(x, groups, n)
    with pytest.raises(ValueError, match="nothing would be left"):
        probe_directions(x, np.arange(N) % 9, 4, count="rounds")
    with pytest.raises(ValueError, match="rounds"):
        probe_directions(x, groups, 2, count="times")
    with pytest.raises(ValueError, match="penalty"):
        probe_directions(x, groups, 2, penalty=0)
    assert probe_directions(np.tile(x[:1], (N, 1)), groups, 3).shape == (0, D)  # nothing tells them apart
    with pytest.raises(ValueError, match="2 rows of each class"):
        SPD().fit(images=x, groups=["a"] + ["b"] * (N - 1))
    few = SPD(**QUICK).fit(images=x[:12], groups=groups[:12])  # fewer rows than dimensions
    assert np.isfinite(few.transform_image(x)).all()
    doubled = np.concatenate([x, x], axis=1)
    doubled[:, 3] = 1.0
    half = SPD(2, **QUICK).fit(images=doubled.astype(np.float16), groups=groups)
    assert half.image_basis_ @ half.image_basis_.T == pytest.approx(np.eye(2))
