import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.debias.gradient import NonFiniteLossError, debias_latent
from debias_utils.debias.losses import Perceptual, clip_loss, identity_loss, perceptual_loss

N, S, D = 6, 10, 4  # images, coordinates of the latent, embedding


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class World:
    """A linear decoder with linear networks: G(s) = 0.5 + W s, CLIP and R linear, F one linear feature map."""

    def __init__(self):
        self.pictures = random(S, 3 * 4 * 4, seed=0) / 50
        self.clip_matrix, self.identity_matrix = random(48, D, seed=1), random(48, D, seed=2)
        self.text = random(N, D, seed=3)
        self.start, self.original = random(N, S, seed=4), random(N, S, seed=5)
        originals = self.decode(self.original, None)
        self.losses = {
            "clip": clip_loss(self, self.text),
            "identity": identity_loss(lambda images: (images.flatten(1) - 0.5) @ self.identity_matrix, originals),
            "perceptual": perceptual_loss(Perceptual(lambda images: [images - 0.5]), originals),
        }

    def decode(self, latent, index):
        return 0.5 + (latent.flatten(1) @ self.pictures).view(-1, 3, 4, 4)

    def encode_image(self, images):
        return torch.nn.functional.normalize((images.flatten(1) - 0.5) @ self.clip_matrix, dim=1)

    def run(self, start=None, decode=None, losses=None, **options):
        options = {"betas": {"clip": 1, "identity": 1, "perceptual": 0.5}, "progress": False, "patience": None, **options}
        start = self.start if start is None else start
        return debias_latent(start, decode or self.decode, losses or self.losses, **options)


@pytest.fixture
def linear():
    return World()


def squares(target):
    """A loss of pictures, for worlds without networks: the squared distance to a grey."""
    return lambda images, index: ((images - target) ** 2).flatten(1).sum(dim=1)


def test_total_is_the_weighted_sum_and_its_gradient_agrees_with_finite_differences(linear):
    betas, index = {"clip": 1.0, "identity": 3.0, "perceptual": 0.5}, torch.arange(N)

    def total(latent):
        return sum(beta * linear.losses[name](linear.decode(latent, index), index) for name, beta in betas.items())

    assert torch.autograd.gradcheck(total, (linear.start.clone().requires_grad_(),))
    result = linear.run(betas=betas, steps=3)
    assert result.traces["total"][0] == pytest.approx(total(linear.start).numpy())
    assert sum(beta * result.traces[name] for name, beta in betas.items()) == pytest.approx(result.traces["total"])


def test_identity_alone_brings_the_person_back(linear):
    result = linear.run(betas={"clip": 0, "identity": 1, "perceptual": 0}, steps=200)
    assert result.loss.max() < 1e-4 < result.traces["identity"][0].min()
    assert result.traces.keys() == {"identity", "total"}


def test_clip_alone_follows_the_text(linear):
    result = linear.run(betas={"clip": 1})
    assert (result.loss < 0.1 * result.traces["clip"][0]).all()


def test_it_is_adam_with_a_schedule(linear):
    """The same numbers from a loop that knows nothing of rows, chunks or best points."""
    latent, steps = linear.start.clone().requires_grad_(), 20
    optimizer, totals, index = torch.optim.Adam([latent], lr=0.1), [], torch.arange(N)
    for step in range(steps):
        images = linear.decode(latent, index)
        each = linear.losses["clip"](images, index) + 2 * linear.losses["perceptual"](images, index)
        totals.append(each.detach().numpy())
        optimizer.zero_grad()
        each.sum().backward()
        t = (step + 1) / (steps + 1)
        fall = (1 - math.cos(math.pi * min(1, (1 - t) / 0.5))) / 2
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, t / 0.2) * fall
        optimizer.step()
    traces = linear.run(betas={"clip": 1, "perceptual": 2}, steps=steps, lr=0.1, warmup=0.2, decay=0.5).traces
    assert traces["total"][:steps] == pytest.approx(np.array(totals), abs=1e-12)


