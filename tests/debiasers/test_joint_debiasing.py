import numpy as np
import pytest

from debias_utils.debiasers.joint import JointDebiasing


def rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    tasks = rng.standard_normal((4, 16))[rng.integers(0, 4, 400)]
    sign, noise = 2 * rng.integers(0, 2, (400, 1)) - 1, 0.3 * rng.standard_normal((2, 400, 16))
    axis = 1.5 * np.eye(16)[0]
    return {
        "images": rows(tasks + sign * axis + noise[0]),
        "captions": rows(tasks + sign * axis + noise[1]),
        "counterfactuals": rows(tasks - sign * axis + noise[1]),
    }


def joint(**settings):
    small = {"epochs": 12, "batch_size": 100, "queue": 200, "hidden_image": 32, "hidden_shared": 64, "lr": 3e-3}
    return JointDebiasing(**small | settings)


@pytest.mark.parametrize("flip", ["pair", "batch"])
@pytest.mark.parametrize("form", ["subtract", "add"])
def test_a_caption_comes_to_read_like_its_counterfactual(data, form, flip):
    model = joint(form=form, flip=flip, alpha=0.8).fit(**data)
    pair = data["captions"], data["counterfactuals"]
    before = (pair[0] * pair[1]).sum(axis=1).mean()
    after = (model.transform_text(pair[0]) * model.transform_text(pair[1])).sum(axis=1).mean()
    assert after > before + 0.2 * (1 - before)


def test_forms_draws_teacher_and_seed_matter(data):
    x = data["captions"][:5]
    base = joint(epochs=3).fit(**data).transform_text(x)
    for other in ({"form": "add"}, {"flip": "batch"}, {"teacher": 0.0}, {"seed": 1}, {"alpha": 1.0}):
        assert not np.allclose(joint(epochs=3, **other).fit(**data).transform_text(x), base, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"form": "multiply"}, {"flip": "row"}, {"alpha": 1.1}, {"temperature": 0}, {"queue": 0}, {"teacher_from": -1}]
)
def test_a_setting_out_of_range_is_refused(data, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JointDebiasing(**wrong).fit(**data)


def test_pairs_that_do_not_match_are_refused(data):
    with pytest.raises(ValueError, match="counterfactuals for each of images"):
        JointDebiasing().fit(**data | {"counterfactuals": data["counterfactuals"][1:]})
