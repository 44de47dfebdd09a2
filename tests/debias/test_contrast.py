import numpy as np
import pytest
import torch

from debias_utils.debias import multi_positive_loss

CASES = [(world, tau) for world in ("balanced", "uneven_with_singletons") for tau in ("0.1", "0.07", "0.5")]


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "multi_positive" / "multi_positive.npz")


@pytest.mark.parametrize(("precision", "dtype", "atol"), [("f32", torch.float32, 1e-5), ("f64", torch.float64, 2e-7)])
@pytest.mark.parametrize(("world", "tau"), [*CASES, ("identical_siblings", "0.02")])
def test_official_losses_and_gradients(official, world, tau, precision, dtype, atol):
    x = torch.tensor(official[f"{world}/features_raw"], dtype=dtype, requires_grad=True)
    loss = multi_positive_loss(x, official[f"{world}/labels"], temperature=float(tau))
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(official[f"{world}/tau{tau}/{precision}/loss"].item(), abs=atol)
    assert gradient.numpy() == pytest.approx(official[f"{world}/tau{tau}/{precision}/grad_features_raw"], abs=1e-6)


def test_identical_siblings_reach_the_least():
    x = np.eye(3, 5).repeat(4, axis=0)
    assert multi_positive_loss(x, [*"aaaabbbbcccc"], temperature=0.01).item() == pytest.approx(np.log(3))


def test_other_labels_for_a_batch_of_the_same_size_are_heard(official):
    x = official["balanced/features_raw"]
    first, second = (official[f"stale_mask/{name}_labels"] for name in ("first", "second"))
    assert multi_positive_loss(x, first, temperature=0.1) != multi_positive_loss(x, second, temperature=0.1)


@pytest.mark.parametrize(
    ("x", "labels", "tau", "said"),
    [
        (np.eye(3), [1, 2, 3], 0.1, "no item has another"),
        (np.eye(3), [1, 1], 0.1, "one label for each row"),
        (np.eye(3), [1, 1, None], 0.1, "missing"),
        (np.zeros((3, 2)), [1, 1, 2], 0.1, "length 0"),
        (np.full((3, 2), np.nan), [1, 1, 2], 0.1, "NaN"),
        (np.eye(3), [1, 1, 2], 0, "above 0"),
        (np.eye(1), [1], 0.1, "at least 2"),
    ],
)
def test_bad_input(x, labels, tau, said):
    with pytest.raises(ValueError, match=said):
        multi_positive_loss(x, labels, temperature=tau)
