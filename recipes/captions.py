"""Captions from a row of metadata: style, genre, century or year, artist and title words, in the order people type them."""

import random

import pandas as pd

ADJECTIVES = {
    "impressionism": "impressionist",
    "romanticism": "romantic",
    "symbolism": "symbolist",
    "post-impressionism": "post-impressionist",
    "expressionism": "expressionist",
    "pointillism": "pointillist",
    "cubism": "cubist",
    "realism": "realist",
    "fauvism": "fauvist",
    "constructivism": "constructivist",
    "suprematism": "suprematist",
    "tonalism": "tonalist",
    "academicism": "academic",
    "neoclassicism": "neoclassical",
    "art-nouveau": "art nouveau",
    "naive-art": "naive art",
}
GENRES = {
    "landscape": "landscape",
    "genre-painting": "genre scene",
    "religious": "religious painting",
    "cityscape": "cityscape",
    "still-life": "still life",
    "illustration": "illustration",
    "abstract": "abstract painting",
    "portrait": "portrait",
}
STYLE_TEMPLATES = ("a {} painting", "{} painting", "a painting in the {} style", "{}", "{} art", "a work of {} art", "in the style of {}")
GENRE_TEMPLATES = ("a {}", "{}", "a painting: {}")


def noun(style: str) -> str:
    """The style's name as people write it."""
    return style if style in ("ukiyo-e", "post-impressionism", "shin-hanga") else style.replace("-", " ")


def style_words(style: str, rng: random.Random) -> str:
    """`baroque`, or for a movement its noun or its adjective."""
    return ADJECTIVES.get(style, noun(style)) if rng.random() < 0.6 else noun(style)


def century(year: float) -> str:
    return f"{int(year - 1) // 100 + 1}th century"


def caption(row: pd.Series, rng: random.Random, words_only: float = 0.06) -> str:
    """One caption of many that the row allows; with probability `words_only` just the title, so that a bare prompt works too."""
    title, genre = row.title, GENRES.get(row.genre, "painting")
    if title and rng.random() < words_only:
        return title
    style = style_words(row.style, rng) if row.style and rng.random() < 0.85 else ""
    subject = title if title and rng.random() < 0.75 else ""
    kind = genre if rng.random() < 0.75 else "painting"
    head = (
        rng.choice((f"a {style} {kind}", f"{style} {kind}", f"a {kind} in the {style} style", f"a {kind}, {style}"))
        if style
        else f"a {kind}"
    )
    parts = []
    if pd.notna(row.year) and rng.random() < 0.5:
        parts.append(century(row.year) if rng.random() < 0.6 else f"painted in {int(row.year)}")
    if row.artist and rng.random() < 0.25:
        parts.append("by " + row.artist.replace("-", " "))
    if subject and rng.random() < 0.4:
        return ", ".join([subject, head.removeprefix("a "), *parts])
    joined = rng.choice((f"{head} of {subject}", f"{head}, {subject}", f"{head}: {subject}")) if subject else head
    return ", ".join([joined, *parts])
