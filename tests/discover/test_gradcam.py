import numpy as np
import pytest
import torch

from debias_utils import toonville
from debias_utils.discover.gradcam import default_layer, gradcam, heat_shares, is_vit


def test_the_formula_by_hand(clip, world):
    """Weights and map recomputed with plain hooks, for one picture at a time."""
    images, text = world[1][:3], clip.encode_prompts(["nurse"])[0]
    layer = default_layer(clip)
    found = gradcam(clip, images, text)
    for i in range(3):
        kept = {}
        handle = layer.register_forward_hook(lambda m, a, out, kept=kept: kept.update(a=out) or out.retain_grad())
        (clip.encode_image(images[i : i + 1].clone().requires_grad_(True)) @ text).sum().backward()
        handle.remove()
        a, g = kept["a"][0], kept["a"].grad[0]
        small = torch.relu((g.mean(dim=(1, 2), keepdim=True) * a).sum(dim=0))
        big = torch.nn.functional.interpolate(small[None, None], size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
        assert torch.allclose(found.maps[i], (big / big.max()).detach(), atol=1e-5)


def test_agrees_with_the_library(clip, world):
    """pytorch-grad-cam scales by min and max; where the minimum is 0 the two maps are the same."""
    from pytorch_grad_cam import GradCAM

    images, text = world[1][:4], clip.encode_prompts(["nurse"])[0]

    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = clip

        def forward(self, x):
            return self.clip.encode_image(x) @ text[:, None]

    layer = default_layer(clip)
    with GradCAM(Tower(), [layer]) as cam:
        library = cam(images.clone().requires_grad_(True), targets=[lambda y: y[0]] * 4)
    ours = gradcam(clip, images, text)
    correlated = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b, e in zip(library, ours.maps.numpy(), ours.empty, strict=True) if not e
    ]
    assert min(correlated) > 0.97


def test_vit_has_no_gradient_at_its_last_output(vit, world):
    assert is_vit(vit)
    text = vit.encode_prompts(["nurse"])[0]
    last = gradcam(vit, world[1][:6], text, layer=vit.model.visual.transformer.resblocks[-1])
    assert last.empty.all()
    assert last.maps.abs().max() == 0
    assert gradcam(vit, world[1][:6], text).empty.float().mean() < 0.5


def test_maps_are_scaled_and_leave_no_hooks(clip, world):
    before = len(default_layer(clip)._forward_hooks)
    found = gradcam(clip, world[1], clip.encode_prompts(["plumber"]).expand(len(world[1]), -1))
    assert found.maps.shape == (len(world[1]), 64, 64)
    assert torch.allclose(found.maps[~found.empty].amax(dim=(1, 2)), torch.ones(int((~found.empty).sum())))
    assert found.maps.min() >= 0
    assert len(default_layer(clip)._forward_hooks) == before


def test_heat_shares_sum_to_one_and_follow_the_area(world):
    people, _ = world
    masks = {part: torch.from_numpy(mask) for part, mask in toonville.masks(people.head(5)).items()}
    even = heat_shares(torch.ones(5, 64, 64), masks)
    assert torch.allclose(sum(even.values()), torch.ones(5), atol=1e-4)
    assert torch.allclose(even["face"], masks["face"].mean(dim=(1, 2)), atol=1e-5)
    on_face = heat_shares(masks["face"].round(), masks)
    assert (on_face["face"] > 0.8).all()
    assert heat_shares(torch.zeros(1, 64, 64), {"face": masks["face"][:1]})["face"].isnan().all()


def test_tower_without_default(clip):
    class Other:
        name, image_size = "other", 64
        model = type("M", (), {"visual": torch.nn.Identity()})()

    with pytest.raises(ValueError, match="no default layer for the image tower Identity of 'other'"):
        default_layer(Other())
