"""Write a trained encoder as ONNX, so that a search needs ONNX Runtime alone.

The graph is built from the configuration and weights of each Keras layer: the same weights give the same bytes, on
every backend. Keras has channels last and ONNX has them second, so an image is transposed at the input, and back before
it is flattened.
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
PADDING = {"same": "SAME_UPPER", "valid": "VALID"}  # an odd zero goes to the end, as in Keras
CHANNELS_SECOND, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def export_onnx(encoder: keras.Model, path: Path) -> None:
    """Write `encoder` to `path`, with one input `image` and the outputs under the names of their layers.

    Raises:
        ValueError: a layer, an activation or a layout is not supported.
    """
    (image,) = encoder.inputs
    outputs = dict(zip(encoder.output_names, encoder.outputs, strict=True))
    names = {id(tensor): name for name, tensor in outputs.items()}
    nodes, initializers = [], []
    for index, layer in enumerate(encoder.layers):
        name = names.setdefault(id(layer.output), f"layer{index}")  # Keras counts its names through the session
        weights = [numpy_helper.from_array(_onnx_layout(w), f"{name}.{i}") for i, w in enumerate(layer.get_weights())]
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
    """Convert the encoder in the `.keras` file `trained` to ONNX, and write it to `path`.

    Raises:
        ReleaseError: the file cannot be read, or `export_onnx` does not support its layers.
    """
    try:
        export_onnx(keras.saving.load_model(trained, compile=False), path)
    except (OSError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"{trained}: expected an encoder of this training code, found {str(error).splitlines()[0]}; encoders of "
            "Aetherscan sample their latents and use another normalization: train a release instead"
        ) from error


def _onnx_layout(weight: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return a weight in the layout of ONNX: (out, in, time, freq) for a convolution."""
    return np.ascontiguousarray(weight.transpose(3, 2, 0, 1)) if weight.ndim == 4 else weight


def _steps(layer: keras.Layer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the ONNX operators of a layer and their attributes; the layer's weights belong to the first."""
    config, kind = layer.get_config(), type(layer).__name__
    activation, layout = config.get("activation", "linear"), config.get("data_format", "channels_last")
    if activation not in ACTIVATIONS or layout != "channels_last":
        raise ValueError(f"{layer.name}: expected relu or linear, channels last, found {activation}, {layout}")
    if kind == "InputLayer":
        yield "Transpose", {"perm": CHANNELS_SECOND}
    elif kind == "Conv2D":
        yield "Conv", {**_window(config, "kernel_size"), "group": config["groups"]}
    elif kind == "MaxPooling2D":
        yield "MaxPool", _window(config, "pool_size")
    elif kind == "Flatten":
        yield from (("Transpose", {"perm": CHANNELS_LAST}), ("Flatten", {}))
    elif kind == "Dense" and len(layer.output.shape) == 2:
        yield "Gemm", {}
    else:
        raise ValueError(f"{layer.name}: expected Conv2D, MaxPooling2D, Flatten or a flat Dense, found {kind}")
    if operator := ACTIVATIONS[activation]:
        yield operator, {}


def _window(config: dict[str, Any], size: str) -> dict[str, Any]:
    """Return the attributes of an operator with a sliding window, whose size Keras calls `size`."""
    return {
        "kernel_shape": config[size], "auto_pad": PADDING[config["padding"]],
        "strides": config["strides"], "dilations": config.get("dilation_rate", (1, 1)),
    }  # fmt: skip
