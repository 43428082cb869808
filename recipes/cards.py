"""Write the model cards that ship beside the weights, from what the recipes measured.

    python -m recipes.cards --work work/ --hardware "2 CPU cores"

What has not been measured is said to be so. What was trained on is what the recipes recorded of it (`recipes/provenance.py`). How a model
came about is read from its training log, a warm start too; where that is not the whole story (several runs), a sentence of yours in
`work/history.json`, by the recipe's name, is put before it. The card of a model of which the work folder holds nothing is left as it is.
"""

# ruff: noqa: E501 - prose

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from safetensors import safe_open

from guide import pipelines
from probes.atomic import write_text
from recipes import card_lines as lines
from recipes import options, provenance, text_tower
from recipes.assemble import ROOT, trained
from recipes.card_lines import of

HEADS = ("style", "period", "content", "scene", "origin", "artifacts", "domain")  # whose figures are on the cards


def read(path: Path) -> dict:
    """What a recipe measured; empty where it has not run."""
    return json.loads(path.read_text()) if path.exists() else {}


def training(work: Path, name: str, hardware: str) -> str:
    """The recipe's command, steps and time, after what `history.json` says of it."""
    history = read(work / "history.json").get(name, "")
    last = (read(work / name / "log.json") or [{}])[-1]  # the verdict is fitted in closed form and has no steps
    if "taken" in last:
        return f"{history} The {name} is that of `{last['taken']}`, whose images are not counted above.".strip()
    told = "for a time that was not kept"
    if "step" in last:
        precision = "fp32" if last.get("precision") == "no" else "fp32 weights with bfloat16 autocast"
        told = f"{last['step']} steps in {last['seconds'] / 60:.0f} minutes on {hardware}, {precision}"
    more = "".join(f" {part}" for part in (f"--start {last['start']}" if "start" in last else "", last.get("options", "")) if part)
    line = f"`python -m recipes.{name} --data paintings/ --work work/{more}`: {told}."
    if "start" in last:
        line += " What the weights that it began with had learned from is not counted above; test images may be among it."
    return f"{history} {line}".strip()


def begun(work: Path, *names: str) -> str:
    """What restricts a claim about images that were not learned from, where one of the models began with other weights."""
    logs = (read(work / name / "log.json") or [{}] for name in names)
    return "in the runs below " if any({"start", "taken"} & log[-1].keys() for log in logs) else ""


def of_heads(work: Path, root: Path) -> dict[str, dict]:
    """The cards of the heads by name: those in `work`, or the installed ones where these were fitted to the same encoder."""
    own = {name: read(work / "heads" / f"{name}.json") for name in HEADS}
    encoders = {card["encoder"] for card in own.values() if "encoder" in card}
    there = {name: read(root / "probes" / "embedded" / "heads" / f"{name}.json") for name, card in own.items() if not card and any(own.values())}
    return own | {name: card for name, card in there.items() if card.get("encoder") in {None, *encoders}}