def test_the_first_step_is_one_rate_in_units_of_the_scale(linear):
    scale = torch.linspace(0, 1, S, dtype=torch.float64)
    index = torch.arange(N)
    leaf = linear.start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(linear.losses["identity"](linear.decode(leaf, index), index).sum(), leaf)
    result = linear.run(betas={"identity": 1}, steps=1, lr=1e-3, scale=scale)
    assert result.best_step.tolist() == [1] * N
    assert torch.allclose(result.latent - linear.start, -1e-3 * scale * gradient.sign(), atol=1e-7)
    assert torch.equal(result.latent[:, 0], linear.start[:, 0])


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-4, 100), st.integers(1, 15), st.integers(0, 1000), st.booleans())
def test_never_a_worse_point(lr, steps, seed, impatient):
    linear = World()
    result = linear.run(start=random(N, S, seed=seed), lr=lr, steps=steps, patience=2 if impatient else None)
    total = result.traces["total"]
    assert (result.loss <= total[0]).all()
    assert result.loss == pytest.approx(np.nanmin(total, axis=0), abs=0)
    assert result.loss == pytest.approx(total[result.best_step, np.arange(N)], abs=0)
    images, index = linear.decode(result.latent, None).clamp(0, 1), torch.arange(N)
    again = sum(beta * linear.losses[name](images, index) for name, beta in {"clip": 1, "identity": 1, "perceptual": 0.5}.items())
    assert again.numpy() == pytest.approx(result.loss, abs=1e-12)


def test_a_huge_rate_returns_the_start():
    start = torch.full((2, 3), 0.3, dtype=torch.float64)
    result = debias_latent(start, grey, {"l": squares(0.3)}, betas={"l": 1}, lr=1e6, steps=5, progress=False)
    assert torch.equal(result.latent, start)
    assert result.best_step.tolist() == [0, 0]


@pytest.mark.parametrize("options", [{}, {"patience": 3, "tolerance": 0.2}, {"max_gradient": 0.01}, {"bounds": (-3, 3)}])
def test_a_batch_is_what_the_images_give_one_at_a_time_and_in_chunks(linear, options):
    whole = linear.run(steps=15, **options)
    for chunk_size in (1, 4):
        chunked = linear.run(steps=15, chunk_size=chunk_size, **options)
        assert torch.allclose(whole.latent, chunked.latent, atol=1e-6, rtol=0)
        assert np.allclose(whole.traces["total"], chunked.traces["total"], atol=1e-6, equal_nan=True)
        assert whole.best_step.tolist() == chunked.best_step.tolist()
    if "patience" in options:
        assert len(set(np.isnan(whole.traces["total"]).sum(axis=0))) > 1  # images were stopped at different steps


def test_chunks_bound_what_is_decoded_and_run_one_after_another(linear):
    calls = []

    def decode(latent, index):
        calls.append(index.tolist())
        return linear.decode(latent, index)

    linear.run(decode=decode, steps=2, chunk_size=4)
    assert calls == [[0, 1, 2, 3]] * 3 + [[4, 5]] * 3


def grey(latent, index):
    """Pictures of one grey, the mean of the latent."""
    return latent.flatten(1).mean(dim=1).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_images_that_no_longer_improve_are_stopped_and_no_longer_computed():
    start = torch.tensor([[0.5], [0.1]], dtype=torch.float64)  # the first is where it should be
    rows = []

    def decode(latent, index):
        rows.append(index.tolist())
        return grey(latent, index)

    options = {"betas": {"l": 1}, "steps": 12, "lr": 0.01, "patience": 4, "tolerance": 1e-6, "progress": False}
    result = debias_latent(start, decode, {"l": squares(0.5)}, **options)
    assert rows == [[0, 1]] * 5 + [[1]] * 8
    assert np.isnan(result.traces["l"]).sum(axis=0).tolist() == [8, 0]
    assert result.latent[0].item() == 0.5
    assert result.best_step.tolist() == [0, 12]


