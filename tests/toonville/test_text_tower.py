import pytest
import torch

from debias_utils import assets
from debias_utils.models.clip import Clip
from debias_utils.toonville import captions, people
from debias_utils.toonville.instructions import pairs
from debias_utils.toonville.text_tower import text_tower


@pytest.fixture(scope="module", params=["toonville-rn-rho0.9-seed0", "toonville-rn-rho0-seed0"])
def towers(request):
    return Clip.load(request.param), *text_tower(assets.WEIGHTS / request.param, assets.WEIGHTS / "toonville-bpe.txt.gz")


@pytest.fixture(scope="module")
def texts():
    world = people.sample(1_500, rho=0.9, everyday=0.45, seed=100)
    return sorted(
        {*captions.caption(world, seed=0), *pairs(500, seed=0).texts, "", "A Photo of a Nurse!", "they're 20 years old"}
    )


def through_end(x, ids, end):
    """x with zeros behind the first end token."""
    first = (ids == end).int().argmax(dim=1, keepdim=True)
    keep = torch.arange(ids.shape[1]) <= first
    return x * (keep if x.ndim == 2 else keep[..., None])


def test_token_ids_are_those_of_open_clip(towers, texts):
    clip, _, tokenizer = towers
    ours = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    theirs, end = clip.tokenizer(texts), tokenizer.eos_token_id
    assert torch.equal(through_end(ours, ours, end), theirs)  # which has zeros there
    assert (ours[through_end(ours, ours, end) == 0] == end).all()
    assert (theirs[:, -1] == 0).all()  # none is cut
    assert tokenizer.decode(ours[0], skip_special_tokens=True) == ""


@torch.no_grad()
def test_states_and_embeddings_are_those_of_open_clip(towers, texts):
    clip, model, tokenizer = towers
    texts = texts[::8]
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    states, pooled = model(ids)[:2]
    their_ids, inner, their_states = clip.tokenizer(texts), clip.model, []
    hook = inner.ln_final.register_forward_hook(lambda module, inputs, output: their_states.append(output))
    embeddings = inner.encode_text(their_ids)
    hook.remove()
    end = tokenizer.eos_token_id
    assert torch.allclose(through_end(states, ids, end), through_end(their_states[0], their_ids, end), atol=1e-5)
    assert torch.allclose(model(their_ids)[0], their_states[0], atol=1e-5)  # fed with zeros as padding, all positions agree
    assert torch.allclose(pooled @ inner.text_projection, embeddings, atol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())
