"""Decoding gives what the pipeline itself decodes, with a gradient that reaches the latents."""
import pytest
import torch
from tiny_pipelines import SIDE, call, flux, pixels, sd, sd3, sdxl, tiny_autoencoder

from guide.decoding import Decoder, clamp, unpack
from probes.errors import UserError


@pytest.mark.parametrize("build", [sd, sdxl, sd3, flux])
def test_equal_to_the_pipelines_own_images(build):
    pipeline = build()
    images = call(pipeline)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    latents = pipeline(prompt=["a painting, bbb", "a painting, aaa"], num_inference_steps=3, generator=generators, height=SIDE, width=SIDE,
                       output_type="latent").images
    decoder = Decoder(pipeline)
    assert torch.allclose(decoder(latents), images, atol=1e-5)
    assert decoder.count == 1


@pytest.mark.parametrize("build", [sd, sd3, flux])
def test_the_gradient_reaches_each_images_own_latents(build):
    pipeline = build()
    shape = (2, 64, 16) if build is flux else (2, 4, 16, 16)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Decoder(pipeline)(latents)[0].sum().backward()
    assert latents.grad[0].abs().sum() > 0
    assert latents.grad[1].abs().sum() == 0


def test_a_landscape_of_packed_latents():
    pipeline = flux()
    latents = torch.arange(2 * 6 * 16, dtype=torch.float32).view(2, 6, 16)
    unpacked = unpack(pipeline, latents, (2, 3))
    assert unpacked.shape == (2, 4, 4, 6)
    patch = unpacked[0, :, 2:4, 2:4]
    assert torch.equal(patch.reshape(4, 4).flatten(), latents[0, 4])
    with pytest.raises(UserError, match="grid"):
        unpack(pipeline, latents, None)


def test_latent_statistics_of_the_autoencoder_are_undone():
    pipeline = sdxl()
    plain = Decoder(pipeline)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    scaling = pipeline.vae.config.scaling_factor
    expected = plain((latents * 2 / scaling + .5) * scaling)
    pipeline.vae.register_to_config(latents_mean=[.5] * 4, latents_std=[2.] * 4)
    assert torch.allclose(plain(latents), expected, atol=1e-5)


def test_a_tiny_decoder_uses_its_own_scale():
    pipeline, tiny = sd(), tiny_autoencoder()
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = (tiny.decode(latents / tiny.config.scaling_factor).sample / 2 + .5).clamp(0, 1)
    assert torch.allclose(Decoder(pipeline, tiny)(latents), expected, atol=1e-6)


def test_pixels_need_no_decoder():
    images = torch.rand(1, 3, 8, 8)
    assert torch.allclose(Decoder(pixels())(images * 2 - 1), images, atol=1e-6)


def test_clamping_lets_a_gradient_lead_back():
    x = torch.tensor([-1., -1., .5, 2., 2.], requires_grad=True)
    clamped = clamp(x)
    assert clamped.tolist() == [0., 0., .5, 1., 1.]
    clamped.backward(torch.tensor([1., -1., 1., 1., -1.]))
    # Descent goes against the gradient: what would leave the range further is cut.
    assert x.grad.tolist() == [0., -1., 1., 1., 0.]


def test_what_cannot_be_decoded_is_told():
    with pytest.raises(UserError, match="StableDiffusionPipeline"):
        Decoder(sd())(torch.zeros(1, 64, 16))
    with pytest.raises(UserError, match="StableDiffusionPipeline"):
        Decoder(sd())(torch.zeros(1, 4, 2, 16, 16))
