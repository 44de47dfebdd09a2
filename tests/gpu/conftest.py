import os

import pytest
import torch

from debias_utils import load_profile


@pytest.fixture(scope="session")
def device():
    """Where these tests run: the CPU, or what the variable says, as tools/gpu_check.py sets it."""
    return os.environ.get("DEBIAS_UTILS_TEST_DEVICE", "cpu")


@pytest.fixture(autouse=True)
def _single_precision():
    """Without TF32, so that a card computes what a CPU computes."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.fixture(scope="session")
def here():
    """The parts on the CPU."""
    return load_profile("mini", device="cpu")


@pytest.fixture(scope="session")
def there(device):
    """The same parts on the device."""
    return load_profile("mini", device=device)
