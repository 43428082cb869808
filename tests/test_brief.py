"""What was asked for, from text and into words."""
import pytest

from guide.brief import Brief, in_words, parse_avoid, parse_period, parse_seeds, parse_size, parse_styles, per_prompt
from probes.errors import UserError


def test_styles_with_weights_sum_to_one():
    assert parse_styles("Impressionist") == (("impressionism", 1.),)
    assert parse_styles("baroque:7, Ukiyo-e:3") == (("baroque", .7), ("ukiyo-e", .3))
    assert parse_styles("baroque,rococo") == (("baroque", .5), ("rococo", .5))


def test_avoid_takes_lists_and_repeats():
    assert parse_avoid(["rococo,realism", "Rococo"]) == ("rococo", "realism")


def test_periods():
    assert parse_period("1650") == (1650, 1650)
    assert parse_period("1600 - 1725") == (1600, 1725)
    assert [in_words(p) for p in ((1650, 1650), (1600, 1725), (1401, 1500), (1900, 1900), (1901, 1999), (2001, 2100))] == [
        "painted in 1650", "17th century", "15th century", "painted in 1900", "20th century", "21st century"]


def test_seeds():
    assert parse_seeds("0-3") == (0, 1, 2, 3)
    assert parse_seeds("3,5,9-10,5") == (3, 5, 9, 10)


def test_sizes():
    assert parse_size("128") == (128, 128)
    assert parse_size("128x160") == (128, 160)


@pytest.mark.parametrize(("parse", "text"), [
    *((parse_styles, text) for text in ("barok", "baroque:much", "baroque:0", "baroque:-1", "baroque:nan", "baroque,Baroque", ",")),
    *((parse_period, text) for text in ("old", "1700-1600", "99999")),
    *((parse_seeds, text) for text in ("a", "-1", "5-2", "0-99999999", "1.5", "")),
    *((parse_size, text) for text in ("100", "0", "32", "4096", "128x", "-128", "big")),
])
def test_what_cannot_be_read_is_one_sentence_with_a_remedy(parse, text):
    with pytest.raises(UserError) as error:
        parse(text)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_words():
    asked = (("baroque", 1.),)
    assert Brief("lemons", asked).text() == "baroque painting of lemons"
    assert Brief("lemons", asked, period=(1600, 1700)).text() == "baroque painting of lemons, 17th century"
    assert Brief("", asked).text() == "baroque painting"
    assert Brief("lemons").text() == "lemons"
    assert Brief("lemons", period=(1650, 1650)).text() == "a painting of lemons, painted in 1650"
    assert Brief("lemons", (("rococo", .3), ("ukiyo-e", .7))).text() == "ukiyo-e and rococo painting of lemons"
    assert Brief("lemons", asked, avoid=("rococo", "realism")).negative() == "rococo painting, realist painting"


def test_without_the_style_named_neither_prompt_nor_negative_prompt_gives_it_away():
    brief = Brief("lemons", (("baroque", 1.),), ("rococo",), (1600, 1700), name_style=False)
    assert brief.text() == "a painting of lemons"
    assert brief.negative() == ""


def test_a_prompt_belongs_to_every_seed():
    assert per_prompt(Brief("lemons", (("baroque", 1.),)), (0, 5)) == [(Brief("lemons", (("baroque", 1.),)), (0, 5))]


def test_without_a_prompt_the_styles_own_are_cycled_by_seed():
    brief = Brief("", (("baroque", 1.),))
    by_seed = {seed: own.prompt for own, seeds in per_prompt(brief, range(8)) for seed in seeds}
    assert sorted(by_seed) == list(range(8))
    assert len(set(by_seed.values())) == 4
    alone = {seed: own.prompt for seed in range(8) for own, _ in per_prompt(brief, [seed])}
    assert alone == by_seed, "the subject of a seed does not depend on the other seeds"


def test_folder_names():
    assert Brief("A jug, & lemons!", (("baroque", 1.),)).slug() == "baroque-a-jug-lemons"
    assert Brief("../../etc").slug() == "etc"
