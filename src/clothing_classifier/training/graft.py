"""A model file's graph with another head: other classes on the same features, without torch.

The features of a model file end in maps, whose mean over the picture is the embedding. A head on them is one linear
layer, and gives probabilities from the embedding and evidence from the maps. So another head needs nothing of how the
maps come about: what leads to the old head alone goes, and the new one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from clothing_classifier.training.calibration import soften

if TYPE_CHECKING:
    import onnx

OUTPUTS: Final = ("probabilities", "embedding", "evidence")
_REPLACED: Final = ("probabilities", "evidence")
TOLERANCE: Final = 2e-3
"""Largest allowed difference, as a share of an output's largest value; float32 rounding stays near 1e-5."""


class GraftError(Exception):
    """A model cannot be given another head; the message says why and what to do."""


def graft(
    base: bytes, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], pixels: npt.NDArray[np.uint8]
) -> onnx.ModelProto:
    """Give a model's graph another head, and check what it computes.

    Args:
        base: a model file's content.
        weight: of the new head on the embedding, ``float32 [classes, D]``; what calibrates it is folded in.
        bias: likewise, ``float32 [classes]``.
        pixels: a few prepared photos to check with, ``uint8 [N, H, W, 3]`` with N ≥ 1.

    Returns:
        The graph, whose ``probabilities`` are the softmax of ``weight @ embedding + bias``, whose ``evidence`` has
        these logits as its mean, and whose ``embedding`` is the base's. Its metadata are still the base's.

    Raises:
        GraftError: the graph has no such form, or the result does not compute that.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(base)
    except Exception as error:  # protobuf's exceptions differ between its implementations
        raise GraftError(f"the base model is not an ONNX file ({type(error).__name__}); give another one") from error
    maps = _find_maps(model.graph)
    _replace_head(model.graph, maps, weight, bias)
    check(base, model, weight, bias, pixels)
    return model


def check(
    base: bytes,
    model: onnx.ModelProto,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    pixels: npt.NDArray[np.uint8],
) -> None:
    """Make sure that a graph computes what `graft` promises of it; the arguments are its own.

    Raises:
        GraftError: it does not.
    """
    (embedding,) = _run(base, ("embedding",), pixels, "the base model")
    if embedding.shape != (len(pixels), weight.shape[1]):
        raise GraftError(
            f"the base model's embedding is {list(embedding.shape)}, the head takes [N, {weight.shape[1]}]"
        )
    probabilities, kept, evidence = _run(model.SerializeToString(), OUTPUTS, pixels, "the model with the new head")
    logits = embedding.astype(np.float64) @ weight.T.astype(np.float64) + bias
    wanted = {
        "embedding": (kept, embedding),
        "probabilities": (probabilities, soften(logits)),
        "evidence": (evidence.mean((2, 3)), logits),
    }
    for name, (found, expected) in wanted.items():
        difference = np.abs(found - expected).max() / (np.abs(expected).max() or 1.0) if found.size else np.inf
        if found.shape != expected.shape or not difference <= TOLERANCE:  # also refuses NaN
            raise GraftError(
                f"with another head, the base model's {name} is not what it should be (it differs by {difference:.1e} "
                "of the largest value); its features are not maps that the embedding is the mean of, so give another "
                "base model"
            )


def _find_maps(graph: onnx.GraphProto) -> str:
    """Return the name of the maps whose mean is the embedding."""
    missing = [name for name in OUTPUTS if name not in {output.name for output in graph.output}]
    if missing:
        raise GraftError(f"the base model has no output {' and no output '.join(missing)}; give another one")
    producers = {name: node for node in graph.node for name in node.output}
    layer = producers.get("evidence")
    if layer is None or layer.op_type != "Conv":
        kind = "nothing" if layer is None else f"a {layer.op_type} node"
        raise GraftError(
            f"the base model's evidence comes from {kind}, not from a 1×1 convolution of its features; give another one"
        )
    return str(layer.input[0])


def _replace_head(
    graph: onnx.GraphProto, maps: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> None:
    from onnx import helper, numpy_helper

    for node in [node for node in graph.node if set(node.output) & set(_REPLACED)]:
        graph.node.remove(node)
    _prune(graph, ("embedding", maps))

    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.initializer, *graph.input, *graph.output)}

    def name(wish: str) -> str:
        while wish in taken:
            wish += "_"
        return wish

    weights, biases, axes = name("head.weight"), name("head.bias"), name("head.axes")
    kernel, logits = name("head.kernel"), name("logits")
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), weights),
            numpy_helper.from_array(np.ascontiguousarray(bias, np.float32), biases),
            numpy_helper.from_array(np.array([2, 3], np.int64), axes),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", [weights, axes], [kernel]),
            helper.make_node("Conv", [maps, kernel, biases], ["evidence"], kernel_shape=[1, 1]),
            helper.make_node("Gemm", ["embedding", weights, biases], [logits], transB=1),
            helper.make_node("Softmax", [logits], ["probabilities"], axis=1),
        ]
    )
    for output in graph.output:
        if output.name in _REPLACED:
            output.type.tensor_type.shape.dim[1].dim_value = len(bias)


def _prune(graph: onnx.GraphProto, wanted: tuple[str, ...]) -> None:
    """Drop the nodes and weights of a graph that do not lead to the wanted values; inputs and outputs stay."""
    producers = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    todo = list(wanted)
    while todo:
        value = todo.pop()
        if value and value not in needed:  # what is optional and left out has no name
            needed.add(value)
            if value in producers:
                todo += [*_inputs(producers[value]), *producers[value].output]
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    initializers = [value for value in graph.initializer if value.name in needed]
    shapes = [value for value in graph.value_info if value.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
    graph.value_info.extend(shapes)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node takes, and what the graphs inside of it take from around them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _inputs(inner)


def _run(model: bytes, outputs: tuple[str, ...], pixels: npt.NDArray[np.uint8], what: str) -> list[npt.NDArray[Any]]:
    import onnxruntime

    from clothing_classifier.execution import first_line

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and told once
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return list(session.run(outputs, {"pixels": pixels}))
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise GraftError(f"{what} cannot be run ({first_line(error)}); give another base model") from error
