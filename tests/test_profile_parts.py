"""The parts of a profile that edits are made of, as they are packaged."""

import pytest
import torch

from debias_utils import load_profile, toonville
from debias_utils.toonville.card_judges import by_group, right_answers, verification
from debias_utils.toonville.elements import channels_of_elements, element_names


@pytest.fixture(scope="module")
def parts():
    return load_profile("mini", device="cpu")


@pytest.fixture(scope="module")
def crowd(parts):
    people = toonville.balanced(2, seed=31)
    return people, parts.portraits(people)


def test_samples_are_seeded_people(parts):
    styles = parts.sample_styles(6, seed=3)
    assert torch.equal(styles, parts.sample_styles(6, seed=3))
    assert not torch.equal(styles, parts.sample_styles(6, seed=4))
    assert styles.shape == (6, len(parts.channel_names()))
    pictures = parts.draw(styles, batch_size=4)
    assert pictures.shape == (6, 3, 64, 64)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    assert torch.allclose(pictures, parts.synthesize(styles).clamp(0, 1), atol=1e-6)


def test_channels_are_called_by_what_they_draw(parts):
    names = parts.channel_names()
    assert list(dict.fromkeys(names))[: len(element_names())] == element_names()
    counts = [names.count(name) for name in element_names()]
    assert counts == channels_of_elements()
    others = [name for name in names if name not in element_names()]
    assert len(set(others)) == len(others) == len(names) - sum(counts)


def test_channels_of_one_name_are_equal(parts):
    names, block = parts.channel_names(), parts.generator.synthesis.b4
    for name in ("skin: dark", "plain background: #e3e3e3", "tool left"):
        first, *others = (i for i, n in enumerate(names) if n == name)
        assert others
        for i in others:
            assert torch.equal(block.const[i], block.const[first])
            assert torch.equal(block.conv1.weight[:, i], block.conv1.weight[:, first])
    styles = parts.sample_styles(8, seed=5)
    assert torch.equal(styles[:, names.index("skin: tan")], styles[:, names.index("skin: tan") + 1])


def test_drawing_keeps_the_shape_of_a_grid(parts):
    styles = parts.sample_styles(4, seed=0)
    assert torch.allclose(parts.draw(styles.view(2, 2, -1)).flatten(0, 1), parts.draw(styles), atol=1e-6)


def test_synthesis_is_differentiable_in_the_styles(parts):
    styles = parts.sample_styles(2, seed=0).requires_grad_(True)
    parts.synthesize(styles)[0].sum().backward()
    assert styles.grad[0].abs().sum() > 0
    assert styles.grad[1].abs().sum() == 0


def test_the_judge_is_right_and_a_redrawing_keeps_what_it_sees(parts, crowd):
    people, images = crowd
    seen = {name: hits.mean() for name, hits in right_answers(images, people, parts.attributes).items()}
    kept = {name: hits.mean() for name, hits in right_answers(parts.draw(parts.invert(images)), people, parts.attributes).items()}
    assert min(seen["gender"], seen["skin"], seen["occupation"]) >= 0.95  # 224 pictures; the card measures 3,360
    assert seen["age"] >= 0.85
    assert kept["occupation"] >= 0.93 * seen["occupation"]
    assert min(kept["gender"], kept["skin"]) >= 0.9


def test_accuracy_by_group_counts_the_members(parts, crowd):
    people, images = crowd
    right = right_answers(images, people, parts.attributes)
    table = by_group(right, people).set_index("group")
    women = (people["gender"] == "feminine").to_numpy()
    assert table.loc["feminine", "age"] == pytest.approx(right["age"][women].mean())
    assert table.loc["all", "skin"] == pytest.approx(right["skin"].mean())


def test_identity_is_recognised_in_other_clothes(parts):
    people = toonville.balanced(1, seed=32)
    table = verification(people, parts.identity).set_index("group")
    assert table.loc["all", "accuracy"] > 0.85
    assert table["accuracy"].equals(1 - (table["misses"] + table["false matches"]) / 2)


def test_same_people_are_closer_than_others(parts):
    faces = toonville.balanced(1, seed=33)
    one, two = (parts.identity(parts.portraits(toonville.dress(faces, "nurse", seed=i))) for i in (0, 1))
    similarity = one @ two.T
    same = similarity.diagonal().mean()
    assert same > similarity.mean() + 0.5


def test_perceptual_distance_orders_changes(parts, crowd):
    _, images = crowd
    near, far = images[:8] * 0.95, images[8:16]
    assert bool((parts.perceptual(images[:8], near) < parts.perceptual(images[:8], far)).all())


def test_every_seed_has_its_own_sitters():
    faces = [
        load_profile("mini", seed=seed, device="cpu").sitters(8, seed=repetition).drop(columns=["identity", "gender", "skin"])
        for seed in (0, 1, 2)
        for repetition in (0, 1, 2)
    ]
    assert len({face.to_csv() for face in faces}) == len(faces)
