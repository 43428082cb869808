"""Model cards from what the recipes left behind, and the pictures that they measure."""
import json

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")

from probes import distributions
from probes.judges import STYLES
from recipes import card_lines, cards, measure_diversity, metrics, sample_grids, samples

CARDS = ("probes/embedded/clip", "probes/embedded/heads", "probes/embedded/referee", "probes/embedded/verdict", "guide/embedded")


def test_cards_say_what_was_not_measured(tmp_path):
    cards.main(tmp_path / "nothing", "one core", root=tmp_path / "root")
    for folder in CARDS:
        text = (tmp_path / "root" / folder / "README.md").read_text()
        assert "not measured" in text
        assert "None" not in text


def test_a_card_has_the_figures_and_their_intervals(tmp_path):
    rng, work = np.random.default_rng(0), tmp_path / "work"
    labels, artists = np.arange(60) % len(STYLES), pd.Series([f"artist {k % 12}" for k in range(60)])
    figures = metrics.style_figures(rng.dirichlet(np.ones(len(STYLES)), 60), labels, artists, STYLES)
    (work / "heads").mkdir(parents=True)
    (work / "heads" / "style.json").write_text(json.dumps({"metrics": {"linear": figures, "zero_shot": figures}}))
    (work / "history.json").write_text(json.dumps({"clip": "Warm start from an earlier edition."}))
    cards.main(work, "one core", root=tmp_path / "root")
    text = (tmp_path / "root" / "probes" / "embedded" / "clip" / "README.md").read_text()
    low, high = figures["families"]["interval"]
    assert f"{figures['families']['balanced_accuracy']:.3f} (95 % over artists {low:.3f}-{high:.3f})" in text
    assert "Warm start from an earlier edition." in text
    assert "impressionism, post-impressionism, pointillism" in text


def test_a_card_of_a_model_that_was_not_trained_stays_as_it_is(tmp_path, capsys):
    work, root = tmp_path / "work", tmp_path / "root"
    for folder in CARDS:
        (root / folder).mkdir(parents=True)
        (root / folder / "README.md").write_text("of other paintings")
    for name in ("clip", "verdict", "heads", "denoiser"):
        (work / name / "model").mkdir(parents=True)
    (work / "heads" / "brushwork.json").write_text("{}")
    (work / "referee" / "model").mkdir(parents=True)
    (work / "referee" / "model" / "model.safetensors").touch()
    cards.main(work, "one core", root=root)
    changed = [folder for folder in CARDS if (root / folder / "README.md").read_text() != "of other paintings"]
    assert changed == ["probes/embedded/referee"]
    told = " ".join(capsys.readouterr().out.split())
    assert "Left as they are" in told
    assert all((f"{folder}/README.md" in told) == (folder not in changed) for folder in CARDS)


def test_a_warm_start_and_when_clean_estimates_came_stand_on_the_card(tmp_path):
    row = {"step": 50, "seconds": 60, "precision": "no", "start": "plain/model", "options": "--steps 100", "_robust": .5}
    (tmp_path / "work" / "clip" / "model").mkdir(parents=True)
    (tmp_path / "work" / "clip" / "model" / "open_clip_model.safetensors").touch()
    for log, clause in (([row, row | {"step": 100, "_estimates": 1.}], "from step 50 or soon after, a twelfth were the denoiser's"),
                        ([row | {"_estimates": 1.}], "autoencoder; a twelfth were the denoiser's clean estimates"),
                        ([row], "autoencoder; a quarter")):
        (tmp_path / "work" / "clip" / "log.json").write_text(json.dumps(log))
        cards.main(tmp_path / "work", "one core", root=tmp_path / "root")
        text = " ".join((tmp_path / "root" / "probes" / "embedded" / "clip" / "README.md").read_text().split())
        assert "--work work/ --start plain/model --steps 100`" in text
        assert "What the weights that it began with had learned from is not counted above" in text
        assert clause in text
        assert "so that a denoiser may learn under it" not in text


