import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from debias_utils.models.stylegan2 import Conv, Generator

TINY = {"z_dim": 5, "w_dim": 4, "mapping_layers": 2, "resolution": 8, "channels": [4, 3]}


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def wake(generator):
    """Give the parameters that start at 0 or 1 values of their own, so that none can be forgotten unnoticed."""
    with torch.no_grad():
        for i, (name, value) in enumerate([*generator.named_parameters(), ("w_avg", generator.mapping.w_avg)]):
            if name.endswith(("bias", "noise_strength", "w_avg")):
                value.add_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(i)))
    return generator


@pytest.fixture(scope="module")
def tiny():
    return wake(Generator(**TINY)).double().requires_grad_(False)


@pytest.fixture(scope="module")
def three():
    """Three blocks, float32, and the styles of four samples."""
    generator = wake(Generator(**{**TINY, "resolution": 16, "channels": [6, 4, 5]})).requires_grad_(False)
    return generator, generator.styles(generator.mapping(seeded(4, 5)))


# official weights and outputs


@pytest.fixture(scope="module")
def official(fixtures):
    folder = fixtures / "stylegan2"
    state = {k: torch.from_numpy(v) for k, v in np.load(folder / "generator.npz").items()}
    reference = {k: torch.from_numpy(v) for k, v in np.load(folder / "reference.npz").items()}
    return state, reference, json.loads((folder / "meta.json").read_text()), Generator.from_state_dict(state)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ws_psi1.0", {}),
        ("ws_psi0.7", {"truncation": 0.7}),
        ("ws_psi0.7_cutoff4", {"truncation": 0.7, "cutoff": 4}),
    ],
)
def test_official_mapping_and_pictures(official, name, options):
    _, reference, _, generator = official
    ws = generator.mapping(reference["z"], **options)
    assert torch.allclose(ws, reference[name], atol=1e-5)
    images = generator.synthesis(generator.styles(ws))
    assert torch.allclose(images[:1], reference[name.replace("ws", "img")], atol=2e-4)


def test_official_styles(official):
    _, reference, meta, generator = official
    assert [[n, s] for n, s in zip(generator.layer_names, generator.style_sizes, strict=True)] == meta["style_layers"]
    assert generator.num_ws == meta["num_ws"]
    for psi in ("1.0", "0.7"):
        for name, style in zip(generator.layer_names, generator.styles(reference[f"ws_psi{psi}"]), strict=True):
            assert torch.allclose(style, reference[f"style_psi{psi}/{name}"], atol=1e-5)


def test_official_edits_of_styles(official):
    _, reference, meta, generator = official
    for i, edit in enumerate(meta["edits"]):
        styles = generator.styles(reference["ws_psi0.7"])
        for name, offsets in edit.items():
            for channel, offset in offsets:
                styles[generator.layer_names.index(name)][:, channel] += offset
        assert torch.allclose(generator.synthesis(styles)[:1], reference[f"img_edit{i}_psi0.7"], atol=2e-4)


def test_official_style_mixing(official):
    _, reference, _, generator = official
    images = generator.synthesis(generator.styles(reference["ws_mixed"]))
    assert torch.allclose(images, reference["img_mixed"], atol=2e-4)


def test_official_clamped_activations(official):
    state, reference, _, _ = official
    generator = Generator.from_state_dict(state, conv_clamp=1.0)
    images = generator.synthesis(generator.styles(reference["ws_psi0.7"][:1]))
    assert torch.allclose(images, reference["img_psi0.7_conv_clamp1.0"], atol=2e-4)


def test_official_gradient(official):
    _, reference, _, generator = official
    ws = reference["ws_psi0.7"][:1].clone().requires_grad_(True)
    (generator.synthesis(generator.styles(ws)) * reference["probe"]).sum().backward()
    assert torch.allclose(ws.grad, reference["grad_ws_psi0.7"], atol=1e-5)


def test_official_state_dict_keeps_its_names_and_order(official):
    state, _, _, generator = official
    assert list(generator.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())


# the algebra, on small random networks


def test_layers_of_three_blocks(three):
    generator, styles = three
    assert generator.layer_names == [
        *("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb", "b16.conv0", "b16.conv1", "b16.torgb")
    ]
    assert generator.style_sizes == [s.shape[1] for s in styles] == [6, 6, 6, 4, 4, 4, 5, 5]
    assert [n for n, rgb in zip(generator.layer_names, generator.is_torgb, strict=True) if rgb] == [
        *("b4.torgb", "b8.torgb", "b16.torgb")
    ]
    assert (generator.num_ws, generator.resolution) == (6, 16)
    assert generator.synthesis(styles).shape == (4, 3, 16, 16)


