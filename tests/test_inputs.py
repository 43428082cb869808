"""What an audit may be given: folders with tables, tars, globs, runs; and how pictures are paired."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probes.auditing.inputs import items, merged
from probes.auditing.intention import Intention
from probes.auditing.ledger import Entry
from probes.auditing.likeness import marked
from probes.auditing.pairing import pair, pair_variants
from probes.errors import UserError
from probes.lineage import Lineage

TABLE = """file_name,style,period,prompt,generator,seed,human_style,rating
a.png,Baroque,1600-1725,lemons,sd,3,baroque,4
b.png,barok,soon,,sd,,,
"odd, ""name"".png","baroque:.7,ukiyo-e:.3",1650,,flux,1e3,,2
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", 'odd, "name".png', "c.png"):
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    return tmp_path


def test_a_table_says_what_was_meant(folder):
    (folder / "list.csv").write_text(TABLE)
    (first, second, third), _ = items(folder / "list.csv")
    assert first.intention == Intention("lemons", (("baroque", 1.0),), (), (1600, 1725))
    assert first.cells == {"group": "sd", "seed": 3, "human_style": "baroque", "rating": "4"}
    assert second.intention is None
    assert [note.partition(" is ")[0] for note in second.cells["notes"]] == ["the intended style 'barok'", "the intended period 'soon'"]
    assert third.intention.styles == (("baroque", 0.7), ("ukiyo-e", 0.3))
    assert third.intention.period == (1650, 1650)
    assert "seed" not in third.cells
    pd.read_csv(folder / "list.csv").to_parquet(folder / "list.parquet")
    again = items(folder / "list.parquet")[0]
    assert [item.intention for item in again] == [first.intention, None, third.intention]


def test_a_folder_may_hold_a_table(folder):
    (folder / "metadata.csv").write_text(TABLE)
    found = {item.source.name: item.intention for item in items(folder)[0]}
    assert list(found) == ["a.png", "b.png", "c.png", 'odd, "name".png']
    assert found["a.png"].prompt == "lemons"
    assert found["c.png"] is None


def test_what_the_caller_says_comes_before_the_table(folder):
    (folder / "list.csv").write_text(TABLE)
    found, _ = items(folder / "list.csv")
    given = [Intention(styles=(("rococo", 1.0),))] * 3
    assert merged(found, given)[0] == Intention("lemons", (("rococo", 1.0),), (), (1600, 1725))


