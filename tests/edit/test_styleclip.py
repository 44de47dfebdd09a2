from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.edit.styleclip import beta_for, direction, edit, layer_mask, text_delta


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RELEVANCE = torch.tensor([0.1, -0.4, 0.2, 0.0, 0.3])
STD = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def test_text_delta_is_the_unit_difference():
    target, neutral = seeded(3, 8), seeded(8, seed=1)
    delta = text_delta(target, neutral)
    assert torch.allclose(delta.norm(dim=1), torch.ones(3).double())
    assert torch.allclose(delta[1], text_delta(target[1], neutral))
    assert torch.allclose(text_delta(neutral, target), -delta)


def test_swapping_target_and_neutral_negates_the_edit():
    table, target, neutral, std = seeded(20, 8), seeded(8, seed=1), seeded(8, seed=2), seeded(20, seed=3).abs()
    there, back = (
        direction(table @ delta, std, beta=1.0) for delta in (text_delta(target, neutral), text_delta(neutral, target))
    )
    assert there.abs().max() > 0
    assert torch.allclose(there, -back)


def test_direction_by_hand():
    assert direction(RELEVANCE, STD, beta=0.2).tolist() == pytest.approx([0, -2.0, 1.5, 0, 3.75])
    assert direction(RELEVANCE, STD, beta=0.0).tolist() == pytest.approx([0.25, -2.0, 1.5, 0, 3.75])
    only = torch.tensor([True, False, True, True, False])
    assert direction(RELEVANCE, STD, beta=0.15, channels=only).tolist() == pytest.approx([0, 0, 3.0, 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 10))
def test_direction_has_fewer_channels_for_higher_beta_and_scales_with_std(seed, a, b, scale):
    r, std = seeded(40, seed=seed), seeded(40, seed=seed + 1).abs() + 0.1
    low, high = sorted((a * float(r.abs().max()), b * float(r.abs().max())))
    few, many = direction(r, std, beta=high), direction(r, std, beta=low)
    assert ((few != 0) <= (many != 0)).all()
    assert torch.allclose(few[few != 0], many[few != 0])
    assert torch.allclose(direction(r, scale * std, beta=low), scale * many)
    assert (many / std).abs().max().item() == pytest.approx(1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_beta_for_keeps_as_many_channels_as_asked(channels):
    beta = beta_for(RELEVANCE, channels=channels)
    assert (direction(RELEVANCE, STD, beta=beta) != 0).sum() == channels


def test_edit_moves_alpha_times_the_direction():
    styles, d = seeded(6, 5), direction(RELEVANCE, STD, beta=0.2).double()
    assert torch.equal(edit(styles, d, alpha=0.0), styles)
    assert torch.allclose(edit(styles, d, alpha=-2.5) - styles, -2.5 * d.expand(6, 5))


def test_edit_stays_in_the_range_seen_where_it_moves():
    low, high, d = torch.zeros(4), torch.ones(4), torch.tensor([1.0, -1.0, 0.0, 1.0])
    styles = torch.tensor([[0.5, 0.5, 7.0, -3.0], [0.5, 0.5, -7.0, 2.0]])
    edited = edit(styles, d, alpha=4.0, low=low, high=high)
    # an untouched channel outside the range stays; one that moves inwards may; one that moves outwards may not
    assert edited.tolist() == [[1.0, 0.0, 7.0, 1.0], [1.0, 0.0, -7.0, 2.0]]
    assert torch.equal(edit(styles, d, alpha=0.0, low=low, high=high), styles)
    assert edit(styles, d, alpha=4.0, high=high)[0].tolist() == [1.0, -3.5, 7.0, 1.0]


def test_edit_is_differentiable():
    styles = seeded(2, 5).requires_grad_(True)
    edit(styles, RELEVANCE.double(), alpha=1.0).sum().backward()
    assert torch.equal(styles.grad, torch.ones(2, 5).double())


def test_layer_mask():
    names = ("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb")
    generator = SimpleNamespace(layer_names=names, style_sizes=(2, 2, 2, 1, 1))
    assert layer_mask(generator).tolist() == [True, True, False, False, True, True, True, False]
    assert layer_mask(generator, torgb=True).all()
    assert layer_mask(generator, max_resolution=4).nonzero().flatten().tolist() == [0, 1]
    with pytest.raises(ValueError, match="max_resolution 2 leaves no layer; the lowest is 4"):
        layer_mask(generator, max_resolution=2)


def test_published_size_of_the_selected_layers():
    """1024 x 1024, config-f: 26 style vectors, 9,088 channels, 5,376 without torgb up to 128 x 128."""
    width = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    names, sizes = ["b4.conv1", "b4.torgb"], [512, 512]
    for resolution in list(width)[1:]:
        names += [f"b{resolution}.{layer}" for layer in ("conv0", "conv1", "torgb")]
        sizes += [width[resolution // 2], width[resolution], width[resolution]]
    generator = SimpleNamespace(layer_names=names, style_sizes=sizes)
    assert len(names) == 26
    assert layer_mask(generator, torgb=True).sum() == 9088
    assert layer_mask(generator, max_resolution=128).sum() == 5376


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text_delta(STD, STD), "same embedding as the neutral text: there is nothing"),
        (lambda: text_delta(torch.stack([STD, -STD]), STD), r"neutral text \(rows \[0\]\)"),
        (lambda: direction(RELEVANCE, STD, beta=0.5), "beta 0.5 is above every relevance.*; 0.4 keeps 1$"),
        (lambda: direction(torch.arange(12.0), STD, beta=99), "; 11 keeps 1, 7 keeps 5, 2 keeps 10$"),
        (lambda: direction(0 * RELEVANCE, STD, beta=0.0), "no selected channel has any relevance"),
        (lambda: direction(RELEVANCE, STD, beta=0.0, channels=RELEVANCE == 0), "no selected channel has any relevance"),
        (lambda: direction(RELEVANCE, STD, beta=-0.1), "beta must be at least 0, got -0.1"),
        (lambda: direction(RELEVANCE / 0, STD, beta=0.1), "not finite"),
        (lambda: beta_for(RELEVANCE, channels=5), "between 1 and the 4 .* got 5"),
        (lambda: beta_for(RELEVANCE, channels=0), "got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