def test_stylespace_of_the_published_size_has_9088_channels():
    thirty_second = [16] * 5 + [8, 4, 2, 1]  # of 512 up to 64 pixels, then 256, 128, 64, 32
    generator = Generator(z_dim=2, w_dim=2, mapping_layers=8, resolution=1024, channels=thirty_second)
    assert (32 * sum(generator.style_sizes), len(generator.layer_names), generator.num_ws) == (9088, 26, 18)


def test_torgb_shares_its_w_with_the_next_conv0(three):
    generator, _ = three
    ws = generator.mapping(seeded(1, 5))
    before, touched = generator.styles(ws), []
    for i in range(generator.num_ws):
        changed = ws.clone()
        changed[:, i] += 1
        after = generator.styles(changed)
        touched.append([n for n, a, b in zip(generator.layer_names, before, after, strict=True) if not torch.equal(a, b)])
    assert touched == [
        ["b4.conv1"],
        ["b4.torgb", "b8.conv0"],
        ["b8.conv1"],
        ["b8.torgb", "b16.conv0"],
        ["b16.conv1"],
        ["b16.torgb"],
    ]


@pytest.mark.parametrize("up", [False, True])
def test_convolution_is_a_demodulated_kernel_for_each_sample(up):
    conv = wake_conv(Conv(3, 4, 2, 8, up=up, clamp=None).double())
    side = 4 if up else 8
    x, style = seeded(2, 3, side, side).double(), seeded(2, 3).double()
    out = conv(x, style)
    fir = torch.tensor([1.0, 3, 3, 1]).double() / 4  # sum 2 in each direction makes up for the inserted zeros
    for i in range(2):
        kernel = conv.weight * style[i].view(1, 3, 1, 1)  # equation 1 of Karras et al. 2020
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()  # equation 3
        if up:
            wide = F.conv_transpose2d(x[i : i + 1], kernel.transpose(0, 1), stride=2)
            y = F.conv2d(wide.transpose(0, 1), torch.outer(fir, fir)[None, None], padding=1).transpose(0, 1)
        else:
            y = F.conv2d(x[i : i + 1], kernel, padding=1)
        y = y + conv.noise_const * conv.noise_strength + conv.bias.view(1, 4, 1, 1)
        assert torch.allclose(out[i], F.leaky_relu(y[0], 0.2) * 2**0.5, rtol=0, atol=1e-11)


def wake_conv(conv):
    with torch.no_grad():
        conv.bias.copy_(seeded(4))
        conv.noise_strength.fill_(0.5)
    return conv


@settings(max_examples=20, deadline=None)
@given(layer=st.sampled_from([0, 2, 3]), scale=st.floats(0.1, 1e4), seed=st.integers(0, 100))
def test_scale_of_a_convolution_s_style_does_not_matter(tiny, layer, scale, seed):
    styles = tiny.styles(tiny.mapping(torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))))
    images = tiny.synthesis(styles)
    styles[layer] = scale * styles[layer]
    assert torch.allclose(tiny.synthesis(styles), images, rtol=1e-4, atol=1e-4)


def test_torgb_adds_to_the_picture_in_proportion_to_its_style(tiny):
    styles = tiny.styles(tiny.mapping(seeded(2, 5)))
    none, one, two = (tiny.synthesis([*styles[:-1], scale * styles[-1]]) for scale in (0, 1, 2))
    assert torch.allclose(two - one, one - none, rtol=0, atol=1e-11)
    assert (one - none).abs().max() > 0.1


def test_torgb_by_hand(tiny):
    styles = tiny.styles(tiny.mapping(seeded(2, 5)))
    x, image = tiny.states(styles)[-1]
    layer = tiny.synthesis.b8.torgb
    drawn = torch.einsum("rc,nc,nchw->nrhw", layer.weight[..., 0, 0], styles[-1], x) / 3**0.5 + layer.bias.view(3, 1, 1)
    spread = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    spread[..., ::2, ::2] = image
    row = torch.tensor([1.0, 3, 3, 1]).double() / 4
    fir = torch.outer(row, row).expand(3, 1, 4, 4)
    wide = F.conv2d(F.pad(spread, (2, 1, 2, 1)), fir, groups=3)
    assert torch.allclose(tiny.synthesis(styles), wide + drawn, rtol=0, atol=1e-11)


