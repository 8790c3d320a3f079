"""Write a trained encoder as ONNX, so that a search needs ONNX Runtime and not the framework that trained it.

The graph is built from each Keras layer's configuration and weights: whatever backend trained it, the same weights give
the same bytes. Keras keeps channels last and ONNX has them second, so an image is transposed when it enters, and back
before it is flattened.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto, helper, numpy_helper

from aetherscan.errors import ReleaseError

OPSET, IR_VERSION = 17, 8
ACTIVATIONS = {"linear": None, "relu": "Relu"}
PADDING = {"same": "SAME_UPPER", "valid": "VALID"}  # of an odd number of zeros the last is the larger half, as in Keras
CHANNELS_SECOND, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def export_onnx(encoder: keras.Model, path: Path) -> None:
    """Write `encoder` to `path`: one input, `image`, and outputs under their layers' names.

    Raises:
        ValueError: a layer, an activation or a layout is none of those known here.
    """
    (image,) = encoder.inputs
    outputs = dict(zip(encoder.output_names, encoder.outputs, strict=True))
    names = {id(tensor): name for name, tensor in outputs.items()}
    nodes, initializers = [], []
    for index, layer in enumerate(encoder.layers):
        name = names.setdefault(id(layer.output), f"layer{index}")  # Keras' own names count through a whole session
        weights = [numpy_helper.from_array(_laid_out(w), f"{name}.{i}") for i, w in enumerate(layer.get_weights())]
        initializers += weights
        inputs = ["image" if layer.output is image else names.get(id(layer.input), ""), *(w.name for w in weights)]
        steps = list(_steps(layer))
        for i, (operator, attributes) in enumerate(steps, 1):
            result = name if i == len(steps) else f"{name}.{operator}"
            nodes.append(helper.make_node(operator, inputs, [result], **attributes))
            inputs = [result]
    shapes = {name: ["images", *tensor.shape[1:]] for name, tensor in [("image", image), *outputs.items()]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def convert(trained: Path, path: Path) -> None:
    """Write the encoder in a .keras file to `path` as ONNX.

    Raises:
        ReleaseError: it is none that `export_onnx` knows.
    """
    try:
        export_onnx(keras.saving.load_model(trained, compile=False), path)
    except (OSError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"{trained}: expected an encoder that was trained here, found {str(error).splitlines()[0]} (those of the "
            "first seed sample their latents, and were taught another normalization: train one)"
        ) from error


def _laid_out(weight: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return a weight as ONNX has it: that of a convolution as (out, in, time, freq)."""
    return np.ascontiguousarray(weight.transpose(3, 2, 0, 1)) if weight.ndim == 4 else weight


def _steps(layer: keras.Layer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the operators, with attributes, that do what a layer does; its weights go to the first."""
    config, kind = layer.get_config(), type(layer).__name__
    activation, layout = config.get("activation", "linear"), config.get("data_format", "channels_last")
    if activation not in ACTIVATIONS or layout != "channels_last":
        raise ValueError(f"{layer.name}: expected relu or linear, channels last, found {activation}, {layout}")
    if kind == "InputLayer":
        yield "Transpose", {"perm": CHANNELS_SECOND}
    elif kind == "Conv2D":
        yield "Conv", {**_sliding(config, "kernel_size"), "group": config["groups"]}
    elif kind == "MaxPooling2D":
        yield "MaxPool", _sliding(config, "pool_size")
    elif kind == "Flatten":
        yield from (("Transpose", {"perm": CHANNELS_LAST}), ("Flatten", {}))
    elif kind == "Dense" and len(layer.output.shape) == 2:
        yield "Gemm", {}
    else:
        raise ValueError(f"{layer.name}: expected Conv2D, MaxPooling2D, Flatten or a flat Dense, found {kind}")
    if operator := ACTIVATIONS[activation]:
        yield operator, {}


def _sliding(config: dict[str, Any], window: str) -> dict[str, Any]:
    shared = {"strides": config["strides"], "dilations": config.get("dilation_rate", (1, 1))}
    return {"kernel_shape": config[window], "auto_pad": PADDING[config["padding"]], **shared}
