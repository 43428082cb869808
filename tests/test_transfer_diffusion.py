"""The engine *diffusion*: image to image and DDIM inversion of several families, guided and not."""
import json

import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from PIL import Image
from tiny_pipelines import flux, sd, sd3, sdxl
from typer.testing import CliRunner

from cli import app
from guide.brief import Brief
from guide.transfer import content
from guide.transfer.diffusion import Diffusion
from guide.transfer.inversion import Backward
from guide.transfer.pixels import Pixels
from guide.transfer.request import Request
from guide.transfer.run import Opened
from probes import image
from probes.errors import UserError

skimage = pytest.importorskip("skimage.data", reason="photographs: pip install -e '.[test]'")
FAMILIES = {"sd": sd, "sdxl": sdxl, "sd3": sd3, "flux": flux}


@pytest.fixture(scope="module")
def photo() -> Opened:
    """A cat, 32 pixels, as a run hands it to an engine."""
    pixels = image.resize(image.from_pil(Image.fromarray(skimage.chelsea())), (32, 32)).clamp(0, 1)
    return Opened("cat.png", pixels, "", None)


def engine(pipeline, encoder, photo: Opened, **options) -> Diffusion:
    request = Request(Brief(styles=(("baroque", 1.),)), None, ("cat.png",), engine="diffusion", steps=4, **options)
    return Diffusion(request, Pixels.of(request, encoder, [photo]), pipeline, {})


def call(made: Diffusion, photo: Opened, seed: int = 0) -> tuple[torch.Tensor, list[dict]]:
    return made(photo, seed, lambda row, current: None)[:2]


@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.slow) if name == "flux" else name for name in FAMILIES])
def test_every_family_goes_from_image_to_image_and_probes_change_it(embedded_encoder, photo, family):
    pipeline = FAMILIES[family]()
    plain, rows = call(engine(pipeline, embedded_encoder, photo, guidance=0.), photo)
    steered, _ = call(engine(pipeline, embedded_encoder, photo, guidance=20.), photo)
    assert plain.shape == steered.shape == photo.pixels.shape
    assert len(rows) in (2, 3)  # .6 of 4 steps, rounded either way
    assert plain.isfinite().all()
    assert not torch.equal(plain, steered)
    assert torch.equal(plain, call(engine(pipeline, embedded_encoder, photo, guidance=0.), photo)[0])


def test_a_bound_holds_here_too_and_the_picture_says_how_far_it_was_drawn_back(embedded_encoder, photo):
    pipeline, distance = sd(), content.distances(embedded_encoder, photo.pixels, ("structure",))["structure"]
    found = {}
    for keep in ((), (("structure", .1),)):
        made, _, said = engine(pipeline, embedded_encoder, photo, guidance=0., keep=keep)(photo, 0, lambda row, current: None)
        found[keep] = float(distance((255 * made).round() / 255)), said["drawn_back"]
    (far, none), (near, some) = found.values()
    assert none == 0
    assert far > .1 >= near > .05
    assert 0 < some < 1


def test_strength_zero_is_the_photograph(embedded_encoder, photo):
    assert torch.equal(call(engine(sd(), embedded_encoder, photo, strength=0.), photo)[0], photo.pixels)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_an_inversion_follows_the_exact_flow_of_a_gaussian_and_leads_back(prediction, spacing):
    """Of data from N(.3, .5^2) the denoiser and the flow from data to noise are known in closed form."""
    mean, deviation = .3, .5
    config = {"beta_schedule": "scaled_linear", "beta_start": .00085, "beta_end": .012, "clip_sample": False, "prediction_type": prediction,
              "timestep_spacing": spacing, "set_alpha_to_one": True}
    forward = DDIMScheduler(**config)
    start = mean + deviation * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def run(scheduler: DDIMScheduler, x: torch.Tensor, steps: int) -> torch.Tensor:
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            share = float(forward.alphas_cumprod[int(t)])
            a, b = share ** .5, (1 - share) ** .5
            noise = b * (x - a * mean) / (share * deviation ** 2 + b ** 2)
            clean = (x - b * noise) / a
            output = noise if prediction == "epsilon" else a * noise - b * clean
            x = scheduler.step(output, t, x).prev_sample
        return x
    apart, off = [], []
    for steps in (25, 200):
        noise = run(Backward.from_config(forward.config), start, steps)
        last = float(forward.alphas_cumprod[-1])
        exact = last ** .5 * mean + (last * deviation ** 2 + 1 - last) ** .5 / deviation * (start - mean)
        off.append(float((noise - exact).abs().mean()))
        apart.append(float((run(forward, noise, steps) - start).abs().mean()))
    assert off[1] < .05
    assert apart[1] < .3 * apart[0]
    assert apart[1] < .02