def test_patience_counts_from_the_best_point():
    """Coming down from a bump is no improvement."""
    script = iter([5, 3, 9, 8, 7, 6, 5])

    def loss(images, index):
        return next(script) + 0 * images.flatten(1).sum(dim=1)

    result = debias_latent(
        torch.full((1, 1), 0.5), grey, {"l": loss}, betas={"l": 1}, steps=6, patience=3, tolerance=0, progress=False
    )
    assert result.traces["l"][:5, 0].tolist() == [5, 3, 9, 8, 7]
    assert np.isnan(result.traces["l"][5:]).all()
    assert (result.loss.item(), result.best_step.item()) == (3, 1)


def test_a_slow_but_steady_fall_is_not_stopped():
    options = {"betas": {"l": 1}, "steps": 20, "lr": 1e-3, "patience": 5, "progress": False}
    each_step = 0.012 * 2 * 0.4 * 1e-3  # far below the tolerance; over five steps above it
    result = debias_latent(torch.zeros(1, 1).double() + 0.1, grey, {"l": squares(0.5)}, tolerance=20 * each_step, **options)
    assert not np.isnan(result.traces["l"]).any()


def test_a_loss_that_is_switched_off_is_never_called(linear):
    def never(images, index):
        raise AssertionError("called")

    losses = {**linear.losses, "clip": never}
    for betas in ({"clip": 0, "identity": 1}, {"identity": 1}):
        assert linear.run(losses=losses, betas=betas, steps=2).traces.keys() == {"identity", "total"}


@pytest.mark.parametrize("shape", [(7, 5), (3,), (2, 2, 2)])
def test_latents_of_any_shape(shape):
    start = 0.2 + 0.01 * random(3, *shape, seed=0).float()
    result = debias_latent(
        start, grey, {"l": squares(0.6)}, betas={"l": 2}, steps=7, scale=torch.full(shape, 0.1), max_gradient=1, progress=False
    )
    assert result.latent.shape == start.shape
    assert result.latent.dtype == torch.float32
    assert result.loss.shape == result.best_step.shape == (3,)
    assert {name: trace.shape for name, trace in result.traces.items()} == {"l": (8, 3), "total": (8, 3)}
    assert result.traces["total"] == pytest.approx(2 * result.traces["l"])
    assert (result.loss < result.traces["total"][0]).all()
    assert not result.latent.requires_grad


def test_bounds_hold_exactly_and_are_reached(linear):
    seen = []

    def decode(latent, index):
        seen.append(latent.detach().clone())
        return linear.decode(latent, index)

    start = linear.start.clamp(-1, 1)
    start[0, 0] = -1  # at its bound, and of scale 0
    low, high = torch.full((S,), -1.0), start + 0.1  # one for all images, one for each
    scale = torch.linspace(0, 3, S)
    result = linear.run(start=start, decode=decode, bounds=(low, high), scale=scale, steps=30, lr=0.3)
    for latent in [*seen, result.latent]:
        assert (latent >= low).all()
        assert (latent <= high).all()
    assert (seen[-1] == high).any()
    assert (result.loss < result.traces["total"][0]).all()
    linear.run(start=result.latent, bounds=(low, high), steps=1)  # a result is a valid start


def test_bounds_are_a_clamp_after_each_step_of_adam(linear):
    latent, losses, index = linear.start.clone().requires_grad_(), [], torch.arange(N)
    low, high = linear.start - 0.15, linear.start + 0.15
    optimizer = torch.optim.Adam([latent], lr=0.1)
    for _ in range(12):
        loss = linear.losses["identity"](linear.decode(latent, index), index)
        losses.append(loss.detach().numpy())
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        with torch.no_grad():
            latent.clamp_(low, high)
    options = {"betas": {"identity": 1}, "steps": 12, "warmup": 0, "decay": 0, "bounds": (low, high)}
    assert linear.run(lr=0.1, **options).traces["identity"][:12] == pytest.approx(np.array(losses), abs=1e-12)
    assert linear.run(lr=0.2, scale=0.5, **options).traces["identity"][:12] == pytest.approx(np.array(losses), abs=1e-6)


