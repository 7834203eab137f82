from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnx", reason="needs the extra own")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from clothing_classifier.card import PHOTOS_KEY, ModelCard, ModelFile, read_model
from clothing_classifier.training.packing import pack, store_in_half


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """The shipped graph with all its weights in full."""
    whole = onnx.load_model_from_string(read_model().content)
    casts = {node.output[0]: node.input[0] for node in whole.graph.node if node.op_type == "Cast"}
    stored = {tensor.name: tensor for tensor in whole.graph.initializer}
    for name, source in casts.items():
        if source in stored:
            stored[source].CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(stored[source]).astype(np.float32), name)
            )
    kept = [node for node in whole.graph.node if not (node.op_type == "Cast" and node.input[0] in stored)]
    del whole.graph.node[:]
    whole.graph.node.extend(kept)
    return whole


def run(graph: onnx.ModelProto, pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[npt.NDArray[np.float32]] = session.run(["probabilities", "embedding"], {"pixels": pixels})
    return found


def test_half_the_size_and_nearly_the_same_answers(graph: onnx.ModelProto) -> None:
    halved = store_in_half(graph)
    assert len(halved.SerializeToString()) < 0.55 * len(graph.SerializeToString())
    resizing = read_model().card.resizing
    pixels = np.random.default_rng(0).integers(0, 256, (2, resizing.height, resizing.width, 3), np.uint8)
    for whole, stored in zip(run(graph, pixels), run(halved, pixels), strict=True):
        assert np.abs(whole - stored).max() <= 0.02 * np.abs(whole).max()


def test_what_float16_cannot_hold_stays(graph: onnx.ModelProto) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(graph)
    weights = {node.input[1] for node in large.graph.node if node.op_type == "Conv"}
    chosen = next(
        tensor for tensor in large.graph.initializer if tensor.name in weights and np.prod(tensor.dims) > 5000
    )
    values = numpy_helper.to_array(chosen).copy()
    values.flat[0] = 1e6
    name = chosen.name
    chosen.CopyFrom(numpy_helper.from_array(values, name))
    kept = {tensor.name: tensor.data_type for tensor in store_in_half(large).graph.initializer}
    assert kept[name] == onnx.TensorProto.FLOAT
    assert onnx.TensorProto.FLOAT16 in kept.values()


def test_weights_that_are_few_or_in_double_precision_stay() -> None:
    random = np.random.default_rng(0)
    weights: dict[str, npt.NDArray[np.floating[Any]]] = {
        "large": random.normal(size=(32, 32)).astype(np.float32),
        "small": random.normal(size=(32, 31)).astype(np.float32),
        "double": random.normal(size=(31, 64)),
    }
    nodes = [
        helper.make_node("MatMul", ["given", "large"], ["first"]),
        helper.make_node("MatMul", ["first", "small"], ["second"]),
        helper.make_node("Cast", ["second"], ["third"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["third", "double"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("result", TensorProto.DOUBLE, [1, 64])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    halved = store_in_half(model)
    onnx.checker.check_model(halved, full_check=True)
    kept = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert kept == {"large.half": TensorProto.FLOAT16, "small": TensorProto.FLOAT, "double": TensorProto.DOUBLE}


def test_the_photos_are_named_once_each_and_in_an_order_that_says_nothing(
    tiny_graph: onnx.ModelProto, tiny_card: ModelCard
) -> None:
    photos = [f"{number:02}" * 32 for number in (31, 4, 15, 92, 65, 35, 89, 79, 32, 38)]
    content = pack(tiny_graph, tiny_card, [*photos, photos[3], photos[5][:12]])
    assert ModelFile(Path("m"), content, tiny_card).read_photos() == frozenset(photo[:12] for photo in photos)
    told = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}[PHOTOS_KEY]
    assert told == "".join(sorted(photo[:12] for photo in photos))
