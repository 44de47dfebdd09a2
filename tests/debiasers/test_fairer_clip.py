import json

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from debias_utils.debiasers import FairerCLIP, FairerCLIPUnlabelled
from debias_utils.debiasers.fairer_clip import Features, Side, agreement, alternate, closest, fair_directions, squared_width

D, N = 12, 400


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def official(fixtures):
    found = dict(np.load(fixtures / "fairerclip" / "fairerclip.npz"))
    return {name: x.astype(float) if x.dtype == np.float32 else x for name, x in found.items()}


@pytest.fixture(scope="module")
def sides(fixtures):
    config = json.loads((fixtures / "fairerclip" / "fairerclip.json").read_text())["config"]
    return {tower: Side(*(config[f"{name}_{tower[0]}"] for name in ("gamma", "tau", "tau_z"))) for tower in ("image", "text")}


def features(official, call, of=""):
    return Features(official[f"{call}/rff_w{of}"], official[f"{call}/rff_b{of}"])


@pytest.fixture(scope="module")
def world():
    """Two classes and two groups that go together in three quarters of the pictures, and a text for each class and group."""
    rng = np.random.default_rng(0)
    targets = np.arange(N) % 2
    groups = np.where(rng.random(N) < 0.75, targets, 1 - targets)
    base, task, axis = np.linalg.qr(rng.standard_normal((D, 3)))[0].T
    sign = np.array([[-1.0], [1.0]])
    x = base + 0.5 * sign[targets] * task + 0.6 * sign[groups] * axis + 0.1 * rng.standard_normal((N, D))
    return {
        "images": rows(x),
        "groups": groups,
        "targets": targets,
        "queries": rows(base + 0.5 * sign * task + 0.2 * sign * axis),
        "sets": [rows(base + 0.5 * sign * axis), rows(base + 0.6 * sign * axis)],
    }


def given(model, world):
    return {name: world[name] for name in model.NEEDS}


@pytest.mark.parametrize("call", ["labels/call0_image", "labels/call1_text", "labels/call2_image"])
def test_official_solver_calls(official, sides, call):
    side = sides[call.split("_")[1]]
    y, s = official["Y"], official["S"]
    x = official["X_image"] if side is sides["image"] else official["text_embeddings"][y.argmax(axis=1)]
    r = features(official, call)(x)
    assert r == pytest.approx(official[f"{call}/R_x"], abs=1e-6)
    other = features(official, call, "_z")(official[f"{call}/Z_in"]) if f"{call}/Z_in" in official else None
    directions, values, kept = fair_directions(r, y, s, other, side=side, n_components=1)
    assert values[0] == pytest.approx(official[f"{call}/sorted"][0], abs=1e-6)
    assert kept == official[f"{call}/r_kept"]
    encoded = np.sqrt(len(x)) * r @ directions
    assert same_up_to_sign(encoded, official[f"{call}/encoded_X"])
    if other is not None:
        assert encoded @ agreement(encoded, official[f"{call}/Z_in"]) == pytest.approx(official[f"{call}/encoded_X"], abs=1e-4)


def same_up_to_sign(a, b):
    return min(abs(a - b).max(), abs(a + b).max()) < 1e-4


@pytest.mark.parametrize(("mode", "text", "image", "iterations"), [("labels", 1, 2, 1), ("pseudo", 5, 6, 3)])
def test_official_alternation_with_and_without_labels(official, sides, mode, text, image, iterations):
    image_call, text_call = f"{mode}/call{image}_image", f"{mode}/call{text}_text"
    maps = {"image": features(official, image_call), "image other": features(official, image_call, "_z")}
    maps |= {"text": features(official, text_call), "text other": features(official, text_call, "_z")}
    asked = []
    start = official["Y"] if mode == "labels" else official["pseudo/Y_start"]
    by_image, by_text = alternate(
        official["X_image"], official["text_embeddings"], start.argmax(axis=1), official["S"].argmax(axis=1),
        **sides, iterations=iterations, n_components=1, draw=lambda name, x: asked.append(name) or maps[name],
        refresh=mode == "pseudo",
    )  # fmt: skip
    assert sorted(asked) == sorted(maps)  # each once
    images, texts = by_image(official["X_image_test"]), by_text(official["text_embeddings"])
    both = np.concatenate([images, texts])  # one sign for both
    assert same_up_to_sign(both, np.concatenate([official[f"{mode}/test/{tower}_encoded"] for tower in ("image", "text")]))
    assert np.array_equal(closest(images, texts), official[f"{mode}/test/prediction"])


