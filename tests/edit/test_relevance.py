import pytest
import torch

from debias_utils.edit.relevance import (
    ChannelStatistics,
    channel_statistics,
    expected_gradient,
    finite_difference,
    gradient,
    regression,
    relevance,
)
from debias_utils.models.stylegan2 import Generator

SIZES, SIDE, D = (4, 3, 5), 4, 6
METHODS = ("finite-difference", "gradient", "expected-gradient")
S, PIXELS = sum(SIZES), 3 * SIDE * SIDE


class Toy:
    """Three layers, x <- bend(A x + W s): the interface of the generator, with an algebra that can be worked out."""

    layer_names = ("b4.conv1", "b4.torgb", "b8.conv0")
    style_sizes = SIZES

    def __init__(self, bend=lambda x: x, scale=0.02):
        random = torch.Generator().manual_seed(0)
        self.bend = bend
        self.A = [torch.eye(PIXELS, dtype=torch.float64) for _ in SIZES]
        self.W = [scale * torch.randn(PIXELS, c, generator=random, dtype=torch.float64) for c in SIZES]
        self.layers_run = []

    def split(self, flat):
        return list(flat.split(SIZES, dim=1))

    def states(self, styles):
        x = styles[0].new_zeros(len(styles[0]), PIXELS)
        states = []
        for layer, style in enumerate(styles):
            states.append((x, None))
            x = self.bend(x @ self.A[layer].T + style @ self.W[layer].T)
        return states

    def synthesis(self, styles, *, start=0, state=None):
        x = styles[0].new_zeros(len(styles[0]), PIXELS) if state is None else state[0]
        for layer in range(start, len(styles)):
            self.layers_run.append(layer)
            x = self.bend(x @ self.A[layer].T + styles[layer] @ self.W[layer].T)
        return x.view(-1, 3, SIDE, SIDE)