def test_pixels_beyond_white_come_back():
    """The picture is clamped before the loss sees it, and still has the gradient that leads back."""
    start = torch.tensor([[1.3], [-0.3]], dtype=torch.float64)
    result = debias_latent(start, grey, {"l": squares(0.5)}, betas={"l": 1}, lr=0.05, patience=None, progress=False)
    assert result.traces["l"][0] == pytest.approx([12 * 0.25, 12 * 0.25])
    assert result.loss.max() < 1e-3
    away = debias_latent(start, grey, {"l": lambda i, _: -squares(0.5)(i, _)}, betas={"l": 1}, steps=5, progress=False)
    assert torch.equal(away.latent, start)  # nothing is won by more than white


def test_gradient_clipping_tames_a_spike():
    def loss(images, index):  # the first image's gradient is 1e6 times the second's at the start
        x = images.flatten(1).mean(dim=1)
        return torch.where(x > 0.45, 1e6 * (x - 0.45), 0) + (x - 0.1) ** 2

    start = torch.full((1, 1), 0.46, dtype=torch.float64)
    options = {"betas": {"l": 1}, "steps": 40, "lr": 0.02, "patience": None, "progress": False}
    free = debias_latent(start, grey, {"l": loss}, **options).loss
    clipped = debias_latent(start, grey, {"l": loss}, max_gradient=0.1, **options).loss
    assert clipped[0] < 0.5 * free[0]


def nan_after(calls, row):
    """A loss that turns NaN for one row from a certain call on."""
    count = 0

    def loss(images, index):
        nonlocal count
        count += 1
        broken = (index == row) & (count > calls)
        return squares(0.5)(images, index) + torch.where(broken, torch.nan, 0.0)

    return loss


def test_nan_in_a_loss_stops_at_once_and_keeps_the_last_good_latents():
    start, calls = torch.full((4, 2), 0.2, dtype=torch.float64), []
    losses = {"fine": squares(0.4), "rotten": nan_after(3, row=1)}

    def decode(latent, index):
        calls.append(latent.detach().clone())
        return grey(latent, index)

    with pytest.raises(NonFiniteLossError, match=r"loss 'rotten': NaN or infinity after 3 steps in images \[1\]") as caught:
        debias_latent(start, decode, losses, betas={"fine": 1, "rotten": 1}, lr=0.01, chunk_size=2, progress=False)
    error = caught.value
    assert (error.source, error.step, error.rows) == ("loss 'rotten'", 3, [1])
    assert len(calls) == 4
    assert error.result.best_step.tolist() == [3, 2, 0, 0]
    assert torch.equal(error.result.latent[:2], torch.stack([calls[3][0], calls[2][1]]))
    assert torch.equal(error.result.latent[2:], start[2:])  # the second chunk had not begun
    assert np.isnan(error.result.loss).tolist() == [False, False, True, True]


def test_nan_in_the_pictures_or_the_gradient_is_named():
    start = torch.full((2, 2), 0.2, dtype=torch.float64)

    def decode(latent, index):  # NaN above 0.25
        return grey(latent + (0.25 - latent).sqrt() * 0, index)

    options = {"betas": {"l": 1}, "lr": 0.02, "warmup": 0, "progress": False}

    def loss(images, index):  # falls with the latent; a black picture in place of the NaN would be the best of all
        assert images.isfinite().all()  # networks may refuse anything else
        return -((images - 0.15) ** 2).flatten(1).sum(dim=1)

    with pytest.raises(NonFiniteLossError, match=r"pictures: NaN or infinity after 3 steps in images \[0, 1\]") as caught:
        debias_latent(start, decode, {"l": loss}, **options)
    result = caught.value.result
    assert grey(result.latent, None).isfinite().all()
    assert result.best_step.tolist() == [2, 2]
    assert np.isnan(result.traces["l"][3:]).all()
    root = {"l": lambda images, index: (images - 0.2).flatten(1).norm(dim=1) + (images[:, 0, 0, 0] - 0.2).abs().sqrt()}
    with pytest.raises(NonFiniteLossError, match="gradient: NaN or infinity after 0 steps"):
        debias_latent(start, grey, root, **options)