def test_mapping_by_hand(tiny):
    w = seeded(3, 5).double()
    w = w / (w.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for layer, inputs in ((tiny.mapping.fc0, 5), (tiny.mapping.fc1, 4)):
        w = F.leaky_relu(w @ layer.weight.T * 0.01 / inputs**0.5 + 0.01 * layer.bias, 0.2) * 2**0.5
    assert torch.allclose(tiny.mapping(seeded(3, 5).double()), w[:, None].expand(3, 4, 4), rtol=0, atol=1e-11)


def test_a_style_of_zeros_draws_a_finite_picture_with_a_finite_gradient(tiny):
    flat = torch.zeros(1, sum(tiny.style_sizes), dtype=torch.float64, requires_grad=True)
    image = tiny.synthesis(tiny.split(flat))
    image.sum().backward()
    assert image.isfinite().all()
    assert flat.grad.isfinite().all()


def test_resuming_at_every_layer_gives_the_same_picture(three):
    generator, styles = three
    images, states = generator.synthesis(styles), generator.states(styles)
    assert len(states) == len(styles)
    for start, state in enumerate(states):
        unread = [None] * start
        assert torch.equal(generator.synthesis([*unread, *styles[start:]], start=start, state=state), images)


def test_resuming_after_a_change_equals_drawing_anew(three):
    generator, styles = three
    states = generator.states(styles)
    for layer in range(len(styles)):
        changed = [s.clone() for s in styles]
        changed[layer][:, 1] += 2.0
        anew = generator.synthesis(changed)
        assert torch.equal(generator.synthesis(changed, start=layer, state=states[layer]), anew)
        assert not torch.equal(anew, generator.synthesis(styles))


def test_state_of_one_sample_serves_many_styles(three):
    generator, styles = three
    one = [s[:1] for s in styles]
    for layer, state in enumerate(generator.states(one)):
        many = [s.expand(3, -1).clone() for s in one]
        many[layer] += torch.tensor([[0.0], [1.0], [-1.0]]) * seeded(3, many[layer].shape[1])
        images = generator.synthesis(many, start=layer, state=state)
        assert torch.allclose(images, generator.synthesis(many), atol=1e-5)


def test_batch_equals_one_by_one(three):
    generator, styles = three
    images = generator.synthesis(styles)
    single = torch.cat([generator.synthesis([s[i : i + 1] for s in styles]) for i in range(4)])
    assert torch.allclose(images, single, atol=1e-5)
    z = seeded(4, 5)
    assert torch.allclose(generator.mapping(z), torch.cat([generator.mapping(x[None]) for x in z]), atol=1e-6)


def test_split_undoes_cat(three):
    generator, styles = three
    flat = torch.cat(styles, dim=1)
    assert all(torch.equal(a, b) for a, b in zip(generator.split(flat), styles, strict=True))
    with pytest.raises(ValueError, match=r"flat styles must be a float tensor \(n, 40\), got \(4, 39\)"):
        generator.split(flat[:, 1:])


def test_truncation(three):
    generator, _ = three
    z, average = seeded(2, 5), generator.mapping.w_avg
    whole, mean = generator.mapping(z), generator.mapping(z, truncation=0.0)
    assert torch.equal(mean, average.expand(2, 6, 4))
    assert torch.allclose(generator.mapping(z, truncation=-0.5), average - 0.5 * (whole - average), atol=1e-6)
    part = generator.mapping(z, truncation=0.0, cutoff=2)
    assert torch.equal(part, torch.cat([mean[:, :2], whole[:, 2:]], dim=1))
    assert torch.equal(generator.mapping(z, truncation=0.3, cutoff=0), whole)
    assert torch.equal(generator.mapping(z, truncation=0.3, cutoff=6), generator.mapping(z, truncation=0.3))
    assert torch.allclose(generator.mapping(10 * z), whole, atol=1e-6)  # only the direction of z matters


def test_gradient_with_respect_to_styles_and_ws(tiny):
    ws = tiny.mapping(seeded(1, 5)).requires_grad_(True)
    flat = torch.cat(tiny.styles(ws), dim=1).detach().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda s: tiny.synthesis(tiny.split(s)), flat)
    assert torch.autograd.gradcheck(lambda w: tiny.synthesis(tiny.styles(w)), ws)