def seeded(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def holes(*shape):
    x = seeded(*shape)
    x[0, 1], x[-1, 2] = torch.nan, torch.inf
    return x


E = seeded(D, PIXELS, seed=2)


def linear_encode(pictures):
    return pictures.flatten(1) @ E.T


def unit_encode(pictures):
    return torch.nn.functional.normalize(torch.tanh(pictures.flatten(1) @ E.T), dim=1)


@pytest.fixture
def styles():
    return seeded(7, S) * (0.2 + torch.arange(S) / S)


def close(a, b, tolerance=1e-10):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_statistics_by_hand():
    s = channel_statistics(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert torch.equal(torch.stack([s.mean, s.std, s.low, s.high]), torch.tensor([[2.0, 5], [1, 0], [1, 5], [3, 5]]))


def test_a_channel_that_never_changes_has_no_deviation_not_even_from_rounding():
    s = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    s[:, 1] = 0.1
    assert (channel_statistics(s).std > 0).tolist() == [True, False, True]


def test_linear_generator_and_encoder_give_the_columns_of_their_product(styles):
    toy, statistics = Toy(), channel_statistics(styles)
    columns = (E @ torch.cat(toy.W, dim=1)).T / 2  # (S, d); pictures go from [-1, 1] to [0, 1]
    published = finite_difference(toy, linear_encode, styles, statistics)
    assert close(published, torch.nn.functional.normalize(columns, dim=1))
    per_std = columns * statistics.std[:, None]
    assert close(finite_difference(toy, linear_encode, styles, statistics, normalize=False), per_std)
    assert close(gradient(toy, linear_encode, styles, statistics, torch.eye(D).double()).T, per_std)
    assert close(expected_gradient(toy, linear_encode, styles, statistics, torch.eye(D).double()).T, per_std)
    with_probes = gradient(toy, linear_encode, styles, statistics, torch.eye(D).double(), probes=D)
    assert close(with_probes.T, published)


def naive(toy, encode, styles, statistics, step, normalize, around):
    """The published loop, one picture at a time, every layer from the bottom."""
    rows = []
    for c in range(S):
        differences = []
        for s in styles:
            ends = s.clone(), s.clone()
            centre = statistics.mean[c] if around == "mean" else s[c]
            ends[0][c], ends[1][c] = (centre + sign * step * statistics.std[c] for sign in (1, -1))
            up, down = (encode((toy.synthesis(toy.split(e[None])) + 1) / 2)[0] for e in ends)
            differences.append((up - down) / (up - down).norm() if normalize else (up - down) / (2 * step))
        rows.append(torch.stack(differences).mean(dim=0))
    rows = torch.stack(rows)
    return rows / rows.norm(dim=1, keepdim=True) if normalize else rows


@pytest.mark.parametrize("around", ["mean", "sample"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 16, 1000])
def test_reusing_lower_layers_and_batching_change_nothing(styles, normalize, batch_size, around):
    toy, statistics = Toy(torch.tanh), channel_statistics(styles)
    how = {"step": 2.0, "normalize": normalize, "around": around}
    fast = finite_difference(toy, unit_encode, styles, statistics, batch_size=batch_size, **how)
    assert close(fast, naive(toy, unit_encode, styles, statistics, **how))


def test_lower_layers_are_not_computed_again(styles):
    toy = Toy()
    finite_difference(toy, linear_encode, styles, channel_statistics(styles), batch_size=2 * len(styles))
    assert [toy.layers_run.count(layer) for layer in range(3)] == [4, 4 + 3, 4 + 3 + 5]


def test_memory_is_bounded_by_the_batch_size(styles):
    seen = []

    def encode(pictures):
        seen.append(len(pictures))
        return unit_encode(pictures)

    statistics = channel_statistics(styles)
    for method in METHODS:
        seen.clear()
        relevance(Toy(), encode, styles, statistics, seeded(1, D), method=method, batch_size=4)
        assert max(seen) == 4


def test_gradient_is_the_limit_of_small_steps(styles):
    toy, statistics, directions = Toy(torch.tanh, scale=0.1), channel_statistics(styles), seeded(3, D)
    slope = gradient(toy, unit_encode, styles, statistics, directions, batch_size=3)
    step = finite_difference(toy, unit_encode, styles, statistics, step=1e-4, normalize=False, around="sample")
    assert slope.abs().min() > 1e-6
    assert torch.allclose(slope, directions @ step.T, rtol=1e-5, atol=1e-9)


def test_probes_estimate_the_size_of_the_effect(styles):
    toy, statistics, directions = Toy(torch.tanh), channel_statistics(styles), seeded(4, D)
    slopes = [gradient(toy, unit_encode, s[None], statistics, torch.eye(D).double()).T for s in styles]  # (S, d) each
    units = torch.stack([torch.nn.functional.normalize(table, dim=1) for table in slopes])  # of each picture, as published
    exact = directions @ torch.nn.functional.normalize(units.sum(dim=0), dim=1).T
    found = gradient(toy, unit_encode, styles, statistics, directions, probes=D, seed=3, batch_size=2)
    assert close(found, exact)
    step = finite_difference(toy, unit_encode, styles, statistics, step=1e-4, around="sample")
    assert torch.allclose(found, directions @ step.T, atol=1e-6)
    rough = torch.stack([gradient(toy, unit_encode, styles, statistics, directions, probes=3, seed=i) for i in range(20)])
    assert ((rough - exact).abs() > 1e-6).all()
    assert ((1 / rough.square()).mean(dim=0) / (1 / exact.square())).sub(1).abs().mean() < 0.15  # the square is unbiased


def rare_elements(n=4000):
    """Channels that are on (3) in a tenth of the samples, else off (0), and show nothing until they exceed 1.5."""
    toy = Toy()
    columns = torch.cat(toy.W, dim=1)
    toy.synthesis = lambda styles, **_: (torch.relu(torch.cat(styles, dim=1) - 1.5) @ columns.T).view(-1, 3, SIDE, SIDE)
    styles = 3.0 * (torch.rand(n, S, generator=torch.Generator().manual_seed(1)) < 0.1).double()
    return toy, styles, columns, channel_statistics(styles)


def test_expected_gradient_sees_rare_elements_that_local_gradients_miss():
    toy, styles, columns, statistics = rare_elements()
    directions = torch.eye(D).double()
    appears = ((E @ columns / 2) * 1.5 / 3) * statistics.std  # what the step from off to on does, per standard deviation
    expected = expected_gradient(toy, linear_encode, styles, statistics, directions, batch_size=1000)
    assert (expected - appears).norm() < 0.05 * appears.norm()
    local = gradient(toy, linear_encode, styles, statistics, directions, batch_size=1000)
    assert local.norm() < 0.25 * appears.norm()


def test_expected_gradient_is_the_own_part_of_the_regression():
    toy, styles, _, statistics = rare_elements()
    directions = seeded(2, D)

    def both(styles):
        pictures = (toy.synthesis(toy.split(styles)) + 1) / 2
        return (
            expected_gradient(toy, linear_encode, styles, statistics, directions, batch_size=1000),
            regression(styles, linear_encode(pictures), directions),
        )

    alone, whole = both(styles)  # independent channels: nothing goes along
    assert (alone - whole).norm() < 0.1 * alone.norm()
    styles[:, 1] = styles[:, 0]
    together, whole = both(styles)
    assert (together - alone).norm() < 0.1 * alone.norm()
    assert torch.allclose(whole[:, 0], together[:, 0] + together[:, 1], rtol=0.2)
    assert (whole[:, :2] - together[:, :2]).norm() > 0.5 * together[:, :2].norm()


@pytest.fixture(scope="module")
def tiny():
    sizes = {"z_dim": 4, "w_dim": 4, "mapping_layers": 1, "resolution": 16, "channels": [5, 4, 3]}
    generator = Generator(**sizes).double().requires_grad_(False)
    for name, p in generator.named_parameters():
        if name.endswith("torgb.weight"):
            p *= 0.05  # keeps the pictures inside [-1, 1], where they are smooth
    z = seeded(3, 4)
    return generator, torch.cat(generator.styles(generator.mapping(z)), dim=1)


def small_encode(pictures):
    return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(pictures, 4).flatten(1), dim=1)


def test_stylegan2_differences_equal_recomputing_everything(tiny):
    generator, styles = tiny
    assert generator.synthesis(generator.split(styles)).abs().max() < 0.9
    statistics = channel_statistics(styles)
    fast = finite_difference(generator, small_encode, styles, statistics, step=1.0, normalize=False, batch_size=10)
    above, below = statistics.ends(1.0, clamp=False)
    for c in range(styles.shape[1]):
        up, down = styles.clone(), styles.clone()
        up[:, c], down[:, c] = above[c], below[c]
        up, down = (small_encode((generator.synthesis(generator.split(s)) + 1) / 2) for s in (up, down))
        assert close(fast[c], (up - down).mean(dim=0) / 2)


def test_stylegan2_gradient_is_the_limit_of_small_steps(tiny):
    generator, styles = tiny
    statistics, directions = channel_statistics(styles), torch.eye(48).double()
    at_mean = statistics.mean[None]
    slope = gradient(generator, small_encode, at_mean, statistics, directions).T
    step = finite_difference(generator, small_encode, at_mean, statistics, step=1e-6, normalize=False)
    assert slope.norm(dim=1).min() > 0
    assert (slope - step).norm() < 1e-4 * slope.norm()


def test_clamp_keeps_to_the_range_seen(styles):
    statistics = channel_statistics(styles)
    seen = []

    class Watched(Toy):
        def synthesis(self, styles, **where):
            seen.append(torch.cat(styles, dim=1))
            return super().synthesis(styles, **where)

    finite_difference(Watched(), linear_encode, styles, statistics, clamp=True)
    assert all(((s >= statistics.low) & (s <= statistics.high)).all() for s in seen)
    seen.clear()
    finite_difference(Watched(), linear_encode, styles, statistics)
    assert torch.cat(seen).max() > statistics.high.max()


def test_channels_that_do_nothing_or_are_not_asked_for_get_zero(styles):
    toy = Toy()
    toy.W[1][:, 0] = 0  # channel 4
    statistics = channel_statistics(styles)
    asked = torch.arange(S) < 6
    table = finite_difference(toy, unit_encode, styles, statistics, channels=asked)
    assert table.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 1, 0, 1, *[0] * 6])


