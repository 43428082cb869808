"""The options of `guide compare`, as the command line takes them; None is what was not typed."""

from pathlib import Path
from typing import Annotated

from typer import Option

Text = str | None
Styles = Annotated[Text, Option(help="Styles, each on its own: baroque,ukiyo-e; a mixture is baroque:.7+ukiyo-e:.3. Default: baroque.")]
Strategies = Annotated[
    Text,
    Option(help="What is compared with the plain pipeline. Default: clean-image. Best-of and the prompt's own guidance always are."),
]
Seeds = Annotated[Text, Option(help="Pictures of each style and arm: 0-7 or 3,5,9. Default: 0-7.")]
Strengths = Annotated[
    list[str] | None,
    Option(help="5,10,20 for all that share the unit, cfg=2,8 for one; may be given several times. Default: around the model's."),
]
ChoiceSeeds = Annotated[
    Text,
    Option(help="Seeds on which the referee chooses a strength of each strategy, or none. Default: half as many as --seeds, from 1000."),
]
StyleFrom = Annotated[Text, Option(help="Where the style may come from: prompt, guidance, both. Default: all.")]
Budget = Annotated[Text, Option(help="The same for every arm: seconds, calls (of the denoiser), or an amount a picture, as seconds:8.")]
BestOf = Annotated[Text, Option(help="Numbers of candidates: 4,8. Default: those of equal seconds.")]
PromptOnly = Annotated[
    bool | None,
    Option("--prompt-only/--no-prompt-only", help="With the prompt's own guidance (CFG at other scales, APG, interval) or without."),
]
Prompts = Annotated[
    int | None,
    Option("--prompts", help="So many of each style's own prompts, each at every seed. Default: the prompts go round with the seeds."),
]
Suite = Annotated[Text, Option(help="A comparison with a name: quick or standard; what is typed goes before.")]
Plan = Annotated[bool, Option("--plan", help="Measure costs, print the plan with predicted time, make nothing.")]
Rescore = Annotated[Path | None, Option(help="A run, to read its pictures anew with --encoder and --judges.")]
Vote = Annotated[Path | None, Option(help="A run: serve a page on this machine where people choose, blind.")]
Port = Annotated[int, Option(help="Of the voting page; 0: any that is free.", min=0, max=65535)]
Models = Annotated[Text, Option(help="A model, or several as a sweep: embedded,sdxl. Default: embedded.")]
Strength = Annotated[float | None, Option(help="One strength, as --strengths.")]
Steps = Annotated[Text, Option(help="Denoising steps, or several as a sweep: 10,25. Default: the model's.")]
Scales = Annotated[Text, Option("--guidance-scale", help="Classifier-free guidance, or several as a sweep: 2,4. Default: the model's.")]
Encoder = Annotated[Text, Option(help="The CLIP that steers (with --rescore: that reads). Default: embedded.")]
Judges = Annotated[
    Text,
    Option("--judges", "--judge", help="Who judge; the first gives the verdict, and none may have steered. Default: verdict,referee."),
]
Name = Annotated[bool | None, Option("--name-style/--no-name-style", help="As --style-from both, or guidance.")]
Batch = Annotated[int | None, Option(help="Pictures made at a time. Default: 4.")]
Out = Annotated[Path | None, Option(help="Folder of the results; the same folder and arguments continue.")]
