"""Learned tokens in front of a text, inside CLIP's text tower (Berg et al. 2022): what the tower makes of them."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import check_choice

PLACES = ("prepend", "append", "append_after_eos", "add")


def text_parts(model: Any) -> Any:
    """The module of an open_clip model that holds its text transformer.

    Raises:
        ValueError: a text tower of another kind, which has no table of tokens, or pools otherwise than at the end token.
    """
    tower = getattr(model, "text", model)
    pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    if pooling != "argmax" or getattr(tower, "cls_emb", None) is not None or getattr(tower, "attn_mask", None) is None:
        raise ValueError(
            f"learned tokens need CLIP's own text tower, causal and read at the end token; {type(model).__name__} has another"
        )
    return tower


def start_tokens(model: Any, n: int) -> torch.Tensor:
    """(n, w) float32: n times the embedding of token 0, where the authors start; not vectors of zeros."""
    row: torch.Tensor = text_parts(model).token_embedding.weight[0].detach().float()
    return row.repeat(n, 1)


def with_tokens(
    model: Any, ids: torch.Tensor, learned: torch.Tensor, *, place: str = "prepend"
) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters the transformer, (m, t, w), and the position that is read of each text, (m,).

    Tokens get their positions first. "prepend" (published) puts the n learned ones before the start token, without positions;
    the text follows with its own, and what no longer fits is cut at the end. The others are in the released code only: "append"
    writes over the end token and what follows, "append_after_eos" over what follows, "add" adds to the tokens after the start.
    The position read is the end token's plus n, at most the last, for all: right for "prepend"; "append" and "add"
    padding, "append_after_eos" the last learned token.

    Args:
        model: of open_clip, see `text_parts`. ids: (m, t) token ids, the end token the highest. learned: (n, w). place: above.
    """
    check_choice("place", place, PLACES)
    tower, n, length = text_parts(model), len(learned), ids.shape[1]
    x = tower.token_embedding(ids) + tower.positional_embedding[:length]
    end = ids.argmax(dim=1)
    read = (end + n).clamp(max=length - 1)
    tokens = learned.to(x.dtype).expand(len(ids), -1, -1)
    if place == "prepend":
        return torch.cat([tokens, x[:, : length - n]], dim=1), read
    first = {"append": end, "append_after_eos": end + 1, "add": torch.ones_like(end)}[place]
    at = first[:, None] + torch.arange(n, device=ids.device)  # (m, n)
    inside = at < {"append": read, "append_after_eos": read + 1, "add": torch.full_like(end, length)}[place][:, None]
    rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(at)[inside]
    return x.index_put((rows, at[inside]), tokens[inside], accumulate=place == "add"), read


def encode_with_tokens(model: Any, ids: torch.Tensor, learned: torch.Tensor, *, place: str = "prepend") -> torch.Tensor:
    """Embeddings (m, d) of texts with learned tokens (n, w), not normalised; differentiable in them. n = 0 is the plain tower.

    Arguments and errors of `with_tokens`. No position behind the last one read can be seen from there, so none is computed.
    """
    tower = text_parts(model)
    x, read = with_tokens(model, ids, learned, place=place)
    length = int(read.max()) + 1
    x = x[:, :length].to(tower.transformer.get_cast_dtype())
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length].to(x)))
    x = x[torch.arange(len(x), device=x.device), read]
    projection = tower.text_projection
    if projection is None:
        return x
    embedded: torch.Tensor = projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
    return embedded
