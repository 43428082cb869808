"""The card of words: nothing is fitted, the text tower is the head; genres, titles found again, words that titles name, makers."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import torch

from probes.content import PHRASE_TEMPLATES
from probes.heads.zero_shot import zero_shot
from probes.judges import GENRES
from probes.origin import PROMPTS, OriginProbe
from probes.probe import NOT_VALIDATED
from recipes.captions import GENRES as GENRE_WORDS
from recipes.data import codes
from recipes.heads.features import Paintings
from recipes.metrics import retrieval_figures, softmax, style_figures

FEWEST = 15  # test paintings whose title has a word, for that word to be tried
LETTERS = 4  # and letters, so that articles and the like stay out
TITLE = "a painting of {}"


def words(titles: pd.Series) -> dict[str, np.ndarray]:
    """Words that enough titles name, and which titles `(n,)` do."""
    named = [set(re.findall(rf"[a-z]{{{LETTERS},}}", title)) for title in titles.str.lower()]
    counts = Counter(word for title in named for word in title)
    common = sorted((word for word, count in counts.items() if count >= FEWEST), key=lambda word: (-counts[word], word))
    return {word: np.array([word in title for title in named]) for word in common if counts[word] < len(named)}


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting half; nan where one of them is missing."""
    if positive.all() or not positive.any():
        return float("nan")
    ranks = pd.Series(scores).rank().to_numpy()
    above = positive.sum()
    return float((ranks[positive].sum() - above * (above + 1) / 2) / (above * (~positive).sum()))


def phrase_figures(paintings: Paintings, titled: np.ndarray) -> dict:
    """How well the cosine to a word tells paintings whose title names it from the others: AUC, over the words, test artists."""
    titles = paintings.tested["title"][titled]
    held, found = paintings.held[titled], words(titles)
    if not found:
        return {"words": 0, "titles": len(titles)}
    text = paintings.text([[word] for word in found], PHRASE_TEMPLATES)
    areas = {word: auc(held @ target, named) for target, (word, named) in zip(text, found.items(), strict=True)}
    ordered = sorted(areas, key=areas.get, reverse=True)
    return {
        "words": len(areas),
        "titles": len(titles),
        "mean auc": float(np.mean(list(areas.values()))),
        "share above .6": float(np.mean([area > 0.6 for area in areas.values()])),
        "best": {word: round(areas[word], 2) for word in ordered[:8]},
        "worst": {word: round(areas[word], 2) for word in ordered[-8:]},
    }


def makers(paintings: Paintings) -> str:
    """How many paintings, all by people, the words for makers take for a model's."""
    if not len(paintings.held):
        return NOT_VALIDATED
    probe = OriginProbe(paintings.encoder, zero_shot(paintings.encoder, PROMPTS))
    held = torch.from_numpy(paintings.held).to(paintings.encoder.device)
    above = [float((probe.read(held)["made_by_model"] > bound).float().mean()) for bound in (0.5, 0.8)]
    return f"{NOT_VALIDATED}: of {len(held):,} real paintings {100 * above[0]:.0f} % read so above .5, {100 * above[1]:.0f} % above .8"


def measure(paintings: Paintings) -> dict:
    """The card; its `phrases` is the reliability of a phrase read on its own, its `origin` that of makers by words."""
    tested, held = paintings.tested, paintings.held
    genre, text = codes(tested["genre"], GENRES), paintings.text([[GENRE_WORDS[genre]] for genre in GENRES])
    has, titled = genre >= 0, (tested["title"].str.split().str.len() >= 2).to_numpy()
    by_words = style_figures(softmax(held[has] @ text.T * paintings.encoder.logit_scale), genre[has], tested["artist"][has], GENRES)
    retrieval = {}
    if titled.any():
        titles = paintings.text([[title] for title in tested["title"][titled]], (TITLE,))
        retrieval = retrieval_figures(held[titled] @ titles.T, tested["artist"][titled])
    phrases = phrase_figures(paintings, titled)
    told = [f"zero-shot genre balanced accuracy {by_words['balanced_accuracy']:.2f} over {len(GENRES)} genres"] if by_words else []
    if retrieval:
        told.append(
            f"of {retrieval['titles']} titles the right one is among the first 5 for {retrieval['at 5']:.1%} "
            f"(chance {retrieval['at 5 by chance']:.1%})"
        )
    reliability = f"{'; '.join(told)}: subjects in broad strokes, no details" if told else NOT_VALIDATED
    said = phrases["words"] and (
        f"the cosine to a word ranks paintings whose title names it above others with mean AUC {phrases['mean auc']:.2f} (chance .50), "
        f"over {phrases['words']} words and {phrases['titles']} paintings by unseen artists; titles leave out much of what a painting shows"
    )
    metrics = {"genre": by_words, "retrieval": retrieval, "phrases": phrases}
    return {"reliability": reliability, "origin": makers(paintings), "metrics": metrics} | ({"phrases": said} if said else {})