def test_a_card_claims_no_more_than_was_trained_here(tmp_path):
    """Pipeline begun with weights whose images nobody knows here, under an autoencoder that was taken over; CLIP without an autoencoder."""
    work, card = tmp_path / "work", tmp_path / "root" / "guide" / "embedded" / "README.md"
    for name, row in (("denoiser", {"step": 4, "seconds": 60, "start": "guide/embedded"}), ("autoencoder", {"taken": "guide/embedded/vae"}),
                      ("clip", {"step": 4, "seconds": 60, "_autoencoded": 0.})):
        (work / name).mkdir(parents=True)
        (work / name / "log.json").write_text(json.dumps([row]))
    cards.main(work, "one core", root=tmp_path / "root")
    text = " ".join(card.read_text().split())
    assert "in the runs below on no test image" in text
    assert "The autoencoder is that of `guide/embedded/vae`" in text
    assert "test images may be among it" in text
    assert "A ratio above 1.1" not in text, "without a table"
    assert "passed through the autoencoder" not in (tmp_path / "root" / "probes" / "embedded" / "clip" / "README.md").read_text()


def test_installed_heads_of_the_same_encoder_keep_their_figures(tmp_path):
    work, heads = tmp_path / "work", tmp_path / "root" / "probes" / "embedded" / "heads"
    (work / "heads").mkdir(parents=True)
    heads.mkdir(parents=True)
    (work / "heads" / "content.json").write_text(json.dumps({"encoder": "a"}))
    for name, encoder in (("scene", "a"), ("domain", "b")):
        (heads / f"{name}.json").write_text(json.dumps({"encoder": encoder, "reliability": f"{name} is known"}))
    cards.main(work, "one core", root=tmp_path / "root")
    text = (heads / "README.md").read_text()
    assert "- Scene: scene is known." in text
    assert "- Out of domain: not measured." in text


def test_kept_is_set_against_recall_and_caricature_is_marked():
    rows = card_lines.kept_table({
        "pictures": {"baroque": 32, "cubism": 32}, "kept": {"baroque": .6, "cubism": .2}, "caricature": ["baroque"],
        "verdict's recall on real": {"baroque": .5, "cubism": .4},
        "kept over recall by style": {"baroque": 1.2, "cubism": .5}}).splitlines()
    assert rows[2] == "| baroque | 32 | 0.60 | 0.50 | 1.20 | caricature |"
    assert rows[3] == "| cubism | 32 | 0.20 | 0.40 | 0.50 |  |"


@pytest.mark.parametrize(("count", "size", "told"), [
    (6, 10, "one sample of 6"), (20, 20, "10 x 10 drawn from 20"), (20, 16, "10 x 16 drawn from 20")])
def test_a_kid_says_what_it_was_drawn_from(count, size, told):
    pool = torch.randn(2 * count, 6, generator=torch.Generator().manual_seed(0))
    found = distributions.kid(pool[:count], pool[count:], size=size)
    assert told in card_lines.kid(found)
    assert (found["deviation"] is None) == (count == 6)


def test_pictures_are_asked_for_by_titles_of_test_paintings():
    table = pd.DataFrame([{"split": split, "style": style, "title": "lemons" if k else "", "genre": "still-life"}
                          for style in ("baroque", "cubism") for k, split in enumerate(("test", "test", "guide"))])
    wishes = samples.of_titles(table, most=2, fewest=3)
    assert [wish.style for wish in wishes] == ["baroque", "cubism"] * 3
    assert len({wish.seed for wish in wishes}) == 6
    assert {wish.prompt for wish in wishes if wish.style == "cubism"} == {"cubist painting of lemons", "cubist painting of still life"}
    assert [wish.row for wish in wishes].count(-1) == 2, "the third is another seed of a painting that was used"
    assert len({wish.key for wish in wishes}) == len(wishes)
    assert len(sample_grids.wishes(2)) == 2 * len(STYLES)


def test_a_blur_keeps_the_mean_and_takes_the_detail():
    flat = torch.full((1, 3, 32, 32), .3)
    assert measure_diversity.blurred(flat).sub(flat).abs().max() < 1e-5
    grain = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert measure_diversity.blurred(grain).std() < .2 * grain.std()


@pytest.mark.parametrize(("tower", "shared"), [({"text tower shared": True}, True), ({"text tower shared": False}, False), ({}, True)])
def test_a_word_is_told_beside_how_often_it_is_found_where_nobody_asked_for_it(tower, shared):
    lemons = {"first": 0.53, "without the word": 0.5, "titles in training": 4}
    said = card_lines.words({"first": 0.53, "interval": (0.4, 0.6), "seeds": 32, "words": {"lemons": lemons}} | tower)
    assert ("whose text tower conditions the denoiser" in said) == shared, "a lenient reader says so"
    assert said.endswith("training titles hold it: lemons 53 % (50 %; 4)")
