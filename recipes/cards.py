"""Write the model cards that ship beside the weights, from what the recipes measured.

python -m recipes.cards --work work/ --hardware "2 CPU cores"
"""

# ruff: noqa: E501 - prose

import json
from pathlib import Path
from typing import Annotated

import typer

from recipes.assemble import ROOT

DATA = """## Data and licence
Trained on photographs of paintings by artists who died in 1954 or earlier, public domain as far as the metadata tells, gathered from public collections of
WikiArt, People-Art, Art Institute of Chicago and similar images ({split}). WikiArt's own terms ask for non-commercial research use of its scans; whether
that binds weights trained on them is unsettled, so treat these weights as for research and demonstration. The licence of the code does not cover them.
"""


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def recalls(figures: dict) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in figures["recall"].items())


def training(work: Path, name: str, command: str, hardware: str) -> str:
    log = json.loads((work / name / "log.json").read_text())[-1]
    return f"`{command}`: {log['step']} steps in {log['seconds'] / 60:.0f} minutes on {hardware}, fp32 weights with bfloat16 autocast, shared with other work."


def style_line(figures: dict) -> str:
    low, high = figures["interval"]
    return (
        f"accuracy {figures['accuracy']:.3f}, balanced accuracy {figures['balanced_accuracy']:.3f} (95 % over artists {low:.3f}-{high:.3f}), "
        f"ECE {figures['ece']:.3f}, on {figures['images']} paintings by {figures['artists']} artists"
    )


def year_line(figures: dict) -> str:
    return (
        f"mean error {figures['mae']:.1f} years (95 % over artists {figures['interval'][0]:.1f}-{figures['interval'][1]:.1f}; always answering the median "
        f"errs {figures['mae_of_median']:.1f}), Spearman {figures['spearman']:.2f}"
    )


def heads_card(work: Path, hardware: str) -> tuple[str, str]:
    style, period, content = (
        json.loads((work / "heads" / f"{name}.json").read_text())["metrics"] for name in ("style", "period", "content")
    )
    measured = f"""## Measured
On artists that neither the CLIP nor the heads have seen; intervals from a bootstrap over artists.

- Style, linear head, 15 styles: {style_line(style["linear"])} (half of the test artists; the temperature comes from the other half).
- Style, zero-shot by text: {style_line(style["zero_shot"])} (all test artists).
- Recall of the linear head: {recalls(style["linear"])}.
- Year: {year_line(period)}; before recalibration {period["before recalibration"]["mae"]:.1f} years.
- Genre, zero-shot, 7 genres: {style_line(content["genre"])}.
- Retrieval of the title among {content["retrieval"]["titles"]}: at 1 {content["retrieval"]["at 1"]:.1%}, at 5 {content["retrieval"]["at 5"]:.1%}, median rank
  {content["retrieval"]["median rank"]:.0f}.
"""
    clip = f"""# The small CLIP that steers

{json.loads((ROOT / "probes/embedded/clip/open_clip_config.json").read_text())["model_cfg"]["embed_dim"]}-dimensional embeddings, residual image tower at 96
pixels, 4-layer text tower with a 4,096-token vocabulary; `open_clip.create_model_and_transforms("local-dir:<this folder>")` loads it.

{DATA.format(split="the guide split, 14,108 images")}
## Training
{training(work, "clip", "python -m recipes.clip --data paintings/ --work work/ --minutes 32 --freeze .35", hardware)}
Contrastive on captions made of style, genre, century or year, artist and title words, beside zero-shot style and genre classification and year regression
(that head is dropped). Half of every batch was noised, blurred or passed through the autoencoder, a quarter replaced by 1-step L2 adversarial examples.
The text tower froze after 35 % of the time; the image tower trained on.

{measured}
## Limits
Trained for minutes on 14,000 small images: it knows 15 European and Japanese styles in broad strokes, subjects hardly beyond genre, and nothing after 1935.
Renaissance and realism labels are partly inferred from artist or date. Readings are calibrated for whole paintings, not for details.
"""
    heads = f"""# Heads of the small CLIP: style, period

Linear in the CLIP's normalised embedding; `style.safetensors` gives 15 classes, `period.safetensors` a softmax over 35-year bins and a monotone
recalibration. The JSON beside each is its card for programs.

{DATA.format(split="weights on the guide split; temperature and recalibration on half of the test artists")}
## Training
`python -m recipes.heads --data paintings/ --work work/`: logistic regression with balanced classes, on clean and damaged views; minutes on {hardware}.

{measured}
## Limits
Balanced classes: the head says what an image looks like, not how often a style was painted. Years outside 1450-1940 cannot be read.
"""
    return clip, heads


