"""Samplers for strategies that cannot do without another one: noise, or steps that may be taken again, on the pipeline's own schedule."""
import json

import pytest
from diffusers import FlowMatchHeunDiscreteScheduler
from tiny_families import FAMILIES
from tiny_pipelines import sd
from typer.testing import CliRunner

import cli
from guide import samplers
from probes.errors import UserError


@pytest.mark.parametrize(("schedule", "sampler", "found"), [
    ("DDIMScheduler", "", "DDIM"), ("DDIMScheduler", "stochastic", "DDIM with eta 1"), ("DDPMScheduler", "stochastic", "DDPM"),
    ("DPMSolverMultistepScheduler", "stochastic", "EulerAncestralDiscrete"), ("DPMSolverMultistepScheduler", "single-step", "DDIM"),
    ("EulerDiscreteScheduler", "single-step", "EulerDiscrete")])
def test_what_takes_the_place_of_what(schedule, sampler, found):
    pipeline = sd(schedule=schedule)
    own = pipeline.scheduler
    assert samplers.described(pipeline, sampler) == found
    assert pipeline.scheduler is own


@pytest.mark.parametrize("sampler", ["stochastic", "single-step"])
def test_a_multistep_sampler_without_any_signal_at_its_start_gives_way_to_ddim(sampler):
    pipeline = sd("v_prediction", "DPMSolverMultistepScheduler", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert samplers.fitted(pipeline, sampler) == ({"eta": 1.} if sampler == "stochastic" else {})
    found = pipeline.scheduler
    assert type(found).__name__ == "DDIMScheduler"
    assert found.config.rescale_betas_zero_snr
    assert found.config.timestep_spacing == "trailing"
    assert not found.config.clip_sample, "latents are not pixels: their clean estimates leave -1..1"


def test_flow_matching_adds_noise_by_its_own_setting():
    pipeline = FAMILIES["sd3"].build()
    assert samplers.fitted(pipeline, "stochastic") == {}
    assert pipeline.scheduler.config.stochastic_sampling
    other = FAMILIES["sd3"].build()
    other.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(UserError, match="no sampler with noise"):
        samplers.fitted(other, "stochastic")


def test_a_strategy_that_shapes_noise_is_given_some(tmp_path):
    command = ("generate", "--style", "baroque", "--strategy", "dsg", "--seeds", "0", "--steps", "2", "--device", "cpu",
               "--out", str(tmp_path))
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert "dsg needs a stochastic sampler: all pictures are made by DDIM with eta 1." in record["notes"]
    rows = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["guided"] for row in rows if row["variant"] == "guided"] == [True, False]