def test_gradient_with_respect_to_parameters(tiny):
    generator = copy.deepcopy(tiny).requires_grad_(True)
    probe = seeded(2, 3, 8, 8).double()

    def score(net):
        return (net.synthesis(net.styles(net.mapping(seeded(2, 5)))) * probe).sum()

    score(generator).backward()
    for i, (name, value) in enumerate(generator.named_parameters()):
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(i)).double()
        scores = []
        for step in (1e-6, -1e-6):
            moved = copy.deepcopy(tiny)
            with torch.no_grad():
                moved.get_parameter(name).add_(step * direction)
            scores.append(score(moved).item())
        slope = (value.grad * direction).sum().item()
        assert slope != 0
        assert (scores[0] - scores[1]) / 2e-6 == pytest.approx(slope, rel=1e-4, abs=1e-6), name


def test_autocast_draws_nearly_the_same_picture_in_float32(three):
    generator, styles = three
    exact = generator.synthesis(styles)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generator.styles(generator.mapping(seeded(4, 5)))[0], styles[0])
        half = generator.synthesis(styles)
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_float64_agrees_with_float32(three):
    generator, styles = three
    exact = copy.deepcopy(generator).double().synthesis([s.double() for s in styles])
    assert exact.dtype == torch.float64
    assert torch.allclose(generator.synthesis(styles).double(), exact, atol=1e-4)


def test_clamp_bounds_what_enters_every_layer():
    generator = Generator(**TINY, conv_clamp=0.5).requires_grad_(False)
    styles = generator.styles(generator.mapping(seeded(4, 5)))
    assert [x.abs().max().item() for x, _ in generator.states(styles)[1:]] == [0.5] * 4
    assert generator.synthesis(styles).abs().max() <= 1.0  # two blocks of 0.5


# weights in and out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_round_trip(tiny, dtype):
    state = copy.deepcopy(tiny).to(dtype).state_dict()
    again = Generator.from_state_dict(state)
    assert list(again.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert again.mapping.w_avg.dtype == dtype


def test_the_constant_may_have_other_channels_than_the_first_block():
    wide = Generator(**TINY, const_channels=6)
    assert wide.style_sizes == [6, *Generator(**TINY).style_sizes[1:]]
    again = Generator.from_state_dict(wide.state_dict())
    styles = again.styles(again.mapping(seeded(2, 5)))
    assert styles[0].shape == (2, 6)
    assert torch.equal(again.synthesis(styles), wide.synthesis(wide.styles(wide.mapping(seeded(2, 5)))))
    with pytest.raises(ValueError, match="const_channels must be a whole number of at least 1, got 0"):
        Generator(**TINY, const_channels=0)


def test_arrays_and_half_precision_are_loaded_as_float32(tiny):
    state = {name: value.half().numpy() for name, value in tiny.state_dict().items()}
    again = Generator.from_state_dict(state)
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    assert np.array_equal(again.synthesis.b4.const.detach().half().numpy(), state["synthesis.b4.const"])


def test_loaded_weights_do_not_alias_the_state(tiny):
    state = copy.deepcopy(tiny).state_dict()
    again = Generator.from_state_dict(state)
    state["synthesis.b4.const"].zero_()
    assert again.synthesis.b4.const.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("synthesis.b8.conv1.bias"), r"'synthesis.b8.conv1.bias': expected shape \(3,\), found nothing"),
        (lambda s: s.pop("synthesis.b8.conv1.weight"), "'synthesis.b8.conv1.weight': expected 4 dimensions, found nothing"),
        (lambda s: s.pop("mapping.fc0.weight"), "'mapping.fc0.weight': expected 2 dimensions, found nothing"),
        (lambda s: s.pop("mapping.w_avg"), r"'mapping.w_avg': expected shape \(4,\), found nothing"),
        (
            lambda s: s.update({"synthesis.b8.conv0.weight": torch.zeros(3, 4, 1, 1)}),
            r"'synthesis.b8.conv0.weight': expected shape \(3, 4, 3, 3\), found shape \(3, 4, 1, 1\)",
        ),
        (
            lambda s: s.update({"synthesis.b8.skip.weight": torch.zeros(3, 4, 1, 1)}),
            r"'synthesis.b8.skip.weight': expected no such key, found shape \(3, 4, 1, 1\)",
        ),
        (lambda s: s.update({"mapping.embed.weight": torch.zeros(4, 2)}), "'mapping.embed.weight': expected no such key"),
        (lambda s: s.update({"synthesis.b16.torgb.bias": torch.zeros(3)}), "'synthesis.b16.conv1.weight': .* found nothing"),
        (lambda s: s.update({"synthesis.b4.const": [1.0]}), "'synthesis.b4.const': expected 3 dimensions, found list"),
        (
            lambda s: s.update({"synthesis.b4.const": torch.zeros(5, 4, 4)}),
            r"'synthesis.b4.conv1.weight': expected shape \(4, 5, 3, 3\), found shape \(4, 4, 3, 3\)",
        ),
        (lambda s: (s.pop("mapping.fc1.bias"), s.pop("synthesis.b8.torgb.bias")), "'synthesis.b8.torgb.bias'"),
        (lambda s: (s.clear(), s.update({"layer1.0.weight": torch.zeros(2)})), "the first of 1 keys is 'layer1.0.weight'"),
        (lambda s: s.clear(), "the first of 0 keys is None"),
    ],
)
def test_state_of_another_architecture_names_the_first_key_that_does_not_fit(tiny, change, message):
    state = dict(tiny.state_dict())
    change(state)
    with pytest.raises(ValueError, match="not a StyleGAN2 generator of stylegan2-ada-pytorch: .*" + message):
        Generator.from_state_dict(state)


