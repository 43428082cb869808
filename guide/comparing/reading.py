"""Reading the pictures of a comparison: the guide, every judge, distances to the same seed unguided, costs; one row a picture."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from guide import png
from guide.brief import Brief
from guide.comparing.asked import Asked
from guide.comparing.making import Job
from guide.comparing.meter import COSTS
from guide.run import picture
from probes import distance, encoders
from probes import judge as judges
from probes.audit import audit
from probes.config import lookup, styles
from probes.errors import UserError
from probes.image import load
from probes.lineage import same_family

GUIDE = (
    "style_log_odds",
    "style_probability",
    "style_top",
    "year",
    "content",
    "artifacts",
    "saturation",
    "contrast",
    "high_frequency",
)
KEYS = ("set", "model", "style", "named", "prompt", "seed", "arm")
OF_A_JUDGE = ("log_odds", "probability", "style", "kept", "year", "year_error", "severity")
BATCH = 32


def read(
    jobs: Sequence[tuple[str, Job]], asked: Asked, device: str, on_progress: Callable[[str, int, int], None]
) -> tuple[pd.DataFrame, dict]:
    """Rows of (set, batch) jobs, and what the audit says of the reading itself (reliability, encoder).

    Columns: KEYS with the setting (`setting_steps`, `guidance_scale`) and the arm's parts (`strategy`, `strength`, `sampler`, `candidates`,
    `steps`, `baseline`), GUIDE with `year_error` (years outside of the span asked for, or of the style's), for every judge its name before
    OF_A_JUDGE, `ms_ssim`, `feature_distance` in the first judge's eyes, `lpips` where it can be had, COSTS, `image`. Every picture is
    read from its file, so that a run that went on and one in one go give the same numbers.
    """
    jury = seated(asked, device)
    told = [(which, job, seed, path) for which, job in jobs for seed, path in zip(job.seeds, job.paths(asked.out), strict=True)]
    first = asked.judges[0]
    report = audit(
        [path for *_, path in told],
        intent=[job.brief for _, job, *_ in told],
        encoder=asked.encoder,
        judge=first,
        steered_by=tuple(dict.fromkeys((asked.steered_by or asked.encoder, asked.encoder))),
        device=device,
        folder=asked.out / "readings",
        on_progress=lambda done, total: on_progress("reading the pictures", done, total),
    )
    if (bad := report.rows["error"] != "").any():
        row = report.rows[bad].iloc[0]
        raise UserError(f"The picture {row['image']} cannot be read ({row['error']}); remove it, and the same command makes it again.")
    rows = pd.DataFrame([_told(which, job, seed, path, asked) for which, job, seed, path in told])
    rows = pd.concat([rows, report.rows[list(GUIDE)].reset_index(drop=True)], axis=1)
    rows["year_error"] = [off(year, span(job.brief)) for year, (_, job, *_) in zip(rows["year"], told, strict=True)]
    seen = {name: _opinions(judge, told, device, on_progress) for name, judge in jury.items()}
    for name, (columns, _) in seen.items():
        rows = pd.concat([rows, columns.add_prefix(f"{name}_")], axis=1)
    rows, seen[first] = _alike(told, rows, seen[first])
    rows = pd.concat([rows, _apart(told, seen[first][1], device, asked, on_progress)], axis=1)
    rows["features"] = list(seen[first][1])
    return rows, report.summary


def seated(asked: Asked, device: str) -> dict[str, judges.Judge]:
    """The judges by name. UserError where one is of the family of what steered, or of another judge."""
    found = {name: judges.load(name, device) for name in asked.judges}
    steering = [encoders.load(name, device).lineage for name in dict.fromkeys((asked.steered_by or asked.encoder, asked.encoder))]
    jury = list(found.values())
    for k, one in enumerate(jury):
        one.check(steering)
        if clash := next(((other.name, why) for other in jury[:k] if (why := same_family(other.lineage, one.lineage))), None):
            raise UserError(f"The judges {clash[0]} and {one.name} are of one family ({clash[1]}); name judges of different families.")
    return found


def _alike(told: list, rows: pd.DataFrame, first: tuple[pd.DataFrame, np.ndarray]) -> tuple:
    """Readings of a picture that is its baseline's, pixel by pixel, are the baseline's: batches round differently, and that is no effect.

    `first`: the first judge's columns and features. Returns rows and `first`.
    """
    held = [sha256(load(path).numpy().tobytes()).digest() for *_, path in told]
    place = {path: k for k, (*_, path) in enumerate(told)}
    bases = [place[path.parent / picture(Path(), seed, job.arm.baseline().slug)] for _, job, seed, path in told]
    source = [base if held[base] == held[k] else k for k, base in enumerate(bases)]
    readings = [name for name in rows.columns if name in (*GUIDE, "year_error") or name.endswith(OF_A_JUDGE)]
    rows[readings] = rows[readings].take(source).set_axis(rows.index)
    return rows, (first[0], first[1][source])


def _told(which: str, job: Job, seed: int, path: Path, asked: Asked) -> dict:
    said, settings = png.parameters(path) or {}, job.cell.setting.settings
    return {
        "set": which,
        "model": job.cell.setting.model,
        "setting_steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "style": job.cell.style,
        "named": job.cell.named,
        "prompt": job.brief.prompt,
        "seed": seed,
        "arm": job.arm.label,
        "strategy": job.arm.strategy,
        "strength": job.arm.strength,
        "sampler": job.arm.sampler,
        "candidates": job.arm.candidates,
        "steps": job.arm.steps or settings.steps,
        "baseline": job.arm.baseline().label,
        **{name: float(said.get(name, "nan")) for name in COSTS},
        "image": path.relative_to(asked.out).as_posix(),
    }


@torch.no_grad()
def _opinions(judge: judges.Judge, told: list, device: str, on_progress: Callable) -> tuple[pd.DataFrame, np.ndarray]:
    """A judge's columns of OF_A_JUDGE, and its features (n, d)."""
    rows, features = [], []
    for start in range(0, len(told), BATCH):
        part = told[start : start + BATCH]
        images = [load(path).to(device) for *_, path in part]
        alike = len({image.shape for image in images}) == 1
        opinions = [judge(torch.cat(images))] if alike else [judge(image) for image in images]
        places = [(opinion, k) for opinion in opinions for k in range(len(opinion.years))]
        for (_, job, *_), (opinion, k) in zip(part, places, strict=True):
            rows.append(_said(judge, opinion, k, job.brief))
            features.append(opinion.features[k].cpu().numpy())
        on_progress(f"asking the {judge.name}", start + len(part), len(told))
    return pd.DataFrame(rows).astype({"kept": "boolean"}), np.array(features)


def _said(judge: judges.Judge, opinion: judges.Opinion, k: int, brief: Brief) -> dict:
    names, year = [name for name, _ in brief.styles], float(opinion.years[k])
    top, knows = judge.labels[int(opinion.styles[k].argmax())], set(names) <= set(judge.labels)
    return {
        "log_odds": float(judge.log_odds(opinion, brief.styles, brief.avoid)[k]),
        "probability": float(sum(opinion.styles[k][judge.labels.index(name)] for name in names)) if knows else float("nan"),
        "style": top,
        "kept": (top in names) if knows else None,
        "year": year,
        "year_error": off(year, span(brief)),
        "severity": float(opinion.severity[k]),
    }


def span(brief: Brief) -> tuple[int, int]:
    """The years that a picture is meant to look made in: those asked for, else those of its styles."""
    years = [lookup(styles(), name, "style").years for name, _ in brief.styles]
    return brief.period or (min(low for low, _ in years), max(high for _, high in years))


def off(year: float, years: tuple[int, int]) -> float:
    """Years outside of the span, 0 within."""
    return float(max(years[0] - year, year - years[1], 0.0)) if year == year else float("nan")


@torch.no_grad()
def _apart(told: list, features: np.ndarray, device: str, asked: Asked, on_progress: Callable) -> pd.DataFrame:
    """Distances of each picture to its baseline's at the same prompt and seed."""
    place = {path: k for k, (*_, path) in enumerate(told)}
    lpips = None if distance.lpips_missing() else distance.lpips(device)
    rows = []
    for k, (_, job, seed, path) in enumerate(told):
        other = picture(asked.out / job.cell.folder, seed, job.arm.baseline().slug)
        a, b = load(path).to(device), load(other).to(device)
        cosine = float(features[k] @ features[place[other]])
        found = {"ms_ssim": float(distance.ms_ssim(a, b)), "feature_distance": max(0.0, 1 - cosine)}
        rows.append(found | ({"lpips": float(lpips(a, b))} if lpips else {}))
        if k % BATCH == 0:
            on_progress("comparing with the baseline", k, len(told))
    return pd.DataFrame(rows)
