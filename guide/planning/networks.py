"""A model's networks without weights, from configuration files alone, and the inputs that its pipeline would give them."""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guide import pipelines
from guide.planning.architectures import ARCHITECTURES
from probes.errors import UserError


@dataclass
class Networks:
    """The parts of a pipeline that cost something; `texts`: its text encoders, `tiny`: the tiny decoder, None without."""

    denoiser: nn.Module
    vae: nn.Module | None
    tiny: nn.Module | None
    texts: list[nn.Module]
    source: str

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        config = self.vae.config
        blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels") or config.get("dim_mult") or (1,) * 4
        return 2 ** (len(blocks) - 1)

    @property
    def channels(self) -> int:
        config = self.vae.config
        return config.get("latent_channels") or config["z_dim"]


def load(name: str, tiny: bool = True) -> Networks:
    """The networks of a model of configs/models, a folder or a hub id. Call it inside `tracing.empty`; UserError where no configuration is
    to be had."""
    from diffusers.utils import logging

    model = pipelines.find(name)
    configs = _configs(model)
    logging.set_verbosity_error()  # converting what has no numbers is no matter of precision
    parts = {part: _built(*entry) for part, entry in configs.items()}
    denoiser = next((parts[part] for part in ("unet", "transformer") if part in parts), None)
    vae = next((parts[part] for part in ("vae", "movq") if part in parts), None)
    if denoiser is None or vae is None:
        raise UserError(f"{model.source} names no denoiser and autoencoder in its model_index.json; a plan needs both.")
    small = _tiny(model, vae) if tiny and model.tiny_decoder else None
    texts = [part for key, part in parts.items() if key.startswith("text_encoder")]
    return Networks(denoiser, vae, small, texts, model.source)


def doubled(name: str) -> bool:
    """Whether a step takes the denoiser twice, for classifier-free guidance: not where the scale is an input (FLUX.1 dev)."""
    model = pipelines.find(name)
    return model.guidance_scale > 1 and not any(config.get("guidance_embeds") for _, _, config in _configs(model).values())


def _configs(model: pipelines.Model) -> dict[str, tuple[str, str, dict]]:
    """part -> (library, class, configuration)."""
    folder = pipelines.EMBEDDED if model.source == "embedded" else Path(model.source)
    if not folder.is_dir():
        folder = _cached(model)
        if folder is None:
            if model.source in ARCHITECTURES:
                return ARCHITECTURES[model.source]
            raise UserError(f"The configuration files of {model.source} are not here; where there is a network, run "
                            f"`hf download {model.source} --include '*.json'`, which fetches no weights.")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    found = {}
    for part, entry in index.items():
        if isinstance(entry, list) and entry[0] in ("diffusers", "transformers") and (folder / part / "config.json").is_file():
            found[part] = (*entry, json.loads((folder / part / "config.json").read_text(encoding="utf-8")))
    return found


def _cached(model: pipelines.Model) -> Path | None:
    from huggingface_hub import snapshot_download
    for offline in (True, False):
        try:
            folder = Path(snapshot_download(model.source, revision=model.revision, allow_patterns=["*.json", "*/*.json"],
                                            local_files_only=offline))
        except Exception:  # the hub's client raises a dozen kinds, of requests, of its own and of the file system
            continue
        if (folder / "model_index.json").is_file():
            return folder
    return None


def _built(library: str, name: str, config: dict) -> nn.Module:
    if library == "diffusers":
        import diffusers
        return getattr(diffusers, name).from_config(config).eval().requires_grad_(False)
    import transformers
    cls = getattr(transformers, name)
    return cls(cls.config_class.from_dict(config)).eval().requires_grad_(False)


def _tiny(model: pipelines.Model, vae: nn.Module) -> nn.Module:
    from diffusers import AutoencoderTiny
    folder = pipelines.EMBEDDED / model.tiny_decoder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if model.source == "embedded" else \
        {"latent_channels": vae.config["latent_channels"]}
    return AutoencoderTiny.from_config(config).eval().requires_grad_(False)


