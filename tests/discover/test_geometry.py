import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert disentanglement(np.pad(np.eye(3), ((0, 2), (0, 1)))) == pytest.approx((1.0, 1.0))


def test_one_factor_or_one_channel_is_defined():
    assert disentanglement([[1.0], [1.0]]) == (1.0, 0.0)  # nothing else is moved; two channels share the factor
    assert disentanglement([[2.0, 2.0]]) == (0.0, 1.0)
    assert disentanglement([[5.0]]) == (1.0, 1.0)
    assert disentanglement([[1.0, 0.0], [3.0, 0.0]]) == disentanglement([[1.0], [3.0]])
    assert disentanglement(1e308 * np.ones((3, 2))) == pytest.approx((0.0, 0.0), abs=1e-12)


def entropies(importance):
    """The definition, with `scipy.stats.entropy`."""
    from scipy.stats import entropy

    total = importance.sum(axis=1)
    return np.average([1 - entropy(row, base=len(row)) for row in importance], weights=total)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 5), st.integers(0, 3), st.integers(0, 3))
def test_what_is_dead_changes_nothing(seed, channels, factors, dead_channels, dead_factors):
    rng = np.random.default_rng(seed)
    importance = rng.random((channels, factors))
    padded = np.pad(importance, ((0, dead_channels), (0, dead_factors)))
    padded = padded[rng.permutation(len(padded))][:, rng.permutation(padded.shape[1])]
    assert disentanglement(padded) == pytest.approx((entropies(importance), entropies(importance.T)))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_every_precision(kind):
    e = torch.eye(3, dtype=kind, requires_grad=True)
    assert modality_gap(e, -e) == pytest.approx(2 / np.sqrt(3))
    assert lean(e, e[:1], e[1:2]) == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5), 0], abs=1e-6)
    assert alignment(e, e, repeats=2)["cosines"] == pytest.approx([1, 1, 1])
    assert matching_rates(e, list("abc"), e, list("abc"), draws=2)[0].tolist() == [1, 1, 1]
    assert disentanglement(e) == (1.0, 1.0)


def test_matching_by_names_in_any_form():
    rng = np.random.default_rng(0)
    images, texts, concepts = rng.standard_normal((9, 5)), rng.standard_normal((3, 5)), np.arange(9) % 3
    numbers = matching_rates(images, concepts, texts, np.arange(3), draws=50)
    names = matching_rates(images, np.array(["a", "b", "c"])[concepts], texts, ["a", "b", "c"], draws=50)
    assert [x.tolist() for x in names] == [x.tolist() for x in numbers]
    order = rng.permutation(3)  # of the texts
    moved = matching_rates(images, concepts, texts[order], order, draws=50)
    assert moved[0].tolist() == numbers[0].tolist()
    assert moved[1].tolist() == numbers[1][order].tolist()
    assert matching_rates(images, concepts, texts, [0, 1, 7], draws=5)[1][2] == 0  # no image of its concept


NAN, EYE = np.where(np.eye(2) == 1, np.nan, 1.0), np.eye(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modality_gap(NAN, EYE), "images hold 2 NaN, the first at row 0, column 0"),
        (lambda: modality_gap(EYE, [[np.inf, 0]]), "texts must be finite, got 1 infinite values, the first at row 0, column 0"),
        (lambda: modality_gap(EYE, np.eye(3)), "with one d"),
        (lambda: modality_gap(np.empty((0, 2)), EYE), "not empty"),
        (lambda: lean(NAN, EYE, EYE[:1]), "words hold 2 NaN"),
        (lambda: lean(EYE, [[None, 1.0]], EYE[:1]), "positive holds 1 NaN"),
        (lambda: lean(EYE, EYE, NAN), "negative holds 2 NaN"),
        (lambda: lean(EYE, EYE, EYE[::-1]), "the same mean embedding"),
        (lambda: lean(EYE, EYE[0], EYE[1]), r"must be \(n, d\) with one d"),
        (lambda: alignment(NAN, EYE), "image_differences hold 2 NaN"),
        (lambda: alignment(EYE, NAN), "text_differences hold 2 NaN"),
        (lambda: alignment(EYE, [[1.0, 0], [0, 0]]), "text_differences: 1 concepts have no difference, the first in row 1"),
        (lambda: disentanglement([[np.nan, 1.0]]), "importances hold 1 NaN"),
        (lambda: disentanglement([[np.inf, 1.0]]), "importances must be finite"),
        (lambda: disentanglement(np.zeros((2, 2))), "not all 0"),
        (lambda: alignment(EYE, EYE, repeats=0), "repeats must be a whole number of at least 1"),
        (lambda: matching_rates(EYE, [0, 1], EYE, [0, 1], draws=0), "draws must be a whole number of at least 1"),
        (lambda: matching_rates(NAN, [0, 1], EYE, [0, 1]), "images hold 2 NaN"),
        (lambda: matching_rates(EYE, [0, None], EYE, [0, 1]), "image_concepts hold 1 missing labels"),
        (lambda: matching_rates(EYE, [0, 1], EYE, [np.nan, 1]), "text_concepts hold 1 missing labels"),
        (lambda: matching_rates(EYE, [0], EYE, [0, 1]), "need a concept for each of 2 images and 2 texts, got 1 and 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
