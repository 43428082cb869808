"""The weights that ship: they load with the libraries alone, agree with each other, stay small and say how good they are."""
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from probes.config import styles
from probes.judges import STYLES

ROOT = Path(__file__).parents[1]
PROBES, PIPELINE = ROOT / "probes" / "embedded", ROOT / "guide" / "embedded"
WEIGHTS = sorted([*PROBES.rglob("*.safetensors"), *PIPELINE.rglob("*.safetensors")])


@pytest.fixture(scope="module")
def captions() -> list[str]:
    forms = (
        "a {style} painting of {subject}",
        "{subject}, {style}, 17th century",
        "{style}: {subject}",
        "{subject} by night, painted in 1890",
        "{subject} in the {style} style, by someone nobody knows: Łódź, 浮世絵 & co.",
    )
    subjects = [(style.adjective, subject) for style in styles().values() for subject in style.prompts]
    every = [form.format(style=style, subject=subject) for style, subject in subjects for form in forms]
    return list(itertools.islice(itertools.cycle(every), 1000))


def test_both_libraries_read_the_same_tokens_and_embeddings(captions):
    import open_clip

    from recipes import text_tower
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{PROBES / 'clip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{PROBES / 'clip'}")
    tower, theirs = text_tower.of_clip(PROBES / "clip")
    ids = tokenizer(captions)
    assert torch.equal(ids, theirs(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids)
    with torch.no_grad():
        assert (clip.eval().encode_text(ids) - tower(ids).text_embeds).abs().max() < 1e-5


def test_the_pipeline_reads_words_by_a_tower_and_tokens_that_fit_each_other():
    """Whether or not they are the CLIP's: a tokenizer whose tokens had other numbers would scramble every prompt."""
    from recipes import text_tower
    tower, tokenizer = text_tower.of_pipeline(PIPELINE)
    assert len(tokenizer) <= tower.config.vocab_size
    assert (tower.config.bos_token_id, tower.config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    adjectives = [styles()[name].adjective for name in STYLES]

    def embedded(form: str) -> torch.Tensor:
        texts = [form.format(adjective) for adjective in adjectives]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            return torch.nn.functional.normalize(tower(ids).text_embeds, dim=-1)

    cosines = embedded("a {} painting") @ embedded("{} painting of a river").T
    assert (cosines.argmax(1) == torch.arange(len(adjectives))).float().mean() > .8, "a style is itself in other words"


def test_the_pipeline_loads_and_paints_without_this_project(tmp_path):
    code = f"""
import sys
sys.modules['guide'] = sys.modules['probes'] = sys.modules['cli'] = None
import torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained({str(PIPELINE)!r})
generator = torch.Generator().manual_seed(0)
images = pipeline('a baroque portrait', num_inference_steps=2, output_type='pt', generator=generator).images
assert images.shape == (1, 3, 128, 128) and images.isfinite().all() and images.std() > .02
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_sampler_that_ships_is_the_recipes_and_goes_through_the_noise_of_training():
    pytest.importorskip("sklearn")
    from diffusers import DDIMScheduler, DiffusionPipeline

    from recipes import assemble, denoiser
    found = DiffusionPipeline.from_pretrained(PIPELINE).scheduler
    made = assemble.sampler()
    assert type(found) is type(made)
    assert {name: found.config.get(name) for name in made.config if not name.startswith("_")} == {
        name: value for name, value in made.config.items() if not name.startswith("_")}
    trained = DDIMScheduler(**denoiser.SCHEDULE)
    assert torch.equal(found.alphas_cumprod[:-1], trained.alphas_cumprod[:-1])
    assert found.alphas_cumprod[-1] < 1e-6, "of no signal at all the sampler makes next to none, to divide by"
    assert not DDIMScheduler.from_config(found.config).config.clip_sample


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_weights_are_stored_in_sixteen_bits(path):
    if "heads" in path.parts:
        return  # a few thousand numbers, kept exact
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            assert file.get_slice(name).get_dtype() in ("F16", "BF16", "I64"), name


def test_all_weights_fit_the_budget():
    assert sum(path.stat().st_size for path in WEIGHTS) < 96e6


FOLDERS = [PIPELINE, *(PROBES / name for name in ("clip", "heads", "referee", "verdict"))]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_model_has_a_card_with_data_command_time_quality_and_limits(folder):
    card = (folder / "README.md").read_text()
    for heading in ("## Data and licence", "## Training", "## Measured", "## Limits"):
        assert heading in card, heading
    assert "python -m recipes." in card


@pytest.mark.parametrize("name", ["referee", "verdict"])
def test_judges_are_better_than_chance_on_unseen_artists(name):
    card = json.loads((PROBES / name / "card.json").read_text())
    assert card["metrics"]["style"]["interval"][0] > 1 / len(card["labels"])
    assert card["metrics"]["year"]["mae"] < card["metrics"]["year"]["mae_of_median"]


def test_guide_and_judges_are_three_families():
    from probes import encoders, judge
    from probes.lineage import same_family
    lineages = [encoders.load("embedded").lineage, judge.load("referee", "cpu").lineage, judge.load("verdict", "cpu").lineage]
    clashes = [same_family(a, b) for a, b in itertools.combinations(lineages, 2)]
    assert clashes == [None, None, None]
    assert lineages[1].architecture != lineages[2].architecture
    assert lineages[1].objective != lineages[2].objective