def test_inputs_are_left_alone_and_results_repeat(styles):
    before, statistics, directions = styles.clone(), channel_statistics(styles), seeded(2, D)
    for method in METHODS:
        with torch.no_grad():  # gradients are taken whatever the caller's mode
            once = relevance(Toy(torch.tanh), unit_encode, styles, statistics, directions, method=method)
        again = relevance(Toy(torch.tanh), unit_encode, styles, statistics, directions, method=method)
        assert once.shape == (2, S)
        assert torch.equal(once, again)
        assert not once.requires_grad
    assert torch.equal(styles, before)
    assert not styles.requires_grad


def test_regression_is_cov_over_std():
    styles = seeded(50, S) * torch.arange(S)  # the first channel never changes
    features, directions = seeded(50, D, seed=3), seeded(2, D, seed=4)
    result = regression(styles, features, directions)
    for t, c in ((0, 1), (1, S - 1)):
        pair = torch.stack([styles[:, c], features @ directions[t]])
        assert result[t, c].item() == pytest.approx((pair.cov(correction=0)[0, 1] / styles[:, c].std(correction=0)).item())
    assert result[:, 0].tolist() == [0, 0]


def test_regression_agrees_with_the_gradient_on_independent_channels():
    toy, styles, directions = Toy(), 0.3 * seeded(20000, S), seeded(2, D)
    features = linear_encode((toy.synthesis(toy.split(styles)) + 1) / 2)
    exact = gradient(toy, linear_encode, styles[:8], channel_statistics(styles), directions)
    assert torch.allclose(regression(styles, features, directions), exact, atol=0.05 * exact.abs().max().item())


