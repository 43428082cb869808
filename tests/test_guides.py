"""Classifiers of noisy latents as guides: gradients that reach the latents, a denoiser that stays as it was, steering that steers."""
import copy

import pytest
import torch

pytest.importorskip("sklearn")

from benchmarks.guides import apart, briefs
from benchmarks.noisy_classifiers import Classified, FeatureHead, LatentClassifier, noisy
from guide import pipelines
from guide.run import Settings, aimed, sample
from guide.strategies import load
from probes import encoders
from probes.judges import STYLES


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.load("embedded")


def seeded(model: type, *arguments) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(*arguments).eval().requires_grad_(False)


def test_noise_has_the_schedules_variance(pipeline):
    alphas, clean = pipeline.scheduler.alphas_cumprod, torch.full((4, 8, 32, 32), 2.)
    for time in (0, 500, 999):
        x = noisy(clean, torch.full((4,), time), alphas, torch.Generator().manual_seed(0))
        assert float(x.mean()) == pytest.approx(2 * float(alphas[time].sqrt()), abs=.03)
        assert float(x.std()) == pytest.approx(float((1 - alphas[time]).sqrt()), abs=.03)


def test_the_feature_head_reads_a_copy_and_passes_a_gradient(pipeline):
    calls = []
    hook = pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    head = seeded(FeatureHead, copy.deepcopy(pipeline.unet))
    hook.remove()
    calls.clear()
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = head(x, torch.tensor([100, 700]))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert logits.shape == (2, len(STYLES))
    assert gradient.flatten(1).norm(dim=1).min() > 0
    assert all("denoiser" not in name for name in head.state_dict()), "a checkpoint holds the head alone"


def test_a_classifier_steers_toward_what_it_wants(pipeline):
    (brief, seeds), *_ = briefs(["baroque"], (0,), True)
    classifier, alphas, target = seeded(LatentClassifier, 8), pipeline.scheduler.alphas_cumprod, 1
    settings, objective = Settings(4, 4.0, 128, 128), aimed(brief, encoders.load("embedded"))
    guide = Classified(strength=40., classifier=classifier, alphas=alphas, target=target)
    made = {}
    for name, strategy in (("plain", load("unguided")), ("guided", guide)):
        images, trace, costs = sample(pipeline, brief, seeds, strategy, objective, settings)
        with torch.no_grad():
            latents = pipeline.vae.encode(images * 2 - 1).latents
            made[name] = images, float(classifier(latents, torch.tensor([0])).log_softmax(1)[0, target])
        assert costs["encoder"] == 0, "the CLIP has no part in it"
    assert all(row["norm_ratio"][0] > 0 for row in trace)
    assert apart(made["plain"][0], made["guided"][0]) > .01
    assert made["guided"][1] > made["plain"][1]
