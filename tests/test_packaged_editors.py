"""The packaged editors as the installed versions of transformers and diffusers read them."""

import pytest
import torch
from safetensors.torch import load_file

from debias_utils import load_profile
from debias_utils.assets import packaged_model


def names(state):
    """Tensors by the names that transformers 5.23 gives them; older ones put `text_model.` before those of the text tower."""
    return {key.removeprefix("text_model."): value for key, value in state.items() if not key.endswith("position_ids")}


@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_every_tensor_of_the_file_is_in_the_model_and_no_other(rho, part):
    parts = load_profile(device="cpu")
    (file,) = (packaged_model(parts.editor_name(rho)) / part).glob("*.safetensors")
    saved, loaded = names(load_file(file)), names(getattr(parts.editor(rho), part).state_dict())
    assert sorted(saved) == sorted(loaded)
    assert [name for name, value in saved.items() if not torch.equal(value, loaded[name])] == []