def test_float32_stays_float32_and_agrees(styles):
    def encode(pictures):
        return torch.nn.functional.normalize(pictures.flatten(1) @ E.to(pictures.dtype).T, dim=1)

    single = Toy()
    single.A, single.W = [a.float() for a in single.A], [w.float() for w in single.W]
    directions = seeded(2, D)
    for method in METHODS:
        exact = relevance(Toy(), encode, styles, channel_statistics(styles), directions, method=method)
        rough = relevance(single, encode, styles.float(), channel_statistics(styles.float()), directions.float(), method=method)
        assert rough.dtype == torch.float32
        assert torch.allclose(rough.double(), exact, atol=1e-4)


def test_arrays_and_mixed_precisions_at_the_door(styles):
    toy, statistics, directions = Toy(torch.tanh), channel_statistics(styles.numpy()), seeded(2, D)
    assert torch.equal(statistics.std, channel_statistics(styles).std)
    for method in METHODS:
        right = relevance(toy, unit_encode, styles, statistics, directions, method=method)
        found = relevance(toy, unit_encode, styles.numpy(), statistics, directions.numpy(), method=method)
        assert torch.equal(found, right)
        rough = relevance(toy, unit_encode, styles, statistics, directions.float(), method=method)
        assert torch.allclose(rough, right, atol=1e-5)
    features = seeded(7, D)
    exact = regression(styles, features, directions)
    assert torch.allclose(regression(styles, features.float(), directions.numpy()), exact, atol=1e-5)
    half = regression(styles.half(), features.half(), directions.half())
    assert half.dtype == torch.float32
    assert torch.allclose(half.double(), exact, atol=0.02)
    assert regression(styles, features, directions[:0]).shape == (0, S)


