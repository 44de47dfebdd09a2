import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from debias_utils.debias.losses import identity_loss
from debias_utils.models.arcface import ArcFace
from debias_utils.models.onnx_nets import read_onnx, to_torch


@pytest.fixture(scope="module")
def arcface(fixtures):
    return ArcFace.load(fixtures / "arcface_onnx" / "tiny_arcface.onnx")


@pytest.fixture(scope="module")
def reference(fixtures):
    found = {name: torch.from_numpy(value) for name, value in np.load(fixtures / "arcface_onnx" / "reference.npz").items()}
    return found | {"faces": found["bgr_uint8"].flip(-1).permute(0, 3, 1, 2) / 255}


def test_official_embeddings(arcface, reference):
    assert torch.allclose(arcface.raw(reference["faces"]), reference["embedding"], atol=1e-4)
    embeddings = arcface(reference["faces"])
    assert torch.allclose(embeddings @ embeddings.T, reference["cosine"], atol=1e-6)


def test_official_gradient(arcface, reference):
    faces = reference["faces"][:2].clone().requires_grad_(True)
    first, second = arcface(faces)
    (first @ second).backward()
    expected = reference["grad_input_of_cos01_images01"]
    assert (faces.grad - expected * (faces.grad.norm() / expected.norm())).norm() < 1e-4 * faces.grad.norm()
    ratio = faces.grad.norm() / expected.norm()
    assert min(abs(ratio - 1), abs(ratio - 2 * 127.5 / 127.5)) < 1e-3  # in [0, 1] it is twice that in [-1, 1]


def test_a_call_leaves_the_statistics_alone(arcface, reference):
    before = {name: value.clone() for name, value in arcface.state_dict().items()}
    arcface(reference["faces"])
    assert all(torch.equal(value, before[name]) for name, value in arcface.state_dict().items())
    assert not any(parameter.requires_grad for parameter in arcface.parameters())
    assert not any(module.training for module in arcface.network.modules())


def test_it_is_an_identity_loss(arcface, reference):
    loss = identity_loss(arcface, reference["faces"])
    values = loss(reference["faces"][[1, 0]], torch.tensor([0, 1]))
    assert torch.allclose(values, 1 - reference["cosine"][[0, 1], [1, 0]], atol=1e-5)


def test_pictures_of_another_size_must_be_aligned(arcface):
    with pytest.raises(ValueError, match=r"need aligned faces of 112 x 112, got 128 x 128; models.align.align_faces cuts them"):
        arcface(torch.rand(1, 3, 128, 128))


def network(path, *, side=112, width=4, batch="n", outputs=1, names=("a", "b"), channels=3):
    """A tiny ONNX file: the mean over places, then a linear layer; its first two nodes bring the input to a range."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, side, side])
    made = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [batch, width]) for i in range(outputs)]
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(channels, width)).astype(np.float32)
    constants = {"w": weight, "half": np.float32(127.5), "scale": np.float32(1 / 127.5)}
    nodes = [
        helper.make_node("Sub", ["x", "half"], ["x1"], name=names[0]),
        helper.make_node("Mul", ["x1", "scale"], ["x2"], name=names[1]),
        helper.make_node("GlobalAveragePool", ["x2"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        *(helper.make_node("MatMul", ["f", "w"], [f"y{i}"], name=f"m{i}") for i in range(outputs)),
    ]
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], made, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), str(path))
    return weight


@pytest.mark.parametrize(
    ("names", "inside"), [(("Sub1", "Mul1"), True), (("_minusscalar0", "_mulscalar0"), True), (("a", "b"), False)]
)
def test_networks_that_bring_bytes_to_their_range_themselves(tmp_path, names, inside):
    """insightface knows them by the names of their first nodes."""
    weight = network(tmp_path / "n.onnx", names=names)
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    pixels = faces * 255 if inside else (faces * 255 - 127.5) / 127.5
    expected = ((pixels - 127.5) / 127.5).mean(dim=(2, 3)) @ torch.from_numpy(weight)
    found = ArcFace.load(tmp_path / "n.onnx")
    assert found.normalises is inside
    assert torch.allclose(found.raw(faces), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 192}, r"takes \[\(None, 3, 192, 192\)\].*a recognition network takes \(n, 3, 112, 112\)"),
        ({"outputs": 2}, "a recognition network takes"),
        ({"channels": 1}, "a recognition network takes"),
        ({"batch": 1}, "was saved for 1 pictures at once: save it with an open batch"),
    ],
)
def test_other_networks_are_refused(tmp_path, options, message):
    network(tmp_path / "n.onnx", **options)
    with pytest.raises(ValueError, match=message):
        ArcFace.load(tmp_path / "n.onnx")


def test_files_that_are_no_networks_are_refused(tmp_path, fixtures):
    for data in (b"", b"\xff" * 100, b"no network"):
        (tmp_path / "n.onnx").write_bytes(data)
        with pytest.raises(ValueError, match="is no ONNX model"):
            ArcFace.load(tmp_path / "n.onnx")
    with pytest.raises(FileNotFoundError, match="there is no ONNX file"):
        ArcFace.load(tmp_path / "gone.onnx")
    shutil.copy(fixtures / "arcface_onnx" / "tiny_arcface.onnx", tmp_path / "cut.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "cut.onnx").read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is no ONNX model"):
        ArcFace.load(tmp_path / "cut.onnx")


def test_weights_in_other_files_are_not_read(tmp_path):
    network(tmp_path / "n.onnx")
    model = onnx.load(str(tmp_path / "n.onnx"))
    onnx.save_model(model, str(tmp_path / "out.onnx"), save_as_external_data=True, location="secret.bin", size_threshold=0)
    with pytest.raises(ValueError, match="keeps its weights in other files"):
        ArcFace.load(tmp_path / "out.onnx")


def test_an_operation_that_cannot_be_converted_is_named(tmp_path):
    network(tmp_path / "n.onnx")
    model = onnx.load(str(tmp_path / "n.onnx"))
    model.graph.node[3].op_type = "StringNormalizer"
    with pytest.raises(ValueError, match="cannot be made a network of PyTorch"):
        to_torch(model, source="it")
    with pytest.raises(ValueError, match="it has no value 'nowhere' in it"):
        to_torch(read_onnx(tmp_path / "n.onnx"), source="it", output="nowhere")
