"""Put what the recipes trained into the folders that ship: `guide/embedded` (diffusers' format) and `probes/embedded/clip` (open_clip's).

python -m recipes.assemble --work work/
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel, UniPCMultistepScheduler

from probes import encoders
from probes.heads import card
from recipes import autoencoder, options, text_tower
from recipes.denoiser import CONFIG, SCHEDULE

ROOT = Path(__file__).parents[1]
PARTS = ("clip", "referee", "verdict", "heads")  # that can be installed without a pipeline
SHEETS = ("samples.png", "words.png", "nearest.png")  # of the pipeline's pictures, beside its card


def pipeline(work: Path) -> StableDiffusionXLPipeline:
    """The pipeline from the parts in `work/`; of a denoiser still in training, its moving average so far."""
    sharpened = work / "decoder" / "vae"
    vae = sharpened if sharpened.exists() else work / "autoencoder" / "vae"
    options.needed(vae, "autoencoder")
    tower, tokenizer = text_tower.of_denoiser(work)
    finished, checkpoint = work / "denoiser" / "unet", work / "denoiser" / "checkpoint.pt"
    if finished.exists():
        unet = UNet2DConditionModel.from_pretrained(finished)
    elif checkpoint.exists():
        unet = UNet2DConditionModel(**CONFIG)
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")["average"]
        unet.load_state_dict({name.removeprefix("unet."): value for name, value in state.items()})
    else:
        options.needed(finished, "denoiser")
    return StableDiffusionXLPipeline(
        vae=AutoencoderTiny.from_pretrained(vae),
        unet=unet,
        scheduler=sampler(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=tower,
        tokenizer_2=tokenizer,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def sampler() -> UniPCMultistepScheduler:
    """UniPC (arXiv:2302.04867), second order: of the samplers tried the nearest to what the model's equation says ("Sampler" in
    benchmarks/README.md). From DDIM's configuration, so that a DDIM made from this one's finds all of its own: nothing is clipped."""
    return UniPCMultistepScheduler.from_config(DDIMScheduler(**SCHEDULE).config)


def main(
    work: Annotated[Path, typer.Option(help="Where the recipes left their results.")] = Path("work"),
    root: Annotated[Path, typer.Option("--root", "--into", help="Root of the checkout to install into.")] = ROOT,
):
    """What `work` holds, into the folders that ship; what it lacks stays as it is there."""
    probes, installed, notes = root / "probes" / "embedded", [], []
    if (work / "denoiser").exists() or not any(trained(work, name) for name in PARTS):
        made = pipeline(work)  # before anything is written: it may lack a part
        notes += install(made, work, root / "guide" / "embedded")
        installed.append("pipeline")
    for name in ("clip", "referee", "verdict"):
        if trained(work, name):
            shutil.copytree(work / name / "model", probes / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("training.json"))
            installed.append(name)
            if name != "verdict" and not (work / name / "log.json").exists():
                notes.append(f"Beside the {name} in {work} there is no log of its training: it may be as it began.")
    if trained(work, "heads"):
        shutil.copytree(work / "heads", probes / "heads", dirs_exist_ok=True)
        installed += [f"{path.stem} head" for path in sorted((work / "heads").glob("*.json"))]
    typer.echo(f"Installed into {root}: {', '.join(installed)}.")
    if strange := unfit(probes):
        notes.append(
            f"Fitted to another CLIP than the one there: {', '.join(strange)}. They cannot be read until recipes.heads and "
            "recipes.brushwork have been run with this --work, then recipes.assemble again."
        )
    for note in notes:
        typer.echo(note)


def trained(work: Path, name: str) -> bool:
    """Whether `work` holds a model, or heads, of that name, and not a folder alone."""
    files = {"heads": ("heads/*.json",), "denoiser": ("denoiser/unet/*", "denoiser/checkpoint.pt")}
    return any(any(work.glob(pattern)) for pattern in files.get(name, (f"{name}/model/*.safetensors",)))


def install(made: StableDiffusionXLPipeline, work: Path, folder: Path) -> list[str]:
    """Put the pipeline into `folder`, in 16 bits; sentences on what did not come along."""
    notes, unet = [], folder / "unet" / "diffusion_pytorch_model.safetensors"
    before = unet.read_bytes() if unet.exists() else None
    other = before is not None and not options.alike(made.vae.encoder, AutoencoderTiny.from_pretrained(folder / "vae").encoder)
    made.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    autoencoder.save(made.vae, folder / "vae")
    preview = work / "preview" / "vae"
    if preview.exists():
        autoencoder.save(AutoencoderTiny.from_pretrained(preview).to(dtype=torch.float16), folder / "preview")
    elif other or not (folder / "preview").exists():
        autoencoder.save(made.vae, folder / "preview")
        notes.append("No preview decoder was distilled from these latents: guidance looks through the whole one, which is slower "
                     "(recipes.preview makes it, then recipes.assemble again).")  # fmt: skip
    sheets = [name for name in SHEETS if before not in (None, unet.read_bytes()) and (folder / name).exists()]
    for name in sheets:
        (folder / name).unlink()
    if sheets:
        notes.append(f"Taken away, as another pipeline painted them: {', '.join(sheets)}; the card names what makes them anew.")
    # Where the parts came from on this machine, and by which version of a library, is nobody's business.
    for path in (folder / "model_index.json", *(folder / part / "config.json" for part in ("vae", "unet", "preview"))):
        _edit(path, {"_name_or_path"})
    # Stored in 16 bits, used in 32: transformers would take the stored type for the one to compute in, diffusers would not.
    _edit(folder / text_tower.TOWER / "config.json", {"transformers_version"}, dtype="float32")
    _edit(folder / text_tower.TOKENIZER / "tokenizer_config.json", {"is_local", "local_files_only"})
    return notes


def unfit(probes: Path) -> list[str]:
    """The heads below `probes` that were fitted to other weights than those of the CLIP beside them."""
    if not (probes / "clip").is_dir():
        return []
    return card.unfit(encoders.load(str(probes / "clip")).fingerprint, probes / "heads")


def _edit(path: Path, without: set[str], **more):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in without} | more, indent=2) + "\n")


if __name__ == "__main__":
    options.start(main)