def reading(work: Path, root: Path = ROOT) -> str:
    """What the CLIP and its heads read on artists that they have not seen."""
    style, period, content, scene, origin, artifacts, domain = of_heads(work, root).values()
    baseline, together = read(work / "baseline" / "figures.json"), read(work / "agreement.json")
    robustness = read(work / "robustness.json")
    size = f", {baseline['parameters'] / 1e6:.1f} M parameters, {baseline['steps']} steps" if baseline else ""
    said = (("scene", scene), ("origin", origin), ("artifacts", artifacts), ("out of domain", domain))
    more = "\n".join(f"- {name.capitalize()}: {card.get('reliability', lines.NOT_MEASURED)}." for name, card in said if card or name != "origin")
    return f"""## Measured
On artists that neither the CLIP nor the heads have seen; intervals from a bootstrap over artists. A draw of artists has fewer of them, and may lack a style: so ECE's intervals
lean upward, some beyond the estimate, and those of balanced accuracy are lopsided.

- Style, linear head: {of(style, lines.style, "metrics", "linear")} (half of the test artists; the temperature comes from the other half).
  On all of them, those of the temperature too: {of(style, lines.style, "metrics", "linear, all artists")}; eight families there {of(style, lambda said: f"{said['balanced_accuracy']:.3f}", "metrics", "linear, all artists", "families")}.
  From the embedding alone, without what the layers say: {of(style, lines.style, "metrics", "embedding alone")}.
  The head less that, all test artists: {of(style, lines.gain, "metrics", "gain over the embedding alone")}.
- Style, zero-shot by text: {of(style, lines.style, "metrics", "zero_shot")} (all test artists).
- Over eight families, linear head: {of(style, lines.families, "metrics", "linear", "families")}.
  Zero-shot: {of(style, lines.families, "metrics", "zero_shot", "families")}.
  The families: {lines.merged()}. Probabilities are summed within each.
- Recall of the linear head: {of(style, lines.recalls, "metrics", "linear")}.
- A supervised residual network of the same trunk, from scratch on the same images (`recipes.baseline`{size}): {of(baseline, lines.style, "other half")}.
  The CLIP's linear head less that: {of(together, lines.gain, "clip against the baseline")}.
- What robustness costs, the linear head less that of a CLIP of undamaged paintings alone (`recipes.robustness`): {of(robustness, lines.robustness)}.
- Year: {of(period, lines.year, "metrics")}; before temperature and recalibration {of(period, lambda said: f"{said['mae']:.1f} years, Spearman {said['spearman']:.2f}", "metrics", "before temperature and recalibration")}; from the embedding alone {of(period, lambda said: f"{said['mae']:.1f} years, Spearman {said['spearman']:.2f}", "metrics", "embedding alone")}.
- Sensitivity of the style head (`recipes.sensitivity`): {of(style, lambda said: said["sentence"], "sensitivity")}
- Genre, zero-shot: {of(content, lines.style, "metrics", "genre")}.
- Retrieval of a painting's title: {of(content, lines.retrieval, "metrics", "retrieval")}.
{more}
"""


def estimated(log: list[dict]) -> str:
    """From when on batches held the denoiser's clean estimates, as a clause; nothing where they never did."""
    place = next((index for index, row in enumerate(log) if row.get("_estimates")), None)
    if place is None:
        return ""
    # The log has a line each 50 steps, of means that remember: a denoiser that was there from the beginning is in the first.
    since = f" from step {log[place - 1]['step']:,} or soon after," if place else ""
    return f";{since} a twelfth were the denoiser's clean estimates"


def heads_card(work: Path, hardware: str, root: Path) -> tuple[str, str]:
    """The cards of the CLIP and of its heads."""
    tower = read(root / "probes/embedded/clip/open_clip_config.json").get("model_cfg", {})
    measured, text, data = reading(work, root), tower.get("text_cfg", {}), provenance.read(work)
    guide, last = provenance.counted(data, ["guide"]), provenance.last_year(data, ["guide"])
    log = read(work / "clip" / "log.json") or [{}]
    share, estimates = log[-1].get("_robust", 1), estimated(log)
    coder = ", a twelfth passed through the autoencoder" if log[-1].get("_autoencoded", 1) else ""
    pipeline = ""
    if text_tower.has_words(root / "guide" / "embedded"):
        whose = "this text tower" if text_tower.shared(root) else "a text tower of its own, that of the edition under which its denoiser learned"
        pipeline = f" The pipeline has {whose}."
    clip = f"""# The small CLIP that steers

{tower.get("embed_dim", "?")}-dimensional embeddings, residual image tower at {tower.get("vision_cfg", {}).get("image_size", "?")} pixels, {text.get("layers", "?")}-layer text tower
with a vocabulary of {text.get("vocab_size", 0):,} tokens; `open_clip.create_model_and_transforms("local-dir:<this folder>")` loads it.

{provenance.section(data, f"Trained on the guide split, {guide}.")}
## Training
{training(work, "clip", hardware)}
Contrastive on captions made of style, genre, century or year, artist and title words, beside zero-shot style and genre classification, year regression
and telling artists apart (those two heads are dropped). Of every batch a sixth was noised, a sixth blurred{coder}{estimates}; a quarter, after the first tenth of
the run, was replaced by 1-step L2 adversarial examples{"" if share == 1 else f"; in the run above {share:.2g} times as much of all that"}.
The text tower freezes part-way (`--freeze`); the image tower trains on.{pipeline}

{measured}
## Limits
Trained briefly on small images: it knows the styles of those paintings in broad strokes, subjects hardly beyond genre{f", and nothing after {last}" if last else ""}.
Readings are calibrated for whole paintings, not for details.
"""
    origin = (
        "`origin.safetensors` tells the pipeline's own pictures from paintings."
        if read(work / "heads" / "origin.json")
        else 'Origin has no head here: it is read by words, "not validated", since what was fitted told collections apart, or knew this pipeline alone, and not makers ("What was tried", benchmarks/README.md).'
    )
    heads = f"""# Heads of the small CLIP

`style.safetensors` and `scene.safetensors` read the CLIP's normalised embedding and, of the same pass, means, spreads and covariances of the channels of its layers
(`probes/layers.py`); so does `period.safetensors`, a softmax over bins of years and a monotone recalibration: the layers add next to nothing to its reading, and something to what it steers.
{origin}
`domain.safetensors` reads means and spreads of `layer2`, all directions of their covariance kept.
`brushwork.safetensors` holds statistics of six typical paintings of each style (`recipes.brushwork`), for `guide transfer`. The JSON beside each is its card for
programs.

{provenance.section(data, f"Weights come from the guide split, {guide}; temperature and recalibration from half of the test artists.")}
## Training
`python -m recipes.heads --data paintings/ --work work/`: balanced classes, on clean and damaged views, style and scene by discriminant
analysis whose shrinkage is chosen on the judge split; minutes on {hardware}.

{measured}
## Limits
Balanced classes: the head says what an image looks like, not how often a style was painted. Years outside 1450-1940 cannot be read.
That a score rises with severity means a rank correlation above 0 over five strengths, not every step upward. Copies without resampling
and seams whose halves stay apart are hardly found by the head that ships. What else sets off its alarm, photographs, palettes and enlarged
paintings among it: `python -m benchmarks.alarms` (benchmarks/AUDIT.md).
"""
    return clip, heads


