"""Several model files' graphs → one graph that answers with the mean of their logits, without torch.

All of this project's graphs end alike: maps, their mean, and one linear layer on it. So the mean of several networks'
logits is itself one linear layer, on their maps side by side: the joined graph has the same form as its members, its
evidence is as exact as theirs, and it can be given another head or be joined again. The mean of logits is the
logarithmic opinion pool (Heskes, 1997, "Selecting weighting factors in logarithmic opinion pools").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clothing_classifier.training import graft
from clothing_classifier.training.calibration import soften

if TYPE_CHECKING:
    import onnx

_INPUT = "pixels"
_MAPS = "maps"


class JoinError(Exception):
    """Models cannot be joined; the message says why and what to do."""


def join(
    members: Sequence[bytes], temperatures: Sequence[float], temperature: float, pixels: npt.NDArray[np.uint8]
) -> onnx.ModelProto:
    """Join models' graphs, and check what the result computes.

    Args:
        members: two or more model files' contents, of the same classes and the same input.
        temperatures: what each member's logits are divided by already.
        temperature: what the mean of the members' own logits shall be divided by.
        pixels: a few prepared photos to check with, ``uint8 [N, H, W, 3]`` with N ≥ 1.

    Returns:
        The graph. Its ``embedding`` is the members' embeddings one after the other. It has no metadata.

    Raises:
        JoinError: the members do not fit together, or one has not the form of this project's graphs.
    """
    import onnx
    from onnx import compose, helper

    graphs = []
    maps, embeddings, weights, biases = [], [], [], []
    try:
        for number, (content, own) in enumerate(zip(members, temperatures, strict=True)):
            weight, bias = read_head(content)
            weights.append(own * weight)
            biases.append(own * bias)
            model = onnx.load_model_from_string(content)
            found = graft.find_maps(model.graph)
            graft.prune(model.graph, ("embedding", found))
            prefix = f"{number}/"
            compose.add_prefix(model, prefix, inplace=True)
            graphs.append(model)
            maps.append(prefix + found)
            embeddings.append(prefix + "embedding")
    except graft.GraftError as error:
        raise JoinError(str(error)) from error
    if len({weight.shape[0] for weight in weights}) > 1:
        raise JoinError("the models have different numbers of classes; join models of the same classes")

    joined = onnx.ModelProto()
    joined.CopyFrom(graphs[0])
    graph = joined.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:], graph.output[:]
    del joined.metadata_props[:]
    opsets = {tuple(sorted((opset.domain, opset.version) for opset in model.opset_import)) for model in graphs}
    if len(opsets) > 1:
        raise JoinError("the models were exported in different ways; export them again with one version")
    graph.input[0].name = _INPUT
    for number, model in enumerate(graphs):
        for node in model.graph.node:
            names = [_INPUT if name == f"{number}/{_INPUT}" else name for name in node.input]
            del node.input[:]
            node.input.extend(names)
        graph.node.extend(model.graph.node)
        graph.initializer.extend(model.graph.initializer)
        graph.value_info.extend(model.graph.value_info)
    graph.node.append(helper.make_node("Concat", maps, [_MAPS], axis=1))
    graph.node.append(helper.make_node("Concat", embeddings, ["embedding"], axis=1))
    size = sum(weight.shape[1] for weight in weights)
    classes = len(biases[0])
    shapes: dict[str, list[str | int | None]] = {
        "probabilities": ["photos", classes],
        "embedding": ["photos", size],
        "evidence": ["photos", classes, None, None],
    }
    for name, shape in shapes.items():
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    share = 1 / (len(members) * temperature)
    graft.append_head(
        graph,
        _MAPS,
        (share * np.concatenate(weights, axis=1)).astype(np.float32),
        (share * np.sum(biases, axis=0)).astype(np.float32),
    )
    _check(members, temperatures, temperature, joined, pixels)
    return joined


def read_head(content: bytes) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the last layer of a model file, ``float32 [classes, D]`` and ``float32 [classes]``.

    Raises:
        GraftError: there is no such layer.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    producers = {name: node for node in model.graph.node for name in node.output}
    softmax = producers.get("probabilities")
    layer = producers.get(softmax.input[0]) if softmax is not None and softmax.op_type == "Softmax" else None
    if layer is not None and layer.op_type == "Div":  # the logits of strange photos are divided, see `subspace`
        layer = producers.get(layer.input[0])
    transposed = layer is not None and any(a.name == "transB" and a.i == 1 for a in layer.attribute)
    if layer is None or layer.op_type != "Gemm" or layer.input[0] != "embedding" or not transposed:
        raise graft.GraftError("a model's probabilities do not come from one linear layer; export it again")
    # The exporter leaves the division by the temperature to the runtime, so the runtime is asked.
    names = list(layer.input[1:])
    del model.graph.output[:]
    graft.prune(model.graph, tuple(names))
    model.graph.output.extend(
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    )
    (given,) = model.graph.input
    shape = [dimension.dim_value or 1 for dimension in given.type.tensor_type.shape.dim]
    weight, *bias = graft.run(
        model.SerializeToString(), tuple(names), np.zeros(shape, np.uint8), "a model's last layer"
    )
    return weight, bias[0] if bias else np.zeros(len(weight), np.float32)  # the exporter drops a bias of zeros


def _check(
    members: Sequence[bytes],
    temperatures: Sequence[float],
    temperature: float,
    joined: onnx.ModelProto,
    pixels: npt.NDArray[np.uint8],
) -> None:
    logits: npt.NDArray[np.float64] = np.zeros(())
    embeddings = []
    for content, own in zip(members, temperatures, strict=True):
        embedding, evidence = graft.run(content, ("embedding", "evidence"), pixels, "a model")
        embeddings.append(embedding)
        logits = logits + own * evidence.mean((2, 3), dtype=np.float64) / (len(members) * temperature)
    found = graft.run(joined.SerializeToString(), graft.OUTPUTS, pixels, "the joined model")
    wanted = (soften(logits), np.concatenate(embeddings, axis=1), logits)
    for name, one, other in zip(graft.OUTPUTS, (*found[:2], found[2].mean((2, 3))), wanted, strict=True):
        difference = np.abs(one - other).max() / (np.abs(other).max() or 1.0)
        if not difference <= graft.TOLERANCE:  # also refuses NaN
            raise JoinError(f"the joined model's {name} is not the members' (it differs by {difference:.1e})")
