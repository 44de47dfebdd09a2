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


@pytest.mark.parametrize("tower", ["clip", "vit"])
@pytest.mark.parametrize("sides", [(96, 64), (64, 96), (97, 64), (64, 131)])
def test_the_map_of_a_padded_picture_lies_where_clip_looked(tower, sides, world, request):
    """Bands around a square picture change no embedding, so they change no map and get no heat."""
    net = request.getfixturevalue(tower)
    images, text = world[1][:8], net.encode_prompts(["nurse"])[0]
    top, left = round((sides[0] - 64) / 2), round((sides[1] - 64) / 2)
    padded = torch.full((8, 3, *sides), 0.5)
    padded[..., top : top + 64, left : left + 64] = images
    assert torch.allclose(net.encode_image(padded), net.encode_image(images), atol=1e-5)
    found, right = gradcam(net, padded, text), gradcam(net, images, text)
    inside = torch.zeros(sides, dtype=torch.bool)
    inside[top : top + 64, left : left + 64] = True
    assert found.maps[:, ~inside].abs().max() == 0
    assert torch.allclose(found.maps[:, inside], right.maps.flatten(1), atol=1e-3)
    shares = heat_shares(found.maps, {"bands": (~inside).float().expand(8, -1, -1), "picture": inside.expand(8, -1, -1)})
    seen = ~found.empty
    assert shares["bands"][seen].abs().max() == 0
    assert torch.allclose(shares["picture"][seen], torch.ones(int(seen.sum())))


@pytest.mark.parametrize("sides", [(200, 130), (301, 512), (90, 131), (129, 128)])
def test_the_place_of_the_crop_goes_back_through_resizing(clip, world, sides):
    """The square of the short side around the centre: no heat beyond it, and the same map as of the square alone."""
    short = min(sides)
    top, left = ((length - short) / 2 for length in sides)
    images = torch.nn.functional.interpolate(world[1][:4], size=sides, mode="bilinear")
    found = gradcam(clip, images, clip.encode_prompts(["nurse"])[0])
    heat = found.maps.amax(dim=0)
    pixel = short / clip.image_size + 1  # one of the network's input, and one of the picture
    for line, start in ((heat.amax(dim=1), top), (heat.amax(dim=0), left)):
        at = torch.arange(len(line))
        assert line[(at < start - pixel) | (at >= start + short + pixel)].sum() == 0
    square = images[..., round(top) : round(top) + short, round(left) : round(left) + short]
    alone = gradcam(clip, square, clip.encode_prompts(["nurse"])[0])
    cut = found.maps[:, round(top) : round(top) + short, round(left) : round(left) + short]
    for a, b in zip(cut, alone.maps, strict=True):
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.9  # a shift by a pixel of the picture apart


def test_placement_is_what_torchvision_does(clip):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    for sides in [(64, 64), (65, 64), (64, 67), (97, 64), (150, 90), (90, 151), (31, 77), (200, 201), (40, 40)]:
        image = torch.rand(1, 3, *sides)
        right = center_crop(resize(image, [64], interpolation=InterpolationMode.BICUBIC, antialias=True), [64])
        assert torch.equal(clip.preprocess(image), (right - clip.mean) / clip.std), sides


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        (np.zeros((1, 3, 64, 64), np.float32), torch.ones(128), "float tensor .* got ndarray"),
        (torch.zeros(2, 3, 64, 64), np.ones(128), "text must be a float tensor, got ndarray"),
        (torch.zeros(2, 3, 64, 64), torch.ones(3, 128), r"text must be \(d,\) or \(2, d\), .* got \(3, 128\)"),
        (torch.zeros(2, 3, 64, 64), torch.full((128,), torch.nan), "text holds 128 NaN or infinite values of 128"),
        (torch.zeros(2, 3, 64, 64), torch.full((2, 128), torch.inf), "text holds 256 NaN or infinite"),
        (torch.zeros(2, 3, 64, 64), torch.ones(7), r"length of toonville.* embeddings, 128, got \(7,\)"),
        (torch.zeros(2, 3, 64, 64), torch.ones(1), r"embeddings, 128, got \(1,\)"),
        (torch.full((2, 3, 64, 64), 255.0), torch.ones(128), "got values from 255"),
    ],
)
def test_bad_input(clip, images, text, message):
    with pytest.raises(ValueError, match=message):
        gradcam(clip, images, text)
    with pytest.raises(ValueError, match=r"mask of 'face' has shape \(64, 64\), the maps have \(2, 64, 64\)"):
        heat_shares(torch.ones(2, 64, 64), {"face": torch.ones(64, 64)})


@pytest.mark.parametrize(
    ("maps", "mask", "message"),
    [
        (torch.ones(2, 4, 4), np.full((2, 4, 4), 255, np.uint8), r"the mask of 'face' must lie in \[0, 1\], got .* 255"),
        (torch.ones(2, 4, 4), torch.full((2, 4, 4), torch.nan), "the mask of 'face' must lie in .* nan"),
        (torch.ones(2, 4, 4), -torch.ones(2, 4, 4), "the mask of 'face' must lie in"),
        (torch.full((2, 4, 4), torch.nan), torch.ones(2, 4, 4), "maps must be .* finite and at least 0, .* nan"),
        (-torch.ones(2, 4, 4), torch.ones(2, 4, 4), "maps must be .* at least 0, .* -1"),
    ],
)
def test_shares_of_what_is_no_mask_or_no_heat(maps, mask, message):
    with pytest.raises(ValueError, match=message):
        heat_shares(maps, {"face": mask})
    for mask in (np.eye(4, dtype=np.uint8), np.eye(4, dtype=bool), torch.eye(4).half()):  # any type that holds 0 and 1
        masks = torch.as_tensor(mask).expand(2, -1, -1)
        assert heat_shares(torch.ones(2, 4, 4), {"face": masks})["face"].tolist() == [0.25, 0.25]


def test_any_precision_is_explained_alike(clip, world):
    from debias_utils.models.clip import Clip

    images, text = world[1][:3], clip.encode_prompts(["nurse"])[0]
    right = gradcam(clip, images, text).maps
    assert torch.equal(gradcam(clip, images.double(), text.double()).maps, right)
    half = gradcam(Clip.load(clip.name).to(torch.bfloat16), images, text).maps
    assert half.dtype == torch.float32
    assert (half - right).abs().mean() < 0.1