@pytest.mark.parametrize(("text", "told"), [("x,y\n1,2\n", "file_name"), ("file_name\n", "names no files"), ("", "cannot be read")])
def test_tables_without_files_are_refused(folder, text, told):
    (folder / "list.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        items(folder / "list.csv")


def test_a_tar_is_read_in_place(tmp_path):
    def add(archive, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    held = io.BytesIO()
    Image.new("RGB", (40, 40), "teal").save(held, "PNG")
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard}.tar", "w") as archive:
            add(archive, "set/000.jpg.png", held.getvalue())
            add(archive, "set/000.txt", b"a castle\n")
            add(archive, "set/001.png", held.getvalue())
            add(archive, "set/001.json", json.dumps({"caption": "a boat", "style": "baroque", "seed": 4, "rating": 2.5}).encode())
    found, _ = items(tmp_path)
    assert [item.name.removeprefix(f"{tmp_path}/") for item in found][:2] == ["shard-0.tar/set/000.jpg.png", "shard-0.tar/set/001.png"]
    assert len(found) == len(items(tmp_path / "shard-*.tar")[0]) == 4
    assert found[0].read() == held.getvalue()
    assert found[0].intention.prompt == "a castle"
    assert found[1].intention == Intention("a boat", (("baroque", 1.0),))
    assert found[1].cells == {"seed": 4, "rating": "2.5"}
    (tmp_path / "shard.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="compressed"):
        items(tmp_path / "shard.tar.gz")


def test_a_run_says_what_steered_it(folder):
    said = {"weights": "abc", "data": "guide", "architecture": "ViT", "objective": "contrastive"}
    lineages = {"encoder": said, "referee": {"weights": "r"}, "verdict": {"weights": "v"}}
    (folder / "record.json").write_text(json.dumps({"lineages": lineages}))
    Image.new("RGB", (40, 40)).save(folder / "sheet.png")
    for source in (folder, folder / "record.json"):
        found, steered = items(source)
        assert len(found) == 4
        assert steered == [Lineage(**said), Lineage("r")]
    (folder / "record.json").write_text("{")
    with pytest.raises(UserError, match="record"):
        items(folder)


def row(image, **cells):
    read = {"saturation": 0.5, "contrast": 0.2, "high_frequency": 0.1, "style_log_odds": 1.0, "verdict_log_odds": -1.0}
    return {"image": image, **read, **cells}


def test_pairs_go_by_seed_and_prompt_then_by_name_and_never_by_order():
    before = [row("x/2.png", seed=2, prompt="a", saturation=0.25), row("x/1.png", seed=1, prompt="a")]
    before += [row("x/b.png"), row("x/d.png"), row("y/d.png")]
    rows = [row("z/7.png", seed=1, prompt="a"), row("z/8.png", seed=2, prompt="a", verdict_log_odds=1.0)]
    rows += [row("z/b.png"), row("z/c.png"), row("z/d.png"), row("z/9.png", seed=2, prompt="other")]
    pair(rows, before)
    assert [entry.get("baseline") for entry in rows] == ["x/1.png", "x/2.png", "x/b.png", None, None, None]
    assert rows[1]["saturation_drift"] == 0.25
    assert (rows[1]["guide_gain"], rows[1]["verdict_gain"]) == (0.0, 2.0)
    assert "not paired" in rows[4]["notes"][0]


def test_the_variants_of_a_run_are_pairs():
    rows = [row(f"{seed}-{variant}.png", seed=seed, variant=variant) for seed in (0, 1) for variant in ("guided", "unguided")]
    pair_variants(rows)
    assert [entry.get("baseline") for entry in rows] == ["0-unguided.png", None, "1-unguided.png", None]


def test_near_duplicates_name_the_first_of_them():
    def entry(name, bits, digest):
        return Entry(name, {"image": name, "fingerprint": f"{bits:064x}", "contrast": 0.2, "sha256": digest, "style_target": ""})

    far = (1 << 256) - 1
    rows, _ = marked([entry("a", 0, "1"), entry("b", far, "2"), entry("c", 7, "3"), entry("d", far, "2"), entry("e", 15, "4")])
    assert [found.get("duplicate_of") for found in rows] == [None, None, "a", "b", "a"]
    assert [found.get("duplicate_bits") for found in rows] == [None, None, 3, 0, 1]


def test_variants_of_one_seed_are_no_duplicates_of_each_other():
    def entry(name, **cells):
        return Entry(name, {"image": name, "fingerprint": "0" * 64, "contrast": 0.2, "sha256": name, "style_target": "", **cells})

    guided, unguided = ({"seed": 3, "prompt": "a", "variant": variant} for variant in ("guided", "unguided"))
    rows, _ = marked([entry("a", **unguided), entry("b", **guided), entry("c", **guided), entry("d")])
    assert [found.get("duplicate_of") for found in rows] == [None, None, "b", "a"]


def test_diversity_is_the_mean_distance_of_all_pairs():
    features = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float16)
    entries = [Entry(str(k), row("", sha256=str(k), style_target="x"), features=one.tobytes()) for k, one in enumerate(features)]
    unit = features.astype(float) / np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    pairs = (1 - unit @ unit.T)[np.triu_indices(7, 1)]
    assert marked(entries)[1]["x"]["mean_distance"] == pytest.approx(pairs.mean())