def judge_card(work: Path, name: str, hardware: str) -> str:
    card = json.loads((work / name / "model" / "card.json").read_text())
    metrics, lineage = card["metrics"], card["lineage"]
    if name == "referee":
        how = training(
            work, name, f"python -m recipes.referee --data paintings/ --work work/ --minutes {card['training']['minutes']:.0f}", hardware
        )
    else:
        fit = card["training"]
        how = (
            f"`python -m recipes.verdict --data paintings/ --work work/`: closed form, {fit['seconds'] / 60:.0f} minutes on {hardware}, shared with other work; "
            f"bandwidth {fit['bandwidth']} and ridge {fit['ridge']:.0f} by folds that keep an artist together (balanced accuracy there "
            f"{fit['balanced accuracy in the folds']:.3f})."
        )
    role = {"referee": "May be watched, tune a strength or stop a run.", "verdict": "Never influences a pixel or a default."}[name]
    return f"""# The judge `{name}`

{role} A {lineage["architecture"]} trained by {lineage["objective"]}; reads style (15), genre (7), year and severity of damage.

{DATA.format(split="the judge split, 6,273 images; the guide's images and artists are not among them, the other judge's are the same")}
## Training
{how}
Temperature and a line that recalibrates years come from half of the test artists. Measured by `python -m recipes.measure_judges`.

## Measured
On artists that no model here has seen.

- Style: {style_line(metrics["style"])}; ECE on artists not used for the temperature {metrics["ece_other_half"]:.3f}.
- Recall, which bounds what any "kept" rate can mean: {recalls(metrics["style"])}.
- Year: {year_line(metrics["year"])}.
- Genre: {style_line(metrics["genre"])}.
- Severity of injected damage ({", ".join(metrics["severity"]["kinds"])}): Spearman {metrics["severity"]["spearman"]:.2f} on {metrics["severity"]["images"]}
  paintings; mean reading on undamaged ones {metrics["severity"]["mean on undamaged"]:.2f}. The autoencoder's softness counts as no damage.
- Agreement of the two judges on style: kappa {metrics["agreement of the two judges (kappa)"]:.2f}.

## Limits
A small model of 6,000 small images: single readings are weak evidence, means over many pictures are what it is for. Kinds of damage other than those
above are not validated.
"""


def pipeline_card(work: Path, hardware: str) -> str:
    figures = json.loads((work / "pipeline.json").read_text())
    coder, made = figures["autoencoder"], figures["unguided"]
    sharpened = ""
    if (work / "decoder" / "log.json").exists():
        sharpened = "\n" + training(work, "decoder", "python -m recipes.decoder --data paintings/ --work work/", hardware)
    return f"""# The small text-to-image pipeline

128 x 128 pixels; `DiffusionPipeline.from_pretrained("<this folder>")` loads it with nothing of this project. Stable Diffusion XL's pipeline class around an
`AutoencoderTiny` (8 x 16 x 16 latents), a 14 M parameter `UNet2DConditionModel` (v-prediction, zero terminal SNR) and the text tower of the small CLIP in
`probes/embedded/clip`.

{DATA.format(split="the guide and judge splits, 20,381 images; no test artist")}
## Training
{training(work, "autoencoder", "python -m recipes.autoencoder --data paintings/ --work work/ --minutes 25", hardware)}{sharpened}
{training(work, "denoiser", "python -m recipes.denoiser --data paintings/ --work work/ --minutes 80", hardware)}

## Measured
`python -m recipes.measure_pipeline`:

- Autoencoder on {coder["images"]} test paintings: PSNR {coder["psnr"]:.1f} dB, MS-SSIM {coder["ms_ssim"]:.3f}.
- Unguided, {made["pictures per style"]} pictures a style with the style in the prompt, {made["steps"]} steps, guidance scale {made["guidance scale"]}: the verdict
  puts the intended style first for {percent(made["mean kept"])} (mean over 15 styles); divided by its recall on real paintings {made["kept over recall"]:.2f}.
  By style: {", ".join(f"{name} {value:.2f}" for name, value in made["kept"].items())}.
- {made["seconds per picture"]:.1f} seconds a picture on {hardware}.

## Limits
Trained for about an hour and a half: colours, light and layout of a style and genre come through, objects and faces mostly do not. Not measured in this edition: KID, recall and
memorisation. Subject words beyond genre matter little.
"""


def main(
    work: Annotated[Path, typer.Option(help="Where the recipes left their results.")] = Path("work"),
    hardware: Annotated[str, typer.Option(help="What it ran on, in words.")] = "2 CPU cores",
):
    clip, heads = heads_card(work, hardware)
    probes = ROOT / "probes" / "embedded"
    for path, text in (
        (probes / "clip", clip),
        (probes / "heads", heads),
        (probes / "referee", judge_card(work, "referee", hardware)),
        (probes / "verdict", judge_card(work, "verdict", hardware)),
        (ROOT / "guide" / "embedded", pipeline_card(work, hardware)),
    ):
        (path / "README.md").write_text(text)


if __name__ == "__main__":
    typer.run(main)
