import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from debias_utils.debias import leace, shrunk_covariance


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def official(fixtures):
    folder = fixtures / "leace"
    return np.load(folder / "leace.npz"), json.loads((folder / "leace.json").read_text())


def columns(z, case):
    return np.eye(3)[z] if case.startswith(("onehot", "unit")) else z[:, None] if case == "integer_codes" else (z == 2) * 1.0


CASES = [
    "binary_default",
    "binary_no_shrinkage",
    "binary_orth",
    "binary_not_affine",
    "onehot_default",
    "onehot_orth",
    "onehot_large_tol",
    "integer_codes",
    "unit_rows",
]


@pytest.mark.parametrize("case", CASES)
def test_the_librarys_maps(official, case):
    numbers, about = official
    x = numbers["unit/X"] if case == "unit_rows" else numbers["X"]
    options = {}
    for name, value in about["cases"][case]["kwargs"].items():
        options[name] = value if name == "method" else float(value) if name == "svd_tol" else value == "True"
    p, bias = leace(x, columns(numbers["z"], case), **options)
    assert p == pytest.approx(numbers[f"{case}/P"], abs=1e-9)
    assert bias == pytest.approx(numbers[f"{case}/bias"] if options.get("affine", True) else np.zeros(12), abs=1e-9)
    for rows, name in ((x[:40], "X_erased_first_40"), (numbers["X_test"], "X_test_erased")):
        if case != "unit_rows" or name == "X_erased_first_40":
            assert bias + (rows - bias) @ p.T == pytest.approx(numbers[f"{case}/{name}"], abs=1e-9)
    assert np.linalg.matrix_rank(np.eye(12) - p, tol=1e-8) == about["cases"][case]["rank_of_I_minus_P"]
    half, _ = leace(x.astype(np.float32), columns(numbers["z"], case), **options)
    assert half == pytest.approx(p, abs=1e-4)


def test_the_librarys_shrinkage_and_fewer_rows_than_dimensions(official):
    numbers, about = official
    shrunk = shrunk_covariance(numbers["shrinkage/S"], about["shrinkage_n"])
    assert shrunk == pytest.approx(numbers["shrinkage/result"], abs=1e-9)
    n = about["few_n"]
    x, z = numbers["X"][:n], numbers["z"][:n]
    assert leace(x, (z == 2) * 1.0)[0] == pytest.approx(numbers["few/P"], abs=1e-9)
    for options in ({}, {"shrinkage": False}, {"method": "orth"}):
        p, _ = leace(x, np.eye(3)[z], **options)
        assert (x - x.mean(axis=0)).T @ np.eye(3)[z] @ np.ones(3) == pytest.approx(0, abs=1e-9)
        assert p @ (x - x.mean(axis=0)).T @ np.eye(3)[z] == pytest.approx(np.zeros((12, 3)), abs=1e-9)


def means_of(x, z):
    return np.stack([x[z == c].mean(axis=0) for c in range(3)])


