import pytest
import torch
from tiny_editor import tiny_parts

from debias_utils.edit.memory import sampler_bytes, saved_bytes, stable_diffusion, weight_bytes
from debias_utils.models.pix2pix import Pix2Pix


def test_what_a_layer_keeps_is_counted_exactly_and_without_its_weights():
    layer = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.Tanh())
    assert weight_bytes(layer, layer) == 4 * (10 * 20 + 20)
    x = torch.zeros(5, 10, requires_grad=True)
    assert saved_bytes(lambda: layer(x), layer) == 4 * 5 * (10 + 20)  # the input, and the output of tanh


def test_meta_and_real_tensors_need_the_same_and_more_pictures_more():
    real = Pix2Pix(**tiny_parts())
    shapes = Pix2Pix(**tiny_parts()).to("meta")
    found, counted = (sampler_bytes(m, size=16, dtype=torch.float32) for m in (real, shapes))
    assert counted["weights"] == found["weights"]
    assert counted["decoder"] == pytest.approx(found["decoder"], rel=0.3)  # attention maps are kept by some kernels only
    assert counted["call"] >= 0.95 * found["call"]
    assert counted["call, full"] == pytest.approx(2 * counted["call"], rel=0.05)
    more = sampler_bytes(shapes, size=16, batch=3, dtype=torch.float32)
    assert more["decoder"] == pytest.approx(3 * counted["decoder"], rel=0.05)


def test_stable_diffusion_fits_in_15_gb_in_half_precision():
    model = stable_diffusion()
    assert sum(p.numel() for p in model.unet.parameters()) == 859_532_484
    need = sampler_bytes(model, size=512)
    assert need["weights"] + max(need["call"], need["decoder"]) < 15e9
    assert need["weights"] + max(need["call, full"], need["decoder"]) < 15e9
