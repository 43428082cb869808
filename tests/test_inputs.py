"""What an audit may be given: folders with tables, tars, globs, runs; and how pictures are paired."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probes.auditing import likeness, sentences
from probes.auditing.columns import completed, of_rows
from probes.auditing.inputs import items, merged
from probes.auditing.intention import Intention
from probes.auditing.pairing import pair, pair_variants
from probes.auditing.reference import distance
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
    assert first.cells == {"generator": "sd", "seed": 3, "human_style": "baroque", "rating": "4"}
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
    found = {Path(item.source).name: item.intention for item in items(folder)[0]}
    assert list(found) == ["a.png", "b.png", "c.png", 'odd, "name".png']
    assert found["a.png"].prompt == "lemons"
    assert found["c.png"] is None
    (folder / "b.png").unlink()
    assert [Path(item.source).name for item in items(folder)[0]] == ["a.png", "c.png", 'odd, "name".png', "b.png"]  # its row will say so


def test_what_the_caller_says_comes_before_the_table(folder):
    (folder / "list.csv").write_text(TABLE)
    found, _ = items(folder / "list.csv")
    given = [Intention(styles=(("rococo", 1.0),))] * 3
    assert merged(found, given)[0] == Intention("lemons", (("rococo", 1.0),), (), (1600, 1725))


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8"), (",", "utf-8-sig")])
def test_tables_of_spreadsheets_are_read(folder, separator, encoding):
    lines = ["file_name,style,prompt", "a.png,baroque,lemons"]
    (folder / "list.csv").write_text("\n".join(lines).replace(",", separator), encoding=encoding)
    (item,), _ = items(folder / "list.csv")
    assert item.intention == Intention("lemons", (("baroque", 1.0),))


def test_a_table_that_holds_the_pictures_themselves_is_refused(folder):
    pd.DataFrame({"image": [{"bytes": b"1", "path": "a.png"}]}).to_parquet(folder / "list.parquet")
    with pytest.raises(UserError, match="no file names"):
        items(folder / "list.parquet")


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


def named(rows, column):
    return [value or None for value in rows[column]]


def test_pairs_go_by_seed_and_prompt_then_by_name_and_never_by_order():
    before = [row("x/2.png", seed=2, prompt="a", saturation=0.25), row("x/1.png", seed=1, prompt="a")]
    before += [row("x/b.png"), row("x/d.png"), row("y/d.png")]
    rows = [row("z/7.png", seed=1, prompt="a"), row("z/8.png", seed=2, prompt="a", verdict_log_odds=1.0)]
    rows += [row("z/b.png"), row("z/c.png"), row("z/d.png"), row("z/9.png", seed=2, prompt="other")]
    rows, before = of_rows(rows), of_rows(before)
    pair(rows, before)
    assert named(rows, "baseline") == ["x/1.png", "x/2.png", "x/b.png", None, None, None]
    assert rows["saturation_drift"][1] == 0.25
    assert (rows["guide_gain"][1], rows["verdict_gain"][1]) == (0.0, 2.0)
    assert "not paired" in rows["notes"][4]
    assert rows["guide_gain"].isna().tolist() == [False, False, False, True, True, True]


def test_a_counterpart_that_was_not_read_or_meant_otherwise_gives_no_gain():
    rows = of_rows([row("a/1.png", style_target="baroque"), row("a/2.png", style_target="baroque")])
    pair(rows, of_rows([row("b/1.png", style_target="rococo"), {"image": "b/2.png", "error": "empty"}]))
    assert named(rows, "baseline") == ["b/1.png", None]
    assert rows["guide_gain"].isna().all()
    assert rows["contrast_drift"][0] == 0


def test_the_variants_of_a_run_are_pairs():
    rows = of_rows([row(f"{seed}-{variant}.png", seed=seed, variant=variant) for seed in (0, 1) for variant in ("guided", "unguided")])
    pair_variants(rows)
    assert named(rows, "baseline") == ["0-unguided.png", None, "1-unguided.png", None]
    assert rows["guide_gain"].tolist()[::2] == [0.0, 0.0]


def hashed(name, bits=0, digest="", **cells):
    """A row as it is kept inside, with hash and digest."""
    return {"image": name, "contrast": 0.2, "fingerprint": bits.to_bytes(32, "big"), "sha256": (digest or name).encode().ljust(32), **cells}


def inside(rows):
    return completed(of_rows(rows).assign(**{name: [one[name] for one in rows] for name in ("fingerprint", "sha256")}))


def test_near_duplicates_name_the_first_of_them():
    far = (1 << 256) - 1
    rows = inside([hashed("a", 0), hashed("b", far, "2"), hashed("c", 7), hashed("d", far, "2"), hashed("e", 15)])
    likeness.mark(rows)
    assert named(rows, "duplicate_of") == [None, None, "a", "b", "a"]
    assert rows["duplicate_bits"].tolist()[2:] == [3, 0, 1]


@pytest.mark.parametrize(
    ("damaged", "variants", "of"),
    [
        ("blur,,blur", ",,", ["b", None, "b"]),
        ("blur,blur,blur", ",,", [None, "a", "a"]),
        (",,blur", ",,", [None, "a", "a"]),
        (",blur,", ",,unguided", ["c", "c", None]),
    ],
)
def test_of_pictures_alike_the_original_is_named_where_it_is_known(damaged, variants, of):
    cells = zip("abc", (0, 7, 1), damaged.split(","), variants.split(","), strict=True)
    rows = inside([hashed(name, bits, artifacts=0.5, artifact_kind=kind, variant=variant) for name, bits, kind, variant in cells])
    likeness.mark(rows)
    assert named(rows, "duplicate_of") == of
    assert rows["duplicate_bits"].isna().tolist() == [one is None for one in of]


def test_beyond_what_can_be_compared_equal_hashes_still_count(monkeypatch):
    monkeypatch.setattr(likeness, "MOST", 2)
    rows = inside([hashed("a", 5), hashed("b", 5), hashed("c", 7)])
    likeness.mark(rows)
    assert named(rows, "duplicate_of") == [None, "a", None]


def test_variants_of_one_seed_are_no_duplicates_of_each_other():
    guided, unguided = ({"seed": 3, "prompt": "a", "variant": variant} for variant in ("guided", "unguided"))
    rows = inside([hashed("a", **unguided), hashed("b", **guided), hashed("c", **guided), hashed("d")])
    likeness.mark(rows)
    assert named(rows, "duplicate_of") == [None, None, "b", "a"]


def test_copies_of_a_reference_name_the_nearest():
    rows, known = inside([hashed("a", 0), hashed("b", (1 << 200) - 1)]), inside([hashed("x", 31), hashed("y", 1)])
    likeness.mark_reference(rows, known)
    assert named(rows, "reference_match") == ["y", None]
    assert rows["reference_bits"][0] == 1


def test_diversity_is_the_mean_distance_of_all_pairs():
    features = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = (1 - unit @ unit.T)[np.triu_indices(7, 1)]
    parts = [(np.arange(4), features[:4]), (np.arange(4, 7), features[4:])]
    found = likeness.diversity(pd.DataFrame({"style_target": ["x"] * 7}), parts)["style_target"]
    assert found["x"] == pytest.approx(pairs.mean(), abs=1e-5)


def test_the_distance_of_a_set_to_a_reference_lies_at_its_floor_for_one_distribution():
    rng = np.random.default_rng(0)
    same, real, other = (rng.normal(size=(300, 16)) + shift for shift in (0, 0, 0.5))
    near, floor = distance([(np.arange(300), same)], (300, 300), [(np.arange(300), real)])
    far, _ = distance([(np.arange(300), other)], (300, 300), [(np.arange(300), real)])
    assert abs(near["kid"]) < 0.05
    assert abs(floor["kid"]) < 0.05
    assert far["kid"] > 0.2
    assert distance([], (0, 300), [(np.arange(300), real)]) == (None, None)


def test_shards_by_braces_and_one_that_is_cut_off(tmp_path):
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(held, "PNG")
    for shard in (8, 9, 10):
        with tarfile.open(tmp_path / f"s-{shard:02d}.tar", "w") as tar:
            for k in range(3):
                member = tarfile.TarInfo(f"{k}.png")
                member.size = len(held.getvalue())
                tar.addfile(member, io.BytesIO(held.getvalue()))
    assert len(items(tmp_path / "s-{08..09}.tar")[0]) == 6
    whole = (tmp_path / "s-09.tar").read_bytes()
    (tmp_path / "s-09.tar").write_bytes(whole[: 2 * len(held.getvalue())])
    found = items(tmp_path / "s-{08..10}.tar")[0]
    assert sum(not item.trouble for item in found) in (7, 8)
    with pytest.raises(UserError, match="cannot be read as a tar of pictures"):
        next(item for item in found if item.trouble).read()
    found = items(tmp_path / "s-{10..11}.tar")[0]
    assert (len(found), found[-1].name) == (4, str(tmp_path / "s-11.tar"))
    (tmp_path / "s-11.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"s-11\.tar"):
        items(tmp_path / "s-11.tar")


def test_a_distance_says_its_features_its_kernel_and_its_floor_with_deviations():
    distance = {"kid": 0.5, "deviation": 0.01, "subsets": 10, "size": 40, "pictures": 80}
    floor = distance | {"kid": 0.1, "deviation": 0.02, "size": 20}
    found = {"read": 80, "features": "verdict", "copies": 0, "kid": distance, "floor": floor}
    said = next(iter(sentences._reference(found)))
    for part in ("features of verdict scaled to mean square 1, cubic kernel", "0.500 +- 0.010 (10 x 40 pictures)",
                 "differ by 0.100 +- 0.020 (10 x 20 pictures)", "not comparable with published KID"):  # fmt: skip
        assert part in said
    few = distance | {"deviation": None, "subsets": 1, "size": 3}
    assert "0.500 (3 pictures). Not" in next(iter(sentences._reference(found | {"kid": few, "floor": None})))
