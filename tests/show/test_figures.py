"""Pictures of models as pictures of a page."""

import numpy as np
import pytest
import torch

from debias_utils.show import to_pixels


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool])
def test_pictures_of_any_precision_become_pixels(dtype):
    images = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).view(1, 3, 1, 2).to(dtype)
    assert to_pixels(images).tolist() == [[[[0, 255, 255], [255, 0, 255]]]]
    assert to_pixels(images).dtype == np.uint8
    assert to_pixels(list(images)).shape == (1, 1, 2, 3)
    assert to_pixels(images[:0]).shape == (0, 1, 2, 3)


def test_rounding_and_a_little_overshoot():
    images = torch.tensor([-0.09, 0.5, 1.09]).view(3, 1, 1).requires_grad_()
    assert to_pixels(images).tolist() == [[[0, 128, 255]]]
    assert to_pixels(images.detach().numpy()).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((1, 3, 2, 2), 255, np.uint8), r"pictures must lie in \[0, 1\], got values from 255 to 255"),
        (torch.linspace(-1, 1, 12).view(3, 2, 2), "got values from -1 to 1"),
        (torch.full((1, 3, 2, 2), torch.inf), "got values from inf"),
        (torch.full((1, 3, 2, 2), torch.nan), "pictures hold 12 NaN"),
        (np.zeros((2, 2, 3)), r"need pictures \(..., 3, h, w\), got \(2, 2, 3\)"),
        (np.zeros((3, 3)), r"got \(3, 3\)"),
    ],
)
def test_what_is_no_picture(images, message):
    with pytest.raises(ValueError, match=message):
        to_pixels(images)
