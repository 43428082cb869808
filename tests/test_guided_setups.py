"""Pipelines as people set them up: compiled, offloaded, with a ControlNet, a LoRA, an IP-Adapter, a mask, or of their own making."""
import diffusers
import pytest
import torch
from accelerate.hooks import CpuOffload, UserCpuOffloadHook, add_hook_to_module
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    FluxControlNetModel,
    FluxControlNetPipeline,
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from tiny_families import FAMILIES, built
from tiny_pipelines import SIDE, Warmth, call, flux, ready, scheduler, sd, unet

from guide.guided import guided
from guide.seeds import generators
from guide.strategies import DPS, CleanImage, Outcome, Strategy, Universal
from probes.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PICTURE = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def steer(pipeline, strategy, seeds=(1, 2), **arguments):
    with guided(pipeline, Warmth(), strategy, seeds=seeds) as run:
        return call(pipeline, seeds, **arguments), run


def loss(images):
    return Warmth(noise=0.)(images.float(), generators(range(len(images)))).loss


class Replays(Strategy):
    """Checks the replay and its slope along one direction in every step."""

    def __call__(self, step, carried):
        x = step.x.clone().requires_grad_()
        again = step.predict(x)
        assert (again - step.output).norm() < 1e-5 * step.output.norm()
        u = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        expected = float((torch.autograd.grad(again.square().sum(), x)[0] * u).sum())
        with torch.no_grad():
            size = 1e-2 if x.dtype == torch.float32 else 1e-5
            slope = float(step.predict(x + size * u).square().sum() - step.predict(x - size * u).square().sum()) / (2 * size)
        assert slope == pytest.approx(expected, rel=2e-2)
        return Outcome()


@pytest.mark.parametrize("way", ["wrapped", "in place"])
def test_a_compiled_denoiser_is_heard_and_replayed(way):
    pipeline = sd()
    expected, _ = steer(pipeline, DPS(strength=2.))
    plain = call(pipeline)
    torch._dynamo.reset()
    if way == "wrapped":
        pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    else:
        pipeline.unet.compile(backend="eager")
    zero, _ = steer(pipeline, CleanImage(strength=0.))
    images, run = steer(pipeline, DPS(strength=2.))
    assert torch.equal(zero, call(pipeline))
    assert torch.allclose(zero, plain, atol=1e-5)
    assert torch.allclose(images, expected, atol=1e-3)
    assert run.calls["denoiser"] == 6
    assert run.notices == []


def test_a_compiled_decoder_is_guided_through():
    pipeline = sd()
    expected, _ = steer(pipeline, CleanImage(strength=2.))
    torch._dynamo.reset()
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, backend="eager")
    kept = pipeline.vae.decode
    images, _ = steer(pipeline, CleanImage(strength=2.))
    assert torch.allclose(images, expected, atol=1e-4)
    assert pipeline.vae.decode is kept


class Swapped(CpuOffload):
    """Offloading that can be seen on a CPU: weights that are away are not numbers."""

    def __init__(self, previous=None):
        super().__init__("cpu", previous)
        self.away = {}

    def init_hook(self, module):
        for name, weight in module.named_parameters():
            if name not in self.away:
                self.away[name], weight.data = weight.data, torch.full_like(weight.data, torch.nan)
        return module

    def pre_forward(self, module, *args, **kwargs):
        if self.prev_module_hook is not None:
            self.prev_module_hook.offload()
        for name, weight in module.named_parameters():
            if name in self.away:
                weight.data = self.away.pop(name)
        return args, kwargs


@pytest.mark.parametrize("strategy", [CleanImage(strength=2.), DPS(strength=2.), Universal(strength=2.)], ids=lambda s: type(s).__name__)
def test_networks_that_take_turns_on_a_device_give_the_same_gradient(strategy):
    pipeline = sd(schedule="EulerDiscreteScheduler")
    expected, _ = steer(pipeline, strategy)
    previous = None
    for part in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        hook = Swapped(previous)
        add_hook_to_module(part, hook)
        previous = UserCpuOffloadHook(part, hook)
    images, run = steer(pipeline, strategy)
    assert torch.equal(images, expected)
    assert pipeline.vae._hf_hook.prev_module_hook is not None
    assert run.calls["skipped"] == 0


def controlled(cls=StableDiffusionControlNetPipeline, count: int = 1):
    torch.manual_seed(0)
    base = sd()
    networks = [ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16)) for _ in range(count)]
    for network in networks:
        for name, weight in network.named_parameters():
            if "controlnet" in name:
                torch.nn.init.normal_(weight, std=.1)
    network = networks[0] if count == 1 else MultiControlNetModel(networks)
    return ready(cls(**{**base.components, "controlnet": network.eval()}, requires_safety_checker=False))


