"""How many pictures kept their style, by themselves and beside their counterparts, with intervals by prompt."""

from math import sqrt

import numpy as np
import pandas as pd

from probes.auditing.rates import rate


def clusters(rows: pd.DataFrame) -> np.ndarray:
    """What is resampled together: the pictures of one prompt. Those without a prompt are a cluster each, and all are where but one
    prompt is there."""
    codes = pd.factorize(rows["prompt"].replace("", pd.NA))[0]
    if codes.max(initial=-1) < 1:
        return np.arange(len(rows))
    return np.where(codes < 0, len(rows) + np.arange(len(rows)), codes)


def together(rows: pd.DataFrame) -> int:
    """How many prompts hold pictures together in an interval; 0 where each picture stands by itself."""
    prompts = rows.loc[rows["prompt"] != "", "prompt"]
    return prompts.nunique() if prompts.duplicated().any() and prompts.nunique() > 1 else 0


def once(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without those that are byte for byte an earlier one of the same variant and intended style: copies are no more evidence."""
    if "sha256" not in rows:
        return rows
    return rows[~(rows.duplicated(["sha256", "variant", "style_target"]) & rows["sha256"].notna())]


def kept(rows: pd.DataFrame) -> dict:
    """How many of the judged rows kept their style, exact `copies` counted once; `prompts`: how many hold pictures together in the
    interval, 0 where none does."""
    judged = once(known := rows[rows["kept"].notna()])
    values = judged["kept"].astype(bool).to_numpy()
    mean, low, high = rate(values, clusters(judged)) if len(judged) else (None, None, None)
    return {"images": len(rows), "judged": len(judged), "kept": int(values.sum()), "kept_rate": mean, "kept_interval": [low, high],
            "prompts": together(judged), "copies": len(known) - len(judged)}  # fmt: skip


def by_variant(rows: pd.DataFrame) -> dict[str, dict]:
    """`kept` of each variant by itself, as they come; nothing where there is but one."""
    variants = rows["variant"].unique()
    return {str(name): kept(rows[rows["variant"] == name]) for name in variants} if len(variants) > 1 else {}


def paired(rows: pd.DataFrame) -> dict[str, dict]:
    """By variant, how many pictures and how many of their counterparts kept the style, over the pairs of which both are judged.

    `change` is the difference of the two rates, `gained` and `lost` the pairs that differ (McNemar's table). `interval`: its 95 % interval
    from those of the two rates, which hold prompts together (rates.py), and their correlation over the pairs: of each side the squares of
    both halves are added, less twice their product times the correlation (the hybrid score interval of paired proportions).
    """
    both = once(known := rows[rows["kept"].notna() & rows["baseline_kept"].notna()])
    return {str(name): _paired(some) | {"copies": int((known["variant"] == name).sum()) - len(some)}
            for name, some in both.groupby("variant", sort=False)}  # fmt: skip


def _paired(rows: pd.DataFrame) -> dict:
    after, before = (rows[name].astype(bool).to_numpy() for name in ("kept", "baseline_kept"))
    (p, low, high), (q, least, most) = (rate(values, clusters(rows)) for values in (after, before))
    interval = [None, None]
    if low is not None:
        related = float(np.corrcoef(after, before)[0, 1]) if 0 < p < 1 and 0 < q < 1 else 0.0
        down, up = (sqrt(max(a * a + b * b - 2 * related * a * b, 0.0)) for a, b in ((p - low, most - q), (high - p, q - least)))
        interval = [max(p - q - down, -1.0), min(p - q + up, 1.0)]
    return {"pairs": len(rows), "kept": int(after.sum()), "baseline_kept": int(before.sum()), "gained": int((after & ~before).sum()),
            "lost": int((~after & before).sum()), "change": p - q, "interval": interval, "prompts": together(rows)}  # fmt: skip