def inputs(networks: Networks, rows: int, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Latents (rows, ...) as the scheduler holds them, and a function that runs the denoiser on them. Call it inside `tracing.empty`."""
    net, config = networks.denoiser, networks.denoiser.config
    h, w = height // networks.factor, width // networks.factor
    name = type(net).__name__

    def of(*shape) -> Tensor:
        return torch.zeros(rows, *shape, dtype=dtype)

    t = torch.zeros(rows, dtype=dtype)
    plain = of(networks.channels, h, w)
    if name == "UNet2DConditionModel":
        added = {}
        if config.get("addition_embed_type") == "text_time":
            ids = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            added = {"text_embeds": of(ids), "time_ids": of(6)}
        text = of(_length(networks.texts[0] if networks.texts else None), config["cross_attention_dim"])
        more = of(config["in_channels"] - networks.channels, h, w)
        return plain, lambda x: net(torch.cat([x, more], 1), t, text, added_cond_kwargs=added, return_dict=False)[0]
    packed = of(h // 2 * (w // 2), 4 * networks.channels)
    if name == "FluxTransformer2DModel":
        ids, text = torch.zeros(packed.shape[1], 3), of(512, config["joint_attention_dim"])
        return packed, lambda x: net(hidden_states=x, timestep=t, guidance=t if config["guidance_embeds"] else None,
                                     pooled_projections=of(config["pooled_projection_dim"]), encoder_hidden_states=text,
                                     txt_ids=torch.zeros(512, 3), img_ids=ids, return_dict=False)[0]
    if name == "SD3Transformer2DModel":
        return plain, lambda x: net(hidden_states=x, timestep=t, encoder_hidden_states=of(333, config["joint_attention_dim"]),
                                    pooled_projections=of(config["pooled_projection_dim"]), return_dict=False)[0]
    if name in ("PixArtTransformer2DModel", "SanaTransformer2DModel"):
        text = of(300, config["caption_channels"])
        added = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}} if name.startswith("PixArt") else {}
        return plain, lambda x: net(x, encoder_hidden_states=text, timestep=t, return_dict=False, **added)[0]
    if name == "QwenImageTransformer2DModel":
        mask = torch.ones(rows, 64, dtype=torch.long)
        return packed, lambda x: net(hidden_states=x, timestep=t, encoder_hidden_states=of(64, config["joint_attention_dim"]),
                                     encoder_hidden_states_mask=mask, img_shapes=[[(1, h // 2, w // 2)]] * rows, return_dict=False)[0]
    if name == "ZImageTransformer2DModel":
        text = list(of(64, config["cap_feat_dim"]).unbind())
        return plain, lambda x: torch.stack(net(list(x.unsqueeze(2).unbind()), t, text, return_dict=False)[0]).squeeze(2)
    raise UserError(f"A plan does not know the inputs of {name}; it knows UNet2DConditionModel and the transformers of FLUX.1, SD3, "
                    "PixArt, Sana, Qwen-Image and Z-Image: measure a short run of this pipeline instead (`guide generate --steps 4`).")


def encode(text: nn.Module, rows: int) -> Any:
    """A pass of a text encoder over prompts of the usual length."""
    return text(torch.zeros(rows, _length(text), dtype=torch.long), return_dict=False)


def _length(text: nn.Module | None) -> int:
    """Tokens of a prompt as pipelines pad it."""
    most = getattr(getattr(text, "config", None), "max_position_embeddings", 77)
    return min(77, most) if text is None or type(text).__name__.startswith("CLIP") else 256


def size(module: nn.Module | None) -> int:
    """Bytes of the weights."""
    if module is None:
        return 0
    return sum(weight.numel() * weight.element_size() for weight in (*module.parameters(), *module.buffers()))
