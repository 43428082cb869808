"""Near-duplicates, and how different the pictures of a set are from each other."""

from collections.abc import Iterable

import numpy as np

from probes.auditing.ledger import Entry
from probes.auditing.pairing import beside

# Of 256 bits. Measured on 600 paintings of 144 pixels: halving, JPEG at quality 30 and noise change at most 32 bits in all of 200, a
# change of brightness in 199, a crop by 3 % a side in 65; of 179,700 pairs of different paintings the nearest are 61 bits apart.
NEAR = 32
MOST = 20_000  # pictures compared with all others; beyond, only equal files and equal hashes are found
ROWS = 512


def marked(entries: Iterable[Entry]) -> tuple[list[dict], dict[str, dict]]:
    """The rows, with `duplicate_of` in those that repeat an earlier one, and the diversity of each intended style.

    Two pictures are near-duplicates where their hashes of structure differ in at most 32 of 256 bits. Flat pictures, whose hash is
    nothing but rounding, are compared by content only.
    """
    kept, hashes, sums = [], [], {}
    for entry in entries:
        if entry.features:
            features = np.frombuffer(entry.features, np.float16).astype(np.float64)
            total, count = sums.get(entry.row["style_target"], (0.0, 0))
            sums[entry.row["style_target"]] = total + features / max(np.linalg.norm(features), 1e-12), count + 1
        kept.append(entry.row)
        hashes.append(entry.row.get("fingerprint") if entry.row.get("contrast", 0) > 0.01 else None)
    _exact(kept)
    _near(kept, hashes)
    return kept, {target: _diversity(total, count) for target, (total, count) in sums.items()}


def _exact(rows: list[dict]) -> None:
    first: dict[str, str] = {}
    for row in rows:
        if row.get("error"):
            continue
        original = first.setdefault(row["sha256"], row["image"])
        if original != row["image"]:
            row |= {"duplicate_of": beside(row["image"], original), "duplicate_bits": 0}


def _near(rows: list[dict], hashes: list[str | None]) -> None:
    """Each is compared with those before it: the nearest is named. Only first ones count as an original."""
    at = [k for k, value in enumerate(hashes) if value and "duplicate_of" not in rows[k]]
    if len(at) > MOST:
        first: dict[str, int] = {}
        for k in at:
            if (original := first.setdefault(hashes[k], k)) != k:
                rows[k] |= {"duplicate_of": beside(rows[k]["image"], rows[original]["image"]), "duplicate_bits": 0}
        return
    seeds = [(row.get("seed"), row.get("prompt"), row.get("variant")) for row in (rows[k] for k in at)]
    bits = np.unpackbits(np.array([list(bytes.fromhex(hashes[k])) for k in at], np.uint8).reshape(len(at), 32), axis=1).astype(np.float32)
    roots: dict[int, int] = {}
    for start in range(0, len(at), ROWS):
        block = bits[start : start + ROWS]
        apart = block.sum(1, keepdims=True) + bits[: start + ROWS].sum(1) - 2 * block @ bits[: start + ROWS].T
        later = np.arange(apart.shape[1]) >= np.arange(start, start + len(block))[:, None]
        apart[later | _counterparts(seeds[start : start + ROWS], seeds[: start + ROWS])] = np.inf
        for k in range(len(block)):
            if start + k and apart[k].min() <= NEAR:
                row, nearest = rows[at[start + k]], int(apart[k].argmin())
                roots[start + k] = roots.get(nearest, nearest)
                original = rows[at[roots[start + k]]]["image"]
                row |= {"duplicate_of": beside(row["image"], original), "duplicate_bits": int(apart[k].min())}


def _counterparts(some: list[tuple], others: list[tuple]) -> np.ndarray:
    """Which pairs are two variants of one seed and prompt: those are alike on purpose."""
    codes = {seed: k for k, seed in enumerate(dict.fromkeys(seed[:2] for seed in others))}
    variants = {seed: k for k, seed in enumerate(dict.fromkeys(seed[2] for seed in others))}
    (a, u), (b, v) = (np.array([(codes[s[:2]], variants[s[2]]) for s in side]).reshape(-1, 2).T for side in (some, others))
    seeded = np.array([seed[0] is not None for seed in some], bool)
    return (a[:, None] == b) & (u[:, None] != v) & seeded[:, None]


def _diversity(total: np.ndarray, count: int) -> dict:
    """Mean of 1 - cosine over all pairs, from the sum of the unit vectors alone: |sum f|^2 = n + 2 sum of the cosines."""
    return {"pictures": count, "mean_distance": float(1 - (total @ total - count) / (count * (count - 1))) if count > 1 else None}