def test_a_prediction_of_the_clean_picture_says_nothing_of_its_noise():
    scheduler = Backward(prediction_type="sample")
    scheduler.set_timesteps(5)
    with pytest.raises(UserError, match="cannot be inverted"):
        scheduler.step(torch.zeros(1, 1, 4, 4), scheduler.timesteps[0], torch.zeros(1, 1, 4, 4))


def test_an_inversion_leaves_the_pipeline_as_it_was(embedded_encoder, photo):
    pipeline = sd()
    scheduler = pipeline.scheduler
    found, rows = call(engine(pipeline, embedded_encoder, photo, invert=True), photo)
    assert found.shape == photo.pixels.shape
    assert len(rows) == 4
    assert pipeline.scheduler is scheduler


@pytest.mark.parametrize(("options", "sampler"), [({}, "UniPCMultistep"), ({"invert": True}, "DDIM")])
def test_an_engine_says_its_sampler(embedded_encoder, photo, options, sampler):
    pipeline = sd()
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    assert engine(pipeline, embedded_encoder, photo, **options).sampler == sampler


def test_a_flow_model_cannot_be_inverted_and_says_so(embedded_encoder, photo):
    with pytest.raises(UserError, match="cannot be inverted"):
        call(engine(sd3(), embedded_encoder, photo, invert=True), photo)


@pytest.mark.parametrize(("options", "told"), [
    (("--steps", "1"), "leaves none of 1 steps to paint; give --steps 2 or more"),
    (("--strength", "0.02"), "A strength of 0.02 leaves none of 25 steps to paint; give --steps 50 or more"),
    (("--steps", "1", "--invert"), "One step is too few for an inversion"),
    (("--strength", "0.2", "--invert"), "An inversion goes through all steps and takes no --strength")])
def test_a_run_without_a_step_to_take_is_refused(tmp_path, options, told):
    Image.fromarray(skimage.chelsea()).resize((64, 64)).save(tmp_path / "cat.png")
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["transfer", str(tmp_path / "cat.png"), "--style", "ukiyo-e", "--engine", "diffusion", "--out", str(out),
                                    "--device", "cpu", *options])
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.stderr.split())
    assert not list(out.rglob("*.png"))


def test_a_step_where_flow_pipelines_round_up_is_taken(embedded_encoder, photo):
    assert len(call(engine(sd3(), embedded_encoder, photo, guidance=0., strength=.2), photo)[1]) == 1


@pytest.mark.slow
def test_the_embedded_pipeline_from_the_command_line(tmp_path):
    Image.fromarray(skimage.chelsea()).resize((128, 96)).save(tmp_path / "cat.png")
    done = CliRunner().invoke(app, ["transfer", str(tmp_path / "cat.png"), "--style", "baroque", "--engine", "diffusion", "--steps", "3",
                                    "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "out" / "seed-0000-cat.png") as picture:
        assert picture.size == (128, 96)
        said = json.loads(picture.text["guide"])
        assert (said["model"], said["sampler"]) == ("embedded", "UniPCMultistep")
    assert json.loads((tmp_path / "out" / "record.json").read_text())["sampler"] == "UniPCMultistep"
    rows = [json.loads(line) for line in (tmp_path / "out" / "trace.jsonl").read_text().splitlines()]
    assert any(row["guided"] for row in rows)
