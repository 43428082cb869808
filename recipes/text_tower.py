"""The small CLIP's text tower as transformers' `CLIPTextModelWithProjection`: same weights under the other library's names."""

import open_clip
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer


def to_transformers(clip: open_clip.CLIP, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Embeddings equal to `clip.encode_text` (before normalisation)."""
    source = clip.state_dict()
    layers = len(clip.transformer.resblocks)
    # Fewer tokens than places where the captions are few: the tokenizer is then smaller than the table.
    places, width = source["token_embedding.weight"].shape
    config = CLIPTextConfig(
        vocab_size=places,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=clip.transformer.resblocks[0].attn.num_heads,
        projection_dim=source["text_projection"].shape[1],
        max_position_embeddings=source["positional_embedding"].shape[0],
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    target = {
        "text_model.embeddings.token_embedding.weight": source["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": source["positional_embedding"],
        "text_projection.weight": source["text_projection"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        target[f"text_model.final_layer_norm.{kind}"] = source[f"ln_final.{kind}"]
        for index in range(layers):
            old, new = f"transformer.resblocks.{index}.", f"text_model.encoder.layers.{index}."
            joint = "in_proj_weight" if kind == "weight" else "in_proj_bias"
            for name, part in zip("qkv", source[f"{old}attn.{joint}"].chunk(3), strict=True):
                target[f"{new}self_attn.{name}_proj.{kind}"] = part.clone()
            for theirs, ours in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                target[f"{new}{ours}.{kind}"] = source[f"{old}{theirs}.{kind}"]
    model = CLIPTextModelWithProjection(config).eval()
    model.load_state_dict({name: value.detach().float() for name, value in target.items()}, strict=True)
    return model.requires_grad_(False)


@torch.no_grad()
def condition(tower: CLIPTextModelWithProjection, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What Stable Diffusion XL's pipeline feeds the denoiser: penultimate states `(n, 32, width)` and the pooled embedding `(n, dim)`."""
    out = tower(ids, output_hidden_states=True)
    return out.hidden_states[-2], out.text_embeds
