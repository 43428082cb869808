"""The catalogue of styles: every file is read, and what it says holds together."""
from collections import Counter

import pytest

from guide.brief import Brief, learned, parse_styles
from probes.config import lookup, styles

LEARNED = ("impressionism", "baroque", "romanticism", "art-nouveau", "symbolism", "post-impressionism", "rococo", "ukiyo-e",
           "expressionism", "pointillism", "cubism", "renaissance", "naive-art", "realism", "fauvism", "shin-hanga", "gothic",
           "suprematism", "constructivism", "tonalism", "academicism", "neoclassicism")
GENRES = {"portrait", "landscape", "genre-painting", "religious", "cityscape", "still-life", "illustration", "abstract"}


def test_there_are_styles_from_many_places():
    assert len(styles()) >= 31
    assert set(LEARNED) <= styles().keys()
    assert {"pop-art", "ukiyo-e", "chinese-ink-landscape", "mughal-miniature", "persian-miniature", "korean-minhwa"} <= styles().keys()


def test_what_the_embedded_models_learned_is_in_the_catalogue():
    assert learned() <= styles().keys()


@pytest.mark.parametrize("key", sorted(styles()))
def test_style_is_complete(key):
    style = styles()[key]
    assert style.key == key
    assert style.names[0]
    assert 500 <= style.years[0] < style.years[1] <= 2000
    assert len(style.prompts) >= 4
    assert len(set(style.prompts)) == len(style.prompts)
    assert set(style.genres) <= GENRES
    assert style.genres
    assert style.region
    assert style.about.endswith(".")


@pytest.mark.parametrize("key", sorted(styles()))
def test_prompts_name_a_subject_and_not_the_style(key):
    style = styles()[key]
    names = {name.lower() for name in (*style.names, style.adjective)}
    assert not [prompt for prompt in style.prompts for name in names if f" {name} " in f" {prompt.lower()} "]


@pytest.mark.parametrize("key", sorted(styles()))
def test_every_name_finds_its_style(key):
    style = styles()[key]
    for name in (key, key.replace("-", " ").title(), style.adjective, *style.names):
        assert lookup(styles(), name, "style").key == key
    assert parse_styles(style.names[0]) == ((key, 1.),)


def test_no_name_is_claimed_twice():
    claimed = Counter(name.casefold() for style in styles().values() for name in style.names)
    assert [name for name, times in claimed.items() if times > 1] == []


@pytest.mark.parametrize("key", sorted(styles()))
def test_the_words_for_it(key):
    style = styles()[key]
    brief = Brief(style.prompts[0], ((key, 1.),))
    assert style.adjective in brief.text()
    assert style.prompts[0] in brief.text()
    assert style.adjective not in Brief(style.prompts[0], ((key, 1.),), name_style=False).text()
