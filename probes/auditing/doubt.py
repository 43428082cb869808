"""Whether an alarm of the artifact probe counts: it learned from paintings, and what those never show it takes for damage.

Measured on 2026-11-30: beyond the percentile FAR lie 4 % of 250 unseen paintings, 8 % of them with planted damage, 53 % of 17 photographs
of scikit-image, scikit-learn and matplotlib, of which in colour 9 of 10 set off the alarm, undamaged as they are. One photograph by itself
often lies among the paintings, many together do not: so a set is judged as a whole, and each picture by its own distance besides.
"""

import numpy as np
import pandas as pd

from probes.auditing.rates import rate

FAR = 95  # percent of real paintings that lie nearer
MOST = 0.15  # of pictures may lie beyond FAR: a set is unlike paintings where even the lower end of the share's interval is above it
LEAST = 8  # pictures, below which a set is not judged
UNCOUNTED = ", not counted in a set unlike paintings"


def counts(rows: pd.DataFrame) -> pd.Series:
    """Of pictures that were read for artifacts, whether they lie among those that the probe is known on, by the rows' index."""
    return rows["artifacts"].notna() & ~rows["out_of_domain"].fillna(False).astype(bool)


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


def expected(rows: pd.DataFrame, alarms: dict[str, float]) -> float | None:
    """Of real, undamaged paintings in the intended styles of these rows, the share that sets off the alarm too; None where unknown.

    `alarms`: that share by style, as the head's card says. Mixtures are left out.
    """
    known = rows["style_target"].map(alarms).dropna()
    return float(known.mean()) if len(known) else None
