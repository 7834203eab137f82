from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra own")

import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from clothing_classifier.card import read_model
from clothing_classifier.training.graft import GraftError, check, graft

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 12, 8, 3), np.uint8)
"""What the tiny model takes."""


def run(model: bytes, pixels: np.ndarray) -> tuple[Any, ...]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return tuple(session.run(["probabilities", "embedding", "evidence"], {"pixels": pixels}))


def softmax(logits: np.ndarray) -> np.ndarray:
    likelihood = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(1, keepdims=True))


def draw_head(classes: int, size: int, seed: int = 0, scale: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(0, scale, (classes, size)).astype(np.float32), random.normal(size=classes).astype(np.float32)


def assert_grafted(base: bytes, grafted: bytes, weight: np.ndarray, bias: np.ndarray, pixels: np.ndarray) -> None:
    embedding = run(base, pixels)[1]
    probabilities, kept, evidence = run(grafted, pixels)
    logits = embedding @ weight.T + bias
    np.testing.assert_array_equal(kept, embedding)
    np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-4)
    np.testing.assert_allclose(evidence.mean((2, 3)), logits, atol=1e-3 * np.abs(logits).max() + 1e-4)


@given(classes=st.integers(2, 9), seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1.0, 40.0]))
@settings(max_examples=25, deadline=None)
def test_any_head_takes_the_place_of_the_old_one(
    tiny_graph: onnx.ModelProto, classes: int, seed: int, scale: float
) -> None:
    base = tiny_graph.SerializeToString()
    weight, bias = draw_head(classes, 3, seed, scale)
    model = graft(base, weight, bias, COLOURS)
    assert_grafted(base, model.SerializeToString(), weight, bias, COLOURS)
    onnx.checker.check_model(model, full_check=True)
    again = graft(model.SerializeToString(), *draw_head(4, 3), COLOURS)
    assert len(again.graph.node) == len(model.graph.node), "what led to the old head is gone"
    assert len(again.graph.initializer) == len(model.graph.initializer)


