"""The recipes on made-up paintings: each trains, keeps a checkpoint, goes on bit for bit, and what they make loads as what ships does."""
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from made_up import paintings
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from probes.errors import UserError

ROOT = Path(__file__).parents[1]
BATCHES = {"autoencoder": 2, "clip": 16, "denoiser": 4, "decoder": 2, "preview": 4, "referee": 12}
STEPS = 3


def recipe(name: str, folder: Path, work: Path, **options):
    module = importlib.import_module(f"recipes.{name}")
    module.main(folder, work, **{"device": "cpu", "batch_size": BATCHES[name], "steps": STEPS, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return paintings(tmp_path_factory.mktemp("paintings"), 45)


@pytest.fixture(scope="module")
def work(folder, tmp_path_factory) -> Path:
    """Every model, trained for a moment."""
    work = tmp_path_factory.mktemp("work")
    for name in BATCHES:
        recipe(name, folder, work)
    return work


def checkpoint(work: Path, name: str) -> dict:
    return torch.load(work / name / "checkpoint.pt", weights_only=True)


def test_what_they_make_assembles_into_a_pipeline_and_a_clip(work, tmp_path):
    import open_clip
    from diffusers import DiffusionPipeline

    from recipes import assemble
    assemble.main(work, tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "guide" / "embedded")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a baroque portrait", num_inference_steps=2, output_type="pt", generator=torch.Generator().manual_seed(0)).images
    assert images.shape == (1, 3, 128, 128)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'probes' / 'embedded' / 'clip'}")
    assert model.encode_image(torch.rand(1, 3, 96, 96)).isfinite().all()
    kept = [work / name / "vae" for name in ("autoencoder", "decoder", "preview")]
    for vae in (*kept, tmp_path / "guide" / "embedded" / "vae", tmp_path / "guide" / "embedded" / "preview"):
        assert "block_out_channels" not in json.loads((vae / "config.json").read_text()), "diffusers would warn at every load"


def test_assembling_says_what_it_installed_and_which_heads_no_longer_fit(work, tmp_path, capsys):
    from recipes import assemble
    from recipes.text_tower import of_clip
    heads = tmp_path / "probes" / "embedded" / "heads"
    heads.mkdir(parents=True)
    for name, fitted in (("style", {"encoder": "0" * 64}), ("domain", {"encoder": "1" * 64}), ("artifacts", {"encoder_name": "embedded"})):
        (heads / f"{name}.json").write_text(json.dumps(fitted))
    assemble.main(work, tmp_path)
    told = " ".join(capsys.readouterr().out.split())
    assert "pipeline, clip, referee." in told
    assert "another CLIP than the one there: domain, style." in told
    config = json.loads((tmp_path / "guide" / "embedded" / "tokenizer_2" / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "name_or_path"} & config.keys()
    assert of_clip(tmp_path / "probes" / "embedded" / "clip")


@pytest.mark.parametrize("name", BATCHES)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(name, work, folder, tmp_path, monkeypatch):
    from recipes import training
    for needed in ("paintings.npy", "paintings.json", "autoencoder/vae", "clip/model", *["decoder/vae"] * (name == "preview")):
        if needed.split("/")[0] != name:
            (tmp_path / needed).parent.mkdir(exist_ok=True)
            (tmp_path / needed).symlink_to(work / needed)
    save = training.Run.save

    def killed(run):
        if run.step == 2:
            save(run)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY", 0.0)
        patch.setattr(training.Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            recipe(name, folder, tmp_path)
    assert checkpoint(tmp_path, name)["step"] == 2
    recipe(name, folder, tmp_path)
    whole, parts = checkpoint(work, name), checkpoint(tmp_path, name)
    for kind in ("models", "average"):
        assert whole[kind].keys() == parts[kind].keys()
        assert all(torch.equal(whole[kind][key], parts[kind][key]) for key in whole[kind]), kind


def test_a_finished_run_given_more_steps_goes_on(work, folder, tmp_path):
    shutil.copytree(work / "autoencoder", tmp_path / "autoencoder")
    recipe("autoencoder", folder, tmp_path)
    assert checkpoint(tmp_path, "autoencoder")["step"] == STEPS, "a finished run has nothing left to do"
    recipe("autoencoder", folder, tmp_path, steps=STEPS + 2)
    assert checkpoint(tmp_path, "autoencoder")["step"] == STEPS + 2


def test_the_text_tower_stays_frozen_and_as_the_file_has_it(work):
    from safetensors.torch import load_file
    kept, shipped = checkpoint(work, "clip"), load_file(work / "clip" / "model" / "open_clip_model.safetensors")
    text = [name for name in shipped if not name.startswith(("visual.", "logit_scale"))]
    assert kept["state"]["frozen"]
    assert text
    assert all(torch.equal(kept["models"][f"clip.{name}"], shipped[name].float()) for name in text)


def test_a_clip_of_undamaged_paintings_alone_lies_beside_the_robust_one_and_what_robustness_costs_is_told(folder, work, tmp_path, capsys):
    from recipes import robustness
    for name in ("paintings.npy", "paintings.json", "autoencoder"):
        (tmp_path / name).symlink_to(work / name)
    with pytest.raises(UserError, match=r"run recipes\.clip --robust 0 first"):
        robustness.main(folder, tmp_path, device="cpu")
    recipe("clip", folder, tmp_path, robust=0.0)
    assert not (tmp_path / "clip").exists()
    plain = tmp_path / "plain" / "model"
    weights = (load_file(place / "open_clip_model.safetensors") for place in (plain, work / "clip" / "model"))
    ours, theirs = (state["visual.conv1.weight"] for state in weights)
    assert not torch.equal(ours, theirs)  # the same seed, other images
    capsys.readouterr()
    robustness.main(folder, tmp_path, robust=work / "clip" / "model", device="cpu")
    apart = json.loads((tmp_path / "robustness.json").read_text())
    assert list(apart) == ["trained", "clean", "damaged"]
    assert "trained for 3 steps, the robust one in" in capsys.readouterr().out
    assert apart["clean"]["plain"] != apart["damaged"]["plain"]
    robustness.main(folder, tmp_path, robust=plain, device="cpu")
    alike = json.loads((tmp_path / "robustness.json").read_text())
    assert [alike[kind]["robust less plain"]["gain"] for kind in ("clean", "damaged")] == [0, 0]
    assert alike["damaged"]["plain"] == apart["damaged"]["plain"]
    assert "(+0.0 points of accuracy)" in capsys.readouterr().out


def test_a_clip_goes_on_at_its_own_share_of_damage_and_a_batch_too_small_for_it_is_refused(folder, work, tmp_path):
    for name in ("paintings.npy", "paintings.json"):
        (tmp_path / name).symlink_to(work / name)
    with pytest.raises(UserError, match="take a larger --batch-size"):
        recipe("clip", folder, tmp_path, robust=.5, batch_size=8)
    recipe("clip", folder, tmp_path, robust=.5)
    with pytest.raises(UserError, match=r"is of --robust 0\.5, not 1: choose another --work"):
        recipe("clip", folder, tmp_path, robust=1., steps=2 * STEPS)
    assert json.loads((tmp_path / "clip" / "log.json").read_text())[-1]["_robust"] == .5


def test_a_clip_learns_from_a_denoisers_clean_estimates_where_there_is_one(folder, work, tmp_path):
    for name in ("paintings.npy", "paintings.json", "autoencoder", "denoiser"):
        (tmp_path / name).symlink_to(work / name)
    recipe("clip", folder, tmp_path)
    logs = [json.loads((place / "clip" / "log.json").read_text())[-1]["_estimates"] for place in (work, tmp_path)]
    assert logs == [0, 1], "the first was trained before the denoiser"
    ours, theirs = (checkpoint(place, "clip")["models"]["clip.visual.conv1.weight"] for place in (tmp_path, work))
    assert not torch.equal(ours, theirs)


def test_a_decoder_goes_as_far_toward_the_sharpened_one_as_it_is_told(work, folder, tmp_path):
    for name in ("autoencoder", "decoder"):
        shutil.copytree(work / name, tmp_path / name)
    saved = {}
    for share in (0.0, 0.5, 1.0):
        recipe("decoder", folder, tmp_path, blend=share)  # a finished run: its weights are only saved again
        saved[share] = load_file(tmp_path / "decoder" / "vae" / "diffusion_pytorch_model.safetensors")
    before = load_file(work / "autoencoder" / "vae" / "diffusion_pytorch_model.safetensors")
    sharpened = {name.removeprefix("vae."): value for name, value in checkpoint(work, "decoder")["average"].items()}
    assert any(not torch.equal(before[name], sharpened[name]) for name in before)
    for name, value in before.items():
        assert torch.equal(saved[0.0][name], value), name
        assert torch.equal(saved[1.0][name], sharpened[name]), name
        torch.testing.assert_close(saved[0.5][name], (value + sharpened[name]) / 2, msg=name)


def test_a_recipe_names_what_it_needs_and_what_does_not_fit(work, folder, tmp_path):
    with pytest.raises(UserError, match=r"run recipes\.clip first"):
        recipe("denoiser", folder, tmp_path)
    with pytest.raises(UserError, match="preset 'huge': choose one of cpu, gpu"):
        recipe("clip", folder, tmp_path, preset="huge")
    shutil.copytree(work / "autoencoder", tmp_path / "autoencoder")
    with pytest.raises(UserError, match="of another model"):
        recipe("autoencoder", folder, tmp_path, preset="gpu")


def test_a_museum_with_styles_of_its_own_trains_and_is_told_that_nothing_judges_it(folder, work, tmp_path, capsys):
    import pandas as pd

    from recipes import everything
    own = tmp_path / "museum"
    shutil.copytree(folder, own)
    table = pd.read_csv(own / "metadata.csv").drop(columns=["year", "genre", "title"])
    table["style"] = table["style"].map(lambda style: f"school of {style[0]}")
    table.to_csv(own / "metadata.csv", index=False)
    recipe("clip", own, tmp_path)
    vocabulary = (tmp_path / "clip" / "model" / "tokenizer.json").read_text()
    assert "school" in vocabulary
    assert all(torch.isfinite(value).all() for value in checkpoint(tmp_path, "clip")["models"].values())
    with pytest.raises(UserError, match="style that the judges know"):
        recipe("referee", own, tmp_path)
    left = [name for name, _ in everything.stages(own, tmp_path, 10, "cpu", "", "cpu", 0, False)]
    assert left == ["autoencoder", "clip", "denoiser", "decoder", "preview"]
    assert "they need paintings in styles that the judges know" in capsys.readouterr().out


def stretch(weights: Path):
    save_file({name: value * 1.1 for name, value in load_file(weights).items()}, weights, {"format": "pt"})


def test_a_warm_start_under_another_autoencoder_says_so(folder, work, tmp_path, capsys):
    from recipes import assemble
    assemble.main(work, tmp_path)
    start = tmp_path / "guide" / "embedded"
    shutil.copytree(work / "autoencoder", tmp_path / "work" / "autoencoder")
    recipe("denoiser", folder, tmp_path / "work", start=start, steps=1)
    assert "was trained with another" not in capsys.readouterr().out
    stretch(start / "vae" / "diffusion_pytorch_model.safetensors")
    shutil.rmtree(tmp_path / "work" / "denoiser")
    recipe("denoiser", folder, tmp_path / "work", start=start, steps=1)
    told = capsys.readouterr().out
    assert told.count("was trained with another") == 1
    assert "another autoencoder than" in told


def test_a_denoiser_keeps_the_text_tower_that_it_learned_under(folder, work, tmp_path):
    """Of a run that goes on and of a warm start, whatever the CLIP has learned meanwhile; and the pipeline has it then."""
    from recipes import assemble
    assemble.main(work, tmp_path / "first")
    for name in ("autoencoder", "clip", "denoiser"):
        shutil.copytree(work / name, tmp_path / name)
    stretch(tmp_path / "clip" / "model" / "open_clip_model.safetensors")
    words = Path("text_encoder_2") / "model.safetensors"
    first = load_file(tmp_path / "first" / "guide" / "embedded" / words)

    def learned() -> dict:
        return load_file(tmp_path / "denoiser" / words)

    def same(one: dict, other: dict) -> bool:
        return one.keys() == other.keys() and all(torch.equal(value.float(), other[name].float()) for name, value in one.items())

    recipe("denoiser", folder, tmp_path, steps=STEPS + 1)
    assert same(learned(), first), "a run that goes on"
    assemble.main(tmp_path, tmp_path / "second")
    assert same(load_file(tmp_path / "second" / "guide" / "embedded" / words), first), "the pipeline made of it"
    shutil.rmtree(tmp_path / "denoiser")
    recipe("denoiser", folder, tmp_path, steps=1)
    assert not same(learned(), first), "a new run learns the CLIP's words"
    shutil.rmtree(tmp_path / "denoiser")
    recipe("denoiser", folder, tmp_path, start=tmp_path / "first" / "guide" / "embedded", steps=1)
    assert same(learned(), first), "a warm start"
    shutil.rmtree(tmp_path / "clip")
    assemble.main(tmp_path, tmp_path / "third")
    assert same(load_file(tmp_path / "third" / "guide" / "embedded" / words), first), "without a CLIP of one's own"
    assert not (tmp_path / "third" / "probes").exists()


def test_a_warm_start_brings_its_latents_where_no_autoencoder_was_trained(folder, work, tmp_path, capsys):
    from recipes import assemble
    assemble.main(work, tmp_path)
    start = tmp_path / "guide" / "embedded"
    recipe("denoiser", folder, tmp_path / "work", start=start, steps=1)
    assert "it is that of --start now" in " ".join(capsys.readouterr().out.split())
    weights = Path("diffusion_pytorch_model.safetensors")
    brought, theirs = load_file(tmp_path / "work" / "autoencoder" / "vae" / weights), load_file(start / "vae" / weights)
    assert all(torch.equal(value, theirs[name].float()) for name, value in brought.items())
    log = json.loads((tmp_path / "work" / "denoiser" / "log.json").read_text())
    assert log[-1]["start"] == ".../guide/embedded", "and its card will say so"
    assert json.loads((tmp_path / "work" / "autoencoder" / "log.json").read_text()) == [{"taken": ".../embedded/vae"}]


def test_what_is_not_there_stays_and_what_no_longer_holds_goes(work, tmp_path, capsys):
    """A CLIP alone leaves the pipeline; another pipeline takes the sheets of the former one away, and its preview of other latents."""
    from recipes import assemble
    first = tmp_path / "root" / "guide" / "embedded"
    assemble.main(work, tmp_path / "root")
    (first / "samples.png").touch()
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    shutil.copytree(work / "clip" / "model", tmp_path / "alone" / "clip" / "model")
    capsys.readouterr()
    assemble.main(tmp_path / "alone", tmp_path / "root")
    told = " ".join(capsys.readouterr().out.split())
    assert f"{tmp_path / 'root'}: clip. Beside the clip in {tmp_path / 'alone'} there is no log" in told
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    for name in ("autoencoder", "clip", "denoiser"):
        shutil.copytree(work / name, tmp_path / "other" / name)
    assemble.main(tmp_path / "other", tmp_path / "root")
    assert (first / "samples.png").exists(), "the same pipeline"
    for weights in (tmp_path / "other").glob("*/*/diffusion_pytorch_model.safetensors"):
        stretch(weights)
    capsys.readouterr()
    assemble.main(tmp_path / "other", tmp_path / "root")
    told = " ".join(capsys.readouterr().out.split())
    assert "Taken away, as another pipeline painted them: samples.png;" in told
    assert "guidance looks through the whole one" in told
    assert (first / "preview" / "config.json").read_bytes() == (first / "vae" / "config.json").read_bytes()


@pytest.mark.parametrize("start", ["guide/embedded/unet", "probes/embedded/clip"])
def test_a_denoiser_of_a_wrong_folder_is_told_by_its_name(start, tmp_path):
    with pytest.raises(UserError, match=rf"--start .*{start} holds no weights"):
        recipe("denoiser", tmp_path / "no paintings", tmp_path / "work", start=ROOT / start)


def test_a_warm_start_of_the_clip_from_a_wrong_folder_is_told_before_any_image_is_read(tmp_path):
    with pytest.raises(UserError, match=r"begin with \(open_clip_config\.json is not there\)"):
        recipe("clip", tmp_path / "no paintings", tmp_path / "work", start=tmp_path)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["autoencoder", "denoiser"])
def test_a_warm_start_from_weights_of_another_class_is_refused(name, folder, work, tmp_path):
    for needed in ("autoencoder", "clip"):
        shutil.copytree(work / needed, tmp_path / "work" / needed, ignore=shutil.ignore_patterns("checkpoint.pt"))
    kind, start = {"autoencoder": ("vae", tmp_path / "other"), "denoiser": ("unet", tmp_path / "other" / "unet")}[name]
    shutil.copytree(work / name / kind, start)
    weights = start / "diffusion_pytorch_model.safetensors"
    save_file({f"another.{key}": value for key, value in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"holds no weights that this recipe can begin with .* are missing"):
        recipe(name, folder, tmp_path / "work", start=tmp_path / "other")


def test_a_warm_start_of_a_run_that_goes_on_is_said_not_to_count(folder, work, tmp_path, capsys):
    shutil.copytree(work / "autoencoder", tmp_path / "autoencoder")
    recipe("autoencoder", folder, tmp_path, start=work / "decoder" / "vae", steps=STEPS)
    assert "does not count" in capsys.readouterr().out
    before, after = (checkpoint(place, "autoencoder")["models"] for place in (work, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("damage", [b"junk\n", b"", b"PK\x03\x04 cut off", b"\x80\x02."])
def test_a_damaged_checkpoint_is_named_with_the_remedy(damage, folder, tmp_path):
    (tmp_path / "autoencoder").mkdir()
    (tmp_path / "autoencoder" / "checkpoint.pt").write_bytes(damage)
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged or no checkpoint of a recipe: delete it"):
        recipe("autoencoder", folder, tmp_path)


@pytest.mark.parametrize("name", ["autoencoder", "denoiser"])
@pytest.mark.parametrize("rate", ["inf", "nan", "0", "2"])
def test_a_learning_rate_that_can_only_ruin_the_weights_is_refused(name, rate, folder, tmp_path):
    command = typer.Typer()
    command.command()(importlib.import_module(f"recipes.{name}").main)
    done = CliRunner().invoke(command, ["--data", str(folder), "--work", str(tmp_path), "--steps", "1", "--rate", rate])
    assert done.exit_code == 2
    assert not (tmp_path / name).exists()


def test_the_large_presets_build_models_that_fit_each_other():
    import open_clip
    from diffusers import AutoencoderTiny, UNet2DConditionModel

    from recipes import autoencoder, clip, denoiser
    with torch.device("meta"):
        large = open_clip.CLIP(**clip.PRESETS["gpu"]["config"])
        unet = UNet2DConditionModel(**denoiser.config(*large.text_projection.shape, 192, **denoiser.PRESETS["gpu"]["config"]))
        vae = AutoencoderTiny(**autoencoder.PRESETS["gpu"]["config"])
    count = {name: sum(p.numel() for p in model.parameters()) / 1e6 for name, model in (("clip", large.visual), ("unet", unet))}
    assert 5 < count["clip"] < 15
    assert 45 < count["unet"] < 55
    assert unet.config.sample_size == 24
    assert unet.config.cross_attention_dim == large.token_embedding.weight.shape[1]
    assert vae.config.latent_channels == unet.config.in_channels


@pytest.mark.gpu
def test_all_large_presets_train_on_a_gpu(folder, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    for name in BATCHES:
        recipe(name, folder, tmp_path, device="cuda", preset="gpu")
        assert checkpoint(tmp_path, name)["step"] == STEPS


@pytest.mark.slow
def test_smoke_runs_everything_into_a_copy_that_works(tmp_path):
    folder = paintings(tmp_path / "paintings")
    command = [sys.executable, "-m", "recipes.everything", "--smoke", "--data", str(folder), "--work", str(tmp_path / "work")]
    done = subprocess.run([*command, "--device", "cpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    made = tmp_path / "work" / "checkout"
    assert json.loads((made / "probes" / "embedded" / "verdict" / "card.json").read_text())["metrics"]
    assert (made / "guide" / "embedded" / "README.md").is_file()
    asked = [sys.executable, "cli.py", "generate", "--style", "baroque", "--seeds", "0", "--steps", "2", "--out", str(tmp_path / "out")]
    done = subprocess.run(asked, cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list((tmp_path / "out").glob("**/*.png"))
