import numpy as np
import pytest
import torch

from debias_utils.debiasers.dear import DeAR, additive_residual, residual_loss
from debias_utils.debiasers.training import fooling_loss


def world(seed, n=600, d=12):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 2, n)
    x = 0.4 * rng.standard_normal((n, d)) + np.eye(d)[1]
    x[:, 0] = 2.0 * groups - 1 + 0.2 * rng.standard_normal(n)
    return x / np.linalg.norm(x, axis=1, keepdims=True), groups


def test_the_classes_of_other_people_come_closer():
    (x, groups), (new, truth) = world(0), world(1)
    model = DeAR(lr=1e-3, epochs=40, batch_size=100, hidden=32, reconstruction=0.3).fit(images=x, groups=groups)
    after = model.transform_image(new)
    gap_before, gap_after = (np.linalg.norm(f[truth == 1].mean(axis=0) - f[truth == 0].mean(axis=0)) for f in (new, after))
    assert gap_after < 0.8 * gap_before
    assert model.transform_text(new) == pytest.approx(new)


def test_no_residual_is_the_identity_and_the_formula():
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(additive_residual(x, torch.zeros(3, 3), torch.zeros(3)), x)
    w, b = torch.arange(9.0).reshape(3, 3), torch.ones(3)
    assert torch.equal(additive_residual(x, w, b), x + x @ w.T + 1)


def test_losses_by_hand():
    labels, weights = torch.tensor([0, 1]), torch.tensor([1.0, 1.0])
    sure = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    right = float(torch.log1p(torch.exp(torch.tensor(-2.0))))
    assert fooling_loss(sure, labels, weights, against="cross-entropy").item() == pytest.approx(-right)
    assert fooling_loss(sure, labels, weights, against="uniform").item() == pytest.approx(right + 1)
    assert fooling_loss(0 * sure, labels, weights, against="uniform").item() == pytest.approx(np.log(2))
    x = torch.zeros(2, 3)
    total = residual_loss(x, x + 1, 0 * sure, labels, weights, reconstruction=2.0, against="uniform")
    assert total.item() == pytest.approx(2 * 3 + np.log(2))


@pytest.mark.parametrize(
    "wrong", [{"against": "entropy"}, {"lr": 0}, {"epochs": 1.5}, {"reconstruction": float("nan")}, {"seed": -1}]
)
def test_a_setting_out_of_range_is_refused(wrong):
    x, groups = world(0, n=20)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeAR(**wrong).fit(images=x, groups=groups)
