import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from debias_utils.models.clip import Clip
from debias_utils.toonville import balanced, pictures, to_tensor, train, train_clip, train_editor, training
from debias_utils.toonville.elements import ELEMENTS, GROUPS, TRAIT_CHANNELS, channels_of_elements
from debias_utils.toonville.people import add_stereotype

NAME = "toonville-vit-rho0.9-seed0"


def test_training_is_reproducible_and_loadable(tmp_path):
    weights, merges = [], []
    for _ in range(2):
        train.main([NAME, "--count", "40", "--steps", "3", "--batch", "8", "--out", str(tmp_path)])
        weights.append(load_file(tmp_path / NAME / "open_clip_model.safetensors"))
        merges.append((tmp_path / "toonville-bpe.txt.gz").read_bytes())
    assert merges[0] == merges[1]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(np.all(value == value.flat[0]) for value in weights[0].values())
    config = json.loads((tmp_path / NAME / "open_clip_config.json").read_text())
    assert config["model_cfg"]["vision_cfg"] == train_clip.TOWERS["vit"]


def test_an_unknown_model_is_named_with_the_choices(capsys):
    with pytest.raises(SystemExit):
        train.main(["toonville-oracle"])
    message = capsys.readouterr().err
    assert "toonville-oracle" in message
    assert "toonville-generator" in message


@pytest.mark.parametrize(("rho", "seed"), [(0.0, 0), (0.5, 1), (0.9, 2)])
def test_the_packaged_models_recognise_occupations(rho, seed):
    people = add_stereotype(balanced(4, seed=77))
    from debias_utils.discover.ranking import indices
    from debias_utils.toonville.occupations import OCCUPATIONS

    clip = Clip.load(train_clip.model_name("rn", rho, seed))
    scores = clip.encode_image(to_tensor(pictures(people, progress=False))) @ clip.encode_prompts(list(OCCUPATIONS)).T
    right = scores.argmax(dim=1).numpy() == indices(people["occupation"], list(OCCUPATIONS))
    assert right.mean() >= 0.93  # 448 pictures; the model card measures 0.95 and more on 3,360


def test_batches_go_through_everything_in_new_orders():
    order = training.batches(10, 3, np.random.default_rng(0))
    epochs = [next(order) for _ in range(6)]
    assert [epoch for epoch, _ in epochs] == [0, 0, 0, 1, 1, 1]
    first, second = (np.concatenate([index for epoch, index in epochs if epoch == e]) for e in (0, 1))
    assert len(set(first)) == len(set(second)) == 9
    assert list(first) != list(second)


def test_some_pictures_are_mirrored_whole():
    images = torch.arange(24.0).view(8, 1, 1, 3).expand(8, 3, 2, 3)
    out = training.flipped(images, np.random.default_rng(0))
    mirrored = [bool((o == i.flip(-1)).all()) for o, i in zip(out, images, strict=True)]
    assert all(m or bool((o == i).all()) for m, o, i in zip(mirrored, out, images, strict=True))
    assert 0 < sum(mirrored) < 8


def test_one_style_channel_follows_each_element():
    from debias_utils.models.inverter import elements_to_z

    generator = train_editor.new_generator(seed=0)
    on = torch.zeros(3, len(ELEMENTS))
    on[1, 7], on[2, GROUPS["headgear"][0]] = 1, 1
    none, seven, cap = torch.cat(generator.styles(generator.mapping(elements_to_z(on))), dim=1)
    assert torch.allclose(seven - none, torch.nn.functional.one_hot(torch.tensor(7), len(none)).float(), atol=1e-5)
    assert int((cap - none).abs().argmax()) == GROUPS["headgear"][0]


def test_the_generator_that_is_kept_shares_the_work_of_traits():
    generator = train_editor.new_generator(seed=0)
    shared = train_editor.shared_out(generator)
    spare = generator.style_sizes[0] - len(ELEMENTS)
    counts = channels_of_elements()
    assert shared.style_sizes[0] == sum(counts) + spare
    assert {counts[i] for i in GROUPS["headgear"]} == {1}
    assert {counts[i] for i in GROUPS["skin"]} == {TRAIT_CHANNELS}
    ws = generator.mapping(torch.randn(2, generator.mapping.z_dim, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(shared.synthesis(shared.styles(ws)), generator.synthesis(generator.styles(ws)), atol=1e-4)
