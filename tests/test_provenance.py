"""What the cards say of the paintings that were trained on: counts from the table, sources from the person who has them."""
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import paintings, picture

from probes.errors import UserError
from recipes import cards, data, provenance

ROOT = Path(__file__).parents[1]
CARDS = ("probes/embedded/clip", "probes/embedded/heads", "probes/embedded/referee", "probes/embedded/verdict", "guide/embedded")


def section(text: str, name: str = "Data and licence") -> str:
    return text.split(f"## {name}\n")[1].split("\n## ")[0].strip()


def written(work: Path, root: Path) -> dict[str, str]:
    """The cards of a work folder in which every model was trained."""
    for file in ("clip/model/w", "heads/content", "referee/model/w", "verdict/model/w", "denoiser/unet/w"):
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).with_suffix(".json" if "heads" in file else ".safetensors").write_text("{}")
    cards.main(work, "one core", root=root)
    return {folder: (root / folder / "README.md").read_text() for folder in CARDS}


@pytest.fixture
def museum(tmp_path) -> Path:
    return paintings(tmp_path / "museum", 45)


def test_cards_count_what_the_recipes_read(museum, tmp_path):
    table = pd.read_csv(museum / "metadata.csv")
    table.loc[0, "artist"] = None
    table.loc[1, "style"] = "school of nowhere"
    table.loc[15, "style"] = "school of nowhere"
    table.to_csv(museum / "metadata.csv", index=False)
    (museum / "44.jpg").unlink()
    data.paintings(museum, tmp_path / "work")
    told = {folder: section(text) for folder, text in written(tmp_path / "work", tmp_path / "root").items()}
    assert "the guide split, 15 images by 12 artists (1 without a named artist)" in told["probes/embedded/clip"]
    assert "the judge split, 15 images by 12 artists: the 14 of them in the styles that it learns" in told["probes/embedded/referee"]
    assert "the judge split, 15 images by 12 artists. The guide's" in told["probes/embedded/verdict"]
    assert "30 images by 24 artists" in told["guide/embedded"]
    said = json.loads((tmp_path / "work" / "data.json").read_text())
    assert said["images"] == 44
    assert said["splits"]["test"]["images"] == 14, "a file that is not there was not trained on"
    for text in told.values():
        assert "unverified" in text
        assert "WikiArt" not in text


def test_cards_name_what_a_museum_says_of_its_sources(museum, tmp_path):
    (museum / "sources.md").write_text("From the museum's own halls, CC0.\n")
    data.paintings(museum, tmp_path / "work")
    for text in written(tmp_path / "work", tmp_path / "root").values():
        assert section(text).endswith("From the museum's own halls, CC0.")
        assert "unverified" not in section(text)
    (museum / "sources.md").unlink()
    data.paintings(museum, tmp_path / "work")
    assert "unverified" in section(written(tmp_path / "work", tmp_path / "root")["guide/embedded"]), "taken away, no longer told"


def test_columns_of_a_table_are_told_and_not_vouched_for(museum, tmp_path):
    table = pd.read_csv(museum / "metadata.csv").assign(license="CC0", source=[f"https://museum/{k}" for k in range(45)])
    table.to_csv(museum / "metadata.csv", index=False)
    data.paintings(museum, tmp_path / "work")
    text = section(written(tmp_path / "work", tmp_path / "root")["guide/embedded"])
    assert "column `license`, nobody checked it: CC0 (45 images)." in text
    assert f"and {45 - provenance.MOST} more." in text
    assert "unverified" in text


def test_an_artist_in_two_splits_is_told(tmp_path):
    for index in range(3):
        picture(np.random.default_rng(index)).save(tmp_path / f"{index}.jpg")
    rows = {"file_name": [f"{k}.jpg" for k in range(3)], "style": ["baroque"] * 3, "artist": ["x"] * 3, "split": ["guide", "judge", "test"]}
    pd.DataFrame(rows).to_csv(tmp_path / "metadata.csv", index=False)
    data.paintings(tmp_path, tmp_path / "work")
    told = written(tmp_path / "work", tmp_path / "root")
    assert "(1 artist is in more than one split)" in section(told["probes/embedded/referee"])
    assert "2 images;" in section(told["guide/embedded"]), "artists of two splits are not added up where they are the same"


def test_without_a_record_nothing_is_claimed(tmp_path, capsys):
    for text in written(tmp_path / "nothing", tmp_path / "root").values():
        assert "an unverified number of images" in section(text)
        assert "None" not in text
    assert "data.json is not there" in capsys.readouterr().out


def test_sources_that_are_no_text_are_refused(museum, tmp_path):
    (museum / "sources.md").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"sources\.md cannot be read as text"):
        data.paintings(museum, tmp_path / "work")


def test_the_shipped_cards_keep_their_data_when_they_are_written_again(tmp_path):
    """A work folder whose table is that of the shipped weights, as any recipe leaves it: no sources beside the paintings."""
    shipped, work = json.loads(provenance.SHIPPED.read_text()), tmp_path / "work"
    work.mkdir()
    (work / "data.json").write_text(json.dumps(shipped | {"sources": None}))
    for folder in ("probes/embedded/clip", "guide/embedded"):
        shutil.copytree(ROOT / folder, tmp_path / "root" / folder)
    for name in ("referee", "verdict"):
        (work / name / "model").mkdir(parents=True)
        shutil.copy(ROOT / "probes" / "embedded" / name / "card.json", work / name / "model")
    again = written(work, tmp_path / "root")
    for folder, text in again.items():
        card = (ROOT / folder / "README.md").read_text()
        for part in ("Data and licence", "Limits"):
            assert section(text, part) == section(card, part), folder
        assert text.split("\n## ")[0] == card.split("\n## ")[0], folder
        assert "WikiArt's own terms ask for non-commercial research use" in section(card)
    (work / "data.json").write_text(json.dumps(shipped | {"sources": None, "fingerprint": "of another table"}))
    assert all("WikiArt" not in text for text in written(work, tmp_path / "root").values())


def test_the_fingerprint_is_that_of_the_shared_paintings(data):
    from recipes import metadata

    folder = data / "paintings"
    said, shipped = provenance.account(metadata.read(folder), folder), json.loads(provenance.SHIPPED.read_text())
    assert {name: said[name] for name in ("fingerprint", "splits", "images")} == {
        name: shipped[name] for name in ("fingerprint", "splits", "images")}
