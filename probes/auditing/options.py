"""The options of `guide audit`, as the command line takes them."""

from pathlib import Path
from typing import Annotated

import typer

from probes.paths import named

Source = Annotated[Path, typer.Argument(help="A folder, one picture, a glob in quotes, a tar of pictures, a CSV, JSONL or Parquet "
                                             "table (file_name, style, period, prompt, group, rating), or a run's record.json.",
                                        parser=named, metavar="SOURCE")]
Words = Annotated[str, typer.Option(help="What they should show.")]
JudgeHead = Annotated[list[str] | None, typer.Option(help="For the judge's features: a head of `guide probe fit`.")]
SteeredBy = Annotated[list[str] | None, typer.Option(help="The encoder that steered them; its kin gives no verdict.")]
Baseline = Annotated[Path | None, typer.Option(help="The same pictures without what is measured: paired by seed and prompt, or by name.",
                                               parser=named, metavar="PATH")]
Reference = Annotated[Path | None, typer.Option(help="Pictures as they should be: how far the two sets are apart (KID), and which "
                                                     "pictures repeat one.", parser=named, metavar="PATH")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures read at a time.")]
Workers = Annotated[int, typer.Option(min=0, help="Threads that decode; 0: one per core.")]
Out = Annotated[Path | None, typer.Option(help="Folder for audit.html, .csv, .parquet and .json; the same folder goes on. "
                                               "Default: outputs/audit-<name>.", parser=named, metavar="PATH")]
