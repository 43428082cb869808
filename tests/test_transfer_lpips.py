"""LPIPS as a constraint of `guide transfer`, its trunk in the file and the folder where torchvision keeps its AlexNet; and without it."""
import hashlib
import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli import app
from guide.transfer import content
from probes import distance, image
from probes.errors import UserError

pytest.importorskip("lpips", reason="an optional package: pip install lpips")
skimage = pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")


@pytest.fixture
def trunk(tmp_path, monkeypatch):
    """A file of torchvision's AlexNet as torchvision would have fetched it, with random weights, whose checksum stands for the real one's.

    The layers after the features, 235 MB of which LPIPS reads none, are zeros without storage.
    """
    from torchvision.models import AlexNet_Weights, alexnet
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {name: .05 * torch.randn(shape, generator=generator) if name.startswith("features") else torch.zeros(1).expand(shape)
             for name, shape in shapes.items()}
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "new.pth")
    checksum = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    asked = AlexNet_Weights.IMAGENET1K_V1
    base, _, name = asked.url.rpartition("/")
    url = f"{base}/{name.rpartition('-')[0]}-{checksum}.pth"
    monkeypatch.delenv(distance.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(asked.value, "url", url)
    distance.lpips.cache_clear()
    path = (folder / "new.pth").rename(folder / url.rpartition("/")[2])
    found = asked.get_state_dict(check_hash=True)  # torchvision itself finds it, and fetches nothing
    assert all(torch.equal(found[name], value) for name, value in state.items())
    yield path
    distance.lpips.cache_clear()


@pytest.fixture
def coffee(tmp_path):
    """A photograph in a file."""
    path = tmp_path / "coffee.png"
    Image.fromarray(skimage.coffee()).resize((72, 48)).save(path)
    return path


def run(coffee, out):
    return CliRunner().invoke(app, ["transfer", str(coffee), "--style", "cubism", "--keep", "lpips<=0.02", "--steps", "2", "--out",
                                    str(out)])


def test_the_trunk_in_torchvisions_own_place_makes_lpips_a_bound_that_holds(trunk, coffee, tmp_path, embedded_encoder):
    assert distance.lpips_missing() == ""
    done = run(coffee, tmp_path / "out")
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "out" / "record.json").read_text())["rows"][1]
    before, after = image.load(coffee), image.load(tmp_path / "out" / row["image"])
    assert 0 < row["distance_lpips"] <= .02
    assert row["distance_lpips"] == pytest.approx(float(distance.lpips()(before, after)), rel=1e-4)
    trace = [json.loads(line) for line in (tmp_path / "out" / "trace.jsonl").read_text().splitlines()]
    assert all(set(step["multipliers"]) == {"lpips"} for step in trace)
    measure = content.distances(embedded_encoder, before, ("lpips",))["lpips"]
    assert float(measure(before)) == pytest.approx(0, abs=1e-9)
    seen = before.flip(-1).requires_grad_()
    far = measure(seen)
    (gradient,) = torch.autograd.grad(far.sum(), seen)
    assert float(far.detach()) > 0
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("kept", "said"), [(0, "there are no trunk weights at"), (1000, "are damaged or others (checksum ")])
def test_without_the_trunk_or_with_a_damaged_one_nothing_is_called_lpips(trunk, coffee, tmp_path, kept, said):
    whole = trunk.read_bytes()
    trunk.unlink()
    if kept:
        trunk.write_bytes(whole[:kept])
    done = run(coffee, tmp_path / "out")
    assert done.exit_code == 2
    told = " ".join(done.output.split())
    assert told.startswith("Error: LPIPS cannot be had: ")
    assert said in told
    assert told.count(". ") == 0  # one sentence
    assert 'take --keep "ms-ssim<=0.2"' in told
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="LPIPS cannot be had"):
        distance.lpips()


def test_a_picture_too_narrow_for_the_trunk_is_refused_in_a_sentence(trunk, embedded_encoder):
    content.distances(embedded_encoder, torch.zeros(1, 3, 31, 300), ("lpips",))["lpips"](torch.ones(1, 3, 31, 300))
    with pytest.raises(UserError, match="LPIPS needs 31 pixels on the shorter side"):
        content.distances(embedded_encoder, torch.zeros(1, 3, 60, 900), ("lpips",))
