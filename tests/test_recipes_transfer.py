"""The recipes of what transfer and inversion ship: typical paintings of each style, and the sensitivity of the style head."""
import json

import pytest
import torch
from made_up import paintings

from guide.transfer import brushwork, content
from probes import encoders
from probes.heads import card
from probes.heads.linear import Linear
from probes.judges import STYLES
from recipes import brushwork as recipe
from recipes import sensitivity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paintings(tmp_path_factory.mktemp("made-up"))


def test_paintings_of_every_style_are_kept_as_statistics_and_read_again(folder, tmp_path, monkeypatch):
    recipe.main(folder, tmp_path, "cpu", "embedded", 0)
    stem = tmp_path / "heads" / "brushwork"
    said = json.loads(stem.with_suffix(".json").read_text())
    assert tuple(said["labels"]) == STYLES
    assert said["between paintings"].keys() == set(content.UNASKED)
    assert all(0 < apart < 1.5 for apart in said["between paintings"].values())
    monkeypatch.setattr(card, "FOLDER", stem.parent)
    brushwork._all.cache_clear()
    encoder = encoders.load("embedded")
    found = brushwork.paintings(encoder, "baroque")
    brushwork._all.cache_clear()
    assert brushwork.between_paintings(encoder) == said["between paintings"]
    assert len(found) == recipe.COUNT
    assert all(value.isfinite().all() for value in found[0].at(144)[0].mean.values())


@pytest.mark.slow
def test_the_card_of_a_head_says_how_little_flips_it(folder, tmp_path):
    encoder = encoders.load("embedded")
    generator = torch.Generator().manual_seed(0)
    head = Linear(5 * torch.randn(len(STYLES), encoder.dim, generator=generator), torch.zeros(len(STYLES)), STYLES)
    card.save(tmp_path / "style", head, {"encoder": encoder.fingerprint})
    sensitivity.main(folder, tmp_path, 3, 25, "embedded", "cpu", tmp_path / "style", 0)
    found = card.read(tmp_path / "style")["sensitivity"]
    assert found["paintings"] == found["flipped"] == 3
    assert 0 < found["l2_norm_median"] < 5
    assert "L2 norm" in found["sentence"]