@pytest.mark.parametrize("tau", ["0.0", "0.5", "0.9", "0.9999999999"])
def test_official_sweep_of_tau(official, sides, tau):
    call = f"tau_{tau}"
    r = features(official, call)(official["X_image"])
    side = sides["image"]._replace(tau=float(tau))
    directions, values, kept = fair_directions(r, official["Y"], official["S"], None, side=side, n_components=3)
    assert kept == official[f"{call}/r_kept"] == {"0.0": 3, "0.9999999999": 0}.get(tau, 1)
    assert not directions[:, kept:].any()
    if kept:
        assert values[0] == pytest.approx(official[f"{call}/sorted"][0], abs=1e-6)
        assert same_up_to_sign(8 * r @ directions[:, :1], official[f"{call}/encoded_X"][:, :1])


def test_official_kernel_without_random_features(official, sides):
    x = official["X_image"][:30]
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(axis=-1) / (2 * squared_width(x)))
    assert kernel == pytest.approx(official["full_gaussian/R_x"], abs=1e-6)
    directions, values, kept = fair_directions(
        kernel, official["Y"][:30], official["S"][:30], None, side=sides["image"], n_components=2
    )
    assert kept == official["full_gaussian/r_kept"]
    assert values[0] == pytest.approx(official["full_gaussian/sorted"][0], abs=1e-6)
    assert abs(directions[:, 0] @ official["full_gaussian/U_after_threshold"][:, 0]) == pytest.approx(1, abs=1e-4)


def test_random_features_approximate_the_kernel():
    x = np.random.default_rng(0).standard_normal((30, 5))
    squared = pdist(x) ** 2
    assert squared_width(x) == pytest.approx(np.median(squared) / 2)
    assert squared_width(np.repeat(x, 2, axis=0)) == pytest.approx(np.median(squared) / 2)  # zeros do not count
    r = Features.draw(x, 40_000, np.random.default_rng(1))(x)
    assert (r @ r.T)[np.triu_indices(30, 1)] == pytest.approx(np.exp(-squared / np.median(squared)), abs=0.03)
    with pytest.raises(ValueError, match="the same"):
        squared_width(np.ones((4, 3)))


def test_a_stationary_point_of_the_quotient(world):
    r = Features.draw(world["images"], 50, np.random.default_rng(0))(world["images"])
    y, s = (np.eye(2)[world[name]] for name in ("targets", "groups"))
    side = Side(1e-3, 0.4, 0)
    u = fair_directions(r, y, s, None, side=side, n_components=1)[0][:, 0]
    r = r - r.mean(axis=0)

    def quotient(v):
        parts = [np.square((r @ v) @ (labels - labels.mean(axis=0))).sum() for labels in (y, s)]
        sizes = [np.linalg.norm(r.T @ (labels - labels.mean(axis=0)), 2) ** 2 for labels in (y, s)]
        return (parts[0] / sizes[0] - 0.4 / 0.6 * parts[1] / sizes[1]) / (np.square(r @ v).sum() + len(r) * 1e-3 * v @ v)

    rng = np.random.default_rng(3)
    assert all(quotient(u) > quotient(u + 0.01 * rng.standard_normal(50)) for _ in range(200))


def test_over_all_rows_the_group_fades_as_tau_grows_and_within_a_class_it_comes_in_reversed(world):
    """Independence over all rows is demographic parity: where class and group go together, it must reverse it in each class."""
    over_all, within = [], []
    for tau in (0, 0.5, 0.9):
        model = FairerCLIP(300, tau_image=tau, tau_z_image=0, gamma_image=1e-3).fit(**given(FairerCLIP, world))
        z = (Features(model.image_frequencies_, model.image_phases_)(world["images"]) @ model.image_directions_)[:, 0]
        z *= np.sign(np.corrcoef(z, world["targets"])[0, 1])
        over_all.append(np.corrcoef(z, world["groups"])[0, 1])
        one = world["targets"] == 1
        within.append(np.corrcoef(z[one], world["groups"][one])[0, 1])
    assert over_all[0] > over_all[1] > over_all[2] > 0
    assert over_all[2] < 0.2 * over_all[0]
    assert abs(within[0]) < 0.3
    assert within[2] < -0.9


