import numpy as np
import pytest
import torch

from debias_utils import toonville
from debias_utils.toonville import data


def test_pictures_are_rendered_once_and_then_read(monkeypatch):
    people = toonville.sample(5, seed=1)
    first = toonville.pictures(people, progress=False)
    assert np.array_equal(first, toonville.render(people))
    monkeypatch.setattr(data, "_render_all", None)
    assert np.array_equal(toonville.pictures(people, progress=False), first)


def test_other_people_have_another_key():
    people = toonville.sample(5, seed=1)
    assert data.key(people) == data.key(people.copy())
    assert data.key(people) != data.key(people.assign(skin="dark"))
    assert data.key(people) != data.key(people, size=32)


def test_damaged_cache_is_drawn_again():
    people = toonville.sample(3, seed=1)
    first = np.array(toonville.pictures(people, progress=False))
    (file,) = (data.assets.cache_dir() / "toonville").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-10])
    assert np.array_equal(toonville.pictures(people, progress=False), first)


def test_dataset_serves_a_dataloader():
    dataset = toonville.CaptionedPeople(toonville.sample(7, seed=1), seed=1, progress=False)
    images, texts = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    assert images.shape == (4, 3, 64, 64)
    assert 0 <= images.min() <= images.max() <= 1
    assert list(texts) == dataset.captions[:4]
    batch, batch_texts = dataset.batch(np.arange(4))
    assert torch.equal(batch, images)
    assert batch_texts == list(texts)
    before = list(dataset.captions)
    dataset.set_epoch(1)
    assert dataset.captions != before


@pytest.mark.parametrize("bad", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 4), np.uint8)])
def test_what_is_no_picture(bad):
    with pytest.raises(ValueError, match="need \\(n, h, w, 3\\) uint8 pictures"):
        toonville.to_tensor(bad)


def test_a_mask_picks_the_captions_of_its_pictures():
    dataset = toonville.CaptionedPeople(toonville.sample(5, seed=1), seed=1, progress=False)
    mask = np.array([False, True, False, True, True])
    images, texts = dataset.batch(mask)
    expected, right = dataset.batch([1, 3, 4])
    assert torch.equal(images, expected)
    assert texts == right == [dataset.captions[i] for i in (1, 3, 4)]


@pytest.mark.parametrize("options", [{"size": 32.0}, {"size": 0}, {"jobs": 0}, {"jobs": 1.5}])
def test_sizes_and_jobs_are_whole_numbers(options):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        toonville.pictures(toonville.sample(2), progress=False, **options)
