"""Options of `guide transfer` and `guide invert`, as the command line names and explains them."""
from pathlib import Path
from typing import Annotated

import typer

Inputs = Annotated[list[str], typer.Argument(help="Photographs: files, folders, or patterns in quotes.")]
References = Annotated[list[str] | None, typer.Option(
    help="A picture whose brushwork and colours are wanted, with a weight or without: a.jpg:2. May be given several times.")]
Words = Annotated[str, typer.Option(help="What it should turn into, in words.")]
Keep = Annotated[list[str] | None, typer.Option(
    help="The largest distance from the photograph that is allowed: structure<=0.2 (the default), self-similarity, content, ms-ssim or "
         "lpips; none for none. Measured over the whole picture, with --region too, where what is left alone counts as kept; larger ones "
         "at 320 pixels on the longer side. May be given several times.")]
Limit = Annotated[list[str] | None, typer.Option(help="The most damage beyond the photograph's own: artifacts<=0.1.")]
Strength = Annotated[float | None, typer.Option(
    help="0 the photograph, 1 the target's own brushwork (the default), up to 2. Of diffusion: share of noise, default 0.6.")]
Engine = Annotated[str, typer.Option(help="pixels or diffusion.")]
Preserve = Annotated[bool, typer.Option(
    "--preserve-color", help="Keep the photograph's colours and mean brightness: lights and darks alone change.")]
Region = Annotated[str, typer.Option(help="A mask: white is repainted, black is left alone.")]
Side = Annotated[int | None, typer.Option(help="Pixels of the longer side. Default: the photograph's, at most 512.")]
Steps = Annotated[int | None, typer.Option(help="Steps of descent (default 120), or denoising steps.")]
Seeds = Annotated[str, typer.Option(help="Pictures of each photograph: 0-3 or 1,5. Another seed takes another painting of the style.")]
Statistics = Annotated[str, typer.Option(help="What brushwork is compared by: moments, or gram for references.")]
Video = Annotated[bool, typer.Option("--video", help="The photographs are frames of one scene: all share one target.")]
Film = Annotated[str, typer.Option(help="Show the optimisation beside each picture that is painted in this call: gif or mp4.")]
Invert = Annotated[bool, typer.Option("--invert", help="Of diffusion: start from the photograph's own noise (DDIM inversion).")]
Guidance = Annotated[float | None, typer.Option(
    help="Of diffusion: how hard the probes steer, 0 not at all. Default: the model's.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results; the same folder and arguments continue.")]
Pictures = Annotated[list[str] | None, typer.Argument(help="Pictures whose reading is to be flipped; none to climb from noise.")]
Probe = Annotated[str, typer.Option(help="style, scene, origin, or the label of a --head-file; `guide probe list` lists them.")]
Label = Annotated[str, typer.Option(help="The label to climb, or to flip to. Default of a flip: any other.")]
Neuron = Annotated[str, typer.Option(help="A channel of a feature map: layer3:17.")]
HeadFile = Annotated[list[str] | None, typer.Option(help="A head made by `guide probe fit`; may be given several times.")]
Noises = Annotated[str, typer.Option(help="Pictures from noise: 0-3 (the default) or 1,5.")]
Square = Annotated[int | None, typer.Option(help="Pixels a side. Default: 192; of a flip, the encoder's own on the shorter side.")]
Climb = Annotated[int | None, typer.Option(help="Steps: default 160 from noise, 100 of a flip.")]
