"""The small CLIP's text tower as transformers' `CLIPTextModelWithProjection`: same weights under the other library's names.

A denoiser understands the text tower that it learned under and no other, so the two stay together: in `work/denoiser` as in a pipeline's
folder. The CLIP that steers may learn on by itself.
"""

from pathlib import Path

import open_clip
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from recipes import options

TOWER, TOKENIZER = "text_encoder_2", "tokenizer_2"  # as Stable Diffusion XL's pipeline calls them


def of_clip(folder: Path) -> tuple[CLIPTextModelWithProjection, CLIPTokenizer]:
    """Tower and tokenizer of the CLIP in an open_clip folder; UserError where it has not been trained."""
    options.needed(folder, "clip")
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return to_transformers(clip, tokenizer), tokenizer


def of_pipeline(folder: Path) -> tuple[CLIPTextModelWithProjection, CLIPTokenizer]:
    """Tower and tokenizer that lie beside a denoiser; `has_words` says whether they do."""
    tower = CLIPTextModelWithProjection.from_pretrained(folder / TOWER).float().eval()
    return tower.requires_grad_(False), CLIPTokenizer.from_pretrained(folder / TOKENIZER)


def has_words(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in (TOWER, TOKENIZER))


def of_denoiser(work: Path) -> tuple[CLIPTextModelWithProjection, CLIPTokenizer]:
    """Tower and tokenizer that the denoiser in `work` learned under; the CLIP's where it keeps none, as before version 0.2."""
    place = work / "denoiser"
    return of_pipeline(place) if has_words(place) else of_clip(work / "clip" / "model")


def keep(tower: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, folder: Path):
    """Put both beside a denoiser."""
    tower.save_pretrained(folder / TOWER)
    tokenizer.save_pretrained(folder / TOKENIZER)


def shared(root: Path) -> bool:
    """Whether the pipeline that ships below `root` reads words as the CLIP there does: not where one of them has learned on alone."""
    pipeline, clip = root / "guide" / "embedded", root / "probes" / "embedded" / "clip"
    return has_words(pipeline) and clip.is_dir() and options.alike(of_clip(clip)[0], of_pipeline(pipeline)[0])


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
