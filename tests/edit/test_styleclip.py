from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.edit.styleclip import beta_for, direction, edit, layer_mask, text_delta


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RELEVANCE = torch.tensor([0.1, -0.4, 0.2, 0.0, 0.3])
STD = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
HOLES = torch.tensor([1.0, torch.nan, 3.0, torch.inf, 5.0])


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


KINDS = [
    np.uint8,
    np.int64,
    np.bool_,
    np.float16,
    np.float32,
    np.float64,
    ">f4",
    torch.uint8,
    torch.bool,
    torch.half,
    torch.bfloat16,
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_and_kind_gives_the_right_numbers(kind):
    """Unsigned differences do not wrap, half-precision norms do not overflow, arrays give arrays."""
    is_torch = isinstance(kind, torch.dtype)
    a, b, d = [200, 0, 1, 7, 250], [1, 3, 0, 7, 0], [0, 1, 1, 0, 1]

    def given(x):
        return torch.tensor(x).to(kind) if is_torch else np.array(x).astype(kind)

    def exact(x):
        x = given(x)
        return (x.double() if is_torch else torch.tensor(x.astype(np.float64))).clone()

    delta = text_delta(given(a), given(b))
    right = exact(a) - exact(b)
    found = [
        (delta, right / right.norm()),
        (direction(given(a), given(b), beta=1), torch.where(exact(a) >= 1, exact(a), 0) / exact(a).max() * exact(b)),
        (edit(given([a]), given(d), alpha=-2), exact([a]) - 2 * exact(d)),
    ]
    floating = kind in (np.float16, np.float32, ">f4", torch.half, torch.bfloat16)
    for result, expected in found:
        assert isinstance(result, torch.Tensor if is_torch else np.ndarray)
        size = torch.as_tensor(result).element_size()
        assert size == (8 if not floating else torch.tensor(0).to(kind).element_size() if is_torch else np.dtype(kind).itemsize)
        assert torch.allclose(torch.as_tensor(result).double(), expected, rtol=0.01, atol=0.02)
    assert beta_for(given(a), channels=1) == exact(a).max()


def test_long_half_precision_texts_have_a_length():
    target = torch.full((768,), 300.0).half()  # the sum of squares is beyond float16
    delta = text_delta(target, 0 * target)
    assert delta.dtype == torch.half
    assert float(delta.double().norm()) == pytest.approx(1, rel=1e-3)


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
        (lambda: beta_for(RELEVANCE, channels=2.0), "channels must be a whole number .* got 2.0, a float"),
        (lambda: beta_for(torch.stack([RELEVANCE, 9 * RELEVANCE]), channels=2), r"\(S,\) of one text, got shape \(2, 5\)"),
        (lambda: direction(torch.stack([RELEVANCE, 9 * RELEVANCE]), STD, beta=0.1), r"of one text, got shape \(2, 5\)"),
        (lambda: beta_for(HOLES, channels=1), r"relevance holds 2 NaN or infinite values of 5; .* at \[1\]"),
        (lambda: direction(HOLES, STD, beta=0.1), r"relevance holds 2 NaN .* at \[1\]"),
        (lambda: direction(RELEVANCE, HOLES, beta=0.1), r"std holds 2 NaN .* at \[1\]"),
        (lambda: direction(RELEVANCE, STD[:1], beta=0.1), r"need std \(S,\) with S = 5, got shape \(1,\)"),
        (lambda: direction(RELEVANCE, -STD, beta=0.1), "std must not be negative, got -5"),
        (lambda: direction(RELEVANCE, STD, beta="0.1"), "beta must be at least 0, got '0.1'"),
        (
            lambda: direction(RELEVANCE, STD, beta=0.1, channels=STD),
            r"channels must be \(S,\) bool with S = 5, got \(5,\) torch.float",
        ),
        (lambda: direction(RELEVANCE, STD, beta=0.1, channels=[True]), r"channels must be .* got \(1,\)"),
        (lambda: text_delta(HOLES, STD), r"target holds 2 NaN .* at \[1\]"),
        (lambda: text_delta(STD, torch.stack([STD, HOLES])), r"neutral holds 2 NaN .* of 10; .* at \[1, 1\]"),
        (lambda: text_delta(STD, STD[:1]), r"fit together, got \(5,\) and \(1,\)"),
        (lambda: text_delta(torch.stack([STD] * 3), torch.stack([STD] * 2)), r"got \(3, 5\) and \(2, 5\)"),
        (lambda: text_delta(["nurse"], STD), "target must hold real numbers, got list"),
        (lambda: edit(HOLES[None], STD, alpha=1.0), r"styles hold 2 NaN .* at \[0, 1\]"),
        (lambda: edit(STD[None], HOLES, alpha=1.0), r"direction holds 2 NaN .* at \[1\]"),
        (lambda: edit(torch.ones(2, 5), torch.ones(2, 5), alpha=1.0), r"need direction \(S,\) with S = 5, got shape \(2, 5\)"),
        (lambda: edit(torch.ones(2, 5), STD[:1], alpha=1.0), r"got shape \(1,\)"),
        (lambda: edit(STD, STD, alpha=1.0), r"need styles \(n, S\), got shape \(5,\)"),
        (lambda: edit(STD[None], STD, alpha=float("nan")), "alpha must be a finite number, got nan"),
        (lambda: edit(STD[None], STD, alpha=1.0, low=HOLES), r"low holds 1 NaN, the first at \[1\]"),
        (lambda: edit(STD[None], STD, alpha=1.0, high=STD[:2]), r"need high \(S,\) with S = 5, got shape \(2,\)"),
        (lambda: edit(STD[None], STD, alpha=1.0, low=STD + 1, high=STD), "low must not be above high, as in 5 channels"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
