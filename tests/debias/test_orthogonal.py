import numpy as np
import pytest
import torch

from debias_utils.debias.orthogonal import orthogonalise

S, P = 30, 3


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def parts():
    d = seeded(S)
    d[::3] = 0
    return d, seeded(P, S, seed=1), seeded(S, seed=2).abs() + 0.1


def test_protected_scores_do_not_change_and_no_other_channel_moves(parts):
    d, protected, std = parts
    clean = orthogonalise(d, protected, std=std)
    assert torch.allclose(protected @ (clean / std), torch.zeros(P).double(), atol=1e-12)
    assert (protected @ (d / std)).abs().min() > 0.1
    assert (clean[d == 0] == 0).all()
    assert torch.allclose(orthogonalise(clean, protected, std=std), clean)


def test_it_is_the_closest_edit_in_standard_deviations(parts):
    d, protected, std = parts
    clean = orthogonalise(d, protected, std=std)
    moved = d != 0
    # the same by constrained least squares: min |u' - u|^2 with R u' = 0, through its optimality conditions
    R, u = protected[:, moved], (d / std)[moved]
    k = len(u)
    system = torch.zeros(k + P, k + P).double()
    system[:k, :k], system[:k, k:], system[k:, :k] = torch.eye(k), R.T, R
    solved = torch.linalg.solve(system, torch.cat([u, torch.zeros(P).double()]))[:k]
    assert torch.allclose((clean / std)[moved], solved)


def test_only_the_span_of_the_protected_rows_matters(parts):
    d, protected, std = parts
    clean = orthogonalise(d, protected, std=std)
    mixed = torch.tensor([[2.0, 1, 0], [0, -1, 5], [1, 1, 1]]).double() @ protected
    assert torch.allclose(orthogonalise(d, mixed, std=std), clean)
    twice = torch.cat([protected, protected[:1] * 100 + 1e-9 * seeded(1, S, seed=5)])
    assert torch.allclose(orthogonalise(d, twice, std=std), clean)


def test_a_linear_score_stays_exactly(parts):
    d, protected, std = parts
    styles, alpha = seeded(5, S, seed=3), 7.0
    score = protected / std  # gradient of a linear score; its relevance per standard deviation is `protected`
    after = (styles + alpha * orthogonalise(d, protected, std=std)) @ score.T
    assert torch.allclose(after, styles @ score.T)


def test_nothing_to_protect_changes_nothing(parts):
    d, protected, std = parts
    assert torch.allclose(orthogonalise(d, protected[:0], std=std), d)
    assert torch.allclose(orthogonalise(d, 0 * protected, std=std), d)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, r, s: (s * r[0] * (d != 0), r, s), "nothing is left of the edit: its 20 channels .* 3 protected"),
        (lambda d, r, s: (torch.where(torch.arange(S) < 3, d, 0.0), r, s), "its 2 channels are spanned by 2"),
        (lambda d, r, s: (d, r[0], s), r"protected \(p, S\)"),
        (lambda d, r, s: (d, r, 0 * s), "moves 20 channels whose std is 0 or negative, the first: "),
        (lambda d, r, s: (0 * d, r, s), "moves no channel"),
        (lambda d, r, s: (d, r, s[:1]), r"std \(S,\), got"),
        (lambda d, r, s: (d / 0, r, s), "direction holds"),
        (lambda d, r, s: (d, r.where(torch.arange(S) != 2, torch.nan), s), rf"protected holds {P} NaN .* at \[0, 2\]"),
        (lambda d, r, s: (d, r, s.where(torch.arange(S) != 3, torch.inf)), r"std holds 1 NaN .* at \[3\]"),
        (lambda d, r, s: (d, "gender", s), "protected must hold real numbers, got str"),
    ],
)
def test_bad_input_is_named(parts, change, message):
    d, protected, std = change(*parts)
    with pytest.raises(ValueError, match=message):
        orthogonalise(d, protected, std=std)


@pytest.mark.parametrize("tolerance", [-1, 1.0, float("nan"), "small"])
def test_bad_tolerance(parts, tolerance):
    d, protected, std = parts
    with pytest.raises(ValueError, match=r"tolerance must lie in \[0, 1\)"):
        orthogonalise(d, protected, std=std, tolerance=tolerance)


def test_arrays_and_other_precisions(parts):
    """Half precision has no SVD, and float32 texts meet float64 statistics."""
    d, protected, std = parts
    clean = orthogonalise(d, protected, std=std)
    array = orthogonalise(d.numpy(), protected.numpy(), std=std)
    assert isinstance(array, np.ndarray)
    assert torch.allclose(torch.tensor(array), clean)
    for dtype in (torch.float32, torch.bfloat16, torch.half):
        rough = orthogonalise(d.to(dtype), protected, std=std.float())
        assert rough.dtype == dtype
        assert torch.allclose(rough.double(), clean, atol=0.05 * float(clean.abs().max()))