def world(n=600, d=8, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.integers(0, classes, n)
    mix = rng.standard_normal((d, d))
    return (rng.standard_normal((n, d)) + rng.standard_normal((classes, d))[z]) @ mix + 5, z


@pytest.mark.parametrize("options", [{}, {"shrinkage": False}, {"method": "orth"}, {"affine": False}])
def test_no_linear_probe_finds_the_classes_and_the_map_is_a_projection(options):
    x, z = world()
    p, bias = leace(x, np.eye(3)[z], **options)
    erased = bias + (x - bias) @ p.T
    centred = x - x.mean(axis=0)
    assert p @ centred.T @ np.eye(3)[z] / len(x) == pytest.approx(np.zeros((8, 3)), abs=1e-9)
    assert p @ p == pytest.approx(p)
    assert np.trace(p) == pytest.approx(8 - 2)
    assert np.array_equal(bias, x.mean(axis=0)) == options.get("affine", True)
    if options.get("affine", True):
        assert erased.mean(axis=0) == pytest.approx(x.mean(axis=0))
    found = LogisticRegression(max_iter=2000).fit(erased, z).score(erased, z)
    assert found <= np.bincount(z).max() / len(z) + 0.02
    assert LogisticRegression(max_iter=2000).fit(x, z).score(x, z) > 0.6


def test_leace_does_the_least_damage():
    x, z = world()
    concepts = np.eye(3)[z]
    damage = {}
    for name, options in (("leace", {"shrinkage": False}), ("shrunk", {}), ("orth", {"method": "orth"})):
        p, bias = leace(x, concepts, **options)
        damage[name] = ((bias + (x - bias) @ p.T - x) ** 2).mean()
    assert damage["leace"] <= damage["shrunk"] < damage["orth"]
    rng = np.random.default_rng(3)
    best, _ = leace(x, concepts, shrinkage=False)
    centred = x - x.mean(axis=0)
    cross = np.linalg.qr(centred.T @ concepts[:, :2])[0]  # any other map that erases differs by rows orthogonal to this
    for _ in range(5):
        change = rng.standard_normal((8, 8)) @ (np.eye(8) - cross @ cross.T) * 1e-2
        assert (best + change) @ centred.T @ concepts == pytest.approx(np.zeros((8, 3)), abs=1e-6)
        assert ((centred @ (best + change).T - centred) ** 2).mean() > damage["leace"]


def test_labels_as_one_number_erase_one_direction_and_are_refused(official):
    numbers, about = official
    x, z = numbers["X"], numbers["z"]
    with pytest.raises(ValueError, match="one-hot"):
        leace(x, z)
    assert about["cases"]["integer_codes"]["class_mean_gap_after"] > 0.9
    p, bias = leace(x, z[:, None])
    gap = abs(means_of(bias + (x - bias) @ p.T, z) - bias).max()
    assert gap == pytest.approx(about["cases"]["integer_codes"]["class_mean_gap_after"])


def test_a_rare_class_is_kept_by_the_librarys_tolerance_and_erased_by_the_papers():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((40_000, 5))
    z = np.zeros(40_000)
    z[:2] = 1
    x[:2] += 3
    p, _ = leace(x, z)
    assert p == pytest.approx(np.eye(5))
    p, bias = leace(x, z, svd_tol=1e-6)
    erased = bias + (x - bias) @ p.T
    assert erased[:2].mean(axis=0) == pytest.approx(erased[2:].mean(axis=0))


def test_unit_rows_afterwards_bring_the_classes_back(official):
    numbers, about = official
    x, z = numbers["unit/X"], numbers["z"]
    p, bias = leace(x, np.eye(3)[z])
    again = unit(bias + (x - bias) @ p.T)
    assert again == pytest.approx(numbers["unit_rows/renormalised"], abs=1e-9)
    gap = abs(means_of(again, z) - again.mean(axis=0)).max()
    assert gap == pytest.approx(about["unit_rows_class_mean_gap_after_renormalising"])
    assert gap > 0.02


def test_constant_and_repeated_features():
    x, z = world()
    x[:, 2] = 3
    x[:, 4] = x[:, 5]
    for options in ({}, {"shrinkage": False}, {"method": "orth"}):
        p, bias = leace(x, np.eye(3)[z], **options)
        erased = bias + (x - bias) @ p.T
        assert np.isfinite(p).all()
        assert means_of(erased, z) == pytest.approx(np.tile(x.mean(axis=0), (3, 1)))
    assert shrunk_covariance(2 * np.eye(4), 10) == pytest.approx(2 * np.eye(4))
    assert leace(x[:, :1], (z == 0) * 1.0)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "z", "options", "said"),
    [
        (np.ones((4, 2)), np.eye(2)[[0, 1, 0]], {}, "need features"),
        (np.ones((1, 2)), np.ones((1, 1)), {}, "at least 2"),
        (np.ones((4, 2)), np.ones((4, 1)), {}, "nothing to erase"),
        (np.full((4, 2), np.nan), np.eye(2)[[0, 1, 0, 1]], {}, "NaN"),
        (np.ones((4, 2)), np.eye(2)[[0, 1, 0, 1]], {"method": "pca"}, "orth"),
        (np.ones((4, 2)), np.eye(2)[[0, 1, 0, 1]], {"svd_tol": -1}, "svd_tol"),
    ],
)
def test_bad_input_is_refused(x, z, options, said):
    with pytest.raises(ValueError, match=said):
        leace(x, z, **options)
    with pytest.raises(ValueError, match="covariance"):
        shrunk_covariance(np.ones((2, 3)), 5)
