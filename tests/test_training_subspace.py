from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clothing_classifier.training.calibration import soften
from clothing_classifier.training.subspace import (
    DIMENSIONS,
    FAMILIAR,
    Subspace,
    attach,
    choose_limit,
    doubt,
    fit_subspace,
)

SIZE, INSIDE = 24, 5
RANDOM = np.random.default_rng(0)
PLANE = np.linalg.qr(RANDOM.normal(size=(SIZE, INSIDE)))[0].T


def draw(count: int, noise: float, seed: int) -> npt.NDArray[np.float32]:
    """Return embeddings near a plane of a few dimensions that does not go through the origin."""
    random = np.random.default_rng(seed)
    near = 4 + 10 * random.normal(size=(count, INSIDE)) @ PLANE
    return np.asarray(near + noise * random.normal(size=(count, SIZE)), np.float32)


def test_what_lies_off_the_plane_of_what_taught_is_strange() -> None:
    subspace = fit_subspace(draw(400, 0.1, 1))
    alike, strange = subspace.measure(draw(200, 0.1, 2)), subspace.measure(draw(200, 5.0, 3))
    assert alike.dtype == np.float32
    assert alike.shape == (200,)
    assert strange.min() > 10 * alike.max()


def test_the_residual_is_the_distance_to_the_nearest_point_of_the_subspace() -> None:
    subspace = fit_subspace(draw(400, 0.1, 1))
    np.testing.assert_allclose(subspace.basis @ subspace.basis.T, np.eye(len(subspace.basis)), atol=1e-3)
    shown = draw(50, 3.0, 4).astype(np.float64)
    nearest = np.linalg.lstsq(subspace.basis.T.astype(np.float64), (shown - subspace.mean).T, rcond=None)[1]
    np.testing.assert_allclose(subspace.measure(shown.astype(np.float32)) * subspace.unit, nearest, rtol=1e-2)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_residuals_are_in_units_of_what_taught_whatever_the_length_of_embeddings(scale: float) -> None:
    taught, shown = scale * draw(400, 4.0, 1), scale * draw(50, 9.0, 4)
    assert fit_subspace(taught).measure(taught).mean() == pytest.approx(1, rel=1e-3)
    wanted = fit_subspace(draw(400, 4.0, 1)).measure(draw(50, 9.0, 4))
    np.testing.assert_allclose(fit_subspace(taught).measure(shown), wanted, rtol=0.05)


def test_photos_that_are_there_twice_are_no_measure_of_strangeness() -> None:
    """Without a least unit, the limit of folds would be far off that of all photos together."""
    random = np.random.default_rng(7)
    photos = random.normal(size=(440, 400)).astype(np.float32)
    once, unseen = photos[:150], photos[150:]
    apart = np.arange(150) % 5
    residuals = [
        fit_subspace(np.repeat(once[apart != fold], 2, axis=0)).measure(once[apart == fold]) for fold in range(5)
    ]
    limit = choose_limit(np.concatenate(residuals))
    found = fit_subspace(np.repeat(once, 2, axis=0)).measure(unseen)
    assert 0.01 < (found > limit).mean() < 0.3


@pytest.mark.parametrize(
    ("count", "size", "dimensions"), [(400, 300, DIMENSIONS), (40, 300, 20), (400, 9, 4), (1, 6, 0)]
)
def test_few_photos_or_features_span_fewer_dimensions(count: int, size: int, dimensions: int) -> None:
    embeddings = np.random.default_rng(5).normal(size=(count, size)).astype(np.float32)
    subspace = fit_subspace(embeddings)
    assert subspace.basis.shape == (dimensions, size)
    assert (subspace.measure(embeddings) >= 0).all()


def test_the_limit_lets_the_familiar_share_be() -> None:
    residuals = np.random.default_rng(6).gamma(3, size=5000).astype(np.float32)
    assert (residuals <= choose_limit(residuals)).mean() == pytest.approx(FAMILIAR, abs=1e-3)
    assert choose_limit(np.zeros(9, np.float32)) > 0, "photos that are all alike"


@given(
    arrays(np.float32, (4, 3), elements=st.floats(-50, 50, width=32)),
    arrays(np.float32, 4, elements=st.floats(0, 1e6, width=32)),
)
@settings(deadline=None)
def test_doubt_makes_no_answer_another_one_nor_a_surer_one(
    logits: npt.NDArray[np.float32], residuals: npt.NDArray[np.float32]
) -> None:
    doubted = doubt(logits, residuals, 10.0)
    familiar = residuals <= 10
    np.testing.assert_array_equal(doubted[familiar], logits[familiar])
    before, after = soften(logits), soften(doubted)
    assert (after.max(1) <= before.max(1) + 1e-6).all()
    # Logits that differ by less than float32 can tell apart may become equal.
    assert (np.take_along_axis(after, before.argmax(1)[:, None], 1)[:, 0] >= after.max(1) - 1e-6).all()


def test_twice_the_limit_halves_the_logits() -> None:
    logits = np.array([[2.0, -4.0]], np.float32)
    np.testing.assert_array_equal(doubt(logits, np.array([20], np.float32), 10.0), logits / 2)


def test_a_graph_doubts_as_the_numbers_do() -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = RANDOM.normal(size=(SIZE, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["pixels"], ["embedding"]),
            helper.make_node("MatMul", ["embedding", "weight"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "head",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", SIZE])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", SIZE]),
        ],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    subspace = fit_subspace(draw(400, 0.1, 1))
    shown = np.concatenate([draw(20, 0.1, 2), draw(20, 2.0, 3)])
    limit = choose_limit(subspace.measure(draw(200, 0.1, 4)))
    attach(model.graph, subspace, limit)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities, embedding = session.run(["probabilities", "embedding"], {"pixels": shown})
    wanted = soften(doubt(shown @ weight, subspace.measure(shown), limit))
    np.testing.assert_allclose(probabilities, wanted, atol=1e-4)
    np.testing.assert_array_equal(embedding, shown)
    largest = max(model.graph.initializer, key=lambda tensor: math.prod(tensor.dims))
    assert (tuple(largest.dims), largest.data_type) == (subspace.basis.T.shape, TensorProto.FLOAT16)
    assert probabilities[20:].max(1).mean() < soften(shown[20:] @ weight).max(1).mean() - 0.1


def test_a_graph_without_a_softmax_is_refused() -> None:
    from onnx import helper

    graph = helper.make_graph([helper.make_node("Sigmoid", ["logits"], ["probabilities"])], "g", [], [])
    with pytest.raises(ValueError, match="softmax"):
        attach(graph, Subspace(np.zeros(2, np.float32), np.zeros((1, 2), np.float32), 1.0), 1.0)
