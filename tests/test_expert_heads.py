"""The heads that ship for OpenAI's CLIP ViT-L/14@336: what the catalogue says of them, and how they read the published features."""
import numpy as np
import pytest
import torch

from probes import domain
from probes.config import styles
from probes.heads import card

FOLDER = card.FOLDER / "vit-l-14-336"
LABELS = {"origin": ("person", "model"), "defects": ("without defects", "with defects"),
          "authenticity": ("by a model", "by a person"), "adherence": ("beside the prompt", "to the prompt")}


@pytest.mark.parametrize("name", ["style", "period", *LABELS])
def test_each_head_loads_and_says_how_far_to_trust_it(name):
    head = card.load(FOLDER / name)
    assert card.read(FOLDER / name)["encoder_name"] == "ViT-L-14-336:openai"
    assert "95 %" in head.reliability
    probabilities = head.probabilities(torch.nn.functional.normalize(torch.randn(3, 768), dim=-1))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    assert LABELS.get(name, getattr(head, "labels", None)) == getattr(head, "labels", None)


def test_styles_are_keys_of_the_configuration():
    assert set(card.load(FOLDER / "style").labels) <= set(styles())


def test_they_read_the_published_features(data):
    pytest.importorskip("pyarrow")
    from benchmarks.labelled_features import read
    nga, made = (read(data / "clip-features" / f"{name}.parquet", group) for name, group in (("nga", "artist"), ("ai_pastiche", "prompt")))
    with torch.no_grad():
        # Images that these heads were fitted to: a check of files and order, not of quality.
        years = card.load(FOLDER / "period").expected(nga.tensor).numpy()
        made_by = card.load(FOLDER / "origin").logits(torch.cat([nga.tensor, made.tensor])).argmax(1).numpy()
        defects = card.load(FOLDER / "defects").probabilities(made.tensor)[:, 1].numpy()
        near = domain.load(FOLDER / "domain")
        assert near.percentile(made.tensor).median() > near.percentile(nga.tensor).median()
    assert np.abs(years - nga.years).mean() < 30
    assert np.mean(made_by == (np.arange(len(made_by)) >= len(nga.features))) > .95
    assert np.corrcoef(defects, made.frame["defects"])[0, 1] > .7