def judge_card(work: Path, name: str, hardware: str) -> str:
    """The card of a judge."""
    card, together = read(work / name / "model" / "card.json"), read(work / "agreement.json")
    metrics, lineage, fit = card.get("metrics", {}), card.get("lineage", {}), card.get("training", {})
    data, how = provenance.read(work), training(work, name, hardware)
    judged, known = provenance.counted(data, ["judge"]), provenance.total(data, ["judge"], "in the judges' styles")
    if data and name == "referee":  # the verdict reads genre, year and damage off the others too
        judged += f": the {known:,} of them in the styles that it learns"
    if "bandwidth" in fit:
        how = (
            f"`python -m recipes.verdict --data paintings/ --work work/`: closed form, {fit['seconds'] / 60:.0f} minutes on {hardware}; "
            f"bandwidth {fit['bandwidth']:g} and ridge {fit['ridge']:g} by folds that keep an artist together (balanced accuracy there "
            f"{fit['balanced accuracy in the folds']:.3f})."
        )
    role = {"referee": "May be watched, tune a strength or stop a run.", "verdict": "Never influences a pixel or a default."}[name]
    severity = of(
        metrics,
        lambda said: (
            f"({', '.join(said['kinds'])}): Spearman {said['spearman']:.2f} on {said['images']} paintings; mean reading on undamaged ones "
            f"{said['mean on undamaged']:.2f}"
        ),
        "severity",
    )
    other = of(metrics, lambda value: f"{value:.3f}", "ece_other_half")
    shrunk = {
        "referee": " It sees larger pictures whole, at 96 pixels.",
        "verdict": " Pictures of 128 to 144 pixels are cut to their central 128, larger ones brought to 144 (bicubic) and cut so: it reads\nfine texture, and undamaged paintings shrunk from 144 to 128 read as damaged (severity .36 on 640).",
    }[name]
    return f"""# The judge `{name}`

{role} A {lineage.get("architecture", "network")} trained by {lineage.get("objective", "?")}; reads style, genre, year and severity of damage.

{provenance.section(data, f"Trained on the judge split, {judged}. The guide's images are not among them ({provenance.apart(data)}), the other judge's are of the same split.")}
## Training
{how}
{"Temperatures of style and genre" if "other half" in metrics.get("genre", {}) else "Temperature"} and a line that recalibrates years come from half of the test artists. Measured by `python -m recipes.measure_judges` and `recipes.measure_agreement`.

## Measured
On artists that no model here has seen; intervals from a bootstrap over artists. What is read are the central 128 pixels of paintings of 144, as many
as the pictures of the embedded pipeline have.

- Style: {of(metrics, lines.style, "style")}; ECE on artists not used for the temperature {other}.
- Recall, which bounds what any "kept" rate can mean: {of(metrics, lines.recalls, "style")}.
- Over eight families: {of(metrics, lines.families, "style", "families")}. The families: {lines.merged()}.
- Year: {of(metrics, lines.year, "year")}.
- Genre: {of(metrics, lines.genre, "genre")}.
- Severity of injected damage {severity}. The autoencoder's softness counts as no damage.
- Whole files, as an audit reads them: {of(metrics, lines.whole_files, "whole files")}.
- Agreement on style (Cohen's kappa), real test paintings given whole: {of(together, lines.pairs, "real")}.
  Generated pictures: {of(together, lines.pairs, "generated")}.

## Limits
A small model of small images: single readings are weak evidence, means over many pictures are what it is for. Kinds of damage other than those
above are not validated.{shrunk}
"""


