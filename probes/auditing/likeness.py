"""Near-duplicates among the pictures and of reference images, and how different the pictures of a set are from each other."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from probes.auditing import doubt
from probes.auditing.looks import BLANK
from probes.auditing.pairing import UNGUIDED

# Of 256 bits. Measured on 600 paintings of 144 pixels: halving, JPEG at quality 30 and noise change at most 32 bits in all of 200, a
# change of brightness in 199, a crop by 3 % a side in 65; of 179,700 pairs of different paintings the nearest are 61 bits apart.
NEAR = 32
MOST = 100_000  # pictures compared with all others; beyond, only equal files and equal hashes are found
BLOCK = 2**20  # pairs that are compared at a time
FLAT = 0.01  # of contrast: the hash of a flatter picture is nothing but rounding; only those of one colour are compared, by that colour


def mark(rows: pd.DataFrame) -> None:
    """Fill in `duplicate_of` and `duplicate_bits` of those alike; of a group one is named: the original where it is known, else the first.

    The original is the only one of a group that is unguided, or else the only one that is undamaged while all others count as damaged.
    `duplicate_bits` is how far each is from the nearest before it.

    Two pictures are near-duplicates where their hashes of structure differ in at most 32 of 256 bits, unless they are two variants of
    one seed and prompt, which are alike on purpose. Blank pictures repeat each other where they are of one colour.
    """
    read = rows.index[rows["error"] == ""].to_numpy()
    _, first, inverse = np.unique(_hashes(rows.loc[read, "sha256"]), axis=0, return_index=True, return_inverse=True)
    equal = read[first[inverse.reshape(-1)]]
    original = {int(k): int(one) for k, one in zip(read[equal != read], equal[equal != read], strict=True)}
    bits = dict.fromkeys(original, 0)
    at = read[(equal == read) & (rows.loc[read, "contrast"].to_numpy() > FLAT)].tolist()
    blank = read[(equal == read) & (rows.loc[read, "contrast"].to_numpy() <= BLANK)]
    if len(blank):
        first = pd.Series(blank).groupby(rows.loc[blank, "fingerprint"].to_numpy()).transform("first")
        repeated = {int(k): int(one) for k, one in zip(blank, first, strict=True) if k != one}
        original = {k: repeated.get(one, one) for k, one in original.items()} | repeated
        bits |= dict.fromkeys(repeated, 0)
    hashes, (seeds, variants) = _hashes(rows.loc[at, "fingerprint"]), _variants(rows.loc[at])
    if len(at) > MOST:
        whole = pd.Series(at).groupby([hashes[:, word] for word in range(4)]).transform("first")
        original |= {k: one for k, one in zip(at, whole, strict=True) if k != one}
        bits |= {k: 0 for k, one in zip(at, whole, strict=True) if k != one}
    else:
        size, roots = max(BLOCK // max(len(at), 1), 1), {}
        for start in range(0, len(at), size):
            stop = min(start + size, len(at))
            apart = _apart(hashes[start:stop], hashes[:stop])
            own, some = slice(start, stop), slice(0, stop)
            apart[np.arange(stop) >= np.arange(start, stop)[:, None]] = 257
            apart[(seeds[own, None] == seeds[None, some]) & (variants[own, None] != variants[None, some]) & (seeds[own, None] >= 0)] = 257
            nearest = apart.argmin(1)
            least = apart[np.arange(stop - start), nearest]
            for place in np.flatnonzero(least <= NEAR):
                k = start + int(place)
                roots[k] = roots.get(int(nearest[place]), int(nearest[place]))
                original[at[k]], bits[at[k]] = at[roots[k]], int(least[place])
    if original:
        _rerooted(rows, original, bits)
        names = rows["image"]
        rows.loc[list(original), "duplicate_of"] = [names[one] for one in original.values()]
        rows.loc[list(bits), "duplicate_bits"] = list(bits.values())


def _rerooted(rows: pd.DataFrame, original: dict[int, int], bits: dict[int, int]) -> None:
    """Name the original of a group, where it is known, in place of the first: in both dicts."""
    groups: dict[int, list[int]] = {}
    for k, one in original.items():
        groups.setdefault(one, [one]).append(k)
    some = rows.loc[sorted(original.keys() | groups.keys())]
    unguided, known, damaged = (one.to_dict() for one in (some["variant"] == UNGUIDED, doubt.counts(some), some["artifact_kind"] != ""))
    for first, group in groups.items():
        plain, whole = [k for k in group if unguided[k]], [k for k in group if not damaged[k]]
        sure = len(whole) == 1 and all(known[k] for k in group)
        found = plain[0] if len(plain) == 1 else whole[0] if sure else first
        if found != first:
            apart = _apart(_hashes(rows.loc[[first], "fingerprint"]), _hashes(rows.loc[[found], "fingerprint"]))
            bits[first] = int(apart[0, 0])
            original |= dict.fromkeys(group, found)
            del original[found], bits[found]


def mark_reference(rows: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Fill in `reference_match` and `reference_bits` of those that repeat a reference image, or nearly; the nearest is named."""
    known = reference[(reference["error"] == "") & (reference["contrast"] > FLAT)]
    at = rows.index[(rows["error"] == "") & (rows["contrast"] > FLAT)]
    if not len(known) or not len(at):
        return
    hashes, others = _hashes(rows.loc[at, "fingerprint"]), _hashes(known["fingerprint"])
    size = max(BLOCK // len(known), 1)
    for start in range(0, len(at), size):
        apart = _apart(hashes[start : start + size], others)
        nearest = apart.argmin(1)
        least = apart[np.arange(len(apart)), nearest]
        close = np.flatnonzero(least <= NEAR)
        rows.loc[at[start + close], "reference_match"] = known["image"].iloc[nearest[close]].tolist()
        rows.loc[at[start + close], "reference_bits"] = least[close].tolist()


def diversity(labels: pd.DataFrame, features: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, float | None]]:
    """By column of `labels` and value the mean of 1 - cosine over all pairs of its pictures, None of one alone.

    In one pass, from the sum of the unit vectors alone: |sum f|^2 = n + 2 sum of the cosines.
    """
    known = {name: pd.factorize(labels[name]) for name in labels}
    sums: dict[str, dict[int, tuple[np.ndarray, int]]] = {name: {} for name in labels}
    for at, some in features:
        unit = some.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
        for name, (codes, _) in known.items():
            for code in np.unique(codes[at]):
                mine = unit[codes[at] == code]
                total, count = sums[name].get(code, (0.0, 0))
                sums[name][code] = total + mine.sum(0), count + len(mine)
    return {name: {str(known[name][1][code]): float(1 - (total @ total - count) / (count * (count - 1))) if count > 1 else None
                   for code, (total, count) in found.items()} for name, found in sums.items()}  # fmt: skip


def _hashes(fingerprints: pd.Series) -> np.ndarray:
    return np.frombuffer(b"".join(fingerprints), np.uint64).reshape(-1, 4)


def _apart(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bits in which hashes (n, 4) and (m, 4) differ: (n, m)."""
    apart = np.zeros((len(some), len(others)), np.int16)
    for word in range(4):
        apart += np.bitwise_count(some[:, None, word] ^ others[None, :, word])
    return apart


def _variants(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of seed and prompt, -1 where there is no seed, and of the variant."""
    seeds = rows["seed"].astype("string") + "\0" + rows["prompt"]
    return pd.factorize(seeds.where(rows["seed"].notna()))[0], pd.factorize(rows["variant"])[0]
