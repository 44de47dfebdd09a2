import numpy as np
import pytest
import torch
from tiny_clip import tiny_clip

from debias_utils.debiasers.prompt_array import PromptArray, contrastive_loss, kept_similarities
from debias_utils.debiasers.training import perceptron

PROMPTS = ["a photo of a nurse", "a photo of a plumber", "a photo of a pilot"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    queries = np.linalg.qr(rng.standard_normal((24, 24)))[0][:3]
    groups = rng.integers(0, 2, 120)
    images = queries[rng.integers(0, 3, 120)] + 0.1 * rng.standard_normal((120, 24)) + 0.3 * np.outer(2 * groups - 1, queries[0])
    return {"images": images, "groups": groups, "tower": tiny_clip(PROMPTS, queries), "prompts": PROMPTS}


def test_what_it_returns_is_the_tower_with_its_tokens(data):
    from debias_utils.debias.prompt_array import encode_with_tokens

    model = PromptArray(epochs=3).fit(**data)
    tower = data["tower"]
    x = tower.encode_text(PROMPTS)
    expected = encode_with_tokens(tower.model, tower.tokenize(PROMPTS), torch.from_numpy(model.tokens_))
    found = model.transform_text(x, tower=tower, prompts=PROMPTS)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1), atol=1e-5, rtol=0)
    assert not torch.allclose(found, x, atol=1e-3)


def test_the_published_loss_reads_captions(data):
    captions = [f"{PROMPTS[i % 3]} number {i % 7}" for i in range(120)]
    tokens = [
        PromptArray(keep="contrastive", epochs=2).fit(**data, caption_texts=texts).tokens_ for texts in (captions, captions[::-1])
    ]
    assert not np.allclose(*tokens)
    with pytest.raises(ValueError, match="caption_texts"):
        PromptArray(keep="contrastive").fit(**data)


def test_losses_by_hand():
    x = torch.eye(3)
    assert kept_similarities(x, x, x, scale=5.0).item() == 0
    p, q = (torch.tensor(rows, dtype=torch.float64).softmax(dim=1) for rows in (3 * np.eye(3), 3 * np.eye(3)[[1, 0, 2]]))
    expected = (p * (p / q).log()).sum(dim=1).mean().item()  # of the old from the new
    assert kept_similarities(x, x[[1, 0, 2]], x, scale=3.0).item() == pytest.approx(expected, rel=1e-5)
    assert contrastive_loss(x, x, scale=2.0).item() == pytest.approx(np.log(1 + 2 * np.exp(-2)), rel=1e-5)


@pytest.mark.parametrize("kind", ["gender", "race"])
def test_official_adversary(fixtures, kind):
    official = np.load(fixtures / "prompt_array" / "prompt_array.npz")
    state = {
        k.split("network.")[1]: torch.tensor(official[k]) for k in official.files if k.startswith(f"adversary_{kind}/network")
    }
    sizes = [state["0.weight"].shape[1], *(len(state[f"{i}.bias"]) for i in (0, 2, 4, 6))]
    network = perceptron(sizes, 0, "cpu")
    network.load_state_dict(state)
    x = torch.tensor(official[f"adversary_{kind}/input"], requires_grad=True)
    out = network(x).sigmoid()
    out.sum().backward()
    assert out.detach().numpy() == pytest.approx(official[f"adversary_{kind}/output"], abs=1e-6)
    assert x.grad.numpy() == pytest.approx(official[f"adversary_{kind}/grad_input_of_sum"], abs=1e-4)


def test_bad_input(data):
    model = PromptArray(epochs=1).fit(**data)
    tower = data["tower"]
    x = tower.encode_text(PROMPTS)
    for given, said in (
        ({}, "needs tower"),
        ({"tower": tower, "prompts": PROMPTS[:2]}, "prompts for each row"),
        ({"tower": tower, "prompts": PROMPTS[::-1]}, "not the embedding of"),
        ({"tower": tiny_clip(PROMPTS, np.eye(3, 24)), "prompts": PROMPTS}, "another CLIP"),
        ({"tower": "clip", "prompts": PROMPTS}, "Clip"),
        ({"tower": tower, "prompts": ["word " * 75] * 3}, "leaves room for"),
    ):
        with pytest.raises(ValueError, match=said):
            model.transform_text(x, **given)
    for wrong in ({"place": "behind"}, {"keep": "nothing"}, {"n_tokens": 0}, {"weight": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PromptArray(**wrong).fit(**data)