def test_statistics_of_other_dtypes_do_not_overflow_or_wrap():
    values = torch.tensor([[200, 0], [250, 3], [240, 255]])
    right = channel_statistics(values.double())
    for dtype in (torch.uint8, torch.int64, torch.half, torch.bfloat16, torch.float32):
        found = channel_statistics(values.to(dtype))
        assert found.std.dtype in (torch.float32, torch.float64)
        assert torch.allclose(found.std.double(), right.std, rtol=1e-3)
    many = torch.full((2000, 1), 100.0).half()  # their sum is beyond float16
    assert channel_statistics(many).mean.item() == 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, st: channel_statistics(s[:1]), r"at least 2 samples, got shape \(1, 12\)"),
        (lambda s, st: channel_statistics(s / 0), "not finite"),
        (lambda s, st: finite_difference(Toy(), linear_encode, s[0], st), r"need flat styles \(n, S\)"),
        (lambda s, st: finite_difference(Toy(), linear_encode, s, st, step=0), "step must be a positive number .* got 0"),
        (lambda s, st: finite_difference(Toy(), linear_encode, s, st, batch_size=0), "batch_size"),
        (
            lambda s, st: finite_difference(Toy(), linear_encode, s, st, channels=torch.zeros(S, dtype=bool)),
            r"select at least one, got \(12,\)",
        ),
        (lambda s, st: gradient(Toy(), linear_encode, s, st, E[0]), r"need directions \(t, d\)"),
        (lambda s, st: gradient(Toy(), linear_encode, s, st, seeded(1, D), probes=7), "between 0 and the 6 dimensions .* got 7"),
        (lambda s, st: expected_gradient(Toy(), linear_encode, s[:1], st, seeded(1, D)), "at least 2 samples"),
        (
            lambda s, st: relevance(Toy(), linear_encode, s, st, seeded(1, D), method="magic"),
            "unknown method 'magic'; .*'expected-gradient'",
        ),
        (lambda s, st: regression(s, seeded(3, D), seeded(1, D)), "7 styles and 3 features"),
        (lambda s, st: regression(s, holes(7, D), seeded(1, D)), r"features hold 2 NaN .* at \[0, 1\]"),
        (lambda s, st: regression(holes(7, S), seeded(7, D), seeded(1, D)), r"styles hold 2 NaN .* at \[0, 1\]"),
        (lambda s, st: regression(s, seeded(7, D), holes(2, D)), r"directions hold 2 NaN .* of 12; .* at \[0, 1\]"),
        (lambda s, st: regression(s, seeded(7, D), seeded(2, D + 1)), "directions of length 7 do not fit embeddings of length 6"),
        (lambda s, st: regression(s, seeded(7), seeded(2, D)), r"need features \(n, d\), got shape \(7,\)"),
        (lambda s, st: relevance(Toy(), linear_encode, s, st, E[0], method="finite-difference"), r"need directions \(t, d\)"),
        (
            lambda s, st: finite_difference(Toy(), lambda p: linear_encode(p) / 0, s, st),
            "what encode returned holds .* not finite",
        ),
        (lambda s, st: gradient(Toy(), lambda p: linear_encode(p) / 0, s, st, seeded(1, D)), "what encode returned holds"),
        (
            lambda s, st: gradient(Toy(), lambda p: linear_encode(p).detach(), s, st, seeded(1, D)),
            "no gradient reaches the styles",
        ),
        (
            lambda s, st: gradient(Toy(), lambda p: E, s, st, seeded(1, D)),
            r"encode must return a tensor \(7, d\) .* got \(6, 48\)",
        ),
        (lambda s, st: gradient(Toy(), linear_encode, s, st, holes(2, D)), "directions hold 2 NaN"),
        (lambda s, st: gradient(Toy(), linear_encode, s, st, seeded(1, D), probes=2.0), "probes must be .* got 2.0, a float"),
        (lambda s, st: expected_gradient(Toy(), linear_encode, s, st, seeded(1, D), seed=0.5), "seed must be a whole number"),
        (lambda s, st: expected_gradient(Toy(), linear_encode, s[:, :4], st, seeded(1, D)), "statistics of 12 .* styles of 4"),
        (lambda s, st: finite_difference(Toy(), linear_encode, s, st, batch_size=8.0), "batch_size must be .* got 8.0, a float"),
        (lambda s, st: finite_difference(Toy(), linear_encode, s, st, step=float("nan")), "step must be a positive number"),
        (lambda s, st: finite_difference(Toy(), linear_encode, s, st, channels=torch.ones(S)), r"channels must be \(S,\) bool"),
        (lambda s, st: channel_statistics(holes(3, S)), r"styles hold 2 NaN or infinite values of 36; .* at \[0, 1\]"),
        (lambda s, st: ChannelStatistics(st.mean, st.std / 0, st.low, st.high), "std of the statistics holds"),
        (lambda s, st: ChannelStatistics(st.mean, st.std[:1], st.low, st.high), r"but std is \(1,\)"),
    ],
)
def test_bad_input_is_named(styles, call, message):
    with pytest.raises(ValueError, match=message):
        call(styles, channel_statistics(styles))