@pytest.mark.parametrize(("count", "arguments"), [(1, {}), (2, {}), (1, {"guess_mode": True}), (1, {"control_guidance_end": .5})],
                         ids=["one", "two", "guess mode", "half the steps"])
def test_a_controlnet_is_run_again_in_a_replay(count, arguments):
    pipeline = controlled(count=count)
    arguments = arguments | {"image": [PICTURE] * count if count > 1 else PICTURE, "height": SIDE, "width": SIDE}
    plain = call(pipeline, **arguments)
    images, run = steer(pipeline, Replays(), **arguments)
    assert torch.equal(images, plain)
    assert all("approximate" not in row for row in run.trace)
    steered, _ = steer(pipeline, DPS(strength=2.), **arguments)
    assert (loss(steered) < loss(plain)).all()


def test_residuals_that_are_altered_on_their_way_are_named_approximate():
    pipeline = controlled()
    with guided(pipeline, Warmth(), DPS(strength=2.), seeds=(1, 2), on_notice=lambda line: None) as run:
        # Registered inside the block, it is called after guidance has heard the residuals.
        pipeline.controlnet.register_forward_hook(lambda module, args, output: ([r * .5 for r in output[0]], output[1] * .5))
        call(pipeline, image=PICTURE, height=SIDE, width=SIDE)
    assert all("ControlNet" in row["approximate"] for row in run.trace)
    assert any("ControlNet" in line for line in run.notices)


def test_a_controlnet_of_flux():
    torch.manual_seed(0)
    base = flux()
    network = FluxControlNetModel(patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
                                  num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
                                  guidance_embeds=True)
    for name, weight in network.named_parameters():
        if "controlnet" in name:
            torch.nn.init.normal_(weight, std=.1)
    pipeline = ready(FluxControlNetPipeline(**{key: part for key, part in base.components.items()
                                               if key not in ("image_encoder", "feature_extractor")}, controlnet=network))
    arguments = {"control_image": PICTURE, "controlnet_conditioning_scale": .7}
    plain = call(pipeline, **arguments)
    images, run = steer(pipeline, Replays(), **arguments)
    assert torch.equal(images, plain)
    assert all("approximate" not in row for row in run.trace)


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting_is_steered_through_the_denoiser(channels):
    pipeline = ready(StableDiffusionInpaintPipeline(**{**sd().components, "unet": unet(channels)}, requires_safety_checker=False))
    mask = torch.zeros(2, 1, SIDE, SIDE)
    mask[..., SIDE // 2:] = 1
    arguments = {"image": PICTURE, "mask_image": mask, "strength": 1.}
    plain = call(pipeline, **arguments)
    zero, _ = steer(pipeline, CleanImage(strength=0.), **arguments)
    assert torch.equal(zero, plain)
    for strategy in (CleanImage(strength=3.), DPS(strength=3.)):
        images, run = steer(pipeline, strategy, **arguments)
        assert (loss(images) < loss(plain)).all()
        assert run.notices == []


def test_image_to_image_through_the_denoiser():
    pipeline = ready(StableDiffusionImg2ImgPipeline(**sd().components, requires_safety_checker=False))
    plain = call(pipeline, image=PICTURE, strength=.5, steps=8)
    images, run = steer(pipeline, DPS(strength=3.), image=PICTURE, strength=.5, steps=8)
    assert len(run.trace) == 4
    assert (loss(images) < loss(plain)).all()


def test_a_lora_steers_and_is_replayed():
    peft = pytest.importorskip("peft")
    pipeline = sd()
    before = call(pipeline)
    pipeline.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    plain = call(pipeline)
    images, _ = steer(pipeline, Replays())
    assert torch.equal(images, plain)
    assert not torch.equal(plain, before)
    assert (loss(steer(pipeline, DPS(strength=3.))[0]) < loss(plain)).all()


def test_an_ip_adapter_steers_and_is_replayed():
    """Weights of random numbers in the form in which the adapters are published; the picture prompt as embeddings."""
    pipeline = sd()
    before, generator = call(pipeline), torch.Generator().manual_seed(5)
    projection = {"proj.weight": torch.randn(4 * 32, 32, generator=generator) / 5, "proj.bias": torch.zeros(4 * 32),
                  "norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    layers = {}
    for place, name in enumerate(key for key in pipeline.unet.attn_processors if "attn2" in key):
        width = pipeline.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        layers |= {f"{2 * place + 1}.to_{part}_ip.weight": torch.randn(width, 32, generator=generator) / 5 for part in "kv"}
    pipeline.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}])
    shown = {"ip_adapter_image_embeds": [torch.stack([torch.zeros(1, 32), torch.randn(1, 32, generator=generator)])]}
    plain = call(pipeline, **shown)
    assert not torch.equal(plain, before)
    assert torch.equal(steer(pipeline, Replays(), **shown)[0], plain)
    for strategy in (CleanImage(strength=3.), DPS(strength=3.)):
        images, run = steer(pipeline, strategy, **shown)
        assert (loss(images) < loss(plain)).all()
        assert run.notices == []


