import numpy as np
import pytest

from debias_utils.debias import token_projection


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "generative_tokens" / "generative_tokens.npz")


def test_official_projection_and_conditioning(official):
    p = token_projection(official["candidate_normalised"][official["pairs_S"]], strength=float(official["lam"]))
    assert p == pytest.approx(official["P"], abs=1e-5)
    after = np.concatenate([official["uncond_tokens"], official["prompt_tokens_before"] @ p.T])  # the unconditional come first
    assert after == pytest.approx(official["conditioning_after"], abs=2e-5)


def test_pairs_come_together_and_nothing_else_moves():
    pairs = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    p = token_projection(pairs, strength=3.0)
    assert p == pytest.approx(p.T)
    assert p @ [1, -1, 0] == pytest.approx(np.array([1, -1, 0]) / (1 + 3 * 2))  # M has the eigenvalue |z_i - z_j|^2
    assert p @ [1, 1, 5] == pytest.approx([1, 1, 5])
    assert token_projection(pairs, strength=0) == pytest.approx(np.eye(3))


@pytest.mark.parametrize(
    ("pairs", "strength", "said"),
    [(np.ones((2, 3, 4)), 1, "2, d"), (np.full((1, 2, 3), np.nan), 1, "NaN"), (np.ones((1, 2, 3)), -1, "at least 0")],
)
def test_bad_input(pairs, strength, said):
    with pytest.raises(ValueError, match=said):
        token_projection(pairs, strength=strength)