def test_frozen_networks_get_no_gradient_and_the_start_is_not_changed(linear):
    linear.pictures.requires_grad_()
    before = linear.start.clone()
    with torch.no_grad():  # a caller's no_grad does not switch it off
        result = linear.run(steps=3)
    assert linear.pictures.grad is None
    assert torch.equal(linear.start, before)
    assert (result.best_step > 0).all()


def test_on_a_real_clip(clip, world):
    """A free picture as the latent: CLIP sees more of a nurse, and the picture stays near."""
    _, images = world
    originals = images[:3]
    text = clip.encode_text(["a nurse"])[0]
    losses = {"clip": clip_loss(clip, text), "perceptual": perceptual_loss(Perceptual(lambda x: [x]), originals)}
    result = debias_latent(
        originals, lambda x, _: x, losses, betas={"clip": 1, "perceptual": 5}, steps=4, lr=0.01, progress=False
    )
    assert (result.traces["clip"][result.best_step, np.arange(3)] < result.traces["clip"][0] - 0.05).all()


def test_latents_may_be_an_array_and_losses_of_several_precisions(linear):
    index = torch.arange(N)
    expected = linear.run(steps=3)
    assert torch.equal(linear.run(start=linear.start.numpy(), steps=3).latent, expected.latent)
    losses = {"a": linear.losses["clip"], "b": lambda images, index: linear.losses["perceptual"](images, index).half()}
    total = linear.run(losses=losses, betas={"a": 1, "b": 3}, steps=1).traces["total"][0]
    images = linear.decode(linear.start, index).clamp(0, 1)
    right = linear.losses["clip"](images, index) + 3 * linear.losses["perceptual"](images, index)
    assert total == pytest.approx(right.numpy(), rel=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": {"lpips": 1}}, "unknown loss in betas 'lpips'; choose one of: 'clip', 'identity', 'perceptual'"),
        ({"betas": {"clip": -1}}, "beta of 'clip' must be finite and not negative, got -1"),
        ({"betas": {"clip": math.nan}}, "got nan"),
        ({"betas": {"clip": 0}}, "every loss is switched off"),
        ({"betas": {}}, "every loss is switched off"),
        ({"losses": {"total": squares(0)}, "betas": {"total": 1}}, "cannot be called 'total'"),
        ({"start": torch.full((N, S), math.inf)}, r"latent holds NaN or infinity in rows \[0, 1, 2, 3, 4, 5\]"),
        ({"start": torch.zeros(0, S)}, r"at least one latent, \(n, ...\) floats, got \(0, 10\)"),
        ({"start": torch.zeros(N, S, dtype=torch.int64)}, "torch.int64"),
        ({"start": torch.zeros(N - 1, S).double()}, "loss 'clip' was made for 6 rows, but there are 5 latents"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"chunk_size": 0}, "chunk_size must be"),
        ({"patience": 0}, "patience must be"),
        ({"tolerance": -1.0}, "tolerance must be at least 0, got -1.0"),
        ({"lr": math.inf}, "lr must be a positive number, got inf"),
        ({"max_gradient": 0}, "max_gradient must be a positive number, got 0"),
        ({"warmup": 2}, r"warmup must lie in \[0, 1\], got 2"),
        ({"decay": -1}, "decay must lie"),
        ({"scale": torch.ones(3)}, r"scale of shape \(3,\) does not broadcast to latents \(6, 10\)"),
        ({"scale": -1}, "scale must be finite and not negative"),
        ({"scale": torch.tensor([1.0] * 9 + [math.nan])}, r"scale must be finite.* the first that is not is at \[0, 9\]"),
        ({"bounds": (math.nan, 1)}, r"bounds hold 60 NaN.* the first at \[0, 0\]"),
        ({"bounds": 3.0}, r"bounds must be a pair \(low, high\) or None, got float"),
        ({"steps": 20.0}, "steps must be a whole number of at least 1, got 20.0, a float"),
        ({"patience": 2.0}, "patience must be a whole number .* got 2.0, a float"),
        ({"chunk_size": "all"}, "chunk_size must be a whole number of at least 1, got 'all', a str"),
        ({"lr": "0.1"}, "lr must be a positive number, got '0.1'"),
        ({"lr": math.nan}, "lr must be a positive number, got nan"),
        ({"tolerance": math.inf}, "tolerance must be at least 0, got inf"),
        ({"warmup": "short"}, r"warmup must be a number in \[0, 1\], got 'short'"),
        ({"betas": {"clip": "1"}}, "beta of 'clip' must be finite and not negative, got '1'"),
        ({"betas": [1, 1, 1]}, "betas must be a dictionary by the names of the losses, got list"),
        ({"start": random(N, S, seed=0).where(torch.arange(S) != 3, math.nan)[:2]}, r"rows \[0, 1\], 2 of 20 values"),
        ({"decode": lambda s, i: np.zeros((N, 3, 4, 4))}, "decode must return pictures as a tensor, got ndarray"),
        ({"losses": {"clip": lambda images, i: 0.5}, "betas": {"clip": 1}}, "each of 6 pictures, got float"),
        ({"bounds": (0, 1)}, r"the start lies outside the bounds in rows \[0, 1, 2, 3, 4, 5\]"),
        ({"decode": lambda s, i: torch.zeros(1, 3, 4, 4)}, r"decode must return \(6, 3, h, w\) .* got \(1, 3, 4, 4\)"),
        ({"decode": lambda s, i: torch.zeros(N, 3, 4, 4).double()}, "no gradient reaches the latent"),
        ({"decode": lambda s, i: 2 * grey(s, i) - 1}, r"pictures in \[0, 1\], but 83% of the values lie beyond"),
        ({"losses": {"clip": lambda images, i: images.sum()}, "betas": {"clip": 1}}, r"each of 6 pictures, got shape \(\)"),
    ],
)
def test_bad_input(linear, change, message):
    with pytest.raises(ValueError, match=message):
        linear.run(**change)


def test_latents_in_any_form(linear):
    wanted = linear.run(start=np.zeros((N, S)), steps=2).latent
    table = [[0.0] * S] * N
    for start in (
        table,
        [[0] * S] * N,  # whole numbers
        np.zeros((N, S), np.longdouble),
        np.zeros((N, S), ">f8"),
        np.zeros((N, S), object),
        [torch.zeros(S, dtype=torch.float64, requires_grad=True) for _ in range(N)],
        np.ma.masked_array(np.zeros((N, S)), mask=False),
    ):
        assert torch.equal(linear.run(start=start, steps=2).latent, wanted)
    masked = np.ma.masked_array(np.zeros((N, S)), mask=np.arange(N)[:, None] + np.zeros(S) == 2)
    for start, message in (
        ([[0.0, None, *[0.0] * (S - 2)]] * N, r"latent holds NaN or infinity in rows \[0, 1, 2, 3, 4, 5\], 6 of 60 values"),
        (masked, r"latent holds NaN or infinity in rows \[2\], 10 of 60 values"),
        ([["a"] * S] * N, "latent must hold real numbers, got list of <U1"),
    ):
        with pytest.raises(ValueError, match=message):
            linear.run(start=start, steps=2)