class OnlyColours(StableDiffusionPipeline):
    """A pipeline of one's own: another name, its own loop, guidance by hand, and a decoding that may be its own too."""

    factor = 1.

    @torch.no_grad()
    def __call__(self, prompt, num_inference_steps, generator, output_type="pt", **_):
        embeds, negative = self.encode_prompt(prompt, "cpu", 1, True)
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.cat([torch.randn(1, 4, 8, 8, generator=one) for one in generator]) * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            seen = self.scheduler.scale_model_input(x, t)
            cond = self.unet(seen, t, encoder_hidden_states=embeds).sample
            uncond = self.unet(seen, t, encoder_hidden_states=negative).sample
            x = self.scheduler.step(uncond + 3 * (cond - uncond), t, x).prev_sample
        images = self.vae.decode(self.factor * x / self.vae.config.scaling_factor).sample
        return type("Output", (), {"images": (images / 2 + .5).clamp(0, 1)})


def test_a_pipeline_of_ones_own():
    pipeline = ready(OnlyColours(**sd().components, requires_safety_checker=False))
    plain = call(pipeline)
    zero, _ = steer(pipeline, CleanImage(strength=0.))
    assert torch.equal(zero, plain)
    images, run = steer(pipeline, Replays())
    assert torch.equal(images, plain)
    for strategy in (CleanImage(strength=3.), DPS(strength=3.)):
        images, run = steer(pipeline, strategy)
        assert (loss(images) < loss(plain)).all()
        assert run.notices == []


def test_what_is_decoded_otherwise_is_found_out():
    pipeline = ready(OnlyColours(**sd().components, requires_safety_checker=False))
    pipeline.factor = 2.
    with guided(pipeline, Warmth(), CleanImage(), seeds=(1, 2)) as run, \
            pytest.warns(UserWarning, match="decodes its latents in another way"):
        call(pipeline)
    assert len(run.notices) == 1
    assert run.trace[-1]["notices"] == run.notices


@pytest.mark.parametrize("schedule", ["UniPCMultistepScheduler", "DEISMultistepScheduler", "DPMSolverSinglestepScheduler"])
def test_flow_matching_under_solvers_of_another_kind(schedule):
    family = FAMILIES["sana"]
    pipeline = family.build()
    pipeline.scheduler = getattr(diffusers, schedule)(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.)
    plain = family(pipeline)
    for strategy in (CleanImage(strength=3.), DPS(strength=3.)):
        with guided(pipeline, Warmth(), strategy, seeds=(1, 2)):
            assert (loss(family(pipeline)) < loss(plain)).all()


@pytest.mark.parametrize("name", ["flux true cfg", "qwen-image", "z-image", "sana", "pixart-sigma"])
def test_bfloat16(name):
    family = FAMILIES[name]
    pipeline = family.build().to(torch.bfloat16)
    plain = family(pipeline)
    with guided(pipeline, Warmth(), CleanImage(strength=0.), seeds=(1, 2)):
        assert torch.equal(family(pipeline), plain)
    with guided(pipeline, Warmth(), DPS(strength=3.), seeds=(1, 2)) as run:
        assert (loss(family(pipeline)) < loss(plain)).all()
    assert all(row["residual"] < 1e-2 for row in run.trace)
    assert run.calls["skipped"] == 0


def test_a_pipeline_without_denoiser_is_refused():
    class Rooms(DiffusionPipeline):
        def __init__(self, prior, scheduler):
            super().__init__()
            self.register_modules(prior=prior, scheduler=scheduler)

    with pytest.raises(UserError, match="Rooms cannot be guided"), guided(Rooms(unet(), scheduler()), Warmth(), CleanImage()):
        pass


def test_latents_of_videos_are_refused():
    from guide.decoding import Decoder
    with pytest.raises(UserError, match="one image per latent"):
        Decoder(built("qwen-image"))(torch.zeros(1, 4, 3, 8, 8))
