"""What a guided step costs against a plain one: python -m benchmarks.guidance_cost [--device cuda] [--community PATH]

Random weights of the true architectures: speed does not depend on what they paint. On a GPU Stable Diffusion 1.5 at 512 pixels with TAESD's
and the KL decoder and CLIP ViT-B/16; on a CPU, where that takes minutes a step, a small UNet of the same kind and the embedded CLIP, which
show that the benchmark works and what our own overhead is, and nothing about a GPU. All ratios come from one run. `--community` is a file
clip_guided_stable_diffusion.py of diffusers' examples, read from there and never shipped; without it its row says "not run".
"""
import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from guide.guided import guided
from guide.planning.architectures import KL, SD15
from guide.strategies import DPS, CleanImage, Strategy, Unguided
from probes import encoders
from probes.encoders import Encoder
from probes.objective import Objective, Term
from probes.probe import Measure
from probes.views import Views

SMALL = SD15 | {"block_out_channels": [64, 128, 128, 128], "cross_attention_dim": 64}


class Direction(Measure):
    """A measure that costs nothing beside the encoder: one direction of its embeddings."""

    def score(self, embeddings: Tensor) -> Tensor:
        return embeddings[:, 0]


class Pipeline:
    """Stable Diffusion's loop with classifier-free guidance, without text: networks, scheduler, latents."""

    def __init__(self, unet: nn.Module, vae: nn.Module, side: int):
        from diffusers import DDIMScheduler
        self.unet, self.vae, self.side = unet, vae, side
        self.scheduler = DDIMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", clip_sample=False)
        self.components = {"unet": unet, "vae": vae}
        self.guidance_scale, self.text = 7.5, unet.config["cross_attention_dim"]

    @torch.no_grad()
    def __call__(self, batch: int, steps: int) -> Tensor:
        device, dtype = self.unet.device, self.unet.dtype
        text = torch.zeros(2 * batch, 77, self.text, device=device, dtype=dtype)
        x = torch.randn(batch, 4, self.side, self.side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            without, with_ = self.unet(torch.cat([x] * 2), t, text, return_dict=False)[0].chunk(2)
            x = self.scheduler.step(without + self.guidance_scale * (with_ - without), t, x, return_dict=False)[0]
        return x


@dataclass
class Bench:
    """Networks on a device, and what is timed on them."""

    pipeline: Pipeline
    tiny: nn.Module
    encoder: Encoder
    device: str
    batch: int
    repeats: int

    def seconds(self, compute: Callable[[], object], more: int = 1) -> float:
        """Median seconds; on one CPU thread the thread's own, on a GPU until it is done."""
        compute()
        return statistics.median(self._timed(compute) for _ in range(self.repeats * more))

    def rounds(self, *computes: Callable[[], object]) -> list[list[float]]:
        """Seconds of each, one after the other in `repeats` rounds: a machine that slows down slows all of a round."""
        for compute in computes:
            compute()
        return [[self._timed(compute) for compute in computes] for _ in range(self.repeats)]

    def _timed(self, compute: Callable[[], object]) -> float:
        clock = time.thread_time if self.device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        self._wait()
        began = clock()
        compute()
        self._wait()
        return clock() - began

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def objective(self, crops: int, terms: int = 1) -> Objective:
        made = [Term(Direction(encoder=self.encoder, name=f"direction {i}", unit="", range=(-1., 1.), higher_is_better=True, scale=1.))
                for i in range(terms)]
        return Objective(made, Views(count=crops))

    def running(self, strategy: Strategy, objective: Objective | None, steps: int, tiny: bool = True) -> Callable[[], None]:
        """A run of `steps`."""
        def compute() -> None:
            with guided(self.pipeline, objective, strategy, seeds=tuple(range(self.batch)), tiny=self.tiny if tiny else None):
                self.pipeline(self.batch, steps)
        return compute

    def run(self, strategy: Strategy, objective: Objective | None, steps: int, tiny: bool = True) -> float:
        """Seconds of that."""
        return self.seconds(self.running(strategy, objective, steps, tiny))

    def parts(self, crops: int, tiny: bool, through: bool, steps: int) -> Callable[[], None]:
        """Decoder, encoder (and denoiser) alone, forward and backward, as often as there are steps: what guidance cannot do without."""
        vae = self.tiny if tiny else self.pipeline.vae
        dtype, side = vae.dtype, self.pipeline.side
        z = torch.zeros(self.batch, 4, side, side, device=self.device, dtype=dtype)
        pixels = torch.rand(self.batch, 3, 8 * side, 8 * side, device=self.device)
        objective, views = self.objective(crops), [torch.Generator().manual_seed(i) for i in range(self.batch)]

        def slope(compute: Callable[[Tensor], Tensor], like: Tensor) -> None:
            with torch.enable_grad():
                x = like.clone().requires_grad_()
                y = compute(x)
                torch.autograd.grad(y, x, torch.ones_like(y))

        text = torch.zeros(2 * self.batch, 77, self.pipeline.text, device=self.device, dtype=self.pipeline.unet.dtype)
        x2 = torch.zeros(2 * self.batch, 4, side, side, device=self.device, dtype=self.pipeline.unet.dtype)

        def compute() -> None:
            for _ in range(steps):
                slope(lambda x: vae.decode(x, return_dict=False)[0], z)
                slope(lambda x: objective(x, views).loss, pixels)
                if through:
                    slope(lambda x: self.pipeline.unet(x, 500, text, return_dict=False)[0], x2)
        return compute


def build(architecture: str, device: str, batch: int, repeats: int, pixels: int, clip: str) -> Bench:
    import open_clip
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(SD15 if architecture == "sd15" else SMALL)
    vae = AutoencoderKL.from_config(KL if architecture == "sd15" else KL | {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1})
    narrow = {} if architecture == "sd15" else {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4}
    tiny = AutoencoderTiny(**narrow)
    networks = [part.eval().requires_grad_(False).to(device, dtype) for part in (unet, vae, tiny)]
    encoder = encoders.load(clip, device) if clip == "embedded" else Encoder(
        open_clip.create_model(clip, load_weights=False, device=device), None, source="random weights")
    return Bench(Pipeline(networks[0], networks[1], pixels // 8), networks[2], encoder, device, batch, repeats)


def rows(bench: Bench, steps: int, community: Path | None) -> None:
    plain = bench.run(Unguided(), None, steps) / steps
    told = f"{torch.cuda.get_device_name()}" if bench.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    print(f"{time.strftime('%Y-%m-%d')}, {told}, torch {torch.__version__}, {bench.pipeline.unet.dtype}, batch {bench.batch}, {steps} "
          f"steps of {8 * bench.pipeline.side} pixels; plain step with classifier-free guidance: {1000 * plain:.1f} ms\n")
    print("| guided step | crops | decoder | ms | against plain | aim | over the sum of its parts |\n" + "|---" * 7 + "|")
    aims = {("clean image", 1, True): 1.25, ("clean image", 16, True): 2.0, ("through the denoiser", 1, True): 2.5}
    for tiny in (True, False):
        for name, strategy, crops in (("clean image", CleanImage(), 1), ("clean image", CleanImage(), 16),
                                      ("through the denoiser", DPS(), 1)):
            rounds = bench.rounds(bench.running(Unguided(), None, steps), bench.running(strategy, bench.objective(crops), steps, tiny),
                                  bench.parts(crops, tiny, name != "clean image", steps))
            took, against, over = (statistics.median(found) for found in zip(
                *((guided / steps, guided / alone, guided / (alone + parts) - 1) for alone, guided, parts in rounds), strict=True))
            aim = aims.get((name, crops, tiny))
            print(f"| {name} | {crops} | {'tiny' if tiny else 'KL'} | {1000 * took:.1f} | {against:.2f} | {aim or ''} | {over:+.1%} |",
                  flush=True)
    whole = bench.run(CleanImage(stop=.8, every=2), bench.objective(8), steps)
    print(f"\nWhole run, first four fifths, every second step, 8 crops: {whole / (plain * steps):.2f} of the plain run (aim 1.15).")
    if bench.device.startswith("cuda"):
        print("Peak memory by the number of probes that share the encoder: " + ", ".join(
            f"{count}: {memory(bench, count) / 2**30:.2f} GiB" for count in (1, 4, 8)))
    print(f"Community CLIP-guided pipeline: {beside(bench, community, steps)}")


def memory(bench: Bench, terms: int) -> int:
    torch.cuda.reset_peak_memory_stats()
    bench.run(CleanImage(), bench.objective(4, terms), 2)
    return torch.cuda.max_memory_allocated()


def beside(bench: Bench, path: Path | None, steps: int) -> str:
    """diffusers' community pipeline at equal work (its decoder is the KL one, its gradient goes through the denoiser, one cut-out)."""
    if path is None:
        return "not run (no --community PATH)"
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel
    spec = importlib.util.spec_from_file_location("community", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    unet, dtype = bench.pipeline.unet, bench.pipeline.unet.dtype
    text = CLIPTextModel(CLIPTextConfig(hidden_size=bench.pipeline.text, num_attention_heads=8, num_hidden_layers=2))
    text = text.to(bench.device, dtype)
    vision = {"hidden_size": 768, "patch_size": 16, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 12}
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config={"hidden_size": 512, "num_hidden_layers": 2})).to(bench.device, dtype)
    pipeline = module.CLIPGuidedStableDiffusion(vae=bench.pipeline.vae, text_encoder=text, clip_model=clip, tokenizer=_tokenizer(),
                                                unet=unet, scheduler=bench.pipeline.scheduler, feature_extractor=CLIPImageProcessor())
    pipeline.set_progress_bar_config(disable=True)
    side = 8 * bench.pipeline.side
    theirs = bench.seconds(lambda: pipeline(["a"] * bench.batch, height=side, width=side, num_inference_steps=steps,
                                            clip_guidance_scale=100, num_cutouts=1, use_cutouts=False, output_type="np"))
    equal = bench.run(DPS(), bench.objective(1), steps, tiny=False)
    ours = bench.run(CleanImage(stop=.8, every=2), bench.objective(8), steps)
    return (f"{theirs / bench.batch:.3f} s an image; ours at equal work {equal / bench.batch:.3f} ({theirs / equal:.2f}x), our defaults "
            f"{ours / bench.batch:.3f} ({theirs / ours:.2f}x)")


def _tokenizer():
    """Its words do not matter to its speed."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=77)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--architecture", choices=("sd15", "small"))
    parser.add_argument("--pixels", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoder", help="embedded, or a name of open_clip's, with random weights")
    parser.add_argument("--community", type=Path)
    asked = parser.parse_args()
    gpu = asked.device.startswith("cuda")
    architecture = asked.architecture or ("sd15" if gpu else "small")
    encoder, pixels = asked.encoder or ("ViT-B-16" if gpu else "embedded"), asked.pixels or (512 if gpu else 128)
    rows(build(architecture, asked.device, asked.batch, asked.repeats, pixels, encoder), asked.steps, asked.community)


if __name__ == "__main__":
    main()
