"""A mini CLIP's text tower in the classes that diffusers expects: the same function, the same tokens, other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def text_tower(folder: Path, merges: Path) -> tuple[Any, Any]:
    """The text tower of an open_clip folder as transformers' (CLIPTextModel, CLIPTokenizer), frozen.

    Up to the end token, ids and hidden states are open_clip's, and the pooled state times open_clip's text_projection is its
    embedding. Behind the end token stands the end token again, as in Stable Diffusion's first versions, where open_clip has id
    0; the tower is causal, so nothing before it notices.

    Args:
        folder: with open_clip_config.json and open_clip_model.safetensors.
        merges: the byte-pair merges, as `train_clip.build_tokenizer` writes them.
    """
    from open_clip import SimpleTokenizer
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    sizes = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]["text_cfg"]
    words = SimpleTokenizer(str(merges), context_length=sizes["context_length"])
    start, end = (words.decoder[i] for i in words.all_special_ids)
    tokenizer = CLIPTokenizer(
        vocab=dict(words.encoder), merges=list(words.bpe_ranks), model_max_length=sizes["context_length"],
        bos_token=start, eos_token=end, unk_token=end, pad_token=end,
    )  # fmt: skip
    config = CLIPTextConfig(
        vocab_size=sizes["vocab_size"], hidden_size=sizes["width"], intermediate_size=4 * sizes["width"],
        num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"], hidden_act="gelu",
        max_position_embeddings=sizes["context_length"], bos_token_id=words.sot_token_id,
        eos_token_id=words.eot_token_id, pad_token_id=words.eot_token_id,
    )  # fmt: skip
    state = load_file(folder / "open_clip_model.safetensors")
    model: Any = CLIPTextModel(config)
    inner = getattr(model, "text_model", model)  # until transformers 5
    inner.load_state_dict({k: v.float() for k, v in _renamed(state, layers=sizes["layers"]).items()})
    return model.eval().requires_grad_(False), tokenizer


def _renamed(state: dict[str, Any], *, layers: int) -> dict[str, Any]:
    """Parameters by transformers' names; open_clip keeps query, key and value in one matrix."""
    new = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        new[f"final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        for i in range(layers):
            old, layer = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
            parts = state[f"{old}.attn.in_proj_{kind}"].chunk(3)
            new |= {f"{layer}.self_attn.{p}_proj.{kind}": x for p, x in zip("qkv", parts, strict=True)}
            for a, b in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                         ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                new[f"{layer}.{b}.{kind}"] = state[f"{old}.{a}.{kind}"]
    return new
