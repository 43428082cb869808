"""The options that several commands share, as the command line takes them."""

from typing import Annotated

import typer

Prompt = Annotated[str, typer.Option(help="The subject: 'still life with lemons'. Default: the style's own subjects, one after another.")]
Style = Annotated[str, typer.Option(help="A style or a mixture: baroque, or baroque:.7,ukiyo-e:.3. `guide styles` lists them.")]
Avoid = Annotated[list[str] | None, typer.Option(help="A style to stay away from; may be given several times.")]
Period = Annotated[str, typer.Option(help="A year or a span of years: 1650 or 1600-1725.")]
Scene = Annotated[str, typer.Option(help="portrait, landscape, still-life, religious, genre-painting, cityscape, illustration; figures, "
                                         "no-figures, indoor, outdoor.")]
Origin = Annotated[str, typer.Option(help="Read as made by a person or a model.")]
Seeds = Annotated[str, typer.Option(help="One picture each, unguided and guided: 0-7 or 3,5,9.")]
Model = Annotated[str, typer.Option(help="embedded, another of `guide models`, a diffusers folder or a hub id.")]
Weight = Annotated[list[str] | None, typer.Option(help="How much each measure counts: style=1,period=.5; 0 only reads it.")]
Keep = Annotated[list[str] | None, typer.Option(help="A measure that has to stay above a bound: 'content>=0.28'.")]
Limit = Annotated[list[str] | None, typer.Option(help="A measure that has to stay below a bound: 'artifacts<=0.2'.")]
Schedule = Annotated[list[str] | None, typer.Option(help="Noise levels at which a measure counts, 1 noise to 0 picture: style@0.9-0.3.")]
Toward = Annotated[list[str] | None, typer.Option(help="Words to steer toward besides: 'warm light:2'; away from: 'people:-1'.")]
Reference = Annotated[list[str] | None, typer.Option(help="A picture to take the style from: painting.jpg, or painting.jpg:0.5.")]
ReferenceBy = Annotated[str, typer.Option(help="How references are compared: moments, gram, style or embedding.")]
Region = Annotated[str, typer.Option(help="A picture of where to steer: white there, black elsewhere.")]
ContentBy = Annotated[str, typer.Option("--content", help="How the prompt is compared: global, spherical, or directional (as a change "
                                                          "from the unguided picture).")]
Watched = Annotated[list[str] | None, typer.Option(help="A judge or measure to watch beside the guide: referee, content.")]
Drift = Annotated[str, typer.Option(help="What follows where it falls while the guide climbs: off, warn, damp or stop.")]
Strengths = Annotated[str | None, typer.Option("--strength", help="How hard to steer: 0 not at all, 1 a fifth of classifier-free guidance; "
                                                                  "auto asks the referee. Default: the model's (embedded: 14).")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps. Default: the model's.")]
Size = Annotated[str, typer.Option(help="Pixels, multiples of 8: 128, or width x height as 128x160. Default: the model's.")]
Scale = Annotated[float | None, typer.Option("--guidance-scale", help="Classifier-free guidance, of the prompt. Default: the model's.")]
Encoder = Annotated[str, typer.Option(help="The CLIP that steers: embedded, an open_clip folder, or ViT-B-32:laion2b_s34b_b79k.")]
Judge = Annotated[str, typer.Option(help="Who gives the verdict; it must not have steered: verdict, dinov2-base, siglip2-base, csd, "
                                         "hpsv2, or a TOML file like those of configs/judges.")]
Decoder = Annotated[str, typer.Option(help="What guidance looks through: auto (the model's tiny decoder, where it has one), full, or the "
                                          "file or folder of a tiny decoder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Name = Annotated[bool, typer.Option("--name-style/--no-name-style", help="Name style and period in the prompt, or leave it to guidance.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only where the results are.")]
