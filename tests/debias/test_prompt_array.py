import numpy as np
import pytest
import torch
from tiny_clip import tiny_model

from debias_utils.debias.prompt_array import PLACES, encode_with_tokens, start_tokens, with_tokens


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "prompt_array" / "prompt_array.npz")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_official_features_positions_and_gradients(official, model, place, n):
    case, ids = f"{place}/n{n}", torch.from_numpy(official["tokens"])
    learned = torch.tensor(official[f"{case}/debias_tokens"] if n else np.zeros((0, 32), np.float32), requires_grad=True)
    entered, read = with_tokens(model, ids, learned, place=place)
    features = encode_with_tokens(model, ids, learned, place=place)
    assert features.detach().numpy() == pytest.approx(official[f"{case}/text_features"], abs=2e-5)
    assert read.tolist() == official[f"{case}/read_position"].tolist()
    if n:
        (features * torch.from_numpy(official["grad_weights"])).sum().backward()
        assert learned.grad.numpy() == pytest.approx(official[f"{case}/grad_debias_tokens"], abs=1e-4)
    if n == 2 and place != "add":
        first = entered.detach().numpy()[[0, 4], :12]
        assert first == pytest.approx(official[f"{case}/transformer_input_rows01"], abs=2e-5)


def test_no_tokens_are_the_plain_tower(official, model):
    ids = torch.from_numpy(official["tokens"])
    found = encode_with_tokens(model, ids, start_tokens(model, 0))
    assert found.numpy() == pytest.approx(official["plain_encode_text"], abs=2e-5)


def test_they_start_as_token_0(official, model):
    assert np.array_equal(start_tokens(model, 2), official["clip/token_embedding.weight"][[0, 0]])


def test_a_packaged_clip_in_its_own_length(clip):
    texts = ["a photo of a nurse", "she is an old pilot"]
    found = encode_with_tokens(clip.model, clip.tokenize(texts), start_tokens(clip.model, 0))
    assert torch.nn.functional.normalize(found, dim=1).numpy() == pytest.approx(clip.encode_text(texts).numpy(), abs=1e-6)


def test_another_kind_of_tower_is_refused(model):
    with pytest.raises(ValueError, match="end token"):
        start_tokens(torch.nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match="choose one of"):
        with_tokens(model, torch.zeros(1, 77, dtype=torch.long), torch.zeros(1, 32), place="behind")