def grid(root: Path, name: str, about: str, command: str) -> str:
    """A sheet that lies beside the card, with the command that makes it again; nothing where it is not there."""
    if not (root / "guide" / "embedded" / f"{name}.png").exists():
        return ""
    return f"\n![{about}]({name}.png)\n\n{about}: `{command}`.\n"


def cost_line(said: dict) -> str:
    return (
        f"one picture of 128 pixels, {said['steps']} steps with classifier-free guidance, {said['seconds unguided']:.1f} s on {said['threads']} thread{'s' * (said['threads'] > 1)}; guided "
        f"{said['seconds guided']:.1f} s, {said['guided over unguided']:.1f} times that"
    )


def sizes(folder: Path) -> tuple[str, str, str]:
    """Pictures, latents and parameters of the denoiser that is installed in `folder`, in words."""
    config, weights = read(folder / "config.json"), folder / "diffusion_pytorch_model.safetensors"
    side, channels = config.get("sample_size"), config.get("in_channels")
    if not side or not weights.exists():
        return "? x ?", "?", "?"
    with safe_open(weights, "pt") as file:
        count = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    return f"{8 * side} x {8 * side}", f"{channels} x {side} x {side}", f"{count / 1e6:.0f} M"


def pipeline_card(work: Path, hardware: str, root: Path) -> str:
    """The card of the pipeline."""
    data = provenance.read(work)
    figures, spread, words = (read(work / f"{name}.json") for name in ("pipeline", "diversity", "words"))
    stages = [training(work, name, hardware) for name in ("autoencoder", "decoder", "preview", "denoiser") if (work / name / "log.json").exists()]
    coder = of(
        figures,
        lambda said: (
            f"on {said['images']} test paintings PSNR {said['psnr']:.1f} dB, MS-SSIM {said['ms_ssim']:.3f}; of the colours of 8 x 8 blocks, all together, "
            f"green against violet correlates with that before by {said['green']:.2f}, red against blue by {said['red']:.2f}"
        ),
        "autoencoder",
    )
    both = of(spread, lambda said: f"{said['generated']:.1f} generated, {said['real']:.1f} for as many real paintings", "vendi")
    ratio = (
        f"precision {spread['precision']:.2f}, recall {spread['recall']:.2f} (between two halves of the real ones {spread['of the halves']['precision']:.2f} and "
        f"{spread['of the halves']['recall']:.2f}; {spread['neighbours']} neighbours, {spread['pictures']} pairs)"
        if "precision" in spread
        else lines.NOT_MEASURED
    )
    about = "A ratio above 1.1 is marked: the picture overstates the style. Where the verdict recognises few real paintings, ratios mean little."
    table = f"\n{lines.kept_table(figures['unguided'])}\n\n{about}\n" if "unguided" in figures else ""
    size = of(figures, lambda said: f"{said['megabytes']:.0f} MB for everything that is embedded, probes and judges too", "cost")
    sheets = (
        grid(root, "samples", "Every style at the first seeds, none chosen, in their own size", "python -m recipes.sample_grids --work work/")
        + grid(root, "words", "The same seeds without and with a word, 72 pixels wide, which flatters them", "python -m recipes.measure_words --data paintings/ --work work/")
        + grid(
            root,
            "nearest",
            "The first of the measured pictures and their nearest training paintings, 72 pixels wide, which flatters them",
            "python -m recipes.measure_diversity --data paintings/ --work work/",
        )
    )
    model = pipelines.find("embedded")
    side, latents, parameters = sizes(root / "guide" / "embedded" / "unet")
    tower = "the text tower of the small CLIP in\n`probes/embedded/clip`" if text_tower.shared(root) else "a text tower of its own, that of\nthe edition of the small CLIP under which the denoiser learned"
    sampler = read(root / "guide" / "embedded" / "scheduler" / "scheduler_config.json").get("_class_name", "?")
    return f"""# The small text-to-image pipeline

{side} pixels; `DiffusionPipeline.from_pretrained("<this folder>")` loads it with nothing of this project. Stable Diffusion XL's pipeline class around an
`AutoencoderTiny` ({latents} latents), a {parameters} parameter `UNet2DConditionModel` (v-prediction, zero terminal SNR), `{sampler}` and {tower}. (diffusers remarks that it expected another class of autoencoder; the tiny one is meant.)
With `num_inference_steps={model.steps}, guidance_scale={model.guidance_scale:g}, guidance_rescale={model.guidance_rescale:g}` and
`generator=torch.Generator().manual_seed(seed)` it makes the pictures that `guide generate` calls unguided, of the prompt in the PNG's `parameters`.

{provenance.section(data, f"Trained on the guide and judge splits, {provenance.counted(data, ['guide', 'judge'])}; {begun(work, 'autoencoder', 'decoder', 'denoiser')}on no test image ({provenance.apart(data)}).")}
## Training
{chr(10).join(stages) or "The logs were not kept."}

## Measured
By `recipes.measure_pipeline`, `recipes.measure_diversity` and `recipes.measure_words`. Pictures are asked for by the titles of test paintings, the style in the
prompt, unguided; nothing is chosen.

- Autoencoder: {coder}.
- Style kept: {of(figures, lines.kept, "unguided")}.
- KID in the verdict's statistics of colour and texture (not Inception's: comparable with the floors beside it, not with papers): {of(spread, lines.kid, "kid")}.
  Floors: {of(spread, lines.floors, "floors")}.
- Diversity, in the same statistics: {ratio}. Vendi score {both}.
- Memorisation: {of(spread, lines.memorisation, "memorisation")}.
- Words: {of(words, lines.words)}. On real test paintings with the word in their title: {of(words, lines.words_on_real, "on real test paintings")}.
- Cost: {of(figures, cost_line, "cost")} ({hardware}); {size}.
{table}{sheets}
## Limits
Colours, light and layout of a style and genre come through, objects and faces mostly do not. The pictures are made by a machine and say so in their metadata.
With another scheduler of diffusers from the same configuration DDIM, Euler, DPM-Solver, PNDM, DEIS, LMS and TCD paint nearly the same pictures, those that add noise
(DDPM, Euler ancestral) others, flatter ones; Heun and KDPM2 ancestral break on a schedule that begins without signal, and LCM wants a distilled model.
"""