@pytest.mark.parametrize("classes", [2, 8, 17, 33])
def test_the_model_that_ships_takes_another_head(classes: int) -> None:
    base = read_model()
    size = base.card.resizing.height, base.card.resizing.width
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    weight, bias = draw_head(classes, run(base.content, pixels[:1])[1].shape[1])
    model = graft(base.content, weight, bias, pixels)
    assert_grafted(base.content, model.SerializeToString(), weight, bias, pixels)
    old = onnx.load_model_from_string(base.content)
    assert len(model.graph.node) <= len(old.graph.node)
    leading = {tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    assert classes == 17 or 17 not in leading, "the old head is gone"
    shapes = {output.name: output.type.tensor_type.shape.dim[1].dim_value for output in model.graph.output}
    assert shapes["probabilities"] == shapes["evidence"] == classes


def test_a_pyramid_fresh_from_the_exporter_takes_another_head_in_half_precision_too() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    from clothing_classifier.training.export import export
    from clothing_classifier.training.head import Head
    from clothing_classifier.training.networks import Classifying, Pyramid, Statistics
    from clothing_classifier.training.packing import store_in_half

    class Stages(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Two stages of a backbone, as small as can be."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, 16, 1)
            self.second = torch.nn.Conv2d(8, 16, 3, 2, 1)

        def forward(self, pixels: Any) -> list[Any]:
            maps = torch.relu(self.first(pixels))
            return [maps, torch.relu(self.second(maps))]

    torch.manual_seed(0)
    features = Pyramid(Stages())
    size = features.channels
    network = Classifying(features, size, 3, Statistics((120.0,) * 3, (60.0,) * 3)).eval()
    random = np.random.default_rng(0)
    spread = random.uniform(0.5, 2, size).astype(np.float32)
    network.install(Head(random.normal(0, 0.1, size).astype(np.float32), spread, *draw_head(3, size), 0.1))
    pixels = random.integers(0, 256, (2, 96, 64, 3), np.uint8)
    graph = export(network, 0.8, pixels)
    weight, bias = draw_head(5, size)
    for base in (graph.SerializeToString(), store_in_half(graph).SerializeToString()):
        assert_grafted(base, graft(base, weight, bias, pixels).SerializeToString(), weight, bias, pixels)


def test_what_a_branch_takes_from_around_it_stays(tiny_graph: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph)
    outside = numpy_helper.from_array(np.float32(2), "outside")
    value = helper.make_tensor_value_info("doubled", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Mul", ["channels", "outside"], ["doubled"])], "branch", [], [value])
    condition = numpy_helper.from_array(np.array(True), "condition")
    node = helper.make_node("If", ["condition"], ["either"], then_branch=branch, else_branch=branch)
    model.graph.initializer.extend([outside, condition])
    pool = next(index for index, node in enumerate(model.graph.node) if node.op_type == "AveragePool")
    model.graph.node[pool].input[0] = "either"
    model.graph.node.insert(pool, node)
    base = model.SerializeToString()
    weight, bias = draw_head(4, 3)
    assert_grafted(base, graft(base, weight, bias, COLOURS).SerializeToString(), weight, bias, COLOURS)


def test_names_that_are_taken_are_not_taken_again(tiny_graph: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph)
    names = {"maps": "head.weight", "floats": "head.bias", "scaled": "logits", "logits": "scaled"}
    for node in model.graph.node:  # what stays goes by the names of the new head
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    base = model.SerializeToString()
    weight, bias = draw_head(4, 3)
    assert_grafted(base, graft(base, weight, bias, COLOURS).SerializeToString(), weight, bias, COLOURS)


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[1].name = "features"
    for node in model.graph.node:
        node.output[:] = ["features" if name == "embedding" else name for name in node.output]


def scale_evidence(model: onnx.ModelProto) -> None:
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    convolution.output[0] = "raw"
    place = list(model.graph.node).index(convolution) + 1
    model.graph.node.insert(place, helper.make_node("Mul", ["raw", "scale"], ["evidence"]))


def shift_embedding(model: onnx.ModelProto) -> None:
    flatten = next(node for node in model.graph.node if node.output[0] == "embedding")
    flatten.output[0] = "flat"
    place = list(model.graph.node).index(flatten) + 1
    model.graph.node.insert(place, helper.make_node("Add", ["flat", "scale"], ["embedding"]))


def embed_evidence(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.output[0] == "pooled").input[0] = "evidence"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (rename_output, "has no output embedding"),
        (scale_evidence, "evidence comes from a Mul node"),
        (shift_embedding, "evidence is not what it should be"),
        (embed_evidence, "cannot be run"),
    ],
)
def test_graphs_of_another_form_are_refused(tiny_graph: onnx.ModelProto, change: Any, reason: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph)
    change(model)
    with pytest.raises(GraftError, match=reason):
        graft(model.SerializeToString(), *draw_head(4, 3), COLOURS)


def test_what_is_no_graph_and_a_head_of_another_size_are_refused(tiny_graph: onnx.ModelProto) -> None:
    with pytest.raises(GraftError, match="not an ONNX file"):
        graft(b"\x08\xff\xff<html>", *draw_head(4, 3), COLOURS)
    with pytest.raises(GraftError, match=r"embedding is \[3, 3\], the head takes \[N, 5\]"):
        graft(tiny_graph.SerializeToString(), *draw_head(4, 5), COLOURS)


def test_what_is_no_number_is_refused(tiny_graph: onnx.ModelProto) -> None:
    weight, bias = draw_head(2, 3)
    weight[0, 0] = np.nan
    with pytest.raises(GraftError, match=r"probabilities is not what it should be \(it differs by nan"):
        graft(tiny_graph.SerializeToString(), weight, bias, COLOURS)


def test_the_check_can_refuse(tiny_graph: onnx.ModelProto) -> None:
    base = tiny_graph.SerializeToString()
    weight, bias = draw_head(4, 3)
    model = graft(base, weight, bias, COLOURS)
    with pytest.raises(GraftError, match="probabilities is not what it should be"):
        check(base, model, weight * np.float32(1.1), bias, COLOURS)