def test_classification_and_what_it_is_not(world):
    plain = (world["images"] @ world["queries"].T).argmax(axis=1)
    model = FairerCLIP(300).fit(**given(FairerCLIP, world))
    scores = model.transform_image(world["images"]) @ model.transform_text(world["queries"]).T
    gap = {}
    for name, found in (("plain", plain), ("fair", scores.argmax(axis=1))):
        right = found == world["targets"]
        cells = [right[(world["targets"] == t) & (world["groups"] == g)].mean() for t in (0, 1) for g in (0, 1)]
        gap[name] = 1 - min(cells)  # of the worst group
    assert gap["fair"] < 0.5 * gap["plain"]
    assert abs(scores) == pytest.approx(1)  # one column: all ties
    assert not model.transform_image(world["images"])[:, 1:].any()


def test_without_labels(world):
    model = FairerCLIPUnlabelled(300).fit(**given(FairerCLIPUnlabelled, world))
    found = (model.transform_image(world["images"]) @ model.transform_text(world["queries"]).T).argmax(axis=1)
    assert (found == world["targets"]).mean() > 0.8
    assert FairerCLIPUnlabelled().iterations == 3
    with pytest.raises(ValueError, match="one size"):
        FairerCLIPUnlabelled().fit(**given(FairerCLIPUnlabelled, world) | {"sets": [world["queries"], world["images"][:3]]})
    with pytest.raises(ValueError, match="classes"):
        FairerCLIPUnlabelled().fit(
            **given(FairerCLIPUnlabelled, world) | {"queries": np.array([world["queries"][0], -world["queries"][0]])}
        )


def test_several_classes_turn_the_texts_to_the_pictures():
    rng = np.random.default_rng(0)
    queries, targets = rows(rng.standard_normal((5, D))), np.arange(N) % 5
    images = rows(queries[targets] + 0.15 * rng.standard_normal((N, D)))
    model = FairerCLIP(300, gamma_text=1e-3, gamma_image=1e-3).fit(
        images=images, groups=rng.integers(0, 2, N), targets=targets, queries=queries
    )
    scores = model.transform_image(images) @ model.transform_text(queries).T
    assert (scores.argmax(axis=1) == targets).mean() > 0.9
    assert not model.transform_image(images)[:, 4:].any()
    assert len(np.unique(scores.round(6))) > 1000
    a, b = rng.standard_normal((50, 3)), np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert a @ agreement(a, a @ b) == pytest.approx(a @ b)
    assert agreement(a[:, :1], -a[:, :1]) == -1


def test_bad_settings_and_odd_data(world):
    data = given(FairerCLIP, world)
    for wrong in (world["targets"].astype(str), world["targets"] + 1, world["targets"] - 1, world["targets"] * 1.0):
        with pytest.raises(ValueError, match="rows of the 2 queries"):
            FairerCLIP(20).fit(**data | {"targets": wrong})
    for name, wrong in (
        ("tau_image", 1.5), ("tau_image", 1), ("gamma_text", 0), ("n_features", 0), ("iterations", 0), ("n_components", D + 1),
        ("max_rows", 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name.split("_image")[0].split("_text")[0]):
            FairerCLIP(**{"n_features": 50, name: wrong}).fit(**data)
    with pytest.raises(ValueError, match="the same"):
        FairerCLIP(20).fit(**data | {"images": np.tile(world["images"][:1], (N, 1))})
    one = np.array(["a"] + ["b"] * (N - 1))  # a group with one member
    odd = np.concatenate([world["images"], world["images"]], axis=1).astype(np.float16)
    odd[:, 3] = 0.2
    doubled = np.concatenate([world["queries"], world["queries"]], axis=1)
    model = FairerCLIP(30, max_rows=50).fit(images=odd, groups=one, targets=world["targets"], queries=doubled)
    assert np.isfinite(model.transform_image(odd)).all()
    few = FairerCLIP(30).fit(
        **{name: x if name == "queries" else x[:8] for name, x in data.items()}
    )  # fewer rows than dimensions
    assert np.isfinite(few.transform_image(world["images"])).all()
