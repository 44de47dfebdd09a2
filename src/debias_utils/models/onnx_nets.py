"""Networks from ONNX files as modules of PyTorch, differentiable, by onnx2torch; nothing in the file is run as code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn


def read_onnx(path: Path) -> Any:
    """The model in an ONNX file.

    Raises:
        FileNotFoundError: no such file. ValueError: it is no ONNX model, or refers to other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise FileNotFoundError(f"there is no ONNX file {str(path)!r}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ValueError(f"{path} is no ONNX model: {error}") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{path} is no ONNX model: it has no network in it")
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ValueError(f"{path} keeps its weights in other files: save them in it")
    return model


def shapes(model: Any) -> tuple[list[tuple[int | None, ...]], list[tuple[int | None, ...]]]:
    """Shapes of what goes into a model and of what comes out; None where a length is left open."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return (
        [_shape(value) for value in model.graph.input if value.name not in stored],
        [_shape(value) for value in model.graph.output],
    )


def to_torch(model: Any, *, source: str, output: str | None = None) -> nn.Module:
    """A module that computes a model: frozen, and in evaluation mode from the start.

    onnx2torch hands out a network in training mode, whose first call would overwrite its BatchNorm statistics for good.

    Args:
        model: as of `read_onnx`; it is not altered. source: named in errors. output: an inner value to be returned instead.

    Raises:
        ValueError: an operation that cannot be converted; no such output.
    """
    import onnx
    from onnx2torch import convert

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    if output is not None:
        maker = [i for i, node in enumerate(graph.node) if output in node.output]
        if not maker:
            raise ValueError(f"{source} has no value {output!r} in it")
        del graph.node[maker[0] + 1 :]
        del graph.output[:]
        graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    for opset in changed.opset_import:
        # Pad 18 is Pad 13 with one more optional input, and the only operation here for which onnx2torch lacks the later version
        pads = [node for node in graph.node if node.op_type == "Pad"]
        if opset.domain in ("", "ai.onnx") and opset.version == 18 and pads and all(len(pad.input) < 4 for pad in pads):
            opset.version = 17
    try:
        return convert(changed).eval().requires_grad_(False)
    # onnx2torch says NotImplementedError of an operator that it does not know
    except (NotImplementedError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{source} cannot be made a network of PyTorch: {error}") from error


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)
