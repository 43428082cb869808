"""Distances against closed forms; LPIPS only with its real trunk."""

import hashlib
from types import SimpleNamespace

import pytest
import torch

from guide.transfer import content
from probes import distance
from probes.errors import UserError


def paintings(count=2, side=128):
    """Smooth coloured noise: something with structure at every scale."""
    noise = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (0.7 * torch.nn.functional.interpolate(noise, size=side, mode="bicubic", antialias=True) + 0.3 * fine).clamp(0, 1)


@pytest.mark.parametrize(("side", "count"), [(256, 5), (176, 5), (128, 4), (88, 4), (64, 3), (44, 3), (11, 1)])
def test_scales_fit_the_image(side, count):
    assert distance.scales(side, side) == count
    images = paintings(1, 256)[..., :side, :side]
    assert distance.ms_ssim(images, images).item() == pytest.approx(1)


@pytest.mark.parametrize("side", [64, 128, 192])
def test_two_flat_images_differ_by_their_luminance_alone(side):
    a, b = torch.full((1, 3, side, side), 0.3, dtype=torch.float64), torch.full((1, 3, side, side), 0.6, dtype=torch.float64)
    used = distance.WEIGHTS[: distance.scales(side, side)]
    luminance = (2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4)
    assert distance.ms_ssim(a, b).item() == pytest.approx(luminance ** (used[-1] / sum(used)))


def test_a_scaled_contrast_has_its_closed_form():
    a = torch.zeros(1, 3, 16, 16, dtype=torch.float64)  # a fine grid of .8 and 0: mean .4 and variance .8^2 / 4, as the window sees it
    a[..., ::2] = 0.8
    b = 0.5 * a
    luminance, contrast = distance._ssim(a, b)
    variance = 0.8**2 / 4
    assert contrast.mean().item() == pytest.approx((2 * 0.5 * variance + distance.C2) / (1.25 * variance + distance.C2), abs=1e-3)
    assert luminance.mean().item() == pytest.approx((2 * 0.5 * 0.16 + 1e-4) / (1.25 * 0.16 + 1e-4), abs=1e-3)


def test_more_damage_is_less_similar():
    images = paintings()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = torch.stack([distance.ms_ssim(images, images + level * noise) for level in (0, 0.02, 0.1, 0.3)])
    assert (values.diff(dim=0) < 0).all()


def test_gradient_reaches_both_images_and_is_right():
    a, b = paintings(1, 64).requires_grad_(), paintings(2, 64)[1:].requires_grad_()
    distance.ms_ssim(a, b).sum().backward()
    for image in (a, b):
        assert image.grad.isfinite().all()
        assert image.grad.abs().max() > 0
    step = torch.randn(a.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1e-6
    with torch.no_grad():
        moved = (distance.ms_ssim(a + step, b) - distance.ms_ssim(a - step, b)).item() / 2
    assert moved == pytest.approx((a.grad * step).sum().item(), rel=1e-4)


def test_gradient_is_finite_against_an_inverted_image():
    image = paintings(1, 64).requires_grad_()
    distance.ms_ssim(image, 1 - image.detach()).sum().backward()
    assert image.grad.isfinite().all()


def test_sizes_that_do_not_fit_are_one_sentence():
    with pytest.raises(UserError, match="one size"):
        distance.ms_ssim(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 72))
    with pytest.raises(UserError, match="at least 11 pixels"):
        distance.ms_ssim(torch.rand(1, 3, 8, 64), torch.rand(1, 3, 8, 64))


def test_feature_distance_is_a_cosine():
    a = torch.tensor([[1.0, 0], [1, 0], [2, 0]])
    b = torch.tensor([[3.0, 0], [0, 1], [-1, 0]])
    assert distance.feature_distance(a, b).tolist() == pytest.approx([0, 1, 2])


def test_lpips_never_uses_a_random_trunk(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert distance.lpips_missing()
    trunk = distance._trunk()
    trunk.parent.mkdir(parents=True, exist_ok=True)
    trunk.write_bytes(b"not weights")
    assert "damaged" in distance.lpips_missing() or "not installed" in distance.lpips_missing()
    distance.lpips.cache_clear()
    with pytest.raises(UserError, match="LPIPS cannot be had"):
        distance.lpips()


def test_the_trunk_is_read_from_a_file_as_the_hub_has_it_and_makes_lpips(tmp_path, monkeypatch, recwarn):
    """Random weights in the hub's format stand for the published ones, whose checksum alone is swapped; LPIPS by its formula, beside it."""
    pytest.importorskip("lpips", reason="an optional package: pip install lpips")
    from lpips import LPIPS
    from torchvision.models import alexnet

    trunk = alexnet(weights=None).eval()
    path = tmp_path / "trunk.pth"
    torch.save(trunk.state_dict(), path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    path = path.rename(tmp_path / f"alexnet-owt-{checksum}.pth")
    monkeypatch.setenv(distance.VARIABLE, str(path))
    assert f"checksum {checksum}" in distance.lpips_missing()  # a random trunk is none, whatever it calls itself
    monkeypatch.setattr(distance, "_published", lambda: path.name)
    for named in (path, tmp_path):
        monkeypatch.setenv(distance.VARIABLE, str(named))
        assert distance.lpips_missing() == ""
    distance.lpips.cache_clear()
    a = paintings(2, 64).float()
    b = a.flip(-1).requires_grad_()
    measure = distance.lpips()
    found = measure(a, b)
    kept = content.distances(SimpleNamespace(device=torch.device("cpu")), a[:1], ("lpips",))["lpips"]  # as `--keep "lpips<=0.3"` asks
    assert float(kept(a[:1])) == 0
    assert float(kept(b[:1].detach())) == pytest.approx(float(found.detach()[0]), rel=1e-4)
    assert float(kept(b[:1].detach(), 3)) > 0
    distance.lpips.cache_clear()
    assert recwarn.list == []
    heads, expected = LPIPS(net="alex", pnet_rand=True, verbose=False), torch.zeros(2)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in ((-.030, -.088, -.188), (.458, .448, .450)))
    maps = [[(2 * one - 1 - mean) / deviation] for one in (a, b.detach())]
    for number, layer in enumerate(trunk.features):
        for some in maps:
            some.append(layer(some[-1]))
        if number in (1, 4, 7, 9, 11):
            x, y = (some[-1] / some[-1].norm(dim=1, keepdim=True).clamp_min(1e-10) for some in maps)
            weights = heads.lins[(1, 4, 7, 9, 11).index(number)].model[-1].weight
            expected = expected + ((x - y).square() * weights.view(1, -1, 1, 1)).sum(1).mean((1, 2)).detach()
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(measure(a, a), torch.zeros(2))
    (gradient,) = torch.autograd.grad(found.sum(), b)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a state"):
        distance._on_trunk(path)
