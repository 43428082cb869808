"""BibTeX of a run: each source once, marked where nobody read it, and every preset's paper known."""
import re

import pytest

from guide.cite import ARXIV, BY, SOURCES, UNREAD, bibtex, entry
from guide.record import Record
from guide.strategies import listing as listed
from guide.strategies import presets
from guide.strategies.listing import COLUMNS, listing, needs
from probes import reference


def record(**request) -> Record:
    settings = {"guidance_scale": 4.}
    return Record({"model": "embedded", "encoder": "embedded", "settings": settings} | request, command="guide generate", git=None)


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(\S+),$", text, re.M)


def test_a_run_cites_what_it_used_and_nothing_else():
    assert keys(bibtex(record(strategy="dps"))) == ["clip_guided_generation", "chung2022dps", "radford2021clip", "rombach2021ldm",
                                                    "ho2022cfg"]
    plain = record(strategy="unguided", model="sdxl-turbo", settings={"guidance_scale": 0.})
    assert keys(bibtex(plain)) == ["clip_guided_generation", "radford2021clip", "podell2023sdxl", "sauer2023add"]
    assert "ho2022cfg" not in bibtex(plain)


def test_a_comparison_cites_every_strategy_once():
    compared = record(strategy="fk", strategies={"unguided": {}, "mpgd": {"damping": 0.}, "clean-image": {"damping": 2.}, "fk": {}})
    found = keys(bibtex(compared))
    assert found == ["clip_guided_generation", "he2023mpgd", "damping2026", "singhal2025fk", "radford2021clip", "rombach2021ldm",
                     "ho2022cfg"]


def test_goals_are_cited_where_they_were_set():
    goals = {"constraints": [["content", ">=", .2]], "references": [["a.jpg", 1.]], "content": "directional"}
    told = record(strategy="unguided", goals=goals)
    assert keys(bibtex(told))[1:4] == ["platt1988mdmm", "arxiv1703.06868", "arxiv2108.00946"]
    assert "somepalli2024csd" in keys(bibtex(record(strategy="unguided", goals={"references": [["a.jpg", 1.]], "by": "style"})))
    assert set(BY) == set(reference.KINDS)


@pytest.mark.parametrize("name", ["lgd-mc", "ntrk", "universal"])
def test_sources_that_were_not_read_are_marked(name):
    own = bibtex(record(strategy=name)).split("@")[2]
    assert f"note = {{{UNREAD}}}" in own
    assert UNREAD not in entry("2209.14687")
    assert UNREAD in entry("9999.99999")
    assert "author" not in entry("9999.99999")


def test_a_presets_paper_and_its_entry_agree_about_having_been_read():
    for key, preset in presets().items():
        cited = ARXIV.findall(preset.paper) or [key] * (key in SOURCES)
        if preset.paper:
            assert cited, key
        for source in cited:
            assert SOURCES[source].read is ("unverified" not in preset.paper), key


def test_entries_are_well_formed():
    for source in SOURCES:
        text = entry(source)
        assert text.count("{") == text.count("}")
        assert text.startswith(("@misc{", "@inproceedings{"))
        assert "= {}" not in text
    assert len({known.key for known in SOURCES.values()}) == len(SOURCES)


def test_the_list_of_strategies_says_what_each_needs():
    rows = {row[0]: row for row in listing()}
    assert set(rows) == set(presets())
    assert all(len(row) == len(COLUMNS) and all(row) for row in rows.values())
    assert needs(presets()["unguided"]) == "nothing"
    assert needs(presets()["dsg"]) == "gradient through denoiser and decoder, a scheduler that adds noise"
    assert "1 to 4 steps" in rows["reno"][3]


def test_what_each_strategy_costs_was_measured():
    """A preset that is added is measured too: python -m benchmarks.costs --write."""
    found = listed.measured()
    assert set(found["ratios"]) == set(presets())
    assert found["ratios"]["unguided"] == 1
    dear = [found["ratios"][key] for key in ("clean-image-fast", "clean-image", "clean-image-full", "dps", "lgd-mc")]
    assert dear == sorted(dear)
    assert found["ratios"]["best-of"] == pytest.approx(presets()["best-of"].settings["n"], rel=.25)
    rows = {row[0]: row[4] for row in listing()}
    assert all(row[0].isdigit() and " times" in row for row in rows.values())
    assert found["date"] in listed.source()
    assert found["machine"] in listed.source()
