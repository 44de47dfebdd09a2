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
        (lambda d, r, s: (d, r, 0 * s), "std is 0"),
    ],
)
def test_bad_input_is_named(parts, change, message):
    d, protected, std = change(*parts)
    with pytest.raises(ValueError, match=message):
        orthogonalise(d, protected, std=std)