def main(
    work: options.Work = Path("work"),
    hardware: Annotated[str, typer.Option(help="What it ran on, in words.")] = "2 CPU cores",
    root: Annotated[Path, typer.Option("--root", "--into", help="Checkout whose cards are written.")] = ROOT,
):
    if not provenance.read(work):
        typer.echo(f"{work / 'data.json'} is not there: what was trained on stays unverified on the cards. Any recipe with --data writes it.")
    clip, heads = heads_card(work, hardware, root)
    probes = root / "probes" / "embedded"
    left = []
    for name, path, text in (
        ("clip", probes / "clip", clip),
        ("heads", probes / "heads", heads),
        ("referee", probes / "referee", judge_card(work, "referee", hardware)),
        ("verdict", probes / "verdict", judge_card(work, "verdict", hardware)),
        ("denoiser", root / "guide" / "embedded", pipeline_card(work, hardware, root)),
    ):
        card = path / "README.md"
        held = trained(work, name) if name != "heads" else any((work / name / f"{head}.json").exists() for head in HEADS)
        if held or not card.exists():
            write_text(card, text)
        else:
            left.append(str(card.relative_to(root)))
    if left:
        typer.echo(f"Left as they are, since {work} holds nothing of what they describe: {', '.join(left)}.")


if __name__ == "__main__":
    options.start(main)
