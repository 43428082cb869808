"""Configuration: typed, strict, and helpful about what does not fit; and families of networks."""
from dataclasses import dataclass, field
from typing import Literal

import pytest

from guide.strategies import presets
from probes import config
from probes.config import Style, lookup, read, styles
from probes.errors import UserError
from probes.lineage import Lineage, same_family


@dataclass(frozen=True)
class Part:
    size: int


@dataclass(frozen=True)
class Entry:
    steps: int
    names: tuple[str, ...] = ()
    span: tuple[int, int] = (0, 1)
    strength: float | None = None
    kind: Literal["a", "b"] = "a"
    part: Part | None = None
    extra: dict[str, float] = field(default_factory=dict)
    key: str = ""


def write(tmp_path, text):
    path = tmp_path / "entry.toml"
    path.write_text(text)
    return path


def test_a_table_becomes_the_dataclass(tmp_path):
    text = 'steps = 5\nnames = ["x", "y"]\nspan = [3, 4]\nstrength = 2\nkind = "b"\n[part]\nsize = 7\n[extra]\nw = 1'
    assert read(write(tmp_path, text), Entry) == Entry(5, ("x", "y"), (3, 4), 2., "b", Part(7), {"w": 1.}, "entry")


@pytest.mark.parametrize(("text", "said"), [
    ("stepz = 5", "entry.toml has an unknown key 'stepz'; the nearest known: steps"),
    ("steps = 5\n[part]\nsise = 1", "unknown key 'sise'; the nearest known: size"),
    ("steps = 5\nqqq = 1", "unknown key 'qqq'; known are"),
    ("strength = 1", "lacks the required key 'steps'"),
    ("steps = 1.5", "steps must be a whole number, not 1.5"),
    ("steps = true", "steps must be a whole number, not True"),
    ("steps = 5\nnames = 'x'", "names must be a list of text"),
    ("steps = 5\nspan = [1]", "span must be a list of 2 values"),
    ("steps = 5\nstrength = 'much'", "strength must be a number, not 'much'"),
    ("steps = 5\nkind = 'c'", "kind must be one of 'a', 'b'"),
    ("steps = 5\nkey = 'mine'", "unknown key 'key'"),
    ("steps = ", "not valid TOML"),
])  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, text, said):
    with pytest.raises(UserError) as caught:
        read(write(tmp_path, text), Entry)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_value_the_class_refuses_are_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "none.toml", Entry)
    with pytest.raises(UserError, match="earlier to the later"):
        read(write(tmp_path, "names = ['X']\nadjective = 'x'\nyears = [1700, 1600]\nprompts = ['a', 'b']"), Style)


@pytest.mark.parametrize("key", styles())
def test_every_style_answers_to_its_names_however_they_are_typed(key):
    style = styles()[key]
    for name in (key, style.names[0], style.names[0].upper(), key.replace("-", " "), key.replace("-", "_")):
        assert lookup(styles(), name, "style").key == key


def test_the_nearest_names_are_offered_and_all_where_none_is_near():
    with pytest.raises(UserError, match=r"no style 'baroqe'; the nearest known: baroque"):
        lookup(styles(), "baroqe", "style")
    with pytest.raises(UserError, match=r"known are .* more"):
        lookup(styles(), "zzzzzz", "style")
    with pytest.raises(UserError, match=r"no strategy 'nope'; known are apg, "):  # not unguided, which "none" is another name of
        lookup(presets(), "nope", "strategy")
    with pytest.raises(UserError, match=r"no strategy 'mpg'; the nearest known: mpgd"):
        lookup(presets(), "mpg", "strategy")


def test_an_installed_package_reads_its_own_configs(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "__file__", str(tmp_path / "probes" / "config.py"))
    assert config.configs() == tmp_path / "configs"
    (tmp_path / "probes" / "_configs").mkdir(parents=True)
    assert config.configs() == tmp_path / "probes" / "_configs"


GUIDE = Lineage("abc", "guide", "resnet", "contrastive")


@pytest.mark.parametrize(("other", "why"), [
    (Lineage("abc", "judge", "vit", "cross-entropy"), "weights"),
    (Lineage("def", "judge+guide", "vit", "cross-entropy"), "guide images"),
    (Lineage("def", "judge", "resnet", "contrastive"), "objective"),
    (Lineage("def", "judge", "resnet", "cross-entropy"), None),
    (Lineage("def", "judge", "vit", "contrastive"), None),
    (Lineage(), None),
])  # fmt: skip
def test_families(other, why):
    for reason in (same_family(GUIDE, other), same_family(other, GUIDE)):
        assert why in reason if why else reason is None


def test_what_is_unknown_matches_nothing():
    assert same_family(Lineage(), Lineage()) is None
