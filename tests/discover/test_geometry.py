import numpy as np
import pytest

from debias_utils.discover.geometry import (
    alignment,
    disentanglement,
    lean,
    matching_rates,
    modality_gap,
)


def test_lean():
    e = np.eye(3)
    assert lean(e, e[:1], e[1:2]) == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5), 0])


def test_modality_gap():
    assert modality_gap([[1, 0], [0, 1]], [[-1, 0], [0, -1]]) == pytest.approx(np.sqrt(2))


def test_alignment_finds_the_planted_correspondence():
    rng = np.random.default_rng(1)
    text = rng.standard_normal((14, 64))
    same = alignment(text + 0.1 * rng.standard_normal(text.shape), text)
    assert same["cosines"].min() > 0.95
    assert abs(same["shuffled"].mean()) < 0.2
    other = alignment(rng.standard_normal(text.shape), text)
    assert abs(other["cosines"].mean()) < 3 * other["random_sd"] / np.sqrt(14)
    shared_direction = alignment(text[:1] + 0.01 * rng.standard_normal(text.shape), np.repeat(text[:1], 14, axis=0))
    assert shared_direction["shuffled"].mean() > 0.95  # a common direction survives the shuffle
    with pytest.raises(ValueError, match="one shape"):
        alignment(text, text[:3])


def test_matching():
    concepts = np.repeat(np.arange(3), 4)
    images = np.eye(3)[concepts]
    i2t, t2i = matching_rates(images, concepts, np.eye(3), np.arange(3), draws=20)
    assert i2t.tolist() == [1.0] * 12
    assert t2i.tolist() == [1.0] * 3
    i2t, t2i = matching_rates(images, concepts, np.eye(3)[[1, 2, 0]], np.arange(3), draws=20)
    assert i2t.sum() == t2i.sum() == 0
    i2t, _ = matching_rates(np.ones((2, 3)), [0, 1], np.ones((2, 3)), [0, 1], draws=5)
    assert i2t.tolist() == [0.5, 0.5]  # ties count as their share


def test_disentanglement_of_worked_cases():
    assert disentanglement(np.diag([3.0, 1.0, 2.0])) == pytest.approx((1.0, 1.0))
    assert disentanglement(np.ones((4, 3))) == pytest.approx((0.0, 0.0))
    twice = np.vstack([np.eye(3), np.eye(3)])  # two channels for each factor: pure, but not complete
    assert disentanglement(twice) == pytest.approx((1.0, 1 - np.log(2) / np.log(6)))
    assert disentanglement(np.pad(np.eye(3), ((0, 2), (0, 0))))[0] == pytest.approx(1.0)  # dead channels do not count
    with pytest.raises(ValueError, match="not negative"):
        disentanglement(-np.eye(2))
