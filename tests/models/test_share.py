import numpy as np
import pytest
import torch

from debias_utils.models.share import share_work
from debias_utils.models.stylegan2 import Generator


@pytest.fixture(scope="module")
def generator():
    return Generator(z_dim=5, w_dim=4, mapping_layers=2, resolution=8, channels=(4, 3), seed=2).requires_grad_(False)


@pytest.fixture(scope="module")
def ws(generator):
    return generator.mapping(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("copies", [4, [3, 1, 2, 5]])
def test_the_pictures_stay_and_the_given_generator_too(generator, ws, copies):
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    shared = share_work(generator, range(4), copies)
    assert torch.allclose(shared.synthesis(shared.styles(ws)), generator.synthesis(generator.styles(ws)), atol=1e-5)
    assert shared.style_sizes == [sum([4] * 4 if copies == 4 else copies), *generator.style_sizes[1:]]
    assert shared.synthesis.style_sizes == shared.style_sizes
    assert generator.style_sizes[0] == 4
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_one_of_several_moves_the_picture_by_its_part(generator, ws):
    shared, styles = share_work(generator, range(4), [1, 4, 1, 1]), generator.styles(ws)
    part, whole = shared.styles(ws), [styles[0].clone(), *styles[1:]]
    part[0][:, 1] += 1e-2  # one of the four that do the work of channel 1
    whole[0][:, 1] += 1e-2 / 4
    before = generator.synthesis(styles)
    moved = generator.synthesis(whole) - before
    assert moved.abs().max() > 1e-4
    assert torch.allclose(shared.synthesis(part) - before, moved, atol=0.02 * float(moved.abs().max()))


def test_shared_work_can_be_shared_out_again(generator):
    shared = share_work(generator, range(4), [3, 1, 2, 1])
    again = share_work(shared, [0, 0, 0, 1, 2, 2, 3], 1)
    for name, value in again.state_dict().items():
        assert torch.allclose(value, generator.state_dict()[name], atol=1e-6), name


def test_it_is_a_stylegan2_that_loads(generator, ws):
    shared = share_work(generator, range(4), 2)
    again = Generator.from_state_dict(shared.state_dict())
    assert torch.equal(again.synthesis(again.styles(ws)), shared.synthesis(shared.styles(ws)))


@pytest.mark.parametrize(
    ("work", "copies", "message"),
    [
        (range(3), 2, "one for each of 4 channels; got 3"),
        ([0, 1, 2, 4], 2, "work must be numbers 0, 1, ... without a gap"),
        (range(4), 2.5, "work and copies must be whole numbers"),
        (range(4), [1, 2.0, 3, 4], "work and copies must be whole numbers"),
        (range(4), 0, "copies must be whole numbers of at least 1, one for each of 4 works, got 0"),
        (range(4), [1, 2], r"one for each of 4 works, got \[1, 2\]"),
    ],
)
def test_bad_shares_are_named(generator, work, copies, message):
    with pytest.raises(ValueError, match=message):
        share_work(generator, work, copies)


def test_numbers_of_numpy_and_torch_are_numbers(generator):
    expected = share_work(generator, range(4), [3, 1, 2, 1]).state_dict()
    for copies in (np.array([3, 1, 2, 1]), torch.tensor([3, 1, 2, 1])):
        found = share_work(generator, torch.arange(4), copies).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert share_work(generator, np.arange(4), np.int64(2)).style_sizes[0] == 8