def test_initial_weights_follow_the_seed_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    a, b, other = (Generator(**TINY, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers are untouched
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["synthesis.b4.const"], other["synthesis.b4.const"])
    assert torch.equal(a["synthesis.b8.conv0.affine.bias"], torch.ones(4))
    assert a["synthesis.b8.conv0.noise_strength"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, s: g.mapping(torch.zeros(2, 6)), r"z must be a float tensor \(n, 5\), got \(2, 6\)"),
        (lambda g, s: g.mapping(torch.zeros(2, 5).long()), "torch.int64"),
        (lambda g, s: g.mapping(np.zeros((2, 5))), "got ndarray"),
        (lambda g, s: g.mapping(torch.zeros(2, 5), truncation=float("nan")), "truncation must be finite, got nan"),
        (lambda g, s: g.mapping(torch.zeros(2, 5), cutoff=7), "cutoff must be a whole number from 0 to num_ws = 6, got 7"),
        (lambda g, s: g.mapping(torch.zeros(2, 5), cutoff=-1), "got -1"),
        (lambda g, s: g.mapping(torch.zeros(2, 5), cutoff=1.5), "got 1.5"),
        (lambda g, s: g.styles(torch.zeros(2, 4)), r"ws must be a float tensor \(n, 6, 4\), got \(2, 4\)"),
        (lambda g, s: g.styles(torch.zeros(2, 5, 4)), r"got \(2, 5, 4\)"),
        (lambda g, s: g.synthesis(s[:-1]), "need 8 styles, one a layer, got 7"),
        (lambda g, s: g.states(s[1:]), "need 8 styles"),
        (lambda g, s: g.synthesis([*s[:2], s[3], *s[3:]]), r"style of b8.conv0 must be a float tensor \(4, 6\), got \(4, 4\)"),
        (lambda g, s: g.synthesis([s[0], s[1][:1], *s[2:]]), r"style of b4.torgb must be .* \(4, 6\), got \(1, 6\)"),
        (lambda g, s: g.synthesis([None, *s[1:]]), "style of b4.conv1 must be .* got NoneType"),
        (lambda g, s: g.synthesis(s, start=8), "start must be a layer from 0 to 7, got 8"),
        (lambda g, s: g.synthesis(s, start=-1), "got -1"),
        (lambda g, s: g.synthesis(s, start=2), "start=2 needs the state that enters b8.conv0"),
        (lambda g, s: g.synthesis(s, start=3, state=g.states(s)[2]), r"features in the state of b8.conv1 .* \(4, 4, 8, 8\)"),
        (lambda g, s: g.synthesis(s, start=2, state=(g.states(s)[2][0], None)), "image in the state of b8.conv0 .* NoneType"),
        (lambda g, s: g.synthesis([x[:2] for x in s], start=2, state=g.states(s)[2]), r"\(2, 6, 4, 4\), got \(4, 6, 4, 4\)"),
        (lambda g, s: Generator(**{**TINY, "resolution": 32}), r"resolution = 32; got \[4, 3\]"),
        (lambda g, s: Generator(**{**TINY, "channels": []}), r"got \[\]"),
        (lambda g, s: Generator(**{**TINY, "channels": [4, 0]}), "number of channels must be .* got 0"),
        (lambda g, s: Generator(**{**TINY, "mapping_layers": 0}), "mapping_layers must be .* got 0"),
        (lambda g, s: Generator(**TINY, conv_clamp=0.0), "conv_clamp must be positive or None, got 0.0"),
    ],
)
def test_bad_input(three, call, message):
    with pytest.raises(ValueError, match=message):
        call(*three)
