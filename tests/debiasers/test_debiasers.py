"""What every embedding debiaser must do, whatever it is. A new member of `METHODS` is tested by being there."""

import json

import numpy as np
import pytest
import torch
from tiny_clip import tiny_clip

from debias_utils.debiasers import DATA, METHODS

D, N = 24, 240


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def world():
    """Embeddings of a world in which an axis tells two groups apart, in pictures and texts, beside what a task needs."""
    rng = np.random.default_rng(0)
    axis, tasks = rows(rng.standard_normal(D)), rows(rng.standard_normal((4, D)))
    groups, targets = rng.integers(0, 2, N), rng.integers(0, 4, N)
    sign = 2 * groups - 1
    queries = rows(tasks + 0.05 * rng.standard_normal((4, D)))
    prompts = ["a photo of a nurse", "a photo of a plumber", "a photo of a pilot", "a photo of a writer"]
    noise = 0.1 * rng.standard_normal((N, D))
    return {
        "images": rows(tasks[targets] + 0.5 * sign[:, None] * axis + 0.1 * rng.standard_normal((N, D))),
        "groups": np.array(["one", "other"])[groups],
        "targets": targets,
        "captions": rows(tasks[targets] + 0.4 * sign[:, None] * axis + noise),
        "texts": rows(tasks[targets] + 0.4 * sign[:, None] * axis + 0.1 * rng.standard_normal((N, D))),
        "text_groups": np.array(["one", "other"])[groups],
        "sets": [rows(t + 0.4 * np.array([[-1.0], [1.0]]) * axis) for t in tasks],
        "counterfactuals": rows(tasks[targets] - 0.4 * sign[:, None] * axis + noise),
        "queries": queries,
        "prompts": prompts,
        "tower": tiny_clip(prompts, queries),
        "group_queries": rows(
            queries[:, None] + 0.4 * np.array([[[-1.0], [1.0]]]) * axis + 0.05 * rng.standard_normal((4, 2, D))
        ),
    }


def fitted(method, world):
    given = method.NEEDS + method.OPTIONAL
    return METHODS[method.NAME]().fit(**{name: world[name] for name in given if name in world})


def extra(method, world, x):
    """What `transform_text` wants besides the texts."""
    more = {"group_queries": world["group_queries"][: len(x)]} if method.PER_QUERY else {}
    return more | {name: world[name] for name in method.WITH_TEXTS}


methods = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


@methods
def test_says_what_it_needs(method):
    assert set(method.NEEDS) | set(method.OPTIONAL) <= set(DATA)
    assert set(method.TOWERS) <= {"text", "image"}
    assert method.TOWERS
    assert method.SOURCE
    assert method.__doc__


@methods
def test_rows_are_unit_and_of_the_same_kind(method, world):
    model = fitted(method, world)
    for transform, x in ((model.transform_text, world["queries"]), (model.transform_image, world["images"][:7])):
        more = extra(method, world, x) if transform == model.transform_text else {}
        once = transform(x, **more)
        assert once.shape == x.shape
        assert isinstance(once, np.ndarray)
        assert once.dtype == x.dtype
        assert np.linalg.norm(once, axis=1) == pytest.approx(1)
        assert transform(3 * x, **more) == pytest.approx(once, abs=1e-6)  # only directions count
        half = transform(torch.tensor(x, dtype=torch.float16), **more)
        assert half.dtype == torch.float16
        assert half.numpy() == pytest.approx(once, abs=0.02)


@methods
def test_a_tower_that_is_not_touched_stays(method, world):
    model = fitted(method, world)
    for tower, transform in (("text", model.transform_text), ("image", model.transform_image)):
        if tower not in method.TOWERS:
            assert transform(world["queries"]) == pytest.approx(world["queries"])


@methods
def test_saved_and_loaded(method, world, tmp_path):
    model = fitted(method, world)
    again = method.load(model.save(tmp_path / "saved"))
    x = world["queries"]
    assert np.array_equal(again.transform_text(x, **extra(method, world, x)), model.transform_text(x, **extra(method, world, x)))
    assert np.array_equal(again.transform_image(world["images"]), model.transform_image(world["images"]))


@methods
def test_a_saved_one_of_another_method_or_version_or_cut_is_refused(method, world, tmp_path):
    folder = fitted(method, world).save(tmp_path / "saved")
    about = json.loads((folder / "debiaser.json").read_text())
    for changed, said in (({"method": "another"}, "another"), ({"format": 99}, "99"), ({"settings": {"x": 1}}, "settings")):
        (folder / "debiaser.json").write_text(json.dumps(about | changed))
        with pytest.raises(ValueError, match=said):
            method.load(folder)
    (folder / "debiaser.json").write_text(json.dumps(about))
    state = (folder / "state.safetensors").read_bytes()
    (folder / "state.safetensors").write_bytes(state[: len(state) // 2])
    with pytest.raises(ValueError, match="whole"):
        method.load(folder)


@methods
def test_bad_input_is_refused(method, world):
    with pytest.raises(ValueError, match="not fitted"):
        method().transform_text(world["queries"])
    with pytest.raises(ValueError, match=method.NEEDS[0]):
        method().fit()
    model = fitted(method, world)
    more = extra(method, world, world["queries"])
    with pytest.raises(ValueError, match="width"):
        model.transform_text(world["queries"][:, :-1], **more)
    with pytest.raises(ValueError, match="NaN"):
        model.transform_image(np.full((2, D), np.nan))
    with pytest.raises(ValueError, match="length 0"):
        model.transform_image(np.zeros((2, D)))
    for name in method.NEEDS:
        if name in ("images", "texts"):
            broken = np.array(world[name])
            broken[3, 2] = np.nan
            with pytest.raises(ValueError, match="NaN"):
                method().fit(**{key: world[key] for key in method.NEEDS} | {name: broken})
        if name in ("groups", "text_groups"):
            with pytest.raises(ValueError, match="two classes"):
                method().fit(**{key: world[key] for key in method.NEEDS} | {name: ["one"] * N})


@methods
def test_differentiable_in_what_is_transformed(method, world):
    model = fitted(method, world)
    x = torch.tensor(world["queries"], requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(model.transform_text(x, **extra(method, world, x)).square().sum(0)[0], x)[0]).all()


@methods
def test_the_same_seed_gives_the_same(method, world):
    first, second = fitted(method, world), fitted(method, world)
    assert all(np.array_equal(first.state[name], second.state[name]) for name in method.STATE)
