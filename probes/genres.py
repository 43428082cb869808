"""Genres of painting in words, which of them show figures, and the scenes that a brief may ask for by name."""
from probes.config import lookup

# The words are those of the captions that the embedded encoder learned from.
WORDS = {
    "portrait": "portrait",
    "landscape": "landscape",
    "genre-painting": "genre scene",
    "religious": "religious painting",
    "cityscape": "cityscape",
    "still-life": "still life",
    "illustration": "illustration",
}
# Derived from what the genres are, not looked up in pictures; an illustration may be either.
FIGURES = ("portrait", "genre-painting", "religious")
NO_FIGURES = ("landscape", "still-life", "cityscape")
PLACES = {
    "indoor": ("a painting of a room", "an interior", "a painting of an indoor scene"),
    "outdoor": ("a painting of the open air", "a landscape", "a painting of an outdoor scene"),
}
SCENES = (*WORDS, "figures", "no-figures", *PLACES)


def scene(name: str) -> str:
    """The scene that a name means, whatever its case, spaces and hyphens: `Still life` is `still-life`. UserError offers the nearest."""
    return lookup({key: key for key in SCENES}, name, "scene")
