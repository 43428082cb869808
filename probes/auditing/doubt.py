"""Whether an alarm of the artifact probe counts: it learned from paintings, and what those never show it takes for damage.

Measured on 2026-12-01: beyond the percentile FAR lie 5 % of 250 unseen paintings, 5 % of them with planted damage, 8 of 16 photographs of
scikit-image, scikit-learn and matplotlib, of which in colour all 9 set off the alarm, undamaged as they are. One photograph by itself
often lies among the paintings, many together do not: so a set is judged as a whole, and each picture by its own distance besides. Of 12
undamaged test paintings 11 or 12 set off the alarm once they are a GIF or of 256 or fewer colours, dithered or not, as noise most often.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from probes.auditing.looks import BLANK_NOTE
from probes.auditing.opening import CONVERTED
from probes.auditing.rates import rate

FAR = 95  # percent of real paintings that lie nearer
MOST = 0.15  # of pictures may lie beyond FAR: a set is unlike paintings where even the lower end of the share's interval is above it
LEAST = 8  # pictures, below which a set is not judged
PALETTE = CONVERTED["P"]  # a note on pictures whose alarms do not count
UNCOUNTED = ", not counted in a set unlike paintings"


def counts(rows: pd.DataFrame) -> pd.Series:
    """Of pictures that were read for artifacts, whether they lie among those that the probe is known on, by the rows' index."""
    known = rows["artifacts"].notna() & ~rows["out_of_domain"].fillna(False).astype(bool)
    return known & ~rows["notes"].str.contains(f"{BLANK_NOTE}|{PALETTE}")


def of_reading(row: Mapping) -> str:
    """Why the readings of a picture do not hold, in few words: `blank`, `out of domain`; nothing where they may."""
    if BLANK_NOTE in (row.get("notes") or ""):
        return "blank"
    return "out of domain" if str(row.get("out_of_domain")) == "True" else ""  # it may be missing in three ways


def of_alarm(row: Mapping) -> str:
    """Why its alarm does not count, as the end of a sentence; nothing where it does."""
    if PALETTE in (row.get("notes") or ""):
        return f", but {PALETTE}, whose dots read as {row['artifact_kind']}: not counted"
    return ", but too unlike the paintings that the probe is known on to count" if of_reading(row) else ""


def foreign(rows: pd.DataFrame) -> dict | None:
    """`share` of the `pictures` beyond FAR where that is too many for paintings, so that no alarm counts; None for a set like others."""
    far = rows["domain_percentile"].dropna() >= FAR
    if len(far) < LEAST:
        return None
    share, low, _ = rate(far, np.arange(len(far)))
    return {"share": share, "pictures": len(far)} if low > MOST else None


def mark(rows: pd.DataFrame) -> None:
    """Say so in the reason of each picture whose alarm does not count because of the set, where its own distance does not already."""
    read = rows[rows["error"] == ""]
    if foreign(read):
        at = read.index[(read["artifact_kind"] != "") & counts(read)]
        rows.loc[at, "reason"] += UNCOUNTED


def accuse(rows: pd.DataFrame, reliability: str) -> None:
    """Beside each probability that a model made a picture how far to trust it: a table by itself would accuse painters."""
    said = np.where(rows["made_by_model"].notna(), reliability, "").astype(object)
    rows["made_by_model_reliability"] = pd.Series(said, rows.index, object)  # one text for all of a million rows


def expected(rows: pd.DataFrame, alarms: dict[str, float]) -> float | None:
    """Of real, undamaged paintings in the intended styles of these rows, the share that sets off the alarm too; None where unknown.

    `alarms`: that share by style, as the head's card says. Mixtures are left out.
    """
    known = rows["style_target"].map(alarms).dropna()
    return float(known.mean()) if len(known) else None
